"""The words in which GPUs are counted, named and asked for."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sif_writable.gpu.ask import Gpu


def gpus(count: int | None) -> str:
    """Count GPUs."""
    return "1 GPU" if count == 1 else f"{count} GPUs"


def device_files(nodes: Sequence[str]) -> str:
    """Say for how many GPUs there are device files, to begin a sentence with."""
    return f"The device files of {gpus(sum(name[6:].isdigit() for name in nodes))} are there"


def like(entry: str, found: Sequence[Gpu]) -> str:
    """Say which GPUs there are, in the way in which an entry of CUDA_VISIBLE_DEVICES names one."""
    if entry.startswith("MIG-"):
        names = [instance.uuid for gpu in found for instance in gpu.instances]
        return ", ".join(names) or "no MIG instance"
    if entry.startswith("GPU-"):
        return ", ".join(gpu.uuid for gpu in found if gpu.uuid) or "no UUID"
    return f"{gpus(len(found))} (0 to {len(found) - 1})" if len(found) > 1 else "1 GPU (0)"


def ask_for(count: int, environ: Mapping[str, str]) -> str:
    """Say where to ask for GPUs, without a full stop."""
    if "SLURM_JOB_ID" in environ:
        return f"Ask Slurm for {gpus(count)} (--gres=gpu:{count})"
    return f"Ask for {gpus(count)} where the job or the container is started"


def elsewhere(environ: Mapping[str, str]) -> str:
    """Say where there may be GPUs."""
    if "SLURM_JOB_ID" in environ:
        return f"{ask_for(1, environ)}, in a partition that has them."
    return "Run it on a node with an NVIDIA GPU."


def permission(environ: Mapping[str, str]) -> str:
    """Say how to get a GPU that is there and may not be used."""
    return f"{ask_for(1, environ)}: the job does not own it, or the mode of /dev/nvidia* forbids it."
