"""What is in a storage root: each thing that sif_writable or a package by its leave has made there, with size and use.

Only what bears a name of ours counts: the folders of the table of locations, ``image-`` and 16 hexadecimal digits, what
is left aside, lock files. Everything else that lies in the root is somebody's own and is not even looked into. Links
are never followed, and looking leaves no trace in access times, which show when something was last used.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

from sif_writable import lease
from sif_writable.aside import is_ours as is_aside
from sif_writable.cleanup import layers
from sif_writable.cleanup.measure import Bound, measure
from sif_writable.copies import changes
from sif_writable.overlay.obstacles import used_by
from sif_writable.redirects import own
from sif_writable.signals import let_pass, suppress
from sif_writable.storage import layout
from sif_writable.storage.layout import is_image
from sif_writable.storage.leases import NO_LOCKS, in_use
from sif_writable.system.listing import names
from sif_writable.system.mounts import mounts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DATA, COMPILED, CONFIG, RUNTIME = "data", "compiled", "config", "runtime"
"""The kinds of the table of locations."""
PACKAGES, WRITTEN, HOME, OVERLAY, LEFTOVER, LOCK = "packages", "written", "home", "overlay", "leftover", "lock"
"""Kinds beside those of the table: writable copies of packages, what programs wrote in copies that are gone, a private
home, what overlays hold, what a killed process left aside, a lock file."""

RECENT_DAYS = 14
"""Days within which what an image uses never goes by itself, even where nobody can tell whether it is in use."""

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
    changed: float = 0.0
    """When a program last wrote a file of it, in seconds since 1970."""
    written: int = 0
    """Files of it that programs wrote: work that nothing brings back."""
    written_size: int = 0
    """Bytes of those."""
    entries: int = 0
    """Files, links and folders, as quotas count them."""
    unlocked: bool = False
    """Whether the problem is only that nobody can tell whether a program uses it."""


class Image(NamedTuple):
    """What is known of an image that has a folder in a storage root."""

    identity: str
    name: str
    """Path or name of the image, where its engine gave one."""
    prefix: str
    """sys.prefix in it."""
    used: float
    """When it was last started, to a day, or something was written in its caches or copies."""


class Contents(NamedTuple):
    """Everything in one storage root."""

    root: str
    items: list[Item]
    images: dict[str, Image]
    reads_recorded: bool
    """Whether the filesystem records when a file is read."""
    complete: bool = True
    """Whether all was counted within the bound."""


def inspect_root(root: str, known: Mapping[str, frozenset[str]]) -> Contents:
    """Look at everything in a storage root that is ours.

    :param known: kind to the names of its folders.
    """
    found: list[tuple[str, str, str]] = []
    for name in names(root):
        if name in (layout.DATA, layout.RUN):
            kind = DATA if name == layout.DATA else RUNTIME
            found += [
                (name, leaf, kind if leaf in known[kind] else LEFTOVER)
                for leaf in names(os.path.join(root, name))
                if leaf in known[kind] or is_aside(leaf) or _names_nothing(os.path.join(root, name, leaf))
            ]
        elif name == layout.LOCKS:
            found += [(name, leaf, LOCK) for leaf in names(os.path.join(root, name)) if leaf.endswith(".lock")]
        elif is_aside(name):
            found.append(("", name, LEFTOVER))
    points = _mounted_below(root)
    items = [item for entry in found for item in _items(root, *entry, "", points, None)]
    of_images = inspect_images(root, images(root), known)
    return of_images._replace(items=items + of_images.items)


def _names_nothing(path: str) -> bool:
    """Whether this file names downloads of an image that are gone."""
    return layout.ALSO in os.path.basename(path) and not os.path.isdir(own.read(path)[0])


def inspect_images(
    root: str, listed: Iterable[str], known: Mapping[str, frozenset[str]], bound: Bound | None = None
) -> Contents:
    """Look at what some images have in a storage root.

    :param listed: names of their folders. Once the bound is reached, no more is looked at.
    """
    points = _mounted_below(root)
    items: list[Item] = []
    seen: dict[str, Image] = {}
    for name in listed:
        if bound is not None and bound.spent():
            return Contents(root, items, seen, _reads_recorded(root), complete=False)
        own = [
            item
            for entry in _of_image(root, name, known)
            for item in _items(root, *entry, layout.identity(name), points, bound)
        ]
        note = _note(os.path.join(root, name, layout.NOTE))
        identity = layout.identity(name)
        used = max([image_used(f"{root}/{name}"), *(item.changed for item in own if item.kind in (COMPILED, PACKAGES))])
        seen[identity] = Image(identity, note.get("image", ""), note.get("prefix", ""), min(used, time.time()))
        items += own
    return Contents(root, items, seen, _reads_recorded(root), complete=bound is None or not bound.exceeded)


def images(root: str) -> list[str]:
    """Return the names of the folders of images in a storage root, the most recently used first."""
    found = [name for name in names(root) if is_image(name) and not os.path.islink(f"{root}/{name}")]
    return sorted(found, key=lambda name: -image_used(f"{root}/{name}"))


def image_used(path: str) -> float:
    """Return when an image was last used: each start renews its kept plan or its mark once a day, and so do copies.

    Times of reading are not kept everywhere, and where they are, a backup reads everything.
    """
    inner = names(path)
    marks = [f"{path}/{name}" for name in inner if name.startswith(layout.PLAN) or name == layout.USED]
    marks += [f"{path}/{name}/{lease.NAME}" for name in inner if name.startswith(layout.PACKAGES)]
    times = []
    for file in marks:
        with suppress(OSError):
            times.append(os.lstat(file).st_mtime)
    for folder in (
        () if times else (path, *(f"{path}/{n}" for n in inner if n == layout.CONFIG or n.startswith(layout.COMPILED)))
    ):
        with suppress(OSError):
            times.append(os.lstat(folder).st_mtime)
    return max(times, default=0.0)


def _items(
    root: str, folder: str, name: str, kind: str, image: str, points: list[str], bound: Bound | None
) -> list[Item]:
    path = os.path.join(root, folder, name)
    if any(path.startswith(point + "/") for point in points):  # what somebody bound in is his, whatever its names
        return []
    try:
        record = changes.recorded(path) if kind == PACKAGES else None
        found = measure(path, points, record, bound, linked=kind != layers.REPLICA)
    except OSError as error:  # gone meanwhile
        let_pass(error)
        return []
    problem, unlocked = found.problem, False
    if kind == OVERLAY:  # mounted in namespaces of others, which this process's own mounts do not show
        problem = problem or used_by(layout.image(image))
    elif kind == PACKAGES:
        lease = None if problem else in_use(path)
        if lease:
            problem, unlocked = lease.text, lease.code == NO_LOCKS
    written = found.written
    if kind in layers.KINDS:
        problem, written = layers.weigh(path, kind, problem, (found.files, found.size))
    elif kind in (CONFIG, HOME, OVERLAY, WRITTEN, DATA):
        written = (found.files, found.size)
    return [
        Item(
            path,
            name,
            kind,
            folder,
            image,
            found.size,
            found.files,
            found.used,
            problem,
            changed=found.changed,
            written=written[0],
            written_size=written[1],
            entries=found.entries,
            unlocked=unlocked,
        )
    ]


def on_this_node() -> list[Contents]:
    """Look at what layers have left on this node beside storage."""
    from sif_writable.layer import survey

    found = []
    for root, listed in survey.on_this_node(os.geteuid()):
        points = _mounted_below(root)
        items: list[Item] = []
        seen: dict[str, Image] = {}
        for name in filter(is_image, listed):
            identity = layout.identity(name)
            used = 0.0
            for leaf in ("", *names(f"{root}/{name}")):
                with suppress(OSError):
                    used = max(used, os.lstat(f"{root}/{name}/{leaf}").st_mtime)
            seen[identity] = Image(identity, "", "", used)
            items += [
                item for entry in layers.listed(root, name) for item in _items(root, *entry, identity, points, None)
            ]
        found.append(Contents(root, items, seen, _reads_recorded(root)))
    return found


def _mounted_below(root: str) -> list[str]:
    return [mount.point for mount in mounts() if mount.point.startswith(root + "/")]


def is_mounted(path: str) -> bool:
    """Whether a folder in storage, or anything in it, is a mount point."""
    return any(f"{mount.point}/".startswith(f"{path}/") for mount in mounts())


def _reads_recorded(root: str) -> bool:
    return not os.statvfs(root).f_flag & _NOATIME


def _of_image(root: str, image: str, known: Mapping[str, frozenset[str]]) -> list[tuple[str, str, str]]:
    """List what is in the folder of an image, as (folder, name, kind)."""
    found = []
    for name in names(os.path.join(root, image)):
        inner = f"{image}/{name}"
        kind = CONFIG if name == layout.CONFIG else COMPILED if name.startswith(layout.COMPILED) else ""
        if kind:
            found += [(inner, leaf, LEFTOVER if is_aside(leaf) else kind) for leaf in names(os.path.join(root, inner))]
        elif name == layout.HOME:
            found.append((image, name, HOME))
        elif name.startswith(layout.OWN_DATA) and name[len(layout.OWN_DATA) :] in known[DATA]:
            found.append((image, name, DATA))
        elif name.startswith(layout.PACKAGES):
            held = names(os.path.join(root, inner))
            written = changes.WRITTEN in held
            if changes.TREE in held or changes.REMOVING in held or not written:
                found.append((image, name, PACKAGES))
            found += [(inner, changes.WRITTEN, WRITTEN)] if written else []
            found += [(inner, leaf, LEFTOVER) for leaf in held if is_aside(leaf)]
        elif name == layout.LAYERS:
            found += layers.listed(root, inner)
        elif name.startswith(layout.OVERLAY):
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


def _note(path: str) -> dict[str, str]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, encoding="utf-8", errors="replace") as file:
            lines = file.read(4096).splitlines()
    except OSError as error:
        let_pass(error)
        return {}
    return {key: value for key, _, value in (line.partition(": ") for line in lines)}
