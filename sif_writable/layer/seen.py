"""What a layer changed, as its upper directories show it."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from sif_writable.child import KEEP
from sif_writable.layer import files, fold, merge, shadow
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
    lines = [line for line in text_of(f"{folder}/about").split("\n") if line[:1] != "="]  # of enter.known
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
        self._in_removed: set[str] = set()
        """What lay in removed directories with code of the image, and what stands in their place."""
        self._names: dict[str, frozenset[str]] = {}
        """Directories of the image to what is in them, as far as that was asked."""
        self._roots: list[str] | None = None

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

    def replaces(self, change: Change) -> bool:
        """Whether the image has other code at the path of a change; see :data:`sif_writable.layer.merge.GENERATED`."""
        original = self.original(change.path)
        if files.status_of(original) is None:
            return False
        if change.kind == GONE:
            return True
        is_generated = self._is_generated(change.path) or self._is_generated(merge.source_of(change.path))
        return not is_generated and not files.are_same(self.source(change.path), original)

    def _is_generated(self, path: str) -> bool:
        """Whether a module says that it is generated, in the image and as it is now, and has changed."""
        here = self.source(path) if path.endswith(".py") else ""
        if here and files.status_of(here) is None:
            here = f"{self.base}/tree{path}" if self.base else ""
        return bool(here) and all(merge.is_generated(files.first_lines(one)) for one in (here, self.original(path)))

    def takes_place(self, change: Change) -> bool:
        """Whether a new file is run in the place of code of the image."""
        is_module = change.kind == FILE and shadow.module(os.path.basename(change.path))[1]
        if not (is_module or change.kind == LINK) or self.in_image(change.path):
            return False
        if self._roots is None:
            self._roots = [root for top in self.directories for root in self._roots_in(top)]
        is_link = change.kind == LINK
        return shadow.takes_place(change.path, self._names_in, self._has_code, self._roots, is_link=is_link)

    def _roots_in(self, top: str) -> list[str]:
        """Return the directories of packages in one of the layer's, or itself."""
        library = f"{top}/lib"
        names = [name for name in sorted(self._names_in(library)) if name.startswith("python")]
        folders = [f"{library}/{name}/{kind}-packages" for name in names for kind in ("site", "dist")]
        return folders if any(map(self._names_in, folders)) else [top]

    def _names_in(self, folder: str) -> frozenset[str]:
        known = self._names.get(folder)
        if known is None:
            known = frozenset()
            with suppress(ValueError, FileNotFoundError, NotADirectoryError):
                known = frozenset(os.listdir(self.original(folder)))
            self._names[folder] = known
        return known

    def _has_code(self, folder: str) -> bool:
        return any(shadow.module(os.path.basename(name))[1] for name, _ in files.walk(self.original(folder)))

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
                    original = files.status_of(self.original(path))
                    if original is None:
                        yield Change(path, FOLDER, status.st_mtime_ns)  # its mode may be changed to read it
                    elif not stat.S_ISDIR(original.st_mode) and merge.is_code(path):
                        self._in_removed.update(f"{path}/{below}" for below, _ in files.walk(here))
                    if files.is_opaque(here):
                        yield from self._hidden(here, path, status.st_mtime_ns)
                elif stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                    original = files.status_of(self.original(path))
                    if stat.S_ISLNK(status.st_mode) or not self._is_as_before(path, status, original):
                        self._replaces(path, original)
                        when = status.st_ctime_ns if status.st_mode & 0o400 else status.st_mtime_ns
                        yield Change(path, FILE if stat.S_ISREG(status.st_mode) else LINK, when)

    def _is_as_before(self, path: str, status: os.stat_result, original: os.stat_result | None) -> bool:
        """Whether a file was only opened to be written (a database that is read, a lock): the kernel copies it then."""
        before = f"{self.base}/tree{path}" if self.base else ""
        there = files.status_of(before) if before else None
        if there is None:
            before, there = self.original(path), original
        return (
            there is not None
            and (there.st_mode, there.st_size) == (status.st_mode, status.st_size)
            and there.st_mtime_ns == status.st_mtime_ns
            and files.are_same(self.source(path), before)
        )

    def _replaces(self, path: str, original: os.stat_result | None) -> None:
        """Note what stands in the place of a directory with code: that would be gone from the image."""
        if original is not None and stat.S_ISDIR(original.st_mode):
            below = files.walk(self.original(path))
            if any(merge.is_code(f"{path}/{name}") for name, _ in below):
                self._in_removed.add(path)

    def _gone(self, path: str, when: int) -> Iterator[Change]:
        """Yield what is to be removed of a removed path: file by file where a directory holds code."""
        original = self.original(path)
        status = files.status_of(original)
        below = dict(files.walk(original)) if status is not None and stat.S_ISDIR(status.st_mode) else {}
        if any(merge.is_code(f"{path}/{name}") for name in below):
            for name, inner in below.items():
                if not stat.S_ISDIR(inner.st_mode):
                    self._in_removed.add(f"{path}/{name}")  # code without its data is another package
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
        """Return the paths of distributions that were installed, changed or removed in the layer.

        :param changes: all that :meth:`changes` has yielded.
        """
        records: dict[str, list[str]] = {}
        found = set(self._in_removed)
        for change in changes:
            if "/conda-meta/" in change.path and change.path.endswith(".json"):
                for path in (self.source(change.path), self.original(change.path)):
                    with suppress(FileNotFoundError, NotADirectoryError):
                        found |= merge.of_conda(change.path, text_of(path))
            where, metadata, name = change.path.partition(".dist-info")
            record = f"{where}.dist-info/RECORD" if metadata and name in {"", "/RECORD"} else ""
            if record or change.path.endswith(merge.INSTALLED_FILES):
                record = record or change.path
                for path in (self.source(record), self.original(record)):
                    with suppress(FileNotFoundError, NotADirectoryError):
                        records.setdefault(record, []).extend(text_of(path).splitlines())
        return found | merge.installed(records)

    def keep(self, changes: list[Change], how: str) -> merge.Kept:
        """Return which of the changes are kept; `how` as in :func:`sif_writable.layer.merge.keep`."""
        installed = self.installed(changes)
        return merge.keep(changes, how, replaces=self.replaces, installed=installed, takes_place=self.takes_place)


def read_changes(folder: str, original: Callable[[int, str], str]) -> tuple[fold.Layer, Seen, list[Change], merge.Kept]:
    """Return what is published of a layer, and what it was chosen from.

    :param original: gives the path where the directory with a number is seen as it is in the image.
    :raises OSError: it cannot be read.
    """
    _, base, _, _, *lines = about(folder)
    directories = [line for line in lines if line[:1] == "/"]
    seen = Seen(folder, base, directories, [original(n, directory) for n, directory in enumerate(directories)])
    changes = list(seen.changes())
    kept = seen.keep(changes, kept_of(folder))
    number = int(base.rpartition("-")[2] or 0)
    name = os.path.basename(folder)
    return fold.Layer(name, kept.changes, seen.source, number, base, seen.in_image), seen, changes, kept


def kept_of(folder: str) -> str:
    """Return what is to be kept of a layer: what a process in it had in its environment when it entered."""
    try:
        return merge.mode({KEEP: text_of(f"{folder}/keep")})
    except FileNotFoundError:
        return merge.NEW
