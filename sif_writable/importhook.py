"""The hook at import: what an activated process keeps.

One finder at the head of ``sys.meta_path`` sees the name of each module that is about to be imported, finds nothing
itself, and takes itself out when it has nothing left to wait for. It is on the start-up path: it imports only ``sys``.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Optional

HEAVY = frozenset(
    (
        "torch", "tensorflow", "jax", "jaxlib", "cupy", "numba.cuda", "pycuda", "cudf", "cuml", "cugraph", "rmm",
        "paddle", "mxnet", "triton", "onnxruntime", "vllm", "tensorrt", "warp", "pyopencl", "flashinfer", "deepspeed",
    )
)  # fmt: skip
"""Modules whose import is slow and pointless without the GPU or the storage that the job demands."""


class Finder:
    """Waits for the first heavy import."""

    def __init__(self, awaited: "frozenset[str]") -> None:
        """:param awaited: names of modules, top-level or dotted, whose import is heavy."""
        self.awaited = awaited

    def find_spec(
        self, name: str, path: "Optional[Sequence[str]]" = None, target: "Optional[ModuleType]" = None
    ) -> "Optional[ModuleSpec]":
        """Find nothing; at an awaited name, check first what its work needs.

        :raises ImportError: a demand of the job or the image is not met.
        """
        if name in self.awaited:
            remove()
            from sif_writable.act import heavy

            heavy.before_import(name)
        return None


def install() -> None:
    """Put the finder in place, once."""
    for finder in sys.meta_path:
        if type(finder).__name__ == "Finder" and type(finder).__module__ == __name__:
            return
    sys.meta_path.insert(0, Finder(HEAVY))  # type: ignore[arg-type]


def remove() -> None:
    """Leave ``sys.meta_path`` as it was found."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__module__ != __name__]
