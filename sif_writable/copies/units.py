"""What a path of the image belongs to: which package, what was installed with it, how large that is."""

from __future__ import annotations

import os
import stat
import sys
from importlib.machinery import EXTENSION_SUFFIXES, all_suffixes
from typing import TYPE_CHECKING, NamedTuple

from sif_writable.copies.policy import is_linked
from sif_writable.errors import is_passing
from sif_writable.importhook import NEVER, place_of
from sif_writable.signals import let_pass, suppress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from importlib.machinery import ModuleSpec


class Unit(NamedTuple):
    """What is copied as a whole: a package, a portion of a namespace package, or a module of one file."""

    name: str
    """As in ``import NAME``."""
    directory: str
    """The directory of the image that holds it."""
    entry: str
    """Its name in there, such as ``pkg`` or ``module.py``."""

    @property
    def path(self) -> str:
        """Return its path in the image."""
        return f"{self.directory}/{self.entry}"

    @property
    def is_package(self) -> bool:
        """Whether it is a directory."""
        return not self.entry.endswith(tuple(all_suffixes()))

    def holds(self, path: str) -> bool:
        """Whether a path is this unit or lies in it."""
        return path == self.path or path.startswith(self.path + "/")


def unit_of_spec(spec: ModuleSpec) -> Unit:
    """Return the unit that a spec of the import system describes."""
    return Unit(spec.name, *place_of(spec))


def unit_at(path: str, directories: Iterable[str]) -> Unit | None:
    """Return the unit that a path lies in, or None.

    :param path: absolute; ``..`` counts as it is written, so that ``/sp/pkg/../data`` is a path of ``pkg``.
    :param directories: where units are looked for: sys.path and more.
    """
    for directory in sorted(set(directories), key=len, reverse=True):
        if not directory or not path.startswith(directory + "/"):
            continue
        holder, name = directory, ""
        for part in path[len(directory) + 1 :].split("/"):
            here = f"{holder}/{part}"
            if (stem := _module_name(part)) and os.path.isfile(here):
                return Unit(name + stem, holder, part)
            if not part.isidentifier() or not os.path.isdir(here):
                break
            if any(os.path.exists(f"{here}/__init__{suffix}") for suffix in all_suffixes()):
                return Unit(name + part, holder, part)
            holder, name = here, f"{name}{part}."
    return None


def _module_name(entry: str) -> str:
    """Return the name of the module that a file of this name is, or an empty string."""
    for suffix in all_suffixes():
        if entry.endswith(suffix) and entry[: -len(suffix)].isidentifier():
            return entry[: -len(suffix)]
    return ""


def directories(more: Iterable[str] = ()) -> list[str]:
    """Return the directories of sys.path, as written and resolved, without those of the standard library.

    :param more: further directories; those in one of sys.path are of a namespace and do not count.
    """
    standard = os.path.dirname(os.__file__)
    found: dict[str, None] = {}
    entries = [os.path.abspath(entry) for entry in sys.path]
    for path in [*entries, *(path for path in more if not path.startswith(tuple(f"{entry}/" for entry in entries)))]:
        for way in (path, os.path.realpath(path)):
            if way not in (standard, standard + "/lib-dynload", "/"):
                found[way] = None
    return list(found)


def installed_with(unit: Unit) -> list[Unit]:
    """Return the unit and the other ones that its distribution installed in the same directory.

    They reach each other's files by ``..``, so they are copied together. A portion of a namespace goes alone.

    :raises OSError: the image cannot be read at the moment.
    """
    found = [unit]
    if "." in unit.name:
        return found
    for name in _top_levels(unit):
        if name in ("", "..", "__pycache__", unit.entry) or name.endswith((".dist-info", ".egg-info", ".pth")):
            continue
        path = f"{unit.directory}/{name}"
        if name.endswith(".py"):
            mate = Unit(name[:-3], unit.directory, name)
        elif any(os.path.exists(f"{path}/__init__{suffix}") for suffix in all_suffixes()):
            mate = Unit(name, unit.directory, name)
        else:  # libraries, a namespace, an extension module: a link to the image serves
            continue
        if mate.name not in NEVER and os.path.exists(path):
            found.append(mate)
    return found


def _top_levels(unit: Unit) -> list[str]:
    """Return the entries of the directory that the unit's distribution installed."""
    _, text = _record(unit)
    return sorted({line.partition(",")[0].partition("/")[0] for line in text.split("\n")}) if text else []


def record_of(unit: Unit) -> str:
    """Return the ``RECORD`` that has the checksums of a unit's files, or an empty string.

    :raises OSError: the image cannot be read at the moment.
    """
    path, text = _record(unit)
    return path if any(f"\n{unit.entry}{end},sha" in f"\n{text}" for end in ("", "/__init__.py")) else ""


