#!/bin/bash
# An array job: many tasks run the same image, and share one storage. The first task that needs a cache or a writable
# copy of a package makes it, the others use it; nothing has to be warmed up before.
#
#     IMAGE=my.sif STORAGE=/scratch/me/my-cache sbatch slurm-array.sh python my_script.py
#
# To fill in, above or here: IMAGE, a .sif file; STORAGE, a directory that all nodes see (default: $SCRATCH/sif-writable,
# else $HOME/sif-writable); MODULES, what `module load` needs for apptainer, if anything; and the lines of #SBATCH: the
# size of the array and how many run at once (%16), and where two # stand, remove one: account, partition, GPU, time.
# With a GPU the image gets --nv by itself.
#
# The number of the task is in SLURM_ARRAY_TASK_ID, in the container, too.
#SBATCH --job-name=sif-array
#SBATCH --array=0-199%16
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --output=%x-%A_%a.out
##SBATCH --account=my_project
##SBATCH --partition=my_partition
##SBATCH --gres=gpu:1
##SBATCH --time=01:00:00
set -eu
: "${IMAGE:?names the image to run, a .sif file}"
: "${STORAGE:=${SCRATCH:-$HOME}/sif-writable}"
: "${MODULES:=}" # such as MODULES="apptainer/1.4"

if [ -n "$MODULES" ]; then
    # shellcheck disable=SC2086 # several names
    module load $MODULES
fi

# Slurm sets one of these in a task that was given GPUs, by --gres, --gpus or --gpus-per-task.
nv=${SLURM_JOB_GPUS:-}${SLURM_STEP_GPUS:-}
if [ -n "$nv" ]; then
    # A task that finds none although it was given one ends at once, before it has imported anything heavy.
    export SIF_WRITABLE_GPU="${SIF_WRITABLE_GPU:-require}"
fi

# The two lines that matter: a directory that all nodes see, and its place in the container.
mkdir -p "$STORAGE"
exec apptainer exec ${nv:+--nv} --bind "$STORAGE:/sif-writable" "$IMAGE" "$@"
