"""Take things out of storage on request.

A folder that running processes expect to exist is put back at once, empty or with its seeds.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, NamedTuple

from sif_writable import session
from sif_writable.cleanup import layers
from sif_writable.cleanup.contents import LEFTOVER, LOCK, OVERLAY, PACKAGES, Item
from sif_writable.cleanup.policy import NEEDED
from sif_writable.cleanup.removal import delete, move_aside, remove_copies
from sif_writable.overlay.obstacles import used_by
from sif_writable.redirects import decision as decision_
from sif_writable.redirects import environment
from sif_writable.redirects import folders as folders_
from sif_writable.redirects.decision import Outcome
from sif_writable.storage.layout import NOTE, PLAN, USED, is_image
from sif_writable.storage.layout import image as image_name
from sif_writable.system.filesystem import explain
from sif_writable.system.listing import names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sif_writable.cleanup.policy import Removal


class Removed(NamedTuple):
    """What became of one removal."""

    item: Item
    problem: str
    """Why it is still there, or an empty string."""
    freed: int
    """Bytes that are free now."""


def remove(removals: Iterable[Removal], outcome: Outcome | None, *, unlocked: bool = False) -> list[Removed]:
    """Remove things; what cannot be removed is reported and does not stop the others.

    :param outcome: what this process was given, so that its own folders are made again as at a first start.
    :param unlocked: also copies of which nobody can tell whether they are in use.
    """
    listed = list(removals)
    again = _makers([removal.item for removal in listed], outcome) if outcome else {}
    done = []
    for removal in listed:
        problem = _try_to_remove(removal, again, unlocked=unlocked)
        item = removal.item
        kept = item.written_size if removal.keep_written and item.kind == PACKAGES else 0
        done.append(Removed(item, problem, 0 if problem else item.size - kept))
    for path in {os.path.dirname(removal.item.path) for removal in listed if removal.item.image}:
        _drop_empty_image(path, outcome)
    return done


def _try_to_remove(removal: Removal, again: dict[str, Callable[[], None]], *, unlocked: bool) -> str:
    try:
        return _remove(removal, again, unlocked=unlocked)
    except FileNotFoundError:  # another cleanup was first
        return ""
    except OSError as error:
        return explain(error, removal.item.path)


def _remove(removal: Removal, again: dict[str, Callable[[], None]], *, unlocked: bool) -> str:
    item = removal.item
    if item.kind == LOCK:
        return _remove_lock(item.path)
    if item.kind == OVERLAY and (problem := used_by(image_name(item.image))):  # since it was looked at
        return problem
    if item.kind in layers.KINDS:
        return _remove_of_layers(item)
    gone = item.path
    if item.kind == PACKAGES:
        # That nobody can tell was considered when it was chosen; only what was found free then may have a user now.
        free = unlocked or item.unlocked
        gone, problem = remove_copies(item.path, keep_written=removal.keep_written, unlocked=free)
        if not gone:
            return problem
    elif item.kind != LEFTOVER:
        gone = move_aside(item.path)
        if item.path in again:
            again[item.path]()
        elif not removal.dead and item.name in NEEDED:
            with contextlib.suppress(FileExistsError):
                os.mkdir(item.path, 0o700)
    # NFS keeps what is open under another name, and so the folder.
    return "" if delete(gone) else f"is taken away; what is in use of it remains in {gone} for now"


def _remove_of_layers(item: Item) -> str:
    """Remove something that layers have left; a newest generation is followed by one in which nothing is."""
    from sif_writable.layer import forget, survey
    from sif_writable.layer.make import newest_generation

    place, name = os.path.split(item.path)
    if item.kind == layers.GENERATION and newest_generation(place) == int(name[4:]):
        forget.forget(place, None, keep=False)
    return survey.remove(item.path)


def _remove_lock(path: str) -> str:
    """Remove a lock file that nobody holds. Who has opened it meanwhile makes what it guards once more, no worse."""
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return "is held by a process that runs"
        except OSError:  # a filesystem without locks: its age decides
            pass
        os.unlink(path)
    finally:
        os.close(descriptor)
    return ""


def _makers(items: list[Item], outcome: Outcome) -> dict[str, Callable[[], None]]:
    """Return how to make again what of these folders this process's own session needs, as its first start did.

    It is decided before anything is taken away, so that the gap is no longer than the making.
    """
    gone: dict[str, set[str]] = {}
    for item in items:
        gone.setdefault(os.path.dirname(item.path), set()).add(item.name)
    environ = dict(os.environ)
    session.forget(environ)
    storage = outcome.storage
    for slot in storage.all():
        slot.present -= gone.get(slot.folder, set())
    decision = environment.decide(outcome.facts, storage, environ)
    fresh = Outcome(outcome.facts, storage, decision)
    makers: dict[str, Callable[[], None]] = {}
    for redirect in decision.redirects:
        if redirect.make:

            def make(redirect: decision_.Redirect = redirect) -> None:
                folders_.make_redirect(redirect, fresh, environ)

            makers[redirect.folder] = make
    if decision.home:
        makers[decision.home] = lambda: folders_.make_home(fresh)
    return makers


def _drop_empty_image(folder: str, outcome: Outcome | None) -> None:
    """Remove the folder of another image when nothing is left in it."""
    image = folder if is_image(os.path.basename(folder)) else os.path.dirname(folder)
    if not is_image(os.path.basename(image)):
        return
    if outcome is not None and os.path.basename(image) == image_name(outcome.facts.identity):
        return
    with contextlib.suppress(OSError):
        notes = [name for name in names(image) if name in (NOTE, USED) or name.startswith(PLAN)]
        folders = [name for name in names(image) if name not in notes]
        if any(names(f"{image}/{name}") for name in folders):
            return
        for name in folders:
            os.rmdir(f"{image}/{name}")
        for name in sorted(notes, reverse=True):
            os.unlink(f"{image}/{name}")
    with contextlib.suppress(OSError):
        os.rmdir(image)
