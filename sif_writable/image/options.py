"""What ``prepare`` and ``prestage`` ask of the table of locations, and their words for what is wrong. Pure."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from sif_writable.gpu import demands
from sif_writable.overlay import decide
from sif_writable.redirects.catalog import OPT_IN, ROWS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_GENERAL = frozenset(("TMPDIR", "PYTHONPYCACHEPREFIX"))
"""Variables that many sources name, though they keep nothing there."""

VARIABLES = frozenset(
    row.variable
    for row in (*ROWS, *OPT_IN)
    if row.folder and row.variable not in _GENERAL and not row.variable.startswith("XDG_") and row.variable.isupper()
)
"""Variables whose mention in a package's sources means that its files go there."""

NEED_GPU = frozenset(
    (
        *("TRITON_CACHE_DIR", "TRITON_HOME", "TORCHINDUCTOR_CACHE_DIR", "TORCH_EXTENSIONS_DIR", "QUACK_CACHE_DIR"),
        *("PYTORCH_KERNEL_CACHE_PATH", "CUDA_CACHE_PATH", "CUPY_CACHE_DIR", "WARP_CACHE_PATH", "PYCUDA_CACHE_DIR"),
        *("TILELANG_CACHE_DIR", "CUTE_DSL_CACHE_DIR", "FLASH_ATTENTION_CUTE_DSL_CACHE_DIR", "OPENMM_CACHE_DIR"),
        *("FLASHINFER_WORKSPACE_BASE", "VLLM_CACHE_ROOT", "SGLANG_CACHE_DIR"),
        *("MIOPEN_USER_DB_PATH", "MIOPEN_CUSTOM_CACHE_DIR"),
    )
)
"""Rows whose files are made for the GPU that is there."""

GPU = (
    ("gpu_min_memory", "gpu-min-memory", demands.MIN_MEMORY, "--gpu-min-memory"),
    ("gpu_count", "gpu-count", demands.COUNT, "--gpu-count"),
    ("gpu_min_capability", "gpu-min-capability", demands.MIN_CAPABILITY, "--gpu-min-capability"),
)
"""(option as in a namespace, key of the manifest, variable, option as it is written)."""


def gpu_problems(values: Iterable[tuple[str, str, str]]) -> list[str]:
    """Say which demands are not understood, with the forms that are.

    :param values: (variable, option, value).
    """
    listed = list(values)
    given = {variable: (option, value) for variable, option, value in listed}
    # An empty variable counts as unset; an empty option is a mistake: a variable of the recipe that was not set.
    read = demands.read({variable: value.strip() or "?" for variable, _, value in listed}, {})
    return [
        f"{given[variable][0]} {given[variable][1][:80]!r} is not understood; allowed: {forms}"
        for variable, _, forms in read.not_understood
    ]


def is_never_mounted_on(path: str) -> bool:
    """Whether a declared directory is refused at each start, in any image: the root itself, /tmp, ...

    :param path: normalised, as ``//`` may be, too.
    """
    path = "/" + path.lstrip("/")
    return path in decide.NEVER or path.startswith(tuple(never + "/" for never in decide.NEVER[1:]))


def missing_package(name: str, known: Sequence[str]) -> str:
    """Say that a package is not installed, with what was perhaps meant."""
    close = difflib.get_close_matches(name, known, 3, 0.6)
    meant = f"; perhaps {' or '.join(close)}" if close else ""
    return f"--packages names {name!r}, which is not installed in this environment{meant}"


def listed(found: Sequence[str], limit: int = 6) -> str:
    """Join names for one line, the first ones by name."""
    more = f" and {len(found) - limit} more" if len(found) > limit else ""
    return ", ".join(found[:limit]) + more
