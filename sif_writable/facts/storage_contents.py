"""What is in a storage root: each thing that sif_writable or a package by its leave has made there, with size and use.

Only what bears a name of ours counts: the folders of the table of locations, ``image-`` and 16 hexadecimal digits, what
is left aside, lock files. Everything else that lies in the root is somebody's own and is not even looked into. Links
are never followed, and looking leaves no trace in access times, which tell when something was last used.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from typing import TYPE_CHECKING, NamedTuple

from sif_writable.aside import is_ours as is_aside
from sif_writable.facts.mounts import mounts
from sif_writable.facts.namespaces import used_by

if TYPE_CHECKING:
    from collections.abc import Mapping

DATA, COMPILED, CONFIG, RUNTIME = "data", "compiled", "config", "runtime"
"""The kinds of the table of locations."""
PACKAGES, HOME, OVERLAY, LEFTOVER, LOCK = "packages", "home", "overlay", "leftover", "lock"
"""Kinds beside those of the table: writable copies of packages, a private home, what overlays hold, what a killed
process left aside, a lock file."""

NOTE = "image.txt"
"""In the folder of an image: which image it is, in ``key: value`` lines."""
LOCKS = "locks"
_NOATIME = 1024  # ST_NOATIME of statvfs(3)


class Item(NamedTuple):
    """One thing that can be removed."""

    path: str
    name: str
    """As in the table of locations, such as ``numba``; for others the name of the folder or file."""
    kind: str
    folder: str
    """The folder that holds it, below the root: ``data``, ``image-ID/config``; empty for the root itself."""
    image: str
    """Image identity, or empty for what images share."""
    size: int
    """Bytes on disk."""
    files: int
    """Files; links are none."""
    used: float
    """When something of it was last read or written, in seconds since 1970."""
    problem: str
    """Why it cannot be removed, as a sentence without subject; empty when it can."""


class Image(NamedTuple):
    """What is known of an image that has a folder in a storage root."""

    identity: str
    name: str
    """Path or name of the image, where its engine told."""
    prefix: str
    """sys.prefix in it."""
    used: float
    """When a process of it last looked for its folders, or used something in them."""


class Contents(NamedTuple):
    """Everything in one storage root."""

    root: str
    items: list[Item]
    images: dict[str, Image]
    reads_recorded: bool
    """Whether the filesystem records when a file is read."""


def look(root: str, known: Mapping[str, frozenset[str]]) -> Contents:
    """Look at everything in a storage root that is ours.

    :param known: kind to the names of its folders.
    """
    points = [mount.point for mount in mounts() if mount.point.startswith(root + "/")]
    items: list[Item] = []
    images: dict[str, Image] = {}

    def add(folder: str, name: str, kind: str, image: str = "") -> None:
        path = os.path.join(root, folder, name)
        with contextlib.suppress(OSError):  # gone meanwhile
            size, files, used, problem = _measure(path, points)
            if kind == OVERLAY:  # mounted in namespaces of others, which this process's own mounts do not show
                problem = problem or used_by(f"image-{image}")
            items.append(Item(path, name, kind, folder, image, size, files, used, problem))

    for name in names(root):
        if name in ("data", "run"):
            kind = DATA if name == "data" else RUNTIME
            for leaf in names(os.path.join(root, name)):
                if leaf in known[kind] or is_aside(leaf):
                    add(name, leaf, LEFTOVER if is_aside(leaf) else kind)
        elif name == LOCKS:
            for leaf in names(os.path.join(root, name)):
                if leaf.endswith(".lock"):
                    add(name, leaf, LOCK)
        elif is_aside(name):
            add("", name, LEFTOVER)
        elif is_image(name) and stat.S_ISDIR(os.lstat(os.path.join(root, name)).st_mode):
            identity = name[len("image-") :]
            seen = _image_used(os.path.join(root, name))
            for folder, leaf, kind in _of_image(root, name, known):
                add(folder, leaf, kind, identity)
            told = _note(os.path.join(root, name, NOTE))
            used = max([seen, *(item.used for item in items if item.image == identity)])
            images[identity] = Image(identity, told.get("image", ""), told.get("prefix", ""), used)
    return Contents(root, items, images, not os.statvfs(root).f_flag & _NOATIME)


def is_image(name: str) -> bool:
    """Whether a name is that of an image's folder."""
    return name.startswith("image-") and len(name) == 22 and not name[6:].strip("0123456789abcdef")


