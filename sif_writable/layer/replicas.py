"""Copies of generations on this node, which are what is mounted: a server that hangs would take the image along.

``replica-ORIGIN-NUMBER/``: ``tree`` (with whiteouts for what was removed) and ``boot``, the run of the machine; or a
link to a generation that is too large for a copy.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from typing import TYPE_CHECKING

from sif_writable.layer import enter, files, make
from sif_writable.layer.fold import clone
from sif_writable.layer.generations import ASIDE_REPLICA, REPLICA_BYTES, newest_of
from sif_writable.layer.records import read
from sif_writable.layer.records import text as text_of
from sif_writable.signals import let_pass, suppress

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from sif_writable.layer.records import Generation

REPLACED_SECONDS = 60.0
"""How long a replica is kept when a newer one is there: a start that has chosen it may be about to mount it."""


def mark(folder: str) -> str:
    """Give a folder of generations its origin, which no other one has; return it, or an empty string.

    In each the numbers begin anew, and what this node has of one must not be taken for another's.
    """
    try:
        if not os.path.isdir(folder):
            os.mkdir(folder, 0o700)
        enter.write(f"{folder}/id-{os.urandom(8).hex()}", "")
        return make.origin_of(os.listdir(folder))
    except OSError as error:  # then nothing is published there either
        let_pass(error)
        return ""


def replicate(folder: str, place: str) -> tuple[str, str]:
    """Copy the newest generation to this node; return the folder to mount from, and what is to be said.

    :param folder: the generations; without any, both strings are empty.
    :param place: the folder of the replicas. What is too large for it is used from storage.
    :raises OSError: it cannot be read, or there is no space for it.
    """
    for _ in range(5):
        try:
            origin, number = make.origin_of(os.listdir(folder)), newest_of(folder)
        except FileNotFoundError:
            return "", ""
        target = f"{place}/{make.replica(origin, number)}"
        if not number or os.path.isdir(target):
            return (target if number else ""), ""
        aside = f"{place}/{ASIDE_REPLICA}{os.urandom(8).hex()}"
        line = ""
        try:
            newest = read(folder, number)
            if newest.size > REPLICA_BYTES and os.lstat(folder).st_dev != os.lstat(place).st_dev:
                os.symlink(newest.folder, aside)
                line = (
                    f"what earlier runs wrote ({newest.size >> 20} MiB) is mounted from {newest.folder}: it is too "
                    "large to be copied. Where that storage stops answering, the image's packages do, too"
                )
            else:
                _copy(newest, aside)
            if os.path.islink(target):  # to what is no longer there
                os.unlink(target)
            os.rename(aside, target)
        except FileNotFoundError:  # superseded and removed meanwhile
            if make.newest_generation(folder) == number:
                raise  # it is damaged
            continue
        except OSError as error:
            let_pass(error)
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
        finally:
            files.remove(aside)
        return target, line
    raise OSError(errno.EAGAIN, "others have published all the time", folder)


def _copy(newest: Generation, aside: str) -> None:
    os.mkdir(aside, 0o700)
    os.mkdir(f"{aside}/tree", 0o700)
    clone(f"{newest.folder}/tree", f"{aside}/tree")
    _replay(newest.removed, f"{aside}/tree")
    enter.write(f"{aside}/boot", make.boot())
    os.stat(newest.folder)  # or what was copied was half of it


def _replay(removed: Iterable[str], tree: str) -> None:
    """Have a replica hide what was removed; on a filesystem that cannot, that is there again.

    :raises OSError: there is no space for it.
    """
    for path in removed:
        where = posixpath.dirname(path)
        try:
            if not os.path.isdir(f"{tree}{where}"):
                files.make_folder(tree, where.lstrip("/"), os.stat(where).st_mode)
            os.mknod(f"{tree}{path}", stat.S_IFCHR | 0o000, 0)
        except OSError as error:
            let_pass(error)
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EIO}:
                raise


def newest_replica(place: str, origin: str) -> str:
    """Return the folder of the newest generation that this node has a copy of, or an empty string.

    :param origin: of the generations.
    """
    start = make.replica(origin, 0)[:-1]
    names = [name for name in os.listdir(place) if name.startswith(start) and name[len(start) :].isdigit()]
    for name in sorted(names, key=lambda name: int(name[len(start) :]), reverse=True):
        if os.path.isdir(f"{place}/{name}"):  # or it is a link to what storage has no longer
            return f"{place}/{name}"
    return ""


def drop_unflushed(place: str) -> None:
    """Remove the copies that were made before this machine started: nothing was flushed for them."""
    with suppress(OSError):
        for name in os.listdir(place):
            path = f"{place}/{name}"
            if name.startswith("replica-") and not os.path.islink(path):
                with suppress(OSError):
                    if text_of(f"{path}/boot") != make.boot():
                        drop(place, name)


def drop_unused(place: str, base: str, now: float, used: Collection[str]) -> None:
    """Remove replicas that no layer of this node was made from; one that is mounted would take the image along.

    :param base: the one that is the newest.
    :param used: folders that layers were made from.
    :raises OSError: they cannot be looked at.
    """
    if not base:
        return
    status = os.lstat(base)
    names = [name for name in os.listdir(place) if name.startswith("replica-") and f"{place}/{name}" != base]
    if now - max(status.st_mtime, status.st_ctime) > REPLACED_SECONDS:
        for name in names:
            if f"{place}/{name}" not in used:
                drop(place, name)


def drop(place: str, name: str) -> None:
    """Remove a folder such that half of it is never seen under its name.

    :raises OSError: it cannot be renamed.
    """
    gone = f"{place}/{GONE}{os.urandom(8).hex()}"
    os.rename(f"{place}/{name}", gone)
    files.remove(gone)


GONE = f"{make.NEW}-gone-"
"""What a folder that is being removed is called: half of one must not be taken for what a program has left."""
