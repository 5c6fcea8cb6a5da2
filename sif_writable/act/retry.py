"""Try a failing import once more, from the writable copies that cure its error.

Loaded when an import from a read-only directory fails.
"""

from __future__ import annotations

import _frozen_importlib as _bootstrap
import importlib
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple, cast

from sif_writable import importhook
from sif_writable.act import blame, copyup
from sif_writable.errors import SifWritableError
from sif_writable.facts import packages
from sif_writable.plan import packages as plan
from sif_writable.plan.packages import PACKAGE, PATH, Line

if TYPE_CHECKING:
    import _frozen_importlib_external as _external
    from importlib.machinery import ModuleSpec

    from sif_writable.facts.packages import Unit

_tried: set[str] = set()
"""Packages whose import was tried a second time: there is no third."""
_JUDGED = "__sif_writable__"
"""The attribute of an error that was judged already: it passes through the import of each package on its way."""


class Again(NamedTuple):
    """The second try of an import, ready to go."""

    loader: _external.SourceFileLoader
    first: Exception
    words: str
    spec: ModuleSpec
    """Of the module in its second try."""

    def end(self) -> None:
        """Let other threads have the module: the import system knows of the first spec only."""
        self.spec._initializing = False  # type: ignore[attr-defined] # noqa: SLF001

    def failed(self, second: BaseException) -> None:
        """Let the second failure say that it is one, with the first as what it came from."""
        setattr(second, _JUDGED, True)
        setattr(self.first, blame.ANSWERED, True)
        last = second
        seen = {id(second)}
        while (before := last.__cause__ or last.__context__) is not None and id(before) not in seen:
            seen.add(id(before))
            last = before
        if last is not self.first and id(self.first) not in seen:
            last.__context__ = self.first
        _add_note(second, f"sif_writable: {self.words}; what happened the first time is shown above")


def prepare(module: ModuleType, error: Exception) -> Again | None:
    """Decide whether the failed import of a package is tried again, and make everything ready for it.

    :param module: the package or module, half executed.
    """
    finder, spec = importhook.finder(), module.__spec__
    if finder is None or spec is None or spec.name in _tried or type(module) is not ModuleType:
        return None
    if isinstance(error, SifWritableError) or any(hasattr(this, _JUDGED) for this in plan.chain(error)):
        return None
    setattr(error, _JUDGED, True)
    unit = blame.in_image(packages.unit_of_spec(spec), finder)
    verdict = blame.judge_import(unit, error, finder)
    cured = _outside_cured(verdict, error, finder)
    if cured:
        _tried.add(spec.name)
        new = _start_over(module, spec, [], finder)
        words = f"{spec.name} was imported a second time, with {cured} made writable"
        return Again(cast("_external.SourceFileLoader", new.loader), error, words, new)
    if not verdict.units:
        return None
    finder.busy.add(spec.name)
    try:
        problem = copyup.make(verdict.units, "import", verdict.detail)
    finally:
        finder.busy.discard(spec.name)
    if problem:
        _add_note(error, f"sif_writable: {problem}")
        return None
    _tried.add(spec.name)
    new = _start_over(module, spec, verdict.units, finder)
    names = plan.join(copied.name for copied in verdict.units)
    words = f"{spec.name} was imported a second time, with writable copies of {names}"
    return Again(cast("_external.SourceFileLoader", new.loader), error, words, new)


def _outside_cured(verdict: blame.Verdict, error: Exception, finder: importhook.Finder) -> str:
    """Return the paths that an overlay has just made writable, where that cures an error, or an empty string."""
    from sif_writable.act import overlay
    from sif_writable.plan.overlay import ON, mode

    image = os.path.dirname(finder.folder)
    if verdict.units:
        paths = [unit.path for unit in verdict.units]
        if mode(os.environ) != ON or not overlay.cures(paths, os.environ, image, declared=True):
            return ""
        copyup.learn(Line(PACKAGE, unit.name, unit.directory, verdict.why, verdict.detail) for unit in verdict.units)
        return plan.join(paths)
    paths = list(
        dict.fromkeys(failure.path for failure in plan.failures(error, blame.working_directory()) if failure.path)
    )
    if not paths or not overlay.cures(paths, os.environ, image):
        return ""
    why = "an import failed without it"
    copyup.learn(Line(PATH, "-", path, plan.outside_words(path, ""), why) for path in paths)
    return plan.join(paths)


def _start_over(module: ModuleType, spec: ModuleSpec, units: list[Unit], finder: importhook.Finder) -> ModuleSpec:
    """Take back what the first try left behind, and return the module's spec for the second.

    The module itself stays the same object, since others may hold it, and starts empty. Other modules of it and of
    the copied packages go, where this very import brought them; those that were there before learn their new place.
    """
    names = list(sys.modules)
    since = names.index(spec.name) if spec.name in names else len(names)
    own = spec.name + "."
    kept: dict[str, ModuleType] = {}
    copied = [unit for each in units for unit in packages.mates(each)]
    for at, name in enumerate(names):
        this = sys.modules.get(name)
        if this is module or not isinstance(this, ModuleType):
            continue
        unit = next((u for u in copied if name == u.name or name.startswith(u.name + ".")), None)
        if unit is None and not name.startswith(own):
            continue
        path = getattr(this, "__file__", None)
        if packages.is_extension(path):  # the interpreter loads object code once
            if name.startswith(own):
                kept[name[len(own) :]] = this
        elif at > since and (name.startswith(own) or not _is_held(name, names[since:], units)):
            del sys.modules[name]
        elif unit is not None:
            _rebase(this, finder.tree)
    importlib.invalidate_caches()
    new = spec
    unit = blame.in_image(packages.unit_of_spec(spec), finder)
    if finder.has(unit.path) and not (spec.origin or "").startswith(finder.tree + "/"):
        new = importhook.moved(spec, finder.tree)
    module.__dict__.clear()
    _bootstrap._init_module_attrs(new, module, override=True)  # noqa: SLF001
    for name, child in kept.items():
        if "." not in name:
            setattr(module, name, child)
    new._initializing = True  # type: ignore[attr-defined] # noqa: SLF001 - other threads have to wait
    return new


def _is_held(name: str, names: list[str], units: list[Unit]) -> bool:
    """Whether a module of neither the importing package nor a copied one holds this module, or what it defines."""
    mine = tuple(unit.name for unit in units)
    this = sys.modules[name]
    for other in names[1:]:
        module = sys.modules.get(other)
        if not isinstance(module, ModuleType) or other.startswith((*mine, names[0])):
            continue
        for value in list(vars(module).values()):
            if value is this or getattr(value, "__module__", None) == name:
                return True
    return False


def _rebase(module: ModuleType, tree: str) -> None:
    """Let a module that stays know its new place: what it works out from now on lands in the copy."""
    for name in ("__file__", "__cached__"):
        path = getattr(module, name, None)
        if isinstance(path, str) and path.startswith("/") and not path.startswith(tree):
            setattr(module, name, tree + path)
    places = getattr(module, "__path__", None)
    if isinstance(places, list):
        places[:] = [place if place.startswith(tree) else tree + place for place in places]
    spec = module.__spec__
    if spec is not None and spec.origin and not spec.origin.startswith(tree):
        spec.origin = tree + spec.origin


def _add_note(error: BaseException, text: str) -> None:
    if sys.version_info >= (3, 11):
        error.add_note(text)
