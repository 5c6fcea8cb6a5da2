#!/bin/bash
# A job with pyxis whose image nobody can rebuild: sif_writable comes from a folder of the host's.
#
#     sif-writable attach --dir "$HOME/sif-writable-attached"       # once, on a node that sees HOME
#     IMAGE=nvcr.io#nvidia/pytorch:25.08-py3 sbatch attach-pyxis.sh python my_script.py
#
# To fill in: IMAGE; ATTACHED for another folder; #SBATCH --account, --partition and --gres, as your site asks for them.
#SBATCH --job-name=attached
#SBATCH --ntasks=1
set -eu
: "${IMAGE:?names the image to run, as for --container-image}"
: "${ATTACHED:=$HOME/sif-writable-attached}"

# The two lines that matter. An image that sets PYTHONPATH itself: put its own behind this one, with a colon.
export PYTHONPATH=/sif-writable-attached/sif_writable/hook
exec srun --container-image="$IMAGE" --container-mounts="$ATTACHED/current:/sif-writable-attached" \
    --container-env=PYTHONPATH "$@"
