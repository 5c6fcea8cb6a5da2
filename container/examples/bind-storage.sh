#!/bin/sh
# Way 2: a folder outside for all that sif-writable takes care of: settings beside the source, caches that a variable
# moves, HOME. The library's kernels are in a place below /tmp that nothing moves. Where /tmp does not last, as with
# --contain, they need a bind of their own; the same folder will do:
#
#     ./bind-storage.sh --contain --bind gpu_cache:/tmp/hypothetical_gpu_cache
#
# Options of Apptainer's may follow, as here.
set -eu
mkdir -p gpu_cache # Apptainer refuses to bind what does not exist
exec apptainer exec --bind gpu_cache:/sif-writable "$@" bind.sif hypothetical-gpu-lib
