"""How much room there is at a path, and what kind of place that is. For words and remedies only, never to decide."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, NamedTuple

from sif_writable.signals import let_pass
from sif_writable.system import mounts
from sif_writable.system.surroundings import session_device
from sif_writable.warm import SMALL

if TYPE_CHECKING:
    from collections.abc import Mapping

OVERLAY, SESSION, MEMORY, HOME, DISK = "overlay", "session", "memory", "home", "disk"
"""Kinds of places: an overlay image that makes the container's root writable, the container session's small tmpfs,
another tmpfs, the user's home, anything else."""

_OF_ROOT = ("overlay", "fuse.fuse-overlayfs")
_IMAGES = "/overlay-images/"
"""Part of the path at which Apptainer and SingularityCE mount what ``--overlay`` names; options of ``/`` show it."""


class Space(NamedTuple):
    """The room at a path."""

    path: str
    kind: str
    filesystem: str
    """Its type, such as ``ext4``."""
    total: int
    """Bytes, without those that the filesystem reserves."""
    free: int
    """Bytes free for this user. A quota counts where the filesystem reports it, as XFS and Lustre do for projects."""
    inodes: int
    """Inodes in total; 0 where the filesystem does not count them."""
    free_inodes: int


def room_at(path: str, environ: Mapping[str, str], table: list[mounts.Mount] | None = None) -> Space | None:
    """Measure the room at a path, or return None where it cannot be measured."""
    try:
        space = os.statvfs(path)
        device = os.stat(path).st_dev
    except OSError as error:
        let_pass(error)
        return None
    mount = mounts.mount_of(path, table)
    filesystem, total = mount.type if mount else "unknown", space.f_blocks * space.f_frsize
    home = environ.get("HOME", "")
    if mount and mount.point == "/" and filesystem in _OF_ROOT and _is_apptainer(environ):
        kind = _kind_of_root(total, space.f_files, device, home)
    elif device == session_device(home):
        kind = SESSION
    elif filesystem == "tmpfs":
        kind = MEMORY
    else:
        kind = HOME if _is_below(path, home) else DISK
    return Space(path, kind, filesystem, total, space.f_bavail * space.f_frsize, space.f_files, space.f_favail)


def _kind_of_root(total: int, inodes: int, device: int, home: str) -> str:
    """Find out what makes the root writable, by its numbers, since its mount does not say.

    A tmpfs has whole mebibytes, an ext3 image has lost some to its own tables. A folder that is given as overlay shows
    the numbers of the filesystem that it lies on, and so do other places there.
    """
    if total < SMALL and total % (1 << 20) == 0:
        return SESSION
    for place in (home or ".", ".", "/tmp", "/var/tmp"):  # noqa: S108 - what is mounted from the host by default
        with contextlib.suppress(OSError):
            space = os.statvfs(place)
            same = (space.f_blocks * space.f_frsize, space.f_files) == (total, inodes)
            if same and os.stat(place).st_dev != device:
                return DISK
    return OVERLAY


def _is_below(path: str, home: str) -> bool:
    real, top = os.path.realpath(path), os.path.realpath(home or "/")
    return top != "/" and (real == top or real.startswith(top + "/"))


def _is_apptainer(environ: Mapping[str, str]) -> bool:
    return "APPTAINER_CONTAINER" in environ or "SINGULARITY_CONTAINER" in environ


def overlay_is_read_only(table: list[mounts.Mount] | None = None) -> bool:
    """Whether what ``--overlay`` names can only be read here: by ``:ro``, or since this user may not write it."""
    root = mounts.mount_of("/", table)
    return root is not None and root.type == "overlay" and _IMAGES in root.options and "upperdir=" not in root.options
