"""The recipe of a cold start: what is there, where may we write, which variable leads where; then it is done."""

import os

import sif_writable
from sif_writable import aside, child
from sif_writable.redirects import environment, remember
from sif_writable.redirects.locations import Locations
from sif_writable.storage import candidates, choose
from sif_writable.system import image, surroundings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Optional

    from sif_writable.errors import Problem


def run(damaged: "Optional[Problem]") -> str:
    """See, decide, do, report; return the state.

    :param damaged: what is wrong with the session that an ancestor has handed down, if anything.
    """
    with aside.Usable():
        return _run(damaged)


def _run(damaged: "Optional[Problem]") -> str:
    image.find_layer()
    environ = dict(os.environ)  # os.environ encodes and decodes at each look-up
    debug: Optional[ModuleType] = None
    if environ.get(sif_writable.DEBUG) == "1":
        from sif_writable.report import debug
        from sif_writable.stderr import say
    asked = remember.begin(environ)
    seen = surroundings.see(asked)
    if debug:
        say(debug.facts_lines(seen))
    storage = choose.choose_storage(candidates.places(seen, asked), seen, asked, _take_over)
    if debug:
        say(debug.storage_lines(storage))
    queries = Locations(seen.home)
    decision = environment.decide(seen, storage, asked, queries)
    decided = remember.Decided(seen, storage, queries, decision, asked)
    if debug:
        say(debug.decision_lines(decision))
    outcome = sif_writable.outcome = environment.apply(decision, seen, storage, environ, child.token())
    kept = remember.path(seen, storage)
    # Between two plans, a start that decided anew because something has come is as cheap as it can be.
    if not kept or remember.is_due(kept):
        from sif_writable.cleanup import housekeeping

        if kept:
            remember.keep(kept, outcome, environ, decided)
        housekeeping.mark_used(storage, kept)
        housekeeping.keep_in_bounds(storage, seen.identity, environ)
    if damaged:
        outcome.failed.append(damaged)
    if debug:
        say(debug.outcome_lines(outcome))
    child.install(sif_writable.environment())
    return "active" if storage.slots else "no storage"


def _take_over(place: str, root: str, folder: str) -> None:
    from sif_writable.redirects import earlier

    earlier.take_over(place, root, folder)
