"""The storage roots of a user: where they are, which of them may be touched, and what they hold."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sif_writable import session
from sif_writable.cleanup.contents import Contents, inspect_root
from sif_writable.cleanup.policy import KNOWN
from sif_writable.seldom import uid_outside
from sif_writable.storage import candidates, marker
from sif_writable.system import surroundings
from sif_writable.system.filesystem import unfit
from sif_writable.system.timeouts import responds

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sif_writable.redirects.decision import Outcome


def known(environ: Mapping[str, str]) -> list[str]:
    """Return the storage roots that this user has in the places where the hook looks for one, its own first."""
    found = dict.fromkeys(session.roots(environ))
    before = dict(environ)
    session.forget(before)
    seen = surroundings.see(before)
    for place in (*candidates.places(seen, before), *candidates.local_places()):
        for root in _in_place(place, seen.user):
            found[root] = None
    return [root for root in found if responds(root) and marker.read_marker(root)]


def _in_place(place: candidates.Candidate, user: int) -> list[str]:
    """Return the folders that may be ours in a place: the place itself only if its mark says that all in it is ours."""
    itself = [place.base] if responds(place.base) and marker.read_marker(place.base, ours=True) else []
    return itself + [candidates.storage_root(place, shared=shared, user=user) for shared in (False, True)]


def chosen(outcome: Outcome | None) -> list[str]:
    """Return the storage roots that were chosen for this process, the main one first."""
    return outcome.storage.roots() if outcome else []


def below(directory: str) -> list[str]:
    """Return the storage roots in a directory that a user names: itself, or what is made in a place for all users."""
    place = candidates.Candidate("", os.path.abspath(directory), "")
    user = os.geteuid() or uid_outside()
    # What an earlier version made in a place is known by its name, too; there it is all ours as well.
    above = candidates.Candidate("", os.path.dirname(place.base), "")
    itself = [place.base] if place.base in _in_place(above, user) else []
    return [root for root in dict.fromkeys(itself + _in_place(place, user)) if marker.read_marker(root)]


def refusal(root: str) -> str:
    """Say why a root may not be touched, or return an empty string: it must be this user's alone."""
    per_user = os.path.basename(root).startswith(f"{candidates.FOLDER}-")
    return unfit(root, uid=os.geteuid(), room=0, inodes=0, foreign_mode=0o077 if per_user else 0o022) or ""


def contents(found: Iterable[str]) -> tuple[list[Contents], list[tuple[str, str]]]:
    """Look into storage roots; return what they hold, and those that are refused with the reason."""
    seen: list[Contents] = []
    refused: list[tuple[str, str]] = []
    looked_at: set[tuple[int, int]] = set()
    for root in found:
        problem = refusal(root)
        status = os.lstat(root)
        if problem:
            refused.append((root, problem))
        elif (status.st_dev, status.st_ino) not in looked_at:  # the same one by two ways
            looked_at.add((status.st_dev, status.st_ino))
            seen.append(inspect_root(root, KNOWN))
    return seen, refused
