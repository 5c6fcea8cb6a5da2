"""Distinguish the image's own files in a folder of copies from those that a program wrote.

Each copy leaves a record: a line for each file, with the size and the time that the copy has. What has no line, or
another size or time, is a program's work; so is everything where a record is missing. Bytecode never is.

The folder of an image's copies, ``packages-TAG``: ``tree`` (the copies, at their paths in the image), ``records``,
``written`` (what programs wrote in copies that were removed since, at the same paths), ``learned``, ``lease`` and
``locks``.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from sif_writable.signals import let_pass, suppress

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TREE, RECORDS, WRITTEN = "tree", "records", "written"
SET_ASIDE = f"{WRITTEN}/set-aside"
"""What programs wrote in copies that are not used any more: it returns to no other copy."""
REMOVING = "removing"
"""The tree while the work of programs is taken out of it."""
LINK = (-1, 0)
"""What stands for size and time of a symbolic link."""


def recorded(folder: str) -> dict[str, tuple[int, int]]:
    """Return path below ``tree`` to (bytes, nanoseconds of the last change), for all files that were copied."""
    found: dict[str, tuple[int, int]] = {}
    for name in listed(f"{folder}/{RECORDS}"):
        with suppress(OSError, ValueError):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with open(os.open(f"{folder}/{RECORDS}/{name}", flags), "rb") as file:
                for line in file:
                    size, time, path = line.rstrip(b"\n").split(b" ", 2)
                    found[os.fsdecode(path)] = int(size), int(time)
    return found


def lines(record: Mapping[str, tuple[int, int]]) -> bytes:
    """Return a record as it is written down; a name with a line break has no place in it."""
    return b"".join(
        b"%d %d %s\n" % (*figures, os.fsencode(name)) for name, figures in record.items() if "\n" not in name
    )


def is_written(name: str, status: os.stat_result, path: str, record: Mapping[str, tuple[int, int]]) -> bool:
    """Whether a program wrote this file, according to the record.

    :param name: its path below ``tree``; :param path: where it lies now.
    """
    if stat.S_ISLNK(status.st_mode):
        # Beside the copies stand links to the same path of the image.
        return record.get(name) != LINK and os.readlink(path) != f"/{name}"
    if not stat.S_ISREG(status.st_mode) or (name.endswith(".pyc") and "/__pycache__/" in name):
        return False
    return record.get(name) != (status.st_size, status.st_mtime_ns)


def files(path: str, *, strict: bool = False) -> Iterator[tuple[str, os.stat_result]]:
    """Yield files and links below a path, or the path itself where it is one, as (path, status).

    :param strict: also where something in it cannot be read.
    :raises OSError: it is no path, or ``strict`` and something in it cannot be read.
    """
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        yield path, status
        return
    passed = () if strict else (OSError,)
    stack = [path]
    while stack:
        with suppress(*passed), os.scandir(stack.pop()) as entries:
            for entry in entries:
                with suppress(*passed):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        stack.append(entry.path)
                    else:
                        yield entry.path, status


def listed(path: str) -> list[str]:
    """List the records; an empty list where there are none."""
    try:
        return os.listdir(path)
    except OSError as error:
        let_pass(error)
        return []
