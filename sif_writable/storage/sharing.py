"""Downloads that a group shares: a folder of its own in a place that the group may write. The cold path of the hook.

Whoever is in the group can replace what is in there. So it holds what packages read and never what they run (the table
:data:`sif_writable.redirects.beside.OF_GROUP`); code, settings and all other downloads stay this user's alone.
"""

from __future__ import annotations

import os
import shutil
import struct
from typing import TYPE_CHECKING

from sif_writable import aside
from sif_writable.errors import Problem
from sif_writable.seldom import MARKER
from sif_writable.signals import let_pass, suppress
from sif_writable.storage.chosen import Slot
from sif_writable.storage.layout import SHARED
from sif_writable.system import world
from sif_writable.system.filesystem import explain

if TYPE_CHECKING:
    from sif_writable.storage.candidates import Candidate
    from sif_writable.storage.chosen import Storage

DEFAULT_ACL = "system.posix_acl_default"
_ACL = struct.pack("<I" + 3 * "HHI", 2, *(0x01, 7, 0xFFFFFFFF), *(0x04, 7, 0xFFFFFFFF), *(0x20, 0, 0xFFFFFFFF))
"""Owner and group rwx, others nothing, as Linux keeps it (include/uapi/linux/posix_acl_xattr.h). Where a directory has
one, the umask of who makes something in it does not count (umask(2))."""
_MODE = 0o2770
_OURS = b"Downloads that a group shares by SIF_WRITABLE_SHARE=data. No program finds code here.\n"


def share(place: Candidate, status: os.stat_result, loose: str, storage: Storage) -> None:
    """Find the shared folder of a place, or make it; or note why there is none.

    :param status: of the place; :param loose: from :func:`sif_writable.system.filesystem.way`.
    """
    folder = f"{place.base}/{SHARED}"
    try:
        problem = _unshareable(place.base, status, loose) or _find(folder, place.base, status.st_gid)
        names = frozenset() if problem else world.names(folder)
    except OSError as error:
        problem = explain(error, place.base)
    if problem:
        remedy = "give a directory that one group may write (chmod 2770), or unset SIF_WRITABLE_SHARE"
        storage.unshared = Problem("not-shared", f"{place.base} is not shared: it {problem}.", f"{remedy}.")
        return
    storage.shared = Slot(place.base, place, folder, names)


def _unshareable(base: str, status: os.stat_result, loose: str) -> str:
    """Say why a place is not one that a group shares, or return an empty string."""
    if status.st_mode & 0o002:
        return "can be written by everybody"
    if not status.st_mode & 0o020:
        return "cannot be written by its group"
    if loose not in ("", base):
        return f"lies in {loose!r}, which others may write, and who could put something else in its place"
    return ""


def _find(folder: str, base: str, group: int) -> str:
    """Look at the shared folder, and make it where there is none; return what is wrong with it."""
    if not world.exists(folder):
        world.once()
        _make(folder, base, group)
    found = world.lstat(folder)
    if found.st_mode & 0o170000 != 0o040000:
        return f"has {SHARED!r}, which is no directory (remedy: rename it)"
    if not world.exists(f"{folder}/{MARKER}"):
        return f"has {SHARED!r}, which is not empty and has no mark of ours (remedy: rename it)"
    if found.st_gid != group or found.st_mode & 0o2072 != 0o2070:
        return (
            f"has {SHARED!r} of mode {found.st_mode & 0o7777:04o} and group {found.st_gid}, not {_MODE:04o} and {group}"
        )
    return ""


def _make(folder: str, base: str, group: int) -> None:
    """Make it aside, so that nobody else of the group sees half of it."""
    new = aside.path(base, SHARED)
    os.mkdir(new, 0o700)
    try:
        if os.stat(new).st_gid != group:  # without a setgid bit on the place it has this user's own group
            os.chown(new, -1, group)
        open_to_group(new)
        descriptor = os.open(f"{new}/{MARKER}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o660)
        with open(descriptor, "wb") as file:
            file.write(_OURS)
            os.fchmod(file.fileno(), 0o660)
        os.rename(new, folder)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        let_pass(error)
        if not os.path.isdir(folder):  # else another one of the group was faster
            raise


def open_to_group(folder: str) -> None:
    """Give a folder that this process has just made to the group that it belongs to.

    :raises OSError: it is not this user's.
    """
    os.chmod(folder, _MODE)
    try:
        os.getxattr(folder, DEFAULT_ACL)  # the administrator's, inherited
    except OSError as error:
        let_pass(error)
        with suppress(OSError):  # this filesystem has none: what is made is opened at the end of each process
            os.setxattr(folder, DEFAULT_ACL, _ACL)


def make_folder(folder: str) -> None:
    """Make the folder of one location in the shared one.

    :raises OSError: it cannot be made.
    """
    with suppress(FileExistsError):
        os.mkdir(folder, 0o770)
        open_to_group(folder)


def inherits(folder: str) -> bool:
    """Whether what is made in a folder is open to its group at once, whatever the umask is."""
    try:
        return bool(os.getxattr(folder, DEFAULT_ACL))
    except OSError as error:
        let_pass(error)
        return False