def _of_image(root: str, image: str, known: Mapping[str, frozenset[str]]) -> list[tuple[str, str, str]]:
    """List what is in the folder of an image, as (folder, name, kind)."""
    found = []
    for name in names(os.path.join(root, image)):
        inner = f"{image}/{name}"
        kind = CONFIG if name == "config" else COMPILED if name.startswith("compiled-") else ""
        if kind:
            found += [
                (inner, leaf, LEFTOVER if is_aside(leaf) else kind)
                for leaf in names(os.path.join(root, inner))
                if leaf in known[kind] or is_aside(leaf)
            ]
        elif name == HOME:
            found.append((image, name, HOME))
        elif name.startswith("data-") and name[5:] in known[DATA]:
            found.append((image, name, DATA))
        elif name.startswith("packages-"):
            found.append((image, name, PACKAGES))
            found += [(inner, leaf, LEFTOVER) for leaf in names(os.path.join(root, inner)) if is_aside(leaf)]
        elif name.startswith("overlay"):
            found.append((image, name, OVERLAY))
            found += [(folder, leaf, LEFTOVER) for folder, leaf in _left_within(root, inner)]
        elif is_aside(name):
            found.append((image, name, LEFTOVER))
    return found


def _left_within(root: str, inner: str) -> list[tuple[str, str]]:
    """List what killed processes left aside anywhere in the layers of overlays, as (folder, name).

    There it lies among files of programs.
    """
    found = []
    for here, folders, files in os.walk(os.path.join(root, inner)):
        left = [name for name in (*folders, *files) if is_aside(name)]
        found += [(os.path.relpath(here, root), name) for name in left]
        folders[:] = [name for name in folders if name not in left]
    return found


def _image_used(path: str) -> float:
    """Return when an interpreter last listed the folders of an image, which each start does."""
    times = [os.lstat(path).st_ctime]
    for name in names(path):
        if name == "config" or name.startswith("compiled-"):
            with contextlib.suppress(OSError):
                status = os.lstat(os.path.join(path, name))
                times += [status.st_atime, status.st_mtime]
    return max(times)


def names(path: str) -> list[str]:
    """List a directory that is not a link, and leave its access time as it is; an empty list where that fails."""
    try:
        descriptor = _open(path)
    except OSError:
        return []
    try:
        return sorted(os.listdir(descriptor))
    except OSError:
        return []
    finally:
        os.close(descriptor)


def _open(path: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_NOATIME)
    except PermissionError:  # not ours; then it is only listed
        return os.open(path, flags)


def _measure(path: str, points: list[str]) -> tuple[int, int, float, str]:
    """Return bytes, files, last use, and what stands in the way of removing it.

    A file that was copied into place keeps its old times, so the time of its last change of state counts too. A
    directory is read by whoever lists it, so of directories only changes count.
    """
    status = os.lstat(path)
    device = status.st_dev
    size = files = 0
    used = max(status.st_mtime, status.st_ctime)
    problem = ""
    if any(point == path or point.startswith(path + "/") for point in points):
        problem = "has something mounted in it"
    seen: set[int] = set()
    stack = [path] if stat.S_ISDIR(status.st_mode) else []
    if not stack:
        size, files = status.st_blocks * 512, int(not stat.S_ISLNK(status.st_mode))
    while stack:
        here = stack.pop()
        try:
            descriptor = _open(here)
        except OSError:
            continue
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):
                        status = entry.stat(follow_symlinks=False)
                        if status.st_dev != device:
                            problem = "has something mounted in it"
                            continue
                        used = max(used, status.st_mtime, status.st_ctime)
                        if stat.S_ISDIR(status.st_mode):
                            stack.append(f"{here}/{entry.name}")
                            continue
                        used = max(used, status.st_atime)
                        files += not stat.S_ISLNK(status.st_mode)
                        if status.st_nlink > 1 and status.st_ino in seen:
                            continue
                        seen.add(status.st_ino)
                        size += status.st_blocks * 512
        finally:
            os.close(descriptor)
    return size, files, min(used, time.time()), problem


def _note(path: str) -> dict[str, str]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, encoding="utf-8", errors="replace") as file:
            lines = file.read(4096).splitlines()
    except OSError:
        return {}
    return {key: value for key, _, value in (line.partition(": ") for line in lines)}
