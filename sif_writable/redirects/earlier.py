"""What earlier versions kept in a place that the user gave: they used the directory itself, beside his own files.

It is found from the new folder and never removed: downloads by links to what is there, settings by copies, which
programs may rewrite. Each is brought once, when the folder for it is made.
"""

from __future__ import annotations

import os
import stat

from sif_writable.redirects import seeding
from sif_writable.redirects.catalog import OPT_IN, ROWS
from sif_writable.signals import let_pass
from sif_writable.storage import layout
from sif_writable.storage.candidates import FOLDER
from sif_writable.storage.kinds import DATA
from sif_writable.storage.layout import NOTE, is_image
from sif_writable.storage.marker import read_marker
from sif_writable.storage.publish import put
from sif_writable.system.listing import names

_LINKS = 10_000
"""Links that are made at most."""


def take_over(place: str, root: str, folder: str) -> None:
    """Make a folder of a storage root with what an earlier version had there, if it had anything.

    :param place: the directory that was given.
    :param folder: ``data``, or ``config`` of an image.
    :raises OSError: the folder cannot be made; nothing of it is left.
    """
    if root != f"{place}/{FOLDER}" or not read_marker(place):
        return
    if folder == f"{root}/{layout.DATA}":
        old = f"{place}/{layout.DATA}"
        if _is_own(old) and names(old):
            put(folder, lambda new: _link_downloads(old, new), aside_in=root)
    elif os.path.basename(folder) == layout.CONFIG:
        old = f"{place}/{image(place, os.path.dirname(folder))}/{layout.CONFIG}"
        if _is_own(old) and names(old):
            put(folder, lambda new: seeding.copy(old, new), aside_in=os.path.dirname(folder))


def copy_home(place: str, home: str, new: str) -> None:
    """Copy what an earlier version's private home for this image holds into a new one that is being filled.

    :param home: where the new one will be.
    :raises OSError: it cannot be written.
    """
    own = os.path.dirname(home)
    if os.path.dirname(own) == f"{place}/{FOLDER}" and read_marker(place):
        old = f"{place}/{image(place, own)}/{layout.HOME}"
        if _is_own(old):
            seeding.copy(old, new)


def image(place: str, new: str) -> str:
    """Return the name of the folder that an earlier version kept for the same image, or what is no name.

    It had the same identity, or the same path, which is noted in it; of these the one that was used last counts.

    :param new: the folder of the image now.
    """
    own = os.path.basename(new)
    if os.path.isdir(f"{place}/{own}"):
        return own
    path = _noted(new)
    there = [name for name in names(place) if is_image(name) and path and _noted(f"{place}/{name}") == path]
    return max(there, key=lambda name: os.lstat(f"{place}/{name}/{layout.CONFIG}").st_mtime, default="-")


def _noted(folder: str) -> str:
    """Return the path of an image, as it is noted in its folder."""
    try:
        with open(f"{folder}/{NOTE}", encoding="utf-8", errors="surrogateescape") as file:
            first = file.readline(4096)
    except OSError as error:
        let_pass(error)
        return ""
    key, _, value = first.partition(": ")
    return value.strip() if key == "image" else ""


def _is_own(folder: str) -> bool:
    """Whether a folder is this user's, and nobody else could have put anything into it."""
    try:
        status = os.lstat(folder)
    except OSError as error:
        let_pass(error)
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _link_downloads(old: str, new: str) -> None:
    """Link what is in each folder that the table of locations knows; programs go on to write where they did.

    The links are relative, since the place is at another path where it is bound to ``/sif-writable``.
    """
    left = _LINKS
    for row in (*ROWS, *OPT_IN):
        name = row.leaf
        if row.kind != DATA or not name or os.path.lexists(f"{new}/{name}") or not _is_own(f"{old}/{name}"):
            continue
        listed = names(f"{old}/{name}")
        left -= len(listed)
        if left < 0:
            os.symlink(f"../../data/{name}", f"{new}/{name}")
            continue
        os.mkdir(f"{new}/{name}", 0o700)
        for entry in listed:
            os.symlink(f"../../../data/{name}/{entry}", f"{new}/{name}/{entry}")
