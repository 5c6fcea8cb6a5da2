"""Keep storage in bounds without being asked: what belongs to an image goes by itself when the image is used no more.

Compiled caches, kept plans, empty folders and the unchanged files of copies go when their image was not started for 60
days, or, the least recently used first, when all images together keep more than ``SIF_WRITABLE_MAX``. What was used
within 14 days or is leased never goes, nor what programs wrote.

A cold start that keeps a new plan does it, at most once a day, one process at a time, for a second at most. What is
left over then is done ten minutes later. What can be made again is counted in one go, and that may take longer where
there is much or the filesystem is slow: so after a round that did not come to its end the next may take twice as long.
A round that is killed leaves what any killed removal leaves.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from sif_writable.signals import let_pass, suppress
from sif_writable.storage import layout
from sif_writable.storage.kinds import COMPILED, CONFIG
from sif_writable.storage.layout import LAYERS, LOCKS, NOTE, PLAN, USED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sif_writable.cleanup.contents import Item
    from sif_writable.cleanup.measure import Bound
    from sif_writable.cleanup.policy import Limit
    from sif_writable.storage.chosen import Storage

STAMP = f"{LOCKS}/housekeeping"
"""The file in a storage root whose time says when this was done, and whose lock keeps others from it."""
_WORDS = (
    b"its time says when storage was last kept in bounds, each dot after this that a round did not come to its end\n"
)
DAY = 86400.0
SECONDS, ENTRIES = 1.0, 50_000
"""How long a round may take, and how many files and folders it may look at or remove."""
DOUBLINGS = 4
"""Times that both are doubled: the default limit is 100,000 files, on NFS a second is enough for some thousands."""
AGAIN = 600.0
"""Seconds after which a round that did not come to its end is gone on with."""


def mark_used(storage: Storage, plan: str) -> None:
    """Let each folder of this image say that it was used today; where a plan is kept, that says so.

    :param plan: the path of the kept plan, or an empty string.
    """
    folders = {storage.image.folder if storage.image else "", os.path.dirname(storage.folder(COMPILED))}
    for folder in folders - {"", os.path.dirname(plan) if os.path.lexists(plan) else ""}:
        with suppress(OSError):
            flags = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(f"{folder}/{USED}", flags, 0o600)
            try:
                if abs(time.time() - os.fstat(descriptor).st_mtime) > DAY:
                    os.utime(descriptor)
            finally:
                os.close(descriptor)


def keep_in_bounds(storage: Storage, identity: str, environ: Mapping[str, str]) -> None:
    """Do a round where one is due; whatever fails is left to the next one.

    :param identity: the image of this process, whose things stay.
    """
    for root in dict.fromkeys(filter(None, (storage.root(COMPILED), storage.root(CONFIG)))):
        with suppress(OSError):
            _round(root, layout.image(identity), environ)
    for parent in ("/var/tmp", "/tmp"):  # noqa: S108 - private folders, which are checked before anything is removed
        stamp = f"{parent}/sif-writable-{os.geteuid()}/layers/.sif-writable"
        with suppress(OSError):
            if abs(time.time() - os.lstat(stamp).st_mtime) > DAY:
                os.utime(stamp)
                from sif_writable.cleanup.policy import limit

                if limit(environ)[0] is not None:
                    tidy_node(layout.image(identity), time.time())


def _round(root: str, this: str, environ: Mapping[str, str]) -> None:
    stamp = f"{root}/{STAMP}"
    now = time.time()
    with suppress(FileNotFoundError):
        if abs(now - os.lstat(stamp).st_mtime) < DAY:
            return
    with suppress(FileExistsError):
        os.mkdir(os.path.dirname(stamp), 0o700)
    descriptor = os.open(stamp, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        if not _lock(descriptor) or _was_done(descriptor, now):
            return
        if sum(name.startswith(layout.IMAGE) for name in os.listdir(root)) > 1:
            # The clock of this node may be wrong; that of the filesystem gave all the other times.
            os.utime(descriptor)
            now = os.fstat(descriptor).st_mtime
            os.utime(descriptor, (now, now - DAY + AGAIN))
            from sif_writable.cleanup.measure import Bound
            from sif_writable.cleanup.policy import limit

            allowed, _ = limit(environ)
            size = os.fstat(descriptor).st_size
            doublings = min(max(size - len(_WORDS), 0), DOUBLINGS)
            bound = Bound(SECONDS * (1 << doublings), ENTRIES << doublings)
            if allowed is not None and not tidy(root, this, allowed, bound, now):
                if doublings < DOUBLINGS:
                    os.pwrite(descriptor, b".", size)
                    os.utime(descriptor, (now, now - DAY + AGAIN))
                return
        os.utime(descriptor)
    finally:
        os.close(descriptor)


def _was_done(descriptor: int, now: float) -> bool:
    """Whether another process was first: the file is written to by the first who holds its lock."""
    status = os.fstat(descriptor)
    if not status.st_size:
        os.write(descriptor, _WORDS)
        return False
    return abs(now - status.st_mtime) < DAY


def _lock(descriptor: int) -> bool:
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        let_pass(error)
        # No locks here: each thing is renamed by one process only, so two rounds do no harm
    return True


def tidy(root: str, this: str, allowed: Limit, bound: Bound, now: float) -> bool:
    """Remove what goes by itself; return whether that came to its end.

    :param this: name of the folder of the image of this process, or empty.
    :param now: seconds since 1970.
    """
    from sif_writable.cleanup.contents import RECENT_DAYS, image_used, images, inspect_images
    from sif_writable.cleanup.policy import IDLE_DAYS, KNOWN

    listed = images(root)
    done = _finish(root, listed, bound)
    kept = []
    for name in listed:
        if name == this or now - image_used(f"{root}/{name}") <= IDLE_DAYS * DAY:
            kept.append(name)
        else:
            done = _tidy_image(root, name, bound, now) and done
    size = entries = 0
    for at, name in enumerate(kept):  # the most recently used first, so what is beyond the limit needs no counting
        found = inspect_images(root, [name], KNOWN, bound)
        if not found.complete:
            return False
        size += sum(item.size for item in found.items)
        entries += sum(item.entries for item in found.items)
        if size <= allowed.size and entries <= allowed.files:
            continue
        for old in reversed(kept[at:]):
            if old != this and now - image_used(f"{root}/{old}") > RECENT_DAYS * DAY:
                done = _tidy_image(root, old, bound, now) and done
        break
    return done


def tidy_node(this: str, now: float) -> None:
    """Remove what layers of images that are used no more have left on this node beside storage.

    The next start of the image would do it, and there may be none. What nothing brings back stays.

    :param this: name of the folder of the image of this process, or empty.
    :param now: seconds since 1970.
    """
    from sif_writable.cleanup.contents import on_this_node
    from sif_writable.cleanup.policy import IDLE_DAYS
    from sif_writable.layer import files, survey

    for contents in on_this_node():
        for identity, image in contents.images.items():
            place = f"{contents.root}/{layout.image(identity)}"
            if layout.image(identity) == this or now - image.used <= IDLE_DAYS * DAY:
                continue
            items = [item for item in contents.items if item.image == identity]
            stays = survey.in_memory(place)
            for item in items:
                with suppress(OSError):
                    stays = bool(item.problem or item.written or survey.remove(item.path)) or stays
            if not stays and not survey.uppers(place):
                files.remove(place)


def _finish(root: str, listed: list[str], bound: Bound) -> bool:
    """Delete what an earlier removal had moved aside and was not done with."""
    from sif_writable import aside
    from sif_writable.cleanup.removal import delete
    from sif_writable.system.listing import names

    done = True
    for image in listed:
        inner = names(f"{root}/{image}")
        for folder in (image, *(f"{image}/{name}" for name in inner if name.startswith(layout.PACKAGES))):
            path = f"{root}/{folder}"
            for name in names(path):
                if aside.is_ours(name) and "-gone-" in name:
                    before = os.stat(path)
                    done = delete(f"{path}/{name}", bound) and done
                    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # removing is no use
    return done


def _tidy_image(root: str, name: str, bound: Bound, now: float) -> bool:
    """Remove what can be made again of an image that is not used; return whether that came to its end."""
    from sif_writable.cleanup.contents import RECENT_DAYS, image_used, inspect_images, is_mounted
    from sif_writable.cleanup.policy import IDLE_DAYS, KNOWN
    from sif_writable.cleanup.removal import delete, move_aside, remove_copies
    from sif_writable.system.listing import names

    image = f"{root}/{name}"
    if is_mounted(image):
        return True
    found = inspect_images(root, [name], KNOWN, bound)
    if not found.complete:
        return False
    recent = RECENT_DAYS * DAY
    if any(now - seen.used <= recent for seen in found.images.values()):
        return True  # something was written in its caches, by a session that has run for so long
    if any(item.problem and not item.unlocked for item in found.items):
        return True
    # A session may run for weeks without a start; it expects its folders to be there, and HOME, maybe of links only.
    idle = now - image_used(image) > IDLE_DAYS * DAY
    inner = names(image)
    gone = []
    for plan in (entry for entry in inner if entry.startswith(PLAN) or entry == USED):
        moved = move_aside(f"{image}/{plan}")
        if now - os.lstat(moved).st_mtime <= recent:  # it has started just now
            os.rename(moved, f"{image}/{plan}")
            return True
        os.unlink(moved)
    for entry in (*(f"{layout.CONFIG}/{leaf}" for leaf in names(f"{image}/{layout.CONFIG}")), *inner):
        path = f"{image}/{entry}"
        if entry.startswith(layout.PACKAGES):
            gone.append(remove_copies(path, keep_written=True, unlocked=True)[0])
        elif entry == LAYERS:
            _tidy_layers(found.items)
            if idle and all(
                name in ("trial", "lock") or name.startswith(("container-", "id-")) for name in names(path)
            ):
                gone.append(move_aside(path))
        elif entry.startswith(layout.COMPILED) or (idle and os.path.isdir(path) and not _has_files(path, bound)):
            gone.append(move_aside(path))
    done = all([delete(path, bound) for path in gone if path])  # noqa: C419 - each of them
    if names(image) == [NOTE]:
        os.unlink(f"{image}/{NOTE}")
        os.rmdir(image)
        return done
    for used in (seen.used for seen in found.images.values()):
        for path in (f"{image}/{layout.CONFIG}", image):  # removing is no use
            with suppress(FileNotFoundError):
                os.utime(path, (used, used))
    return done


def _tidy_layers(items: list[Item]) -> None:
    """Remove what layers of an image have left and what is made again, or holds nothing."""
    from sif_writable.cleanup import layers
    from sif_writable.layer import survey

    for item in items:
        if item.kind in (layers.REPLICA, layers.UPPER) and not item.problem and not item.written:
            with suppress(OSError):
                survey.remove(item.path)


def _has_files(path: str, bound: Bound) -> bool:
    """Whether there is more than folders and links to the image in a folder; where that takes too long, there is."""
    return any(
        (files and any(not os.path.islink(f"{here}/{name}") for name in files)) or bound.spent()
        for here, _, files in os.walk(path)
    )
