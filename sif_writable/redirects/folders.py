"""Make what redirects lead to: folders with their seeds and links, and the private home. The cold path of the hook."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sif_writable.errors import Problem
from sif_writable.redirects import own, seeding, templates
from sif_writable.redirects.links import Links, watch_of
from sif_writable.signals import let_pass, suppress
from sif_writable.storage import layout
from sif_writable.storage.kinds import CONFIG, DATA
from sif_writable.storage.publish import publish
from sif_writable.storage.shortage import complaint
from sif_writable.system.filesystem import foreign_component
from sif_writable.system.timeouts import TIMED_OUT, has_timed_out

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sif_writable.redirects.decision import Outcome, Redirect

STAYS = "stays"
"""The code of a problem for which a variable, or HOME, keeps the value that it had."""


def make_redirect(redirect: Redirect, outcome: Outcome, environ: Mapping[str, str]) -> None:
    """Make the folder of a redirect and fill it; a redirect whose folder fails is dropped."""
    if redirect.shared:
        _make_shared(redirect, outcome)
        return
    links = Links(redirect, outcome, environ)
    for _, old in links.single:
        if has_timed_out(old):  # a folder without its link would stay until that has changed
            outcome.failed.append(Problem(STAYS, f"{redirect.variable} stays as it was: {old} {TIMED_OUT}"))
            outcome.decision.redirects.remove(redirect)
            return

    def fill(new: str) -> None:
        inner = os.path.join(new, redirect.subfolder) if redirect.subfolder else new
        for source in redirect.seeds:
            # A default below /tmp that cannot be written is not the image's: another user has made it.
            if not foreign_component(source, outcome.facts.uid, whole=True):
                seeding.copy(source, inner)
        if os.path.basename(redirect.folder).startswith(layout.OWN_DATA):
            downloads = outcome.storage.slots[DATA].folder
            os.makedirs(inner, 0o700, exist_ok=True)
            own.note(downloads, redirect.folder, outcome.facts.identity, inner, redirect.levels)
        links.make(new)

    try:
        if redirect.seeds or links.any():
            publish(redirect.folder, fill, lock_below=outcome.storage.slots[redirect.kind].root)
        else:
            with suppress(FileExistsError):
                os.mkdir(redirect.folder, 0o700)
    except OSError as error:
        let_pass(error)
        _drop(redirect, error, outcome)


def _make_shared(redirect: Redirect, outcome: Outcome) -> None:
    from sif_writable.storage.sharing import make_folder

    try:
        make_folder(redirect.folder)
    except OSError as error:
        let_pass(error)
        _drop(redirect, error, outcome)


def _drop(redirect: Redirect, error: OSError, outcome: Outcome) -> None:
    problem = complaint(error, redirect.folder, outcome.storage.slots[redirect.kind].root)
    text = f"{redirect.variable} stays as it was: {problem.text}"
    outcome.failed.append(Problem(STAYS, text, problem.remedy))
    outcome.decision.redirects.remove(redirect)


def make_home(outcome: Outcome) -> None:
    """Make the private home, which offers what was readable in the old one."""
    decision, old = outcome.decision, outcome.facts.home
    settings = outcome.storage.slots[CONFIG]

    def fill(new: str) -> None:
        if settings.place.given:
            from sif_writable.redirects.earlier import copy_home

            copy_home(settings.place.base, decision.home, new)
        seeding.link_home(old, new, watch_of(outcome))
        brought = templates.baked(outcome.facts).get("HOME")
        if brought:
            seeding.copy(brought, new)
        seeding.share_downloads(new, outcome.storage.folder(DATA))

    try:
        publish(decision.home, fill, lock_below=settings.root)
    except OSError as error:
        problem = complaint(error, decision.home, settings.root)
        outcome.failed.append(Problem(STAYS, f"HOME stays as it was: {problem.text}", problem.remedy))
        decision.home = ""
