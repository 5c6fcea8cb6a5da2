"""Begin the import of a module afresh, from writable copies: what goes, what stays and learns its new place.

Everything is noted, so that it can be undone where the next try fails too.
"""

from __future__ import annotations

import _frozen_importlib as _bootstrap
import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sif_writable.copies import culprits, execution, side_effects, store
from sif_writable.copies.units import is_extension, unit_of_spec

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

    from sif_writable.copies.store import Copies
    from sif_writable.copies.units import Unit


_OURS = ("sif_writable.", "importlib")
"""Modules whose frames hold what is being imported."""


class Restart:
    """One fresh start of an import. The module stays the same object, since others may hold it, and starts empty.

    Other modules of its package and of the copied packages are removed if this import brought them; those that were
    there before get the path of the copy.
    """

    def __init__(self, module: ModuleType, spec: ModuleSpec, units: list[Unit], copies: Copies) -> None:
        """Undo what the last try left behind, and prepare the module for the next; its spec is then ``spec``."""
        self._copies = copies
        self._units = units
        self._names = list(sys.modules)
        self._modules = dict(sys.modules)
        self._contents: list[tuple[ModuleType, dict[str, Any]]] = []
        self._rebased: list[tuple[ModuleType, dict[str, Any], list[str] | None, str | None]] = []
        self._initializing: list[ModuleSpec] = []
        names = self._names
        since = names.index(spec.name) if spec.name in names else len(names)
        own = spec.name + "."
        kept: dict[str, ModuleType] = {}
        for at, name in enumerate(names):
            this = sys.modules.get(name)
            if this is module or not isinstance(this, ModuleType):
                continue
            unit = _unit_of(name, units)
            if unit is None and not name.startswith(own):
                continue
            if is_extension(getattr(this, "__file__", None)):  # the interpreter loads object code once
                if name.startswith(own):
                    kept[name[len(own) :]] = this
            elif at > since and (name.startswith(own) or not _is_held(name, names[since:], spec.name, units)):
                del sys.modules[name]
            elif unit is not None:
                self._rebase(this)
        importlib.invalidate_caches()
        self.spec = self._empty(module, spec, kept)

    def restart(self, unit: Unit) -> None:
        """Execute a package afresh whose module is being imported; there is no :func:`obstacle`.

        :raises Exception: whatever the package raises now.
        """
        package = sys.modules[unit.name]
        for name in self._names:
            if name.startswith(unit.name + ".") and name != self.spec.name:
                sys.modules.pop(name, None)
        spec = package.__spec__
        assert spec is not None  # noqa: S101 - it was imported, and obstacle() has looked
        new = self._empty(package, spec, {})
        assert new.loader is not None  # noqa: S101 - likewise
        new.loader.exec_module(package)
        new._initializing = False  # type: ignore[attr-defined] # noqa: SLF001
        parent = self.spec.name.rpartition(".")[0]
        if parent != unit.name:
            importlib.import_module(parent)

    def _empty(self, module: ModuleType, spec: ModuleSpec, kept: dict[str, ModuleType]) -> ModuleSpec:
        new = spec
        unit = culprits.in_image(unit_of_spec(spec), self._copies)
        if self._copies.has(unit.path) and not (spec.origin or "").startswith(self._copies.tree + "/"):
            new = store.moved(spec, self._copies.tree)
        self._contents.append((module, dict(vars(module))))
        vars(module).clear()
        _bootstrap._init_module_attrs(new, module, override=True)  # noqa: SLF001
        for name, child in kept.items():
            if "." not in name:
                setattr(module, name, child)
        new._initializing = True  # type: ignore[attr-defined] # noqa: SLF001 - other threads have to wait
        self._initializing.append(new)
        return new

    def end(self) -> None:
        """Release threads that wait for the modules."""
        for spec in self._initializing:
            spec._initializing = False  # type: ignore[attr-defined] # noqa: SLF001

    def undo(self) -> None:
        """Make everything as it was, as if there had been no other try; what came from the copies goes."""
        self.end()
        for name, module in list(sys.modules.items()):
            if name not in self._modules and str(getattr(module, "__file__", None)).startswith(self._copies.tree + "/"):
                del sys.modules[name]
        for name, module in self._modules.items():
            sys.modules.setdefault(name, module)
        for module, contents in self._contents:
            vars(module).clear()
            vars(module).update(contents)
        for module, values, places, origin in self._rebased:
            vars(module).update(values)
            if places is not None:
                module.__path__[:] = places
            if module.__spec__ is not None:
                module.__spec__.origin = origin
        importlib.invalidate_caches()

    def _rebase(self, module: ModuleType) -> None:
        """Let a module that stays know its new place: what it works out from now on lands in the copy."""
        tree, spec = self._copies.tree, module.__spec__
        values = {name: str(vars(module)[name]) for name in ("__file__", "__cached__") if vars(module).get(name)}
        places = getattr(module, "__path__", None)
        kept = list(places) if isinstance(places, list) else None
        self._rebased.append((module, values, kept, None if spec is None else spec.origin))
        for name, path in values.items():
            if path.startswith("/") and not path.startswith(tree):
                setattr(module, name, tree + path)
        if isinstance(places, list):
            places[:] = [place if place.startswith(tree) else tree + place for place in places]
        if spec is not None and spec.origin and not spec.origin.startswith(tree):
            spec.origin = tree + spec.origin


