"""Which filesystem is under a path: type and mount point from /proc/self/mountinfo. For words only, never to decide."""

from __future__ import annotations

import os
from typing import NamedTuple

from sif_writable.signals import let_pass

NETWORK = frozenset(("nfs", "nfs4", "lustre", "gpfs", "beegfs", "cifs", "smb3", "panfs", "ceph", "9p", "afs", "wekafs"))
"""Filesystem types shared between nodes, on which sockets do not work and locks may not."""


class Mount(NamedTuple):
    """One line of mountinfo."""

    point: str
    """Mount point."""
    type: str
    """Filesystem type, such as ``ext4`` or ``fuse.squashfuse_ll``."""
    source: str
    """Device or source, as the kernel names it."""
    options: str
    """Superblock options."""


def mounts(path: str = "/proc/self/mountinfo") -> list[Mount]:
    """Return the mounts of this process, an empty list where /proc is not there.

    The fields are those of proc_pid_mountinfo(5); spaces in paths are written as octal there.
    """
    found = []
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                left, _, right = line.partition(" - ")
                fields, rest = left.split(), right.split(maxsplit=2)
                if len(fields) > 4 and len(rest) > 1:
                    found.append(Mount(_plain(fields[4]), rest[0], _plain(rest[1]), rest[2] if len(rest) > 2 else ""))
    except OSError as error:
        let_pass(error)
        return []
    return found


def mount_of(path: str, table: list[Mount] | None = None) -> Mount | None:
    """Return the mount that holds a path: the last one of the longest mount point, as later ones hide earlier ones."""
    real = os.path.realpath(path)
    best = None
    for mount in mounts() if table is None else table:
        inside = real == mount.point or real.startswith(mount.point.rstrip("/") + "/")
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def _plain(field: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field
