"""Learn from errors that nobody caught: what the next run does better, in one line on stderr.

Loaded when an error that shows a refused write has ended a program, a thread, a process of multiprocessing, or the
cell of a notebook.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from sif_writable import evidence
from sif_writable.copies import culprits, failures, ledger, messages, policy, provide, sent, store
from sif_writable.copies.ledger import PACKAGE, REFUSED, Line
from sif_writable.copies.units import Unit, directories, installed_with, unit_at
from sif_writable.errors import SifWritableError
from sif_writable.layer import others
from sif_writable.signals import let_pass
from sif_writable.system import image_mounts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sif_writable.copies.store import Copies


def learn(error: BaseException, copies: Copies) -> None:
    """Learn from an error that ended a program or a thread, and say in one line what that means for the next run."""
    if isinstance(error, SifWritableError):
        return
    if any(hasattr(this, culprits.ANSWERED) for this in evidence.chain(error)):
        return
    setattr(error, culprits.ANSWERED, True)
    verdict = culprits.judge(error, copies)
    units = [mate for unit in verdict.units for mate in installed_with(unit)]
    if units and not provide.was_taken_back(units, copies):
        _learn(units, verdict, copies)
        return
    for unit in () if culprits.is_in_no_package(verdict.detail, copies) else units:
        for line in ledger.listed(copies.folder)[0]:
            if line.what == REFUSED and (line.name, line.place) == (unit.name, unit.directory):
                messages.say(f"{unit.name} cannot write {verdict.detail}; {line.why}.")
    _take_back(verdict, copies)
    for sentence in _sentences(error, verdict, copies):
        messages.say(sentence)


def _take_back(verdict: culprits.Verdict, copies: Copies) -> None:
    """Take back the copy of a package that has one for a path which is refused as before."""
    refused = {failure.path for failure in verdict.failed}
    for line in ledger.listed(copies.folder)[0]:
        file = str(getattr(sys.modules.get(line.name), "__file__", None))
        if line.what == PACKAGE and line.detail in refused and file.startswith(copies.tree + "/"):
            provide.take_back(
                [Unit(line.name, line.place, "")], f"{line.detail} cannot be written with it either", copies
            )
            messages.say(
                f"The writable copy of {line.name} did not help, since {line.detail} cannot be written with it either; "
                "it is not used any more."
            )


def _learn(units: list[Unit], verdict: culprits.Verdict, copies: Copies) -> None:
    known = copies.wanted()
    served = all({unit.directory, store.ANYWHERE} & {*known.get(unit.name, ())} for unit in units)
    if served and not others.is_others(verdict.detail):  # in a layer, the refused path decides
        refused = {line.name: line.why for line in ledger.listed(copies.folder)[0] if line.what == REFUSED}
        for unit in units:
            if unit.name in refused:
                messages.say(refused[unit.name])
            elif copies.has(unit.path):
                messages.say(
                    f"{unit.name} has a writable copy, but something else imports it from {unit.directory}, where it "
                    f"cannot write {verdict.detail}."
                )
        return
    ledger.learn((Line(PACKAGE, unit.name, unit.directory, "use", verdict.detail) for unit in units), copies)
    messages.from_the_next_run_on(units, copies)


def _sentences(error: BaseException, verdict: culprits.Verdict, copies: Copies) -> Iterator[str]:
    """Yield what to do about the paths of the image that no copy makes writable."""
    home = os.environ.get("HOME", "")
    missing = failures.missing_home(error, home) if not os.path.isdir(home) else ""
    if missing:
        yield f"HOME={home} does not exist here. Remedy: unset SIF_WRITABLE_HOME, or bind a directory to {home}."
    table = image_mounts.mounts()
    for path in dict.fromkeys(os.path.normpath(failure.path) for failure in verdict.failed):
        real = os.path.realpath(path)
        in_image = table.is_image(real)
        if path.startswith(copies.tree + "/"):
            continue
        if words := sent.words(path, in_image=in_image):
            yield words
            continue
        if not in_image:
            continue
        if not table.is_image(os.path.realpath(os.path.dirname(path))):
            yield policy.link_words(path, real)
            continue
        unit = unit_at(path, directories(copies.seen()))
        if unit is not None:
            if words := provide.words_of_a_bind_within(unit):
                yield words
            continue
        hides = _holds_something(os.path.dirname(path))
        yield policy.outside_words(path, _variable_for(path), is_file=os.path.isfile(path), hides=hides)
    if not verdict.failed and failures.is_of_a_database(error):
        names = list(dict.fromkeys(culprits.packages_of(error, copies)))
        if names:
            yield (
                f"sqlite could not write a database, and does not say which. If one of {policy.join(names)} keeps it "
                "in its own directory, name that package in SIF_WRITABLE_PACKAGES."
            )


def _holds_something(directory: str) -> bool:
    try:
        return bool(os.listdir(directory))
    except OSError as error:
        let_pass(error)
        return os.path.isdir(directory)


def _variable_for(path: str) -> str:
    """Return the variable that moves what is kept at a path, where one is known."""
    from sif_writable.redirects import variable
    from sif_writable.system import surroundings

    return variable.moves(path, variable.locations(surroundings.see(os.environ)))