def _unit_of(name: str, units: list[Unit]) -> Unit | None:
    return next((unit for unit in units if name == unit.name or name.startswith(unit.name + ".")), None)


def _is_held(name: str, names: list[str], importing: str, units: list[Unit]) -> bool:
    """Whether a module of neither the importing package nor a copied one holds this module, or what it defines."""
    mine = tuple(unit.name for unit in units)
    this = sys.modules[name]
    for other in names[1:]:
        module = sys.modules.get(other)
        if not isinstance(module, ModuleType) or other.startswith((*mine, importing)):
            continue
        for value in list(vars(module).values()):
            if value is this or getattr(value, "__module__", None) == name:
                return True
    return False


def made_anew(importing: str, restarted: Unit | None, units: list[Unit]) -> list[str]:
    """Return the modules that a beginning would execute again."""
    names = list(sys.modules)
    since = names.index(importing) if importing in names else len(names)
    again = (importing,) if restarted is None else (importing, restarted.name)
    return [
        name
        for at, name in enumerate(names)
        if name in again
        or name.startswith(tuple(f"{each}." for each in again))
        or (at > since and _unit_of(name, units) is not None)
    ]


def is_beginning(name: str, package: str) -> bool:
    """Whether a package that a module lies in, or one between, is being imported itself."""
    while name != package:
        name = name.rpartition(".")[0]
        spec = getattr(sys.modules.get(name), "__spec__", None)
        if getattr(spec, "_initializing", False):
            return True
    return False


def obstacle(unit: Unit, importing: str, copies: Copies) -> str:
    """Say why a package that was imported from the image cannot begin afresh, now that one of its modules fails.

    Objects that others took from it would remain the image's, next to those of the copy.
    """
    import _thread

    package = sys.modules.get(unit.name)
    before = execution.begun.get(unit.name)
    spec = getattr(package, "__spec__", None)
    if type(package) is not ModuleType or spec is None or spec.loader is None or before is None:
        return f"{unit.name} was imported before"
    if (spec.origin or "").startswith(copies.tree + "/"):
        return f"{unit.name} comes from its copy"
    if _thread._count():  # noqa: SLF001 - there is no other way to ask
        return "other threads run"
    if done := side_effects.since(before, [unit.name]):
        return f"{done}, or what was imported before it has"
    own, this = f"{unit.name}.", sys.modules.get(importing)
    for name, module in list(sys.modules.items()):
        if f"{name}.".startswith(own):
            if name != importing and is_extension(getattr(module, "__file__", None)):
                return f"{name} is object code, which is loaded once"
        elif held := _held(getattr(module, "__dict__", {}).values(), (package, this), own):
            return f"{name} uses {held}"
    frame = sys._getframe()  # noqa: SLF001
    while True:
        name = str(frame.f_globals.get("__name__"))
        if f"{name}.".startswith(own):
            if name != importing:
                return f"{name}.{frame.f_code.co_name}() is running"
        elif not name.startswith(_OURS) and (held := _held(frame.f_locals.values(), (package, this), own)):
            return f"{frame.f_code.co_name}() uses {held}"
        if frame.f_back is None:
            return ""
        frame = frame.f_back


def _held(values: Any, stays: tuple[object, ...], own: str) -> str:
    """Return the name of something among values that belongs to a package, other than modules that stay."""
    for value in list(values):
        if any(value is module for module in stays):
            continue
        if isinstance(value, ModuleType):
            name = str(getattr(value, "__name__", ""))  # a module that was emptied has none
            if name.startswith(own):
                return name
            continue
        for each in (value, type(value)):
            where = getattr(each, "__module__", None) if callable(each) else None
            if isinstance(where, str) and f"{where}.".startswith(own):
                return f"{where}.{getattr(each, '__name__', '…')}"
    return ""
