"""Which directories a trace covers: those of the image, or on a host those of the environment alone."""

from __future__ import annotations

import os
import sys

import sif_writable
from sif_writable.system import image_mounts

_OF_PACKAGES = ("site-packages", "dist-packages")


def of_environment() -> list[str] | None:
    """Return the directories of the environment on a host; None in a container, where all of the image counts.

    On a host everything else is the user's own: his working directory is on ``sys.path``, too.
    """
    if sif_writable.in_container(sif_writable.environment()):
        return None
    prefixes = {os.path.realpath(prefix) for prefix in (sys.prefix, sys.base_prefix)}
    library = os.path.dirname(os.path.realpath(os.__file__))
    searched = {os.path.realpath(entry) for entry in sys.path}
    found: list[str] = []
    for path in sorted({os.path.realpath(directory) for directory in image_mounts.environment_directories()}):
        inside = any(path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes)
        if os.path.basename(path) in _OF_PACKAGES:
            inside = inside and path in searched  # a virtual environment need not have those of its interpreter
        elif path == library or path.startswith(f"{library}/"):
            continue
        if inside and os.path.isdir(path) and not any(path.startswith(f"{outer}/") for outer in found):
            found.append(path)
    return found


def is_of_host(path: str) -> bool:
    """Whether a directory of the host is mounted there: that is not covered, and can be large."""
    return bool(image_mounts.host_mount(path))
