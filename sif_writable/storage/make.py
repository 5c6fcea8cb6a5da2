"""Make the folders of storage, and remove what killed processes left there."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING

from sif_writable import aside
from sif_writable.signals import suppress
from sif_writable.storage import layout
from sif_writable.storage.publish import write_aside
from sif_writable.system.filesystem import explain, foreign_component
from sif_writable.system.listing import names
from sif_writable.system.probe import given_away, opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


_O_PATH = 0o10000000  # os.O_PATH, which PyPy has not
_DIRECTORY = _O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
STALE_SECONDS = 86400.0
"""Seconds after which an unfinished folder or file must be that of a killed process."""
_collected: set[str] = set()
"""Storage roots that this process has searched: on a server, each folder that it lists is a request."""


def make_base(path: str) -> str:
    """Make a base directory, private to the user, with its parents; return an empty string or what is wrong."""
    missing = []
    while path and not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    problem = foreign_component(path, os.geteuid(), whole=True) if path else ""
    where, descriptors = missing[-1] if missing else path, []
    try:
        # os.makedirs makes parents as open as the umask lets them be, and somebody can put a link in the place of one.
        if missing and not problem:
            descriptors.append(os.open(path or ".", _DIRECTORY))
        for where in reversed(missing) if not problem else ():
            name, above = os.path.basename(where), descriptors[-1]
            with suppress(FileExistsError):  # made just now: by another process of ours, or by somebody else
                os.mkdir(name, 0o700, dir_fd=above)
            descriptors.append(os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=above))
            if os.fstat(above).st_mode & 0o002 and os.fstat(descriptors[-1]).st_uid not in (os.geteuid(), 0):
                return f"leads through {where}, which is somebody else's, in a directory where everybody may make one"
    except OSError as error:
        return f"does not exist and cannot be made: {where!r} {explain(error, path)}"
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    return problem


def make_tree(folder: str, root: str, take_over: Callable[[str, str], None] | None = None) -> str:
    """Make the folder of a kind below its root, each level private; return an empty string or what is wrong.

    :param take_over: makes the folder from what an earlier version kept, if anything; is called with root and folder.
    """
    path = root
    try:
        for part in os.path.relpath(folder, root).split("/"):
            path = os.path.join(path, part)
            with suppress(FileExistsError):
                if path == folder and take_over is not None and not os.path.lexists(path):
                    take_over(root, folder)
                os.mkdir(path, 0o700)
                status = os.lstat(path)
                if status.st_uid != os.geteuid() or status.st_mode & 0o077:
                    os.rmdir(path)
                    given = status.st_uid != os.geteuid()
                    return (given_away(status.st_uid) if given else opened(status.st_mode)).text
            # The process that made the folder may have been killed before it wrote the note.
            if part.startswith(layout.IMAGE) and not os.path.lexists(f"{path}/{layout.NOTE}"):
                _note_image(path)
        os.listdir(folder)
    except OSError as error:
        return explain(error, root)
    if root not in _collected:
        _collected.add(root)
        with suppress(OSError):
            collect_leftovers(root)
    return ""


def _note_image(folder: str) -> None:
    """Write down which image a folder belongs to, for ``sif-writable cache list``."""
    import sys

    from sif_writable.system.container import engine

    image = engine(os.environ).image.replace("\n", " ")
    with suppress(OSError):
        write_aside(f"{folder}/{layout.NOTE}", os.fsencode(f"image: {image}\nprefix: {sys.prefix}\n"))


def collect_leftovers(root: str) -> None:
    """Remove what killed processes of this user were building in a storage root of ours more than a day ago."""
    import stat

    now = time.time()
    for directory, listed in _listed(root):
        for name in listed:
            if not aside.is_ours(name):
                continue
            path = os.path.join(directory, name)
            with suppress(OSError):
                status = os.lstat(path)
                if now - status.st_mtime < STALE_SECONDS or status.st_uid != os.geteuid():
                    continue
                if stat.S_ISDIR(status.st_mode):
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    os.unlink(path)


def _listed(root: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the folders in which things are built aside, with what is in them: the kinds' folders of every image."""
    there = names(root)
    yield root, there
    for name in there:
        path = os.path.join(root, name)
        if name == layout.DATA:
            yield path, names(path)
        elif name.startswith(layout.IMAGE):
            within = names(path)
            yield path, within
            for inner in within:
                if inner == layout.CONFIG or inner.startswith((layout.COMPILED, layout.PACKAGES)):
                    folder = os.path.join(path, inner)
                    yield folder, names(folder)
