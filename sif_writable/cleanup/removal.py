"""Take one thing out of storage while other processes may be using it.

It is renamed aside in one step and deleted there: whoever looks sees all of it or nothing, what is open stays readable,
and what a killed removal leaves is collected as any leftover. Copies of packages go only while no program holds their
lease (:mod:`sif_writable.lease`).
"""

from __future__ import annotations

import os
import shutil
import stat
from typing import TYPE_CHECKING

from sif_writable import aside
from sif_writable.copies import changes
from sif_writable.signals import suppress
from sif_writable.storage.leases import NO_LOCKS, alone
from sif_writable.storage.publish import write_aside

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sif_writable.cleanup.measure import Bound


def move_aside(path: str) -> str:
    """Rename a thing to a name of what is removed; return its new path.

    :raises OSError: as of rename(2); FileNotFoundError: another cleanup was first.
    """
    gone = aside.path(os.path.dirname(path), f"{os.path.basename(path)}-gone")
    os.rename(path, gone)
    return gone


def remove_copies(folder: str, *, keep_written: bool, unlocked: bool = False) -> tuple[str, str]:
    """Take copies of packages away, unless a program imports from them.

    :param keep_written: what programs wrote in them stays in ``written``, and with it what was learned.
    :param unlocked: also where nobody can tell whether they are in use.
    :returns: what is to be deleted, and why nothing is; either may be empty.
    :raises OSError: they cannot be renamed, or what is kept cannot be listed.
    """
    with alone(folder) as problem:
        if problem and not (unlocked and problem.code == NO_LOCKS):
            return "", problem.text
        if keep_written:
            removing = f"{folder}/{changes.REMOVING}"
            if not os.path.lexists(removing):  # else a removal was killed
                with suppress(FileNotFoundError):
                    os.rename(f"{folder}/{changes.TREE}", removing)
            record = changes.recorded(folder)
            _save_written(folder, removing, record)
            if os.path.lexists(f"{folder}/{changes.TREE}"):  # copied anew since: that is for another removal
                return move_aside(removing), ""
            written, kept = f"{folder}/{changes.WRITTEN}", []
            if os.path.lexists(written):
                kept = [os.path.relpath(path, written) for path, _ in changes.files(written, strict=True)]
            if kept:
                _keep_records(folder, {name: record[name] for name in kept if name in record})
                return (move_aside(removing) if os.path.lexists(removing) else ""), ""
        return move_aside(folder), ""


def _save_written(folder: str, tree: str, record: Mapping[str, tuple[int, int]]) -> None:
    """Move what programs wrote out of a tree of copies. It keeps its path below ``written``; the newest file stays."""
    for here, _, _ in os.walk(tree):
        with os.scandir(here) as entries:
            for entry in entries:
                name = os.path.relpath(entry.path, tree)
                status = entry.stat(follow_symlinks=False)
                if not stat.S_ISDIR(status.st_mode) and changes.is_written(name, status, entry.path, record):
                    place = f"{folder}/{changes.WRITTEN}/{name}"
                    os.makedirs(os.path.dirname(place), 0o700, exist_ok=True)
                    os.rename(entry.path, place)


def _keep_records(folder: str, record: Mapping[str, tuple[int, int]]) -> None:
    """Keep only those records that show which files of the image a program had changed."""
    records = f"{folder}/{changes.RECORDS}"
    before = changes.listed(records)
    write_aside(f"{records}/written", changes.lines(record))
    for name in before:
        if name != "written":
            os.unlink(f"{records}/{name}")


def delete(path: str, bound: Bound | None = None) -> bool:
    """Delete what was moved aside; return whether all of it is gone.

    :param bound: once it is reached, the rest is left to a later removal.
    """
    with suppress(OSError):
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            os.unlink(path)
    for _ in range(3):  # a process may be just about to make a file in it
        if not os.path.lexists(path):
            return True
        if bound is not None:
            with suppress(OSError):
                _delete_within(path, bound)
            if bound.spent():
                return False
            continue
        with suppress(OSError):
            os.chmod(path, 0o700)
        # Some tools take permissions off what they keep, and overlays all of them; so before it is entered.
        for here, inner, _ in os.walk(path):
            for name in inner:
                with suppress(OSError):
                    if not os.path.islink(f"{here}/{name}"):
                        os.chmod(f"{here}/{name}", 0o700)
        shutil.rmtree(path, ignore_errors=True)
    return not os.path.lexists(path)


def _delete_within(path: str, bound: Bound) -> None:
    stack = [path]
    while stack:
        here, deeper = stack[-1], False
        os.chmod(here, 0o700)
        with os.scandir(here) as entries:
            for entry in entries:
                if bound.spent():
                    return
                if entry.is_dir(follow_symlinks=False):
                    stack.append(entry.path)
                    deeper = True
                else:
                    os.unlink(entry.path)
        if not deeper:
            os.rmdir(here)
            stack.pop()
