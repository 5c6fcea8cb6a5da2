"""What a layer changed, as its upper directories show it."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from sif_writable.layer import decide, files, fold, merge
from sif_writable.layer.enter import ABOUT
from sif_writable.layer.merge import FILE, FOLDER, GONE, LINK, Change
from sif_writable.layer.records import text as text_of
from sif_writable.signals import suppress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def about(folder: str) -> list[str]:
    """Return what a layer says of itself: see :data:`sif_writable.layer.enter.ABOUT`; then its directories.

    :raises OSError: it cannot be read. Without it nothing is known, and nothing is removed.
    """
    lines = [line for line in text_of(f"{folder}/about").split("\n") if line[:1] != "="]  # of decide.known
    if len(lines) <= ABOUT:
        raise OSError(errno.EIO, "it is damaged", f"{folder}/about")
    return lines


class Seen:
    """What a layer changed, as its upper directories show it."""

    def __init__(self, folder: str, base: str, directories: list[str], originals: list[str]) -> None:
        """:param originals: where each directory is seen as it is in the image."""
        self.folder = folder
        self.base = base
        self.directories = directories
        self.originals = originals

    def _number(self, path: str) -> int:
        for number, directory in enumerate(self.directories):
            if path == directory or path.startswith(f"{directory}/"):
                return number
        raise ValueError(path)

    def source(self, path: str) -> str:
        """Return where a path is in its upper directory."""
        number = self._number(path)
        return f"{self.folder}/{number}{path[len(self.directories[number]) :]}"

    def original(self, path: str) -> str:
        """Return where a path is as it is in the image."""
        number = self._number(path)
        return f"{self.originals[number]}{path[len(self.directories[number]) :]}"

    def in_image(self, path: str) -> bool:
        """Whether the image has a path."""
        try:
            original = self.original(path)
        except ValueError:
            return False
        return files.status_of(original) is not None

    def changes(self) -> Iterator[Change]:
        """Yield what was changed; what holds it first."""
        for number, directory in enumerate(self.directories):
            top = f"{self.folder}/{number}"
            for name, status in files.walk(top):
                here, path = f"{top}/{name}", f"{directory}/{name}"
                if files.is_whiteout(here, status):
                    when = os.lstat(os.path.dirname(here)).st_mtime_ns  # the kernel uses one inode for all of them
                    yield from self._gone(path, when)
                elif stat.S_ISDIR(status.st_mode):
                    if not self.in_image(path):
                        yield Change(path, FOLDER, status.st_ctime_ns)
                    if files.is_opaque(here):
                        yield from self._hidden(here, path, status.st_mtime_ns)
                elif stat.S_ISREG(status.st_mode):
                    yield Change(path, FILE, status.st_ctime_ns)
                elif stat.S_ISLNK(status.st_mode):
                    yield Change(path, LINK, status.st_ctime_ns)

    def _gone(self, path: str, when: int) -> Iterator[Change]:
        """Yield what of a removed path is to be removed: file by file where a directory holds code."""
        original = self.original(path)
        status = files.status_of(original)
        below = dict(files.walk(original)) if status is not None and stat.S_ISDIR(status.st_mode) else {}
        if any(merge.is_code(f"{path}/{name}") for name in below):
            for name, inner in below.items():
                if not stat.S_ISDIR(inner.st_mode):
                    yield Change(f"{path}/{name}", GONE, when)
        else:
            yield Change(path, GONE, when)

    def _hidden(self, here: str, path: str, when: int) -> Iterator[Change]:
        """Yield what a directory hides that was removed and made again."""
        names: set[str] = set()
        for lower in (self.original(path), f"{self.base}/tree{path}" if self.base else ""):
            with suppress(FileNotFoundError, NotADirectoryError):
                names.update(os.listdir(lower) if lower else ())
        for name in sorted(names):
            if files.status_of(f"{here}/{name}") is None:
                yield from self._gone(f"{path}/{name}", when)

    def installed(self, changes: list[Change]) -> set[str]:
        """Return the paths of distributions that were installed, changed or removed in the layer."""
        records: dict[str, list[str]] = {}
        found: set[str] = set()
        for change in changes:
            if "/conda-meta/" in change.path and change.path.endswith(".json"):
                for path in (self.source(change.path), self.original(change.path)):
                    with suppress(FileNotFoundError, NotADirectoryError):
                        found |= merge.of_conda(change.path, text_of(path))
            where, metadata, name = change.path.partition(".dist-info")
            if metadata and (name in {"", "/RECORD"}):
                record = f"{where}.dist-info/RECORD"
                for path in (self.source(record), self.original(record)):
                    with suppress(FileNotFoundError, NotADirectoryError):
                        records.setdefault(record, []).extend(text_of(path).splitlines())
        return found | merge.installed(records)


def look(folder: str, original: Callable[[int, str], str]) -> tuple[fold.Layer, Seen, list[Change], merge.Kept]:
    """Return what of a layer is published, and what it was chosen from.

    :param original: tells where the directory with a number is seen as it is in the image.
    :raises OSError: it cannot be read.
    """
    _, base, _, _, *lines = about(folder)
    directories = [line for line in lines if line[:1] == "/"]
    seen = Seen(folder, base, directories, [original(n, directory) for n, directory in enumerate(directories)])
    changes = list(seen.changes())
    kept = merge.keep(changes, kept_of(folder), in_image=seen.in_image, installed=seen.installed(changes))
    number = int(base.rpartition("-")[2] or 0)
    name = os.path.basename(folder)
    return fold.Layer(name, kept.changes, seen.source, number, base, seen.in_image), seen, changes, kept


def kept_of(folder: str) -> str:
    """Return what of a layer is to be kept: what a process in it had in its environment when it entered."""
    try:
        return merge.mode({decide.KEEP: text_of(f"{folder}/keep")})
    except FileNotFoundError:
        return merge.NEW
