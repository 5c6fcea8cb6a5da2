"""The status model: what this process saw, decided and did, as plain data ready for JSON (:mod:`.model`)."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import sif_writable
from sif_writable import DIR, importhook, mounted, session, settings
from sif_writable.cleanup import policy
from sif_writable.cleanup.measure import Bound, measure
from sif_writable.copies.policy import limit
from sif_writable.errors import Problem
from sif_writable.home import home_directory
from sif_writable.identity import identity_ingredients
from sif_writable.redirects import decision as decision_
from sif_writable.redirects import earlier, environment, given
from sif_writable.redirects.catalog import OPT_IN, ROWS
from sif_writable.redirects.decision import Outcome
from sif_writable.report import gpus, misspelt, overlay, packages, space, usage
from sif_writable.report.delivery import delivery
from sif_writable.storage import candidates, choose, marker, unserved
from sif_writable.storage.kinds import RUNTIME
from sif_writable.storage.space import OVERLAY, overlay_is_read_only, room_at
from sif_writable.system import container, manifest, mounts, surroundings

if TYPE_CHECKING:
    from sif_writable.report import model as of
    from sif_writable.storage.chosen import Storage as Chosen

SIZE_SECONDS = 2.0
"""Seconds that counting sizes may take in all, unless all are asked for."""


def current() -> Outcome | None:
    """Return what was decided in this session, or None where the hook had nothing to do.

    A child of an activated process did not decide for itself, nor did a process that went by what an earlier start has
    kept. What its session has set is known; the reasons are worked out again, from the environment as it was before.
    """
    if sif_writable.outcome is not None or sif_writable.state not in ("inherited", "active"):
        return sif_writable.outcome
    environ = dict(os.environ)
    in_force, roots = session.in_force(environ), session.roots(environ)
    session.forget(environ)
    seen = surroundings.see(environ)
    storage = choose.choose_storage(candidates.places(seen, environ), seen, environ, earlier.take_over)
    decision = environment.decide(seen, storage, environ)
    decision.redirects = [redirect for redirect in decision.redirects if redirect.variable in in_force]
    known = {redirect.variable for redirect in decision.redirects}
    for row in (*ROWS, *OPT_IN):
        if row.variable in in_force and row.variable not in known:
            decision.redirects.append(decision_.Redirect(row.variable, os.environ[row.variable], row.kind, "", _THEN))
    decision.home = os.environ["HOME"] if "HOME" in in_force else ""
    outcome = Outcome(seen, storage, decision)
    outcome.replaced = in_force
    decision.user = os.environ["USER"] if "USER" in in_force else ""
    if storage.roots() != roots:
        now = ", ".join(storage.roots()) or "no place"
        text = (
            f"an ancestor of this process chose {', '.join(roots) or 'no place'} for storage, which holds here, too; "
        )
        outcome.failed.append(Problem("chosen-before", f"{text}a program that starts without it now would get {now}"))
    return outcome


_THEN = "it was right when an ancestor of this process decided"


def status(*, ran: bool = True, full: bool = False, gpu: bool = True, gpu_required: bool = False) -> of.Status:
    """Gather the status model.

    :param ran: whether the hook had run by itself when this process began; where it has not, programs have nothing of
        what this process has set for itself, and nothing of it is listed.
    :param full: count all sizes, however long it takes.
    :param gpu: ask for the GPUs as well.
    :param gpu_required: as if SIF_WRITABLE_GPU said ``require``.
    """
    outcome = current()
    seen = outcome.facts if outcome else surroundings.see(os.environ)
    table = mounts.mounts()
    engine = container.engine(os.environ)
    how = delivery(ran)
    active = sif_writable.state in ("active", "inherited") and bool(outcome and outcome.storage.slots)
    # Of a virtual environment in a place of the user's own it is what it has from the image that cannot be written.
    prefix = seen.prefix
    if not seen.prefix_writable and os.access(prefix, os.W_OK):
        of_base = sif_writable.has_packages_of_base() and not os.access(sys.base_prefix, os.W_OK)
        prefix = sys.base_prefix if of_base else mounted.packages_of_image(os.access) or prefix
    prefix_mount = mounts.mount_of(prefix, table)
    found = gpus.gpus(required=gpu_required) if gpu else None
    wrong = [
        *misspelt.misspelt(os.environ),
        *settings.misunderstood(os.environ, [row.variable for row in OPT_IN]),
        *(packages.misnamed() if active else ()),
        *_unshared(outcome),
        *filter(None, [policy.limit(os.environ)[1], limit(os.environ)[1]]),
        *(found["settings"] if found else []),
    ]
    problems = [*manifest.misunderstood(seen.purelib), *(outcome.failed if outcome else [])]
    if outcome and outcome.storage.unshared:
        problems.append(outcome.storage.unshared)
    notes = [*wrong, *map(str, problems)]
    if active:
        notes += packages.notes(importhook.folder())
    if sif_writable.failure is not None:
        notes.append(f"the hook failed: {type(sif_writable.failure).__name__}: {sif_writable.failure}")
    return {
        "schema": 1,
        "version": sif_writable.__version__,
        "hook": {
            "state": sif_writable.state if ran else "not delivered",
            "active": active and ran,
            "by": {"active": "this process", "inherited": "an ancestor"}.get(sif_writable.state, "") if ran else "",
            "how": how.how,
            "problem": how.problem,
            "remedy": how.remedy,
        },
        "container": {
            "engine": engine.name,
            "signs": list(engine.signs),
            "image": engine.image,
            "identity": seen.identity,
            "ingredients": [name for name, _ in identity_ingredients(seen.purelib)],
        },
        "root": {
            "prefix": prefix,
            "writable": seen.prefix_writable,
            "filesystem": prefix_mount.type if prefix_mount else "unknown",
            "note": _root_note(seen, table),
        },
        "storage": _storage(outcome, table) if outcome else [],
        "space": space.watched(outcome, seen, table),
        "usage": usage.usage(outcome, os.environ),
        "refused": _refused(outcome.storage) if outcome else [],
        "home": _home(outcome if ran else None, seen),
        "redirects": _redirects(outcome, full=full) if outcome and ran else [],
        "user_set": [_given(each) for each in given.listed(os.environ, outcome.replaced if outcome else ())],
        "left_alone": [{"variable": name, "why": why} for name, why in outcome.decision.skipped] if outcome else [],
        "packages": packages.listed(importhook.folder()) if active else [],
        "layer": _layer() if active else None,
        "overlay": overlay.model() if active else None,
        "gpu": found,
        "settings": wrong,
        "problems": [{"code": each.code, "text": each.text, "remedy": each.remedy} for each in problems],
        "notes": notes,
    }


def _root_note(seen: surroundings.Facts, table: list[mounts.Mount]) -> str:
    """Say what is to know of an overlay that the user gave."""
    if overlay_is_read_only(table):
        return (
            "an overlay is there, read-only (:ro, or a file that this user may not write): what it holds is seen, and "
            "nothing new goes into it"
        )
    room = room_at(seen.prefix, os.environ, table) if seen.prefix_writable else None
    if room is None or room.kind != OVERLAY:
        return ""
    return (
        "an overlay makes it writable; one container at a time can write an overlay image, many can read it "
        "(--overlay o.img:ro)"
    )


def _unshared(outcome: Outcome | None) -> list[str]:
    """Say where a wish to share has no place."""
    chosen = outcome.storage if outcome else None
    if not settings.shares_data(os.environ) or not chosen or chosen.shared or chosen.unshared:
        return []
    return [f"{settings.SHARE}=data has no effect: no {DIR} that can be used names what a group may write"]


def _refused(storage: Chosen) -> list[of.Refused]:
    return [
        {"place": place.label, "path": place.base, "why": why, "remedy": unserved.remedy(storage, place)}
        for place, why in storage.refused
    ]


def _storage(outcome: Outcome, table: list[mounts.Mount]) -> list[of.Storage]:
    found: list[of.Storage] = []
    slots = sorted(outcome.storage.slots.items())
    if outcome.storage.shared:
        slots.append((_SHARED, outcome.storage.shared))
    for kind, slot in slots:
        folder = slot.folder
        mount = mounts.mount_of(folder, table)
        room = room_at(folder, os.environ, table)
        note = ""
        if outcome.storage.small and kind != RUNTIME:
            what = "a small overlay" if room and room.kind == OVERLAY else "the container session's small tmpfs"
            note = f"{what}: nothing better was found"
        if kind == _SHARED:
            note = _shared_words(folder)
        elif not marker.read_marker(slot.root).locks:
            note = (note + "; " if note else "") + "no file locks there: processes that start at once may do work twice"
        lasting = slot.place.lasting
        if mount and mount.type == "tmpfs" and lasting != "job":
            lasting = "memory"
        found.append(
            {
                "kind": kind,
                "folder": folder,
                "place": slot.place.label,
                "filesystem": mount.type if mount else "unknown",
                "free_bytes": room.free if room else 0,
                "total_bytes": room.total if room else 0,
                "free_inodes": room.free_inodes if room else 0,
                "total_inodes": room.inodes if room else 0,
                "lasting": lasting,
                "note": note,
            }
        )
    return found


_SHARED = "shared"
_NO_NUMBER = 65534
"""The number of any group that has none in this user namespace."""


def _shared_words(folder: str) -> str:
    """Say with whom a folder is shared, and what that means."""
    import grp

    from sif_writable.storage.sharing import inherits

    number = os.stat(folder).st_gid
    try:
        name = f"group {grp.getgrgid(number).gr_name}"
    except KeyError:
        name = f"group {number}"
    if number == _NO_NUMBER:
        name = "the group of its directory"
    words = f"{name} shares it: each of them can replace what programs read there; no code goes there"
    if inherits(folder):
        return words
    return f"{words}. Here umask counts: what a program makes is open to the group when it ends"


def _home(outcome: Outcome | None, seen: surroundings.Facts) -> of.Home:
    value = home_directory(os.environ.get("HOME"))
    if outcome is None:  # by a command, which found no hook at work, HOME may have been moved for itself
        return {"value": seen.home, "old": None, "private": False, "why": seen.home_problem or "works"}
    return {
        "value": value,
        "old": outcome.replaced.get("HOME"),
        "private": bool(outcome.decision.home),
        "why": outcome.decision.home_why,
    }


def _redirects(outcome: Outcome, *, full: bool) -> list[of.Redirect]:
    bound = None if full else Bound(SIZE_SECONDS, sys.maxsize)
    found: list[of.Redirect] = []
    for redirect in outcome.decision.redirects:
        size, complete = _size(redirect.folder, bound) if redirect.folder else (0, True)
        found.append(
            {
                "variable": redirect.variable,
                "value": os.environ.get(redirect.variable, ""),
                "kind": redirect.kind,
                "folder": redirect.folder,
                "why": redirect.why,
                "offers": redirect.offers,
                "size_bytes": size,
                "size_complete": complete,
                "exists": bool(redirect.folder) and os.path.isdir(redirect.folder),
            }
        )
    return found


def _layer() -> of.Layer | None:
    if not importhook.folder():
        return None
    from sif_writable.report import layer

    return layer.model(os.path.dirname(importhook.folder()))


def _given(found: given.Given) -> of.UserSet:
    return {
        "variable": found.variable,
        "value": found.value,
        "problem": found.problem,
        "remedy": found.remedy,
        "level": found.level,
    }


def _size(folder: str, bound: Bound | None) -> tuple[int, bool]:
    """Return the bytes that the files below a folder take, and whether all were counted within the bound."""
    try:
        size = measure(os.path.realpath(folder), [], None, bound).size
    except OSError:
        return 0, True
    return size, bound is None or not bound.exceeded
