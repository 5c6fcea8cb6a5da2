"""The CUDA version that the image's packages need, and the driver that it needs."""

from __future__ import annotations

import os

from sif_writable.signals import let_pass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MINIMUM_DRIVERS = (
    ((13, 0), "580.65.06"),
    ((12, 0), "525.60.13"),
    ((11, 0), "450.80.02"),
    ((10, 2), "440.33"),
    ((10, 1), "418.39"),
    ((10, 0), "410.48"),
)
"""CUDA version, and the oldest driver that runs it and the later minor versions of its major version (NVIDIA, CUDA
Compatibility, "Minor Version Compatibility", and the release notes of the toolkits). Newest first."""


def image_cuda(path: Sequence[str], environ: Mapping[str, str], wanted: str = "") -> tuple[str, str]:
    """Return the CUDA version that the image's Python packages need, and what says so; empty where nothing does.

    Read from the names of ``*.dist-info`` folders; the highest counts. ``CUDA_VERSION``, which CUDA base images set,
    counts only where no package has one.

    :param wanted: the package that matters, such as torch: if its own name has a version, no other counts.
    """
    found = []
    for folder in path:
        for entry in _list(folder):
            if entry.endswith(".dist-info"):
                name = entry[: -len(".dist-info")]
                version = distribution_cuda(name)
                if version:
                    found.append((numbers(version), version, name))
    found = [row for row in found if wanted and row[2].startswith(wanted)] or found
    if found:
        _, version, name = max(found)
        return version, name
    version = _first_two(environ.get("CUDA_VERSION", ""))
    return version, "CUDA_VERSION" if version else ""


def distribution_cuda(distribution: str) -> str:
    """Return the CUDA version in a distribution's name and version ("torch-2.4.0+cu124"), or an empty string.

    How they spell it: ``nvidia_cuda_runtime_cu12-12.4.127``, ``nvidia_cuda_runtime-13.0.48``, ``torch-2.4.0+cu124``,
    ``jaxlib-0.4.20+cuda12.cudnn89``, ``cupy_cuda12x-13.3.0``, ``jax_cuda12_plugin-0.4.30``, ``torch-1.3.0+cu92``.
    """
    name, _, version = distribution.lower().partition("-")
    if name.startswith("nvidia_cuda_runtime"):
        return _first_two(version)
    for tag in (*version.partition("+")[2].split("."), *name.split("_")):
        digits = tag[4 if tag.startswith("cuda") else 2 :].rstrip("x") if tag.startswith("cu") else ""
        if digits.isdigit() and len(digits) >= 2:
            major = 1 if digits[0] > "4" else 2  # cu92 is 9.2, cu12 is 12
            return ".".join(part for part in (digits[:major], digits[major:]) if part)
    return ""


def has_distribution(prefix: str, path: Sequence[str]) -> bool:
    """Say whether one of the folders holds a distribution whose folder name starts so (``onnxruntime_gpu-``)."""
    return any(entry.startswith(prefix) for folder in path for entry in _list(folder))


def minimum_driver(cuda: str) -> str:
    """Return the oldest driver for a CUDA version; empty for versions before 10."""
    version = numbers(cuda)
    return next((driver for oldest, driver in MINIMUM_DRIVERS if oldest <= (*version, 0)[:2]), "")


def highest_cuda(driver: str) -> str:
    """Return the newest CUDA major version that a driver runs, such as 12; empty for a driver before all known."""
    for (major, _), oldest in MINIMUM_DRIVERS:
        if numbers(driver) >= numbers(oldest):
            return str(major)
    return ""


def numbers(version: str) -> tuple[int, ...]:
    """Return a dotted version as numbers; parts that are none are left out.

    Only ASCII digits are numbers here: :class:`int` takes those of all scripts, and no more than 4,300.
    """
    return tuple(int(part) for part in version.split(".") if part.isascii() and part.isdecimal() and len(part) <= 9)


def _first_two(version: str) -> str:
    parts = version.split(".")[:2]
    return ".".join(parts) if all(part.isdigit() for part in parts) else ""


def _list(folder: str) -> tuple[str, ...]:
    try:
        return tuple(os.listdir(folder or "."))
    except OSError as error:
        let_pass(error)
        return ()
