"""Take copies away again, and keep what programs have written to them."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING, NamedTuple

from sif_writable.copies import changes, ledger, store, units, validity
from sif_writable.copies.ledger import PACKAGE
from sif_writable.layer.files import remove
from sif_writable.signals import let_pass, suppress
from sif_writable.stderr import say
from sif_writable.storage import layout, publish
from sif_writable.storage.leases import NO_LOCKS, alone

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sif_writable.copies.units import Unit


class Taken(NamedTuple):
    """A copy that was taken away."""

    path: str
    """Of the original."""
    kept: str
    """Where the files are that programs wrote; empty where they wrote none."""
    written: tuple[str, ...]
    """Those files, below the package."""


def replace(unit: Unit, folder: str) -> str:
    """Take the copy away that was made from something else than the image has now, unless another process just did.

    :param folder: the folder of copies.
    :returns: an empty string, or why there can be no new copy.
    """
    with publish.bounded_lock(f"{folder}/{layout.LOCKS}", f"{unit.entry}.changed"), alone(folder) as problem:
        if validity.state(folder, unit.path) != validity.CHANGED:
            return ""
        if problem and problem.code != NO_LOCKS:
            return (
                f"{unit.name} is imported from the image, where it cannot write: its copy was made from another "
                f"version of it, and {problem.text}."
            )
        taken = set_aside(unit.path, folder)
    if taken.written:
        changed = f"{unit.name} has changed in the image since its writable copy was made, so it gets a new one"
        say([f"{changed}; what programs wrote to the old one is kept in {taken.kept} ({shown(taken.written)})"])
    return ""


def shown(names: tuple[str, ...]) -> str:
    """Name a few files and count the others."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def set_aside(path: str, folder: str) -> Taken:
    """Take a copy away, whose place a link to the image takes; keep what programs wrote to it.

    That does not return to a later copy: it may have been made by other code, or be what the user wants to be rid of.

    :param path: of the original; :param folder: the folder of copies.
    :raises OSError: it cannot be moved; then it is still there.
    """
    copy, place = f"{folder}/{changes.TREE}{path}", f"{folder}/{changes.SET_ASIDE}"
    os.makedirs(place, 0o700, exist_ok=True)
    kept = f"{place}/{os.path.basename(path)}-{os.urandom(4).hex()}"
    with suppress(FileNotFoundError):
        os.unlink(validity.stamp_file(folder, path))
    os.rename(copy, kept)
    with suppress(OSError):
        os.symlink(path, copy)
    _drop_bytecode(copy)
    written = _written(path, kept, changes.recorded(folder))
    _keep_only(kept, {kept + name for name in written})
    for empty in (place, os.path.dirname(place)):
        with suppress(OSError):
            os.rmdir(empty)
    return Taken(path, kept if written else "", tuple(sorted(name.lstrip("/") or kept for name in written)))


def _written(path: str, top: str, record: Mapping[str, tuple[int, int]]) -> list[str]:
    """Return what programs wrote to a copy, as paths below it; without files that are equal in the image.

    :param top: where the copy is now.
    """
    below = [(file[len(top) :], status) for file, status in changes.files(top)]
    return [
        name
        for name, status in below
        if "/__pycache__/" not in name
        and changes.is_written(f"{path}{name}".lstrip("/"), status, top + name, record)
        and not _is_the_images(status, path + name)
    ]


def _is_the_images(status: os.stat_result, original: str) -> bool:
    try:
        own = os.lstat(original)
    except OSError as error:
        let_pass(error)
        return False
    return stat.S_ISLNK(status.st_mode) or (own.st_size, own.st_mtime_ns) == (status.st_size, status.st_mtime_ns)


def known(folder: str) -> dict[str, list[str]]:
    """Return what was learned of this image: name of a package, or path, to the originals of its copies.

    :param folder: the folder of copies.
    """
    found: dict[str, list[str]] = {}
    for line in ledger.listed(folder)[0]:
        if line.why not in ("catalogue", "manifest"):  # what is known beforehand was not learned
            found[line.place if line.name == "-" else line.name] = []
    for name, path in _copied(folder):
        if path not in found.setdefault(name, []):
            found[name].append(path)
    return dict(sorted(found.items()))


def _copied(folder: str) -> Iterator[tuple[str, str]]:
    """Yield package and original of each copy, by the learned list and by their stamps."""
    found = store.Copies(folder)
    for line in ledger.listed(folder)[0]:
        path = f"{line.place}/{line.name.rpartition('.')[2]}"
        for way in (path, f"{path}.py", f"{path}.pyc"):
            if line.what == PACKAGE and found.has(way):
                yield line.name, way
    with suppress(OSError):
        for name in sorted(os.listdir(folder + validity.STAMPS)):
            stamp = validity.read_stamp(f"{folder}{validity.STAMPS}/{name}")
            if stamp is not None and found.has(stamp.path):
                unit = units.unit_at(stamp.path, units.directories())
                yield unit.name if unit else stamp.path, stamp.path


def forget(names: Iterable[str], folder: str) -> None:
    """Let what was learned of some packages and paths count no more; their copies were taken away before.

    :param folder: the folder of copies.
    """
    ledger.withdraw(names, store.Copies(folder))


def _drop_bytecode(module: str) -> None:
    """Remove the bytecode of a module of one file: another source may have the same size and time."""
    stem, dot, _ = os.path.basename(module).partition(".")
    caches = f"{os.path.dirname(module)}/__pycache__"
    with suppress(OSError):
        for name in os.listdir(caches) if dot else ():
            if name.startswith(f"{stem}.{sys.implementation.cache_tag}"):
                os.unlink(f"{caches}/{name}")


def _keep_only(top: str, names: set[str]) -> None:
    """Remove everything below a path but these files and what holds them."""
    if top in names:
        return
    if not os.path.isdir(top) or not names:
        if os.path.isdir(top):
            remove(top)
        else:
            os.unlink(top)
        return
    for here, folders, files in os.walk(top, topdown=False):
        for name in [*files, *(folder for folder in folders if os.path.islink(f"{here}/{folder}"))]:
            if f"{here}/{name}" not in names:
                with suppress(OSError):
                    os.unlink(f"{here}/{name}")
        if here != top:
            with suppress(OSError):
                os.rmdir(here)
