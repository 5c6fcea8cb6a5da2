"""A container with ``--nv`` on a node with one GPU, as the decisions see it; with changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sif_writable.gpu import diagnosis
from sif_writable.gpu.ask import Gpu, Nvml
from sif_writable.gpu.signs import GpuEvidence

if TYPE_CHECKING:
    from sif_writable.gpu.demands import Demands

GPU_NODES = ("nvidia-uvm", "nvidia0", "nvidiactl")
UUIDS = ("GPU-aaaa1111-0000", "GPU-bbbb2222-0000")
NV = "/.singularity.d/libs/libnvidia-ml.so.1"


def evidence(**changes: object) -> GpuEvidence:
    """Return the signs of a container with ``--nv`` on a node with one GPU, with changes."""
    seen = GpuEvidence()
    usual: dict[str, object] = {
        "nodes": GPU_NODES,
        "driver": "535.104.05",
        "gpus": 1,
        "libs": ("libcuda.so.1", "libnvidia-ml.so.1"),
        "mounted": (),
        "libcuda": None,
        "compat": (),
        "cuda": "",
        "cuda_from": "",
        "host": "n7",
        "environ": {},
        "of_image": frozenset(),
    }
    for name, value in {**usual, **changes}.items():
        setattr(seen, name, value)
    return seen


def nvml(*gpus: Gpu, **changes: object) -> Nvml:
    """Return the answer of an NVML that has these GPUs, with changes."""
    answer = Nvml()
    answer.pending_call = ""
    answer.path = NV
    answer.gpus = list(gpus)
    answer.count = len(gpus)
    for name, value in changes.items():
        setattr(answer, name, value)
    return answer


def card(index: int = 0, code: int = 0, text: str = "Success", **changes: object) -> Gpu:
    """Return a GPU, with changes."""
    made = Gpu(index, code, text)
    made.uuid = UUIDS[index]
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def diagnose(seen: GpuEvidence, answer: Nvml, demanded: Demands) -> diagnosis.Diagnosis:
    """Return the cause, from files first and from NVML's answers then, as the check finds it."""
    found = diagnosis.from_evidence(seen, demanded) or diagnosis.from_nvml(seen, answer, demanded)
    return diagnosis.with_settings(found, demanded)
