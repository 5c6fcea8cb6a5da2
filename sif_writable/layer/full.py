"""Has the filesystem of a layer run full? Then writes to the layer fail."""

from __future__ import annotations

import os

from sif_writable.layer import trial
from sif_writable.signals import let_pass, suppress

LEAST = 1 << 16
"""Bytes: with fewer free, a write may have failed for want of space."""

reported = False
"""Whether this process has reported it."""


def line(folder: str) -> str:
    """Return the sentence for the end of a process in a layer that has run full, unless it was reported; or nothing."""
    what = "" if reported else lack(folder)
    return words(folder, what) if what else ""


def lack(folder: str) -> str:
    """Say what is used up where a layer lies, ``space`` or ``inodes``, or return an empty string.

    :param folder: of the layer. A quota shows only by a write that fails.
    """
    try:
        room = os.statvfs(folder)
    except OSError as error:
        let_pass(error)
        return ""
    if room.f_bavail * room.f_frsize < LEAST:
        return "space"
    return "inodes" if room.f_files and not room.f_favail else ""


def words(folder: str, what: str) -> str:
    """Return the sentence on a full filesystem, with what helps.

    :param folder: of the layer.
    :param what: of which there is no more: ``space``, ``inodes``, or ``quota``.
    """
    global reported
    reported = True
    size = ""
    with suppress(OSError):
        room = os.statvfs(folder)
        size = f" of {room.f_blocks * room.f_frsize >> 20} MiB" if what == "space" else ""
    parent, beside, _ = folder.rpartition("/layers/")
    if os.path.basename(folder).startswith("memory-"):
        cure = "bind a directory of a local disk, which then takes its place: --bind DIR:/var/tmp"
    elif beside:  # of storage
        parent = os.path.dirname(parent)
        cure = f"free some of {parent}, or bind a directory of a larger local disk: --bind DIR:{parent}"
    else:
        cure = "bind a directory of a larger disk: --bind DIR:/sif-writable"
    left = "its quota is used up" if what == "quota" else f"it has no {what} left"
    return (
        f"what is written in the environment goes to {folder}, and {left} ({trial.filesystem(folder)}{size}), so such "
        f"writes fail. Remedy: {cure}"
    )
