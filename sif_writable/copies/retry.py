"""Try a failing import once more, from the writable copies that cure its error.

Loaded when an import from a read-only directory has failed with an error that shows a refused write.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

from sif_writable import evidence
from sif_writable.copies import (
    culprits,
    execution,
    ledger,
    messages,
    policy,
    provide,
    restart,
    side_effects,
    transient,
)
from sif_writable.copies.ledger import PACKAGE, Line
from sif_writable.copies.units import installed_with, is_extension
from sif_writable.errors import SifWritableError
from sif_writable.system import image_mounts

if TYPE_CHECKING:
    import _frozen_importlib_external as _external
    from importlib.machinery import ModuleSpec

    from sif_writable.copies.restart import Restart
    from sif_writable.copies.store import Copies
    from sif_writable.copies.units import Unit

_MOST_TRIES = 4
"""Of one module: a package that is cured may go on to write into another one's directory."""
_tried: set[str] = set()
"""Modules whose import was tried again: that is done once in a process."""
_JUDGED = "__sif_writable__"
"""The attribute of an error that was judged already: it passes through the import of each package on its way."""


class SecondTry:
    """The next try of an import, ready to go."""

    def __init__(
        self, module: ModuleType, spec: ModuleSpec, first: BaseException, before: execution.Before, copies: Copies
    ) -> None:
        """Take the module, half executed, and what its first execution raised."""
        self.module = module
        self.spec = spec
        self.first = first
        """What the user sees if no try succeeds."""
        self.before = before
        self.copies = copies
        self.units: list[Unit] = []
        """What was copied for it."""
        self.tries: list[Restart] = []
        self.loader: _external.SourceFileLoader

    def prepare(self, error: BaseException, verdict: culprits.Verdict) -> bool:
        """Make everything ready for another try, if that may be done and can help; say why not otherwise."""
        name, copies = self.spec.name, self.copies
        units = [mate for unit in verdict.units for mate in installed_with(unit)]
        restarted = next((unit for unit in units if name.startswith(unit.name + ".")), None)
        if restarted is not None and restart.is_beginning(name, restarted.name):
            return False  # its package's import fails with the same error, and is tried again as a whole
        setattr(error, _JUDGED, True)
        if provide.was_taken_back(units, copies):
            return False
        again = {name, *(unit.name for unit in units)}
        obstacle = side_effects.since(self.before, again)
        if restarted is not None and not obstacle:
            obstacle = restart.obstacle(restarted, name, copies)
        if not obstacle:
            obstacle = side_effects.handed_out(restart.made_anew(name, restarted, units))
        if obstacle:
            setattr(error, culprits.ANSWERED, True)
            ledger.learn((Line(PACKAGE, unit.name, unit.directory, "import", verdict.detail) for unit in units), copies)
            messages.from_the_next_run_on(units, copies, f"This import is not tried again: {obstacle}. ")
            return False
        copies.being_copied.add(name)
        try:
            problem = provide.make(verdict.units, "import", verdict.detail, copies)
        finally:
            copies.being_copied.discard(name)
        if problem:
            setattr(error, culprits.ANSWERED, True)
            messages.say(problem)
            return False
        self.units += units
        self._start(units, restarted)
        return True

    def _start(self, units: list[Unit], restarted: Unit | None) -> None:
        _tried.add(self.spec.name)
        new = restart.Restart(self.module, self.spec, units, self.copies)
        self.tries.append(new)
        if restarted is not None:
            new.restart(restarted)
        self.loader = new.spec.loader  # type: ignore[assignment]

    def goes_on(self, error: BaseException) -> bool:
        """Whether a further try follows one that has failed; if not, everything is restored to what the first one left.

        Copies that did not help are taken back, unless it was storage that failed.
        """
        copies, tried = self.copies, self._is_tried()
        if tried and len(self.tries) < _MOST_TRIES and evidence.may_be_a_refusal(error):
            verdict = culprits.judge(error, copies)
            if verdict.units and self.prepare(error, verdict):
                return True
        for each in reversed(self.tries):
            each.undo()
        if self.units:
            names = policy.join(unit.name for unit in self.units)
            why = f"the import of {self.spec.name} failed with it too ({messages.first_line(error)})"
            if not tried or transient.has_passed(error, self.units, copies):
                ledger.withdraw({unit.name for unit in self.units}, copies)
                setattr(self.first, culprits.ANSWERED, True)
                messages.say(
                    f"A writable copy of {names} could not be used this time: {why}. The next run tries it again."
                )
                return False
            provide.take_back(self.units, why, copies)
            if not any(
                culprits.is_in_no_package(failure.path, copies) for failure in culprits.judge(self.first, copies).failed
            ):
                setattr(self.first, culprits.ANSWERED, True)  # otherwise more is said about the path
            messages.say(f"A writable copy of {names} was tried and is not used any more: {why}.")
        return False

    def _is_tried(self) -> bool:
        """Whether the copies were used: for a moment, storage may have hidden them."""
        units = [unit for unit in self.units if image_mounts.environment_directory(unit.path)]
        if not all(self.copies.has(unit.path) for unit in units):
            return False
        name, origin = self.spec.name, self.tries[-1].spec.origin or ""
        own = any(f"{name}.".startswith(f"{unit.name}.") for unit in units)
        return not own or origin.startswith(self.copies.tree + "/")

    def end(self) -> None:
        """Release threads that wait for this module: importlib does that by the first spec, which was replaced."""
        for each in self.tries:
            each.end()


def prepare(module: ModuleType, error: BaseException, before: execution.Before, copies: Copies) -> SecondTry | None:
    """Decide whether the failed import of a module is tried again, and make everything ready for it.

    :param module: the package or module, half executed.
    :param before: the state before its execution.
    """
    spec = module.__spec__
    if spec is None or spec.name in _tried or type(module) is not ModuleType:
        return None
    chain = [*evidence.chain(error, before.handled)]
    if isinstance(error, SifWritableError) or any(hasattr(this, _JUDGED) for this in chain):
        return None
    if is_extension(spec.origin):
        return None
    verdict = culprits.judge(error, copies, before.handled)
    if not verdict.units:
        return None
    again = SecondTry(module, spec, error, before, copies)
    return again if again.prepare(error, verdict) else None
