"""Kernels: one per architecture, compiled once and kept as a file.

Python's own compiler stands for nvcc, and the processor for the GPU, so that this runs everywhere. The rest is as
usual: a source with numbers of the architecture filled in, a compiler that makes a binary of it, and a binary that
only the same compiler's run time can load.
"""

from __future__ import annotations

import marshal
import os
import sys
from typing import NamedTuple

CACHE = "/tmp/hypothetical_gpu_cache"  # noqa: S108 - the point of the example
"""Where compiled kernels are kept."""

_SOURCE = """
def kernel(terms):
    lanes = [0] * {lanes}
    for number in range(terms):
        lanes[number % {lanes}] += number * number
    return sum(lanes)
"""
_LANES = {"cpu": 1}
_LANES_OF_A_GPU = 32


class Kernel(NamedTuple):
    """A kernel that can be run."""

    binary: bytes
    compiled: bool
    """By this process; it came from the cache otherwise."""

    def run(self, terms: int) -> int:
        """Return the sum of the squares of the first natural numbers."""
        names: dict[str, object] = {}
        exec(marshal.loads(self.binary), names)  # noqa: S102, S302 - code of our own, as any kernel is
        kernel = names["kernel"]
        assert callable(kernel)  # noqa: S101
        return int(kernel(terms))


def architectures() -> list[str]:
    """Return the architectures of the GPUs in this machine, such as `sm_90`; `cpu` where there is none."""
    try:
        import pynvml
    except ImportError:
        return ["cpu"]
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ["cpu"]
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        found = {"sm_{}{}".format(*pynvml.nvmlDeviceGetCudaComputeCapability(handle)) for handle in handles}
    finally:
        pynvml.nvmlShutdown()
    return sorted(found) or ["cpu"]


def load(architecture: str) -> Kernel:
    """Return the kernel for an architecture, from the cache or compiled now."""
    path = os.path.join(CACHE, f"{architecture}-{sys.implementation.cache_tag}.kernel")
    if os.path.exists(path):
        with open(path, "rb") as file:
            return Kernel(file.read(), compiled=False)
    source = _SOURCE.format(lanes=_LANES.get(architecture, _LANES_OF_A_GPU))
    binary = marshal.dumps(compile(source, f"<kernel for {architecture}>", "exec"))
    os.makedirs(CACHE, exist_ok=True)
    with open(path, "wb") as file:
        file.write(binary)
    return Kernel(binary, compiled=True)
