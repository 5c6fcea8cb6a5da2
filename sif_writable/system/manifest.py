"""What the image says about itself: the lines of ``sif_writable.manifest``, beside this package in site-packages.

``prepare``, ``prestage`` and ``trace`` write it at build time (:mod:`sif_writable.image.manifest`), and a person can. A
line is ``key: value``; a key of several values has several lines; ``#`` begins a comment. What stands before the first
empty line is read at every start (by :func:`sif_writable.identity.declared`, since a
start has no room for this module).

======================  ============================================================================================
key                     value
======================  ============================================================================================
stamp                   what stands for the installed distributions in the image identity
seed                    ``VARIABLE PATH``: the image brings files for this location, in PATH; ``HOME PATH`` for a home
user-site               ``no``: packages of the user's own ``~/.local`` are not found
package                 a package that is imported from a writable copy; after a space, why
overlay                 a directory of the image that needs an overlay; after a space, why
heavy                   a module before whose import the GPU is checked
gpu, gpu-count,         demands: the value of ``SIF_WRITABLE_GPU``, ``SIF_WRITABLE_GPU_COUNT``,
gpu-min-memory,         ``SIF_WRITABLE_GPU_MIN_MEMORY`` and ``SIF_WRITABLE_GPU_MIN_CAPABILITY`` where the environment
gpu-min-capability      has none
prepared                version of sif-writable that wrote the rest
interpreter             ``PATH VERSION PREFIX``: an interpreter of the image that was prepared
distribution            ``NAME VERSION``: what is installed
location                ``VARIABLE DISTRIBUTION``: a row of the table of locations whose variable its sources name
writer                  ``NAME FILE:LINE``: a package whose sources write beside themselves
no-bytecode             a source that could not be compiled
cuda                    ``VERSION SOURCE``: a CUDA version that the image ships
======================  ============================================================================================
"""

from __future__ import annotations

import os

from sif_writable.errors import Problem
from sif_writable.identity import MANIFEST, declared
from sif_writable.system.filesystem import explain

TYPE_CHECKING = False  # the GPU check loads this, and typing takes longer than the rest of it
if TYPE_CHECKING:
    from collections.abc import Mapping

HOT = (
    *("stamp", "seed", "user-site", "package", "overlay", "heavy"),
    *("gpu", "gpu-count", "gpu-min-memory", "gpu-min-capability"),
)
"""Keys of what stands before the first empty line, in this order."""
COLD = ("prepared", "interpreter", "distribution", "location", "writer", "cuda", "no-bytecode")
"""Keys of the rest."""

Declared = dict[str, list[str]]


def read(purelib: str) -> Declared:
    """Return everything that the image declares, key to values; empty where there is no manifest."""
    return declared(purelib, whole=True)


def misunderstood(purelib: str) -> list[Problem]:
    """Return what cannot be read in the image's manifest, or seems to be cut off."""
    path = f"{purelib}/{MANIFEST}"
    remedy = "Build the image again, or write the file anew in %post with `sif-writable prepare`."
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except FileNotFoundError:
        return []
    except OSError as error:
        return [Problem("bad-manifest", f"{path} counts as empty: it {explain(error)}.", remedy)]
    found = []
    lines = [line for line in text.split("\n") if line and not line.startswith("#")]
    if strange := [line for line in lines if line.partition(": ")[0] not in HOT + COLD or ": " not in line]:
        found.append(f"{path} has lines that are not understood ({len(strange)}, such as {strange[0][:40]!r}).")
    if text and not text.endswith("\n"):
        found.append(f"{path} ends within a line, which is passed over: it may have been cut off.")
    return [Problem("bad-manifest", text, remedy) for text in found]


def demands(declared: Mapping[str, list[str]]) -> dict[str, str]:
    """Return what the image demands of GPUs, as variables and their values."""
    keys = [key for key in HOT if key.startswith("gpu") and key in declared]
    return {f"SIF_WRITABLE_{key.upper().replace('-', '_')}": declared[key][0] for key in keys}