def _record(unit: Unit) -> tuple[str, str]:
    """Return the path and the text of the ``RECORD`` of a unit's distribution, or two empty strings."""
    try:
        infos = [name for name in os.listdir(unit.directory) if name.endswith(".dist-info")]
    except OSError as error:
        if is_passing(error):
            raise
        return "", ""
    wanted = unit.name.lower().replace("-", "_")
    infos.sort(key=lambda info: not info.lower().replace("-", "_").startswith(wanted))  # the likely one first
    for info in infos:
        path = f"{unit.directory}/{info}/RECORD"
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                text = file.read()
        except OSError as error:
            if is_passing(error):
                raise
            continue
        if text.startswith(f"{unit.entry}/") or f"\n{unit.entry}/" in text or f"\n{unit.entry}," in f"\n{text}":
            return path, text
    return "", ""


class Size(NamedTuple):
    """What copies of some units need."""

    copied: int
    """Bytes of the files that become real files."""
    linked: int
    """Bytes of the files that become links to the image."""
    entries: int
    """Files, links and directories."""


def measure(units: Iterable[Unit]) -> Size:
    """Count what the copies of some units need."""
    copied = linked = entries = 0
    for unit in units:
        for name, status in _walk(unit.path):
            entries += 1
            if stat.S_ISREG(status.st_mode):
                if is_linked(name, status.st_size):
                    linked += status.st_size
                else:
                    copied += status.st_size
    return Size(copied, linked, entries)


def external_link_status(path: str, package: str) -> os.stat_result | None:
    """Return the status of a file of a package that is a link to a file elsewhere, as some installers make them."""
    if is_inner_link(path, package):
        return None
    landing = os.path.realpath(path)
    if landing.startswith(os.path.realpath(package) + "/") or not os.path.isfile(landing):
        return None
    return os.stat(landing)


def is_inner_link(path: str, package: str) -> bool:
    """Whether a link points at something of its own package in such a way that it is right in a copy too."""
    target = os.readlink(path)
    landing = os.path.normpath(os.path.join(os.path.dirname(path), target))
    return not os.path.isabs(target) and landing.startswith(package + "/")


def _walk(path: str) -> Iterator[tuple[str, os.stat_result]]:
    if not os.path.isdir(path):
        yield os.path.basename(path), os.lstat(path)
        return
    stack = [path]
    while stack:
        with suppress(OSError), os.scandir(stack.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    elsewhere = external_link_status(entry.path, path) if entry.is_symlink() else None
                    yield entry.name, elsewhere or entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    stack.append(entry.path)


def written(unit: Unit, copy: str) -> tuple[list[str], int]:
    """Return what a copy has beyond the image's own files, new or changed, and the bytes that it takes in all.

    Bytecode is not counted as written.
    """
    found, size = [], 0
    pairs = [(copy, unit.path, "")]
    while pairs:
        here, there, name = pairs.pop()
        try:
            status = os.lstat(here)
            if stat.S_ISDIR(status.st_mode):
                if name.rpartition("/")[2] != "__pycache__":
                    entries = os.listdir(here)
                    pairs += [(f"{here}/{n}", f"{there}/{n}", f"{name}/{n}".lstrip("/")) for n in sorted(entries)[::-1]]
                    if not entries and not os.path.lexists(there):
                        found.append(name + "/")
                continue
            size += status.st_blocks * 512
            if stat.S_ISLNK(status.st_mode) and os.path.lexists(there):
                continue
            original = os.lstat(there)
            if (original.st_size, original.st_mtime_ns) != (status.st_size, status.st_mtime_ns):
                found.append(name)
        except OSError as error:
            let_pass(error)
            found.append(name)
    return found, size


def made_next_to(tree: str, directories: Iterable[str]) -> list[str]:
    """Return what was made in a mirror of the image beside the copies: paths of the image that the image lacks."""
    return [
        f"{directory}/{name}"
        for directory in directories
        if os.path.isdir(tree + directory)
        for name in sorted(os.listdir(tree + directory))
        if name != "__pycache__"
        and not os.path.lexists(f"{directory}/{name}")
        and not _is_link_to(f"{tree}{directory}/{name}", f"{directory}/{name}")
    ]


def _is_link_to(path: str, target: str) -> bool:
    """Whether a path is a link to another one, also where that is not there: bound in at other times, perhaps."""
    return os.path.islink(path) and os.readlink(path) == target


def is_extension(path: str | None) -> bool:
    """Whether a module's file is object code, which cannot be loaded a second time."""
    return bool(path) and str(path).endswith(tuple(EXTENSION_SUFFIXES))
