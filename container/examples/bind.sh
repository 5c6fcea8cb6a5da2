#!/bin/sh
# Way 2: a folder outside takes the place of the one that the library writes to. Many processes and nodes may share it.
# Options of Apptainer's may follow, such as --nv or --contain.
set -eu
mkdir -p gpu_cache # Apptainer refuses to bind what does not exist
exec apptainer exec --bind gpu_cache:/tmp/hypothetical_gpu_cache "$@" bind.sif hypothetical-gpu-lib
