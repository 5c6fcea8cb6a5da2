"""What programs write in copies of packages outlives the copies: a record of what was copied, and the way back.

A copy of an image that is not used goes, but for the files that a program wrote (:func:`~.removal.remove_copies`). When
the copy is made again, they return to it, unless the image's own file has become another one.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import zlib

from sif_writable.copies import changes
from sif_writable.signals import let_pass, suppress
from sif_writable.storage.publish import write_aside


def settle(folder: str, path: str, copy: str, made: int) -> list[str]:
    """Write down what was copied, and give it what programs had written in an earlier copy.

    Called before the copy is in its place: without a record all in it counts as a program's work, for ever.

    :param folder: that of the copies; :param path: what was copied, in the image; :param copy: where it lies now.
    :param made: how many files and links are in it.
    :returns: what was given back and may go once the copy is in its place.
    :raises OSError: what was copied cannot be written down.
    """
    before = changes.recorded(folder) if os.path.lexists(f"{folder}/{changes.WRITTEN}{path}") else None
    _record(folder, path, copy, made)
    return _give_back(folder, path, copy, before) if before is not None else []


def forget(given: list[str], folder: str) -> None:
    """Remove what has returned to its copy, which is in its place now."""
    for path in given:
        with suppress(OSError):
            os.unlink(path)
    if given:
        _remove_empty(f"{folder}/{changes.WRITTEN}")


def give_back_beside(folder: str, tree: str) -> None:
    """Move back what programs had made next to copies, where the image has nothing of that name."""
    place = f"{folder}/{changes.WRITTEN}"
    if not os.path.lexists(place):
        return
    top = os.path.realpath(tree)
    for source, _ in list(changes.files(place)):
        inner = source[len(place) :]
        if source.startswith(f"{folder}/{changes.SET_ASIDE}/"):
            continue
        parent = os.path.dirname(f"{tree}{inner}")
        while not os.path.lexists(parent):
            parent = os.path.dirname(parent)
        by_link = os.path.realpath(parent) != top + parent[len(tree) :]  # which leads into the image
        if by_link or os.path.lexists(inner) or os.path.lexists(f"{tree}{inner}"):
            continue
        with suppress(OSError):
            os.makedirs(os.path.dirname(f"{tree}{inner}"), 0o700, exist_ok=True)
            os.rename(source, f"{tree}{inner}")
    _remove_empty(place)


def _remove_empty(place: str) -> None:
    for here, _, _ in os.walk(place, topdown=False):
        with suppress(OSError):
            os.rmdir(here)


def _record(folder: str, path: str, copy: str, made: int) -> None:
    found = changes.files(copy, strict=True)
    record = {f"{path}{inner[len(copy) :]}".lstrip("/"): _figures(status) for inner, status in found}
    if len(record) != made:  # the C library takes some errors for the end of a listing
        raise OSError(errno.EIO, "it cannot be listed as a whole", copy)
    name = f"{os.path.basename(path)[:100]}-{zlib.crc32(os.fsencode(path)):08x}"
    with suppress(FileExistsError):
        os.mkdir(f"{folder}/{changes.RECORDS}", 0o700)
    write_aside(f"{folder}/{changes.RECORDS}/{name}", changes.lines(record))


def _give_back(folder: str, path: str, copy: str, before: dict[str, tuple[int, int]]) -> list[str]:
    """Link files into a copy; one stays aside where the image's own has changed since: it may fit no more."""
    place = f"{folder}/{changes.WRITTEN}{path}"
    given = []
    for source, _ in list(changes.files(place)):
        new = f"{copy}{source[len(place) :]}"
        if before.get(f"{path}{source[len(place) :]}".lstrip("/")) != _figures_at(new):
            continue
        with suppress(OSError):
            os.makedirs(os.path.dirname(new), 0o700, exist_ok=True)
            with suppress(FileNotFoundError):
                os.unlink(new)
            try:
                os.link(source, new, follow_symlinks=False)
            except OSError as error:  # a filesystem without hard links
                let_pass(error)
                shutil.copy2(source, new, follow_symlinks=False)
            given.append(source)
    return given


def _figures_at(path: str) -> tuple[int, int] | None:
    try:
        return _figures(os.lstat(path))
    except OSError as error:
        let_pass(error)
        return None


def _figures(status: os.stat_result) -> tuple[int, int]:
    return changes.LINK if stat.S_ISLNK(status.st_mode) else (status.st_size, status.st_mtime_ns)
