"""Copy a package of the image: everything that may be rewritten as real files, the rest as links.

A copy lies in storage at the path that the package has in the image, below ``tree``; every directory on the way down to
it is real and holds links to what the image has beside it. So what a package reaches by ``..`` is found, and what it
makes there lands in storage.
"""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

from sif_writable import aside
from sif_writable.copies import policy, units
from sif_writable.layer import others
from sif_writable.signals import suppress
from sif_writable.storage import publish

if TYPE_CHECKING:
    from collections.abc import Callable

    from sif_writable.copies.units import Unit


def mirror(directory: str, tree: str) -> None:
    """Make the directory of the tree that stands for one of the image, with links to what the image has in it.

    So it is with those above it, all but the root: ``..`` finds there what it finds in the image.
    """
    levels = [directory]
    while os.path.dirname(levels[-1]) != "/":
        levels.append(os.path.dirname(levels[-1]))
    for level in reversed(levels):
        mirror = tree + level

        def link(into: str, level: str = level) -> None:
            present = set(os.listdir(into))
            try:
                names = os.listdir(level)
            except PermissionError:  # it can be searched, but not listed
                return
            for name in names:
                # Bytecode of modules beside the package is written there.
                if name not in present and name != "__pycache__" and f"{level}/{name}" not in levels:
                    with suppress(FileExistsError):
                        os.symlink(f"{level}/{name}", f"{into}/{name}")

        if os.path.islink(mirror) or not os.path.isdir(mirror):  # a link, made as a neighbour of an earlier copy
            os.makedirs(os.path.dirname(mirror), 0o700, exist_ok=True)
            publish.put(mirror, link, aside_in=os.path.dirname(tree), over_link=True)
        link(mirror)


def copy_tree(source: str, target: str) -> int:
    """Copy a directory's contents: everything that may be rewritten as real files that their owner may write.

    Times are kept, since bytecode is valid for the time of its source.

    :returns: how many files and links there are now.
    :raises OSError: the target cannot be written. What cannot be read becomes a link to the image.
    """
    made = 0
    in_layer = others.covers(source)  # where every file of this user can be written
    stack = [(source, target)]
    while stack:
        here, there = stack.pop()
        with os.scandir(here) as entries:
            for entry in entries:
                path, new = entry.path, f"{there}/{entry.name}"
                made += 1
                external_link_status = units.external_link_status(path, source) if entry.is_symlink() else None
                if entry.is_symlink() and external_link_status is None:
                    os.symlink(_link_target(path, source), new)
                    continue
                status = external_link_status or entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    if os.access(path, os.R_OK | os.X_OK) and (in_layer or not os.access(path, os.W_OK)):
                        os.mkdir(new, stat.S_IMODE(status.st_mode) & 0o777 | stat.S_IRWXU)
                        stack.append((path, new))
                        made -= 1
                    else:  # it is unreadable, or something writable is mounted there
                        os.symlink(path, new)
                elif stat.S_ISREG(status.st_mode):
                    if policy.is_linked(entry.name, status.st_size):
                        os.symlink(path, new)
                    else:
                        _copy_file(path, new, status)
                else:  # a socket or the like is left out
                    made -= 1
    # Whoever else may write a copy may run code as this user, so that it would not be imported from.
    os.chmod(target, stat.S_IMODE(os.stat(source).st_mode) & 0o755 | stat.S_IRWXU)
    return made


def _copy_file(path: str, new: str, status: os.stat_result) -> None:
    try:
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        os.symlink(path, new)
        return
    try:
        mode = stat.S_IMODE(status.st_mode) & 0o755 | stat.S_IWUSR
        target = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            while block := os.read(source, _BLOCK):
                while block:
                    block = block[os.write(target, block) :]
            os.fchmod(target, mode)  # whatever the umask is
            os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
        finally:
            os.close(target)
    finally:
        os.close(source)


_BLOCK = 1 << 20


def _link_target(path: str, package: str) -> str:
    """Return what the copy of a link points at: its copied neighbour within the package, else the image."""
    return os.readlink(path) if units.is_inner_link(path, package) else os.path.realpath(path)


def copy_module(unit: Unit, target: str, folder: str, settle: Callable[[str], None]) -> None:
    """Copy a module of one file, with its bytecode.

    :param settle: is given the path of the copy before that is in its place.
    """
    _copy_into_place(unit.path, target, folder, settle)
    with suppress(OSError):
        stem = unit.entry.rpartition(".")[0]
        caches = (f"{unit.directory}/__pycache__", f"{os.path.dirname(target)}/__pycache__")
        os.makedirs(caches[1], 0o700, exist_ok=True)
        for name in os.listdir(caches[0]):
            if name.startswith(f"{stem}.{sys.implementation.cache_tag}") and not os.path.lexists(f"{caches[1]}/{name}"):
                _copy_into_place(f"{caches[0]}/{name}", f"{caches[1]}/{name}", folder)


def _copy_into_place(path: str, target: str, folder: str, settle: Callable[[str], None] | None = None) -> None:
    """Copy a file such that it appears whole: half a bytecode file would stop its module from being imported."""
    new = aside.path(folder, os.path.basename(path))
    try:
        _copy_file(path, new, os.stat(path))
        if settle is not None:
            settle(new)
        os.rename(new, target)
    finally:
        with suppress(OSError):
            os.unlink(new)
