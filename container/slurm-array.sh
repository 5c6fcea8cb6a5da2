#!/bin/bash
# An array job: many tasks run the same image, and share one storage. The first task that needs a cache or a writable
# copy of a package makes it, the others use it; nothing has to be warmed up before.
#
#     IMAGE=my.sif STORAGE=/scratch/me/my-cache sbatch --array=0-199%16 slurm-array.sh python my_task.py
#
# The number of the task is in SLURM_ARRAY_TASK_ID, in the container, too.
#SBATCH --job-name=sif-array
#SBATCH --array=0-199%16
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --output=%x-%A_%a.out
set -eu
: "${IMAGE:?names the image to run, a .sif file}"
: "${STORAGE:=${SCRATCH:-$HOME}/sif-writable}"

# The two lines that matter: a directory that all nodes see, and its place in the container.
mkdir -p "$STORAGE"
exec apptainer exec --bind "$STORAGE:/sif-writable" "$IMAGE" "$@"
