"""Learn from errors that nobody caught: what the next run does better, in one line on stderr.

Loaded when an error has ended a program, a thread, or a process of multiprocessing.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from sif_writable import importhook
from sif_writable.act import blame, copyup, overlay
from sif_writable.errors import SifWritableError
from sif_writable.facts import packages
from sif_writable.plan import packages as plan
from sif_writable.plan.packages import PACKAGE, PATH, REFUSED, Line

if TYPE_CHECKING:
    from collections.abc import Iterator


def learn(error: BaseException | None) -> None:
    """Learn from an error that ended a program or a thread, and say in one line what that means for the next run."""
    finder = importhook.finder()
    if finder is None or not isinstance(error, Exception) or isinstance(error, SifWritableError):
        return
    failed = plan.failures(error, blame.working_directory(), leave=blame.ANSWERED)
    units, detail = blame.owners(failed, finder)
    if not units:
        unit, detail = blame.writer(error, failed, finder)
        units = [] if unit is None else [unit]
    if units:
        known = finder.wanted()
        units = [mate for unit in units for mate in packages.mates(unit)]
        if all(unit.directory in known.get(unit.name, ()) and not finder.has(unit.path) for unit in units):
            refused = {line.name: line.why for line in copyup.listed(finder.folder)[0] if line.what == REFUSED}
            for sentence in {refused[unit.name] for unit in units if unit.name in refused}:
                _say(sentence)
            return
        copyup.learn(Line(PACKAGE, unit.name, unit.directory, "use", detail) for unit in units)
        names = plan.join(unit.name for unit in units)
        _say(
            f"{names} writes into its own directory, which cannot be written here; from the next run on it is "
            f"imported from a writable copy in {finder.folder}."
        )
        return
    for sentence in _outside(error, failed, finder):
        _say(sentence)


def _outside(error: Exception, failed: list[plan.Failure], finder: importhook.Finder) -> Iterator[str]:
    """Record the paths of the image that no copy can serve, and yield what to do about each."""
    home = os.environ.get("HOME", "")
    missing = plan.missing_home(error, home) if not os.path.isdir(home) else ""
    if missing:
        yield f"HOME={home} does not exist here. Remedy: unset SIF_WRITABLE_HOME, or bind a directory to {home}."
    image = {os.stat(place).st_dev for place in ("/", sys.prefix)}
    for path in dict.fromkeys(os.path.normpath(failure.path) for failure in failed if failure.path):
        parent = path
        while not os.path.exists(parent):
            parent = os.path.dirname(parent)
        if os.stat(parent).st_dev not in image or os.access(parent, os.W_OK) or path.startswith(finder.tree):
            continue
        if blame.is_unreadable(path):
            continue
        variable = _variable_for(path)
        copyup.learn([Line(PATH, "-", path, plan.outside_words(path, variable), "a program failed without it")])
        yield plan.outside_words(path, variable, hope=overlay.is_for_the_next_start(path, os.environ))


def _variable_for(path: str) -> str:
    """Return the variable that moves what is kept at a path, where one is known."""
    from sif_writable import facts
    from sif_writable.plan import catalog, templates

    bases = templates.default_bases(facts.see(os.environ), os.environ)
    for row in (*catalog.ROWS, *catalog.OPT_IN):
        for template in row[3]:
            default = templates.resolve(template, bases, os.environ)
            if "/" not in template or default in ("", "/tmp"):  # noqa: S108 - below /tmp lies what is anybody's
                continue
            if path == default or path.startswith(default + "/"):
                return row[0]
    return ""


def _say(sentence: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(f"sif_writable: {sentence}\n")
