"""Is there enough room, and what helps where there is not? Answers are sentences."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from sif_writable.errors import Problem
from sif_writable.storage.space import HOME, MEMORY, OVERLAY, SESSION, room_at
from sif_writable.system.filesystem import MIN_BYTES, MIN_INODES, ROOM, explain

if TYPE_CHECKING:
    from sif_writable.storage.space import Space

BYTES, INODES, QUOTA = "bytes", "inodes", "quota"
LOW_INODES = 1000
"""Inodes free below which a package tree does not fit."""
FULL = (errno.ENOSPC, errno.EDQUOT)
"""The errno values that mean that a place is full."""
_MIB = 1 << 20
_FREE = "free some: sif-writable cache prune --all-images --max-size 1GiB --yes"


def lacking(space: Space, *, downloads: bool) -> list[str]:
    """Say what runs short: ``bytes``, ``inodes``, both or nothing.

    :param downloads: storage for downloads wants room for one in any case; of what somebody has sized himself, a
        quarter may remain.
    """
    low, few = ROOM, LOW_INODES
    if not downloads:
        low = min(low, max(2 * MIN_BYTES, space.total // 4))
        few = min(few, max(2 * MIN_INODES, space.inodes // 4))
    found = [BYTES] if space.free < low else []
    return [*found, INODES] if space.inodes and space.free_inodes < few else found


def short_of(space: Space, number: int) -> str:
    """Say what ran out when a write failed; for ENOSPC only the free numbers show it.

    The program may have cleaned up since it failed, so what is scarcer counts, not what is at zero.
    """
    if number == errno.EDQUOT:
        return QUOTA
    scarcer = space.inodes and space.total and space.free_inodes / space.inodes < space.free / space.total
    return INODES if scarcer and space.free > _MIB else BYTES


def remedy(space: Space, lack: str) -> str:
    """Return what helps at this kind of place."""
    double = f"{max(2 * -(-space.total // _MIB), 64)}"
    if space.kind == OVERLAY and lack == INODES:
        return (
            f"more inodes come with more size: when no container uses the overlay image, e2fsck -f o.img and "
            f"resize2fs o.img {double}M; a new one takes their number: mkfs.ext3 -N {max(2 * space.inodes, 10_000)} "
            "-d D o.img, with D/upper and D/work"
        )
    if space.kind == OVERLAY:
        return (
            f"a larger overlay image: apptainer overlay create --size {double} new.img, or grow this one when no "
            f"container uses it: e2fsck -f o.img and resize2fs o.img {double}M"
        )
    if space.kind == SESSION:
        return "bind a directory: --bind DIR:/sif-writable (instead of --writable-tmpfs also: --overlay o.img)"
    if space.kind == MEMORY:
        return "bind a directory of a disk: --bind DIR:/sif-writable"
    if space.kind == HOME:
        return f"SIF_WRITABLE_DIR=$SCRATCH/sif-writable, or {_FREE}"
    what = "remove small files" if lack == INODES else _FREE
    return f"{what}, or give a larger place with SIF_WRITABLE_DIR"


def complaint(error: OSError, path: str, place: str) -> Problem:
    """Say why a path in storage could not be written; where the place is full, with the remedy that fits it.

    :param place: a directory above the path that exists.
    """
    room = room_at(place, os.environ) if error.errno in FULL else None
    text = f"{path} {explain(error, place)}"
    if not room:
        return Problem("write-failed", text)
    return Problem("write-failed", f"{text}.", f"{remedy(room, short_of(room, error.errno or 0))}.")
