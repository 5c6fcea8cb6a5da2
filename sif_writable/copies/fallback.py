"""Import a package from the image after all, where the import from its new copy has failed.

Loaded when that import has failed for another reason than a refused write. Whether the copy is to blame shows when the
image's own is imported: where that works the copy is taken back, where it fails too the error is the program's.
"""

from __future__ import annotations

import _frozen_importlib as _bootstrap
import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

from sif_writable.copies import culprits, execution, ledger, messages, provide, side_effects, store, transient, units
from sif_writable.copies.ledger import PACKAGE

if TYPE_CHECKING:
    import _frozen_importlib_external as _external
    from importlib.machinery import ModuleSpec

    from sif_writable.copies.store import Copies
    from sif_writable.copies.units import Unit


class FromImage:
    """The import of a package once more, from the image: the like of :class:`sif_writable.copies.retry.SecondTry`."""

    def __init__(self, module: ModuleType, unit: Unit, spec: ModuleSpec, first: BaseException, copies: Copies) -> None:
        """Take the module, half executed, where it is in the image, and what the copy's execution raised."""
        self.first = first
        self._copies = copies
        self._module = module
        self._unit = unit
        self._contents = dict(vars(module))
        own = spec.name + "."
        self._modules = {name: this for name, this in sys.modules.items() if name.startswith(own)}
        for name in self._modules:
            del sys.modules[name]
        importlib.invalidate_caches()
        vars(module).clear()
        _bootstrap._init_module_attrs(spec, module, override=True)  # noqa: SLF001
        spec._initializing = True  # type: ignore[attr-defined] # noqa: SLF001 - other threads have to wait
        self._spec = spec
        self._worked = True
        self.loader: _external.SourceFileLoader = spec.loader  # type: ignore[assignment]

    def goes_on(self, _error: BaseException) -> bool:
        """Make everything as it was: the image's own fails too, so the copy is not to blame."""
        self._worked = False
        own = self._spec.name + "."
        for name in [name for name in sys.modules if name.startswith(own)]:
            del sys.modules[name]
        sys.modules.update(self._modules)
        vars(self._module).clear()
        vars(self._module).update(self._contents)
        return False

    def end(self) -> None:
        """Release waiting threads; take the copy back if the image's own module has worked, and storage did, too."""
        self._spec._initializing = False  # type: ignore[attr-defined] # noqa: SLF001
        if self._worked:
            if transient.has_passed(self.first, [self._unit], self._copies):
                self._copies.wanted().pop(self._unit.name, None)
                messages.say(
                    f"{self._unit.name} was imported from the image this time, since its writable copy could not be "
                    f"({messages.first_line(self.first)})."
                )
                return
            why = f"the import of {self._spec.name} fails with it and works without ({messages.first_line(self.first)})"
            provide.take_back([self._unit], why, self._copies)
            messages.say(f"The writable copy of {self._unit.name} is not used any more: {why}.")


def prepare(module: ModuleType, error: BaseException, before: execution.Before, copies: Copies) -> FromImage | None:
    """Make everything ready for the import from the image, where nothing forbids a second execution."""
    spec = module.__spec__
    if spec is None or spec.origin is None or type(module) is not ModuleType:
        return None
    unit = culprits.in_image(units.unit_of_spec(spec), copies)
    learned = any(line.what == PACKAGE and line.place == unit.directory for line in ledger.listed(copies.folder)[0])
    if not learned or store.ANYWHERE in copies.wanted().get(unit.name, ()):
        return None  # the user or the image has asked for the copy
    own = spec.name + "."
    loaded = [this for name, this in sys.modules.items() if name.startswith(own)]
    if any(units.is_extension(getattr(this, "__file__", None)) for this in (module, *loaded)):
        done = "it has loaded object code"
    else:
        names = [name for name in sys.modules if name.startswith(own) or name == spec.name]
        done = side_effects.since(before, {spec.name}) or side_effects.handed_out(names)
    if done:
        messages.say(
            f"The import of {unit.name} from its new writable copy has failed, and is not tried without it: {done}. "
            f"If it works without, undo the copy: sif-writable cache forget {unit.name}"
        )
        return None
    return FromImage(module, unit, store.moved_back(spec, copies.tree), error, copies)
