"""How much lies below a path, of whom, and when was it last used? Looking leaves no trace in access times."""

from __future__ import annotations

import os
import stat
import time
from typing import TYPE_CHECKING

from sif_writable.copies import changes
from sif_writable.signals import let_pass, suppress
from sif_writable.system.listing import open_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOUNTED = "has something mounted in it"


class Bound:
    """How long, and over how many entries, something may be looked at."""

    __slots__ = ("deadline", "entries", "exceeded")

    def __init__(self, seconds: float, entries: int) -> None:
        """:param seconds: from now on; :param entries: files and directories in all."""
        self.deadline = time.monotonic() + seconds
        self.entries = entries
        self.exceeded = False

    def spent(self) -> bool:
        """Count one entry, and say whether there may be no more."""
        self.entries -= 1
        self.exceeded = self.exceeded or self.entries < 0 or time.monotonic() > self.deadline
        return self.exceeded


class Measured:
    """What was counted below a path."""

    __slots__ = ("changed", "entries", "files", "problem", "size", "used", "written")

    def __init__(self, status: os.stat_result) -> None:
        """:param status: that of the path itself."""
        self.size = self.files = 0
        self.entries = 1
        self.changed = 0.0 if stat.S_ISDIR(status.st_mode) else status.st_mtime
        self.used = max(status.st_mtime, status.st_ctime)
        self.problem = ""
        self.written = (0, 0)


def measure(
    path: str,
    points: list[str],
    record: Mapping[str, tuple[int, int]] | None,
    bound: Bound | None,
    *,
    linked: bool = True,
) -> Measured:
    """Count bytes, files, last use, and say what stands in the way of removing it.

    A file that was copied into place keeps its old times, so the time of its last change of state counts too. A
    directory is read by whoever lists it, so of directories only changes count.

    :param record: of a folder of copies, what was copied; the rest is what programs wrote.
    :param linked: files that have another name, too, take space here.
    """
    status = os.lstat(path)
    device = status.st_dev
    found = Measured(status)
    if any(point == path or point.startswith(path + "/") for point in points):
        found.problem = _MOUNTED
    seen: set[int] = set()
    stack = [path] if stat.S_ISDIR(status.st_mode) else []
    if not stack:
        found.size, found.files = status.st_blocks * 512, int(not stat.S_ISLNK(status.st_mode))
    tree = f"{path}/{changes.TREE}/"
    while stack:
        here = stack.pop()
        try:
            descriptor = open_folder(here)
        except OSError as error:
            let_pass(error)
            continue
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    if bound is not None and bound.spent():
                        return found
                    with suppress(OSError):
                        status = entry.stat(follow_symlinks=False)
                        # In an overlay a file may have the device number of the layer that it is in.
                        if status.st_dev != device and stat.S_ISDIR(status.st_mode):
                            found.problem = _MOUNTED
                            continue
                        found.entries += 1
                        found.used = max(found.used, status.st_mtime, status.st_ctime)
                        inner = f"{here}/{entry.name}"
                        if record is not None and inner == f"{path}/{changes.WRITTEN}":  # an item of its own
                            continue
                        if stat.S_ISDIR(status.st_mode):
                            stack.append(inner)
                            continue
                        found.used = max(found.used, status.st_atime)
                        found.files += not stat.S_ISLNK(status.st_mode)
                        if status.st_nlink > 1 and (not linked or status.st_ino in seen):
                            continue
                        seen.add(status.st_ino)
                        found.size += status.st_blocks * 512
                        if record is None:
                            found.changed = max(found.changed, status.st_mtime)
                        elif inner.startswith(tree) and changes.is_written(inner[len(tree) :], status, inner, record):
                            found.changed = max(found.changed, status.st_mtime)
                            found.written = (found.written[0] + 1, found.written[1] + status.st_blocks * 512)
        finally:
            os.close(descriptor)
    found.used = min(found.used, time.time())
    return found
