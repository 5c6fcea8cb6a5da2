"""Execute a module of the image such that it can be executed once more, from a writable copy, where its import fails.

Loaded with the first package of a read-only directory.
"""

import _frozen_importlib_external as _external
import sys

from sif_writable import first_import
from sif_writable.copies.store import FILE_LOADERS
from sif_writable.evidence import is_of_a_handler, may_be_a_refusal
from sif_writable.importhook import storage_hangs

if "_functools" in sys.builtin_module_names:
    from _functools import partial  # type: ignore[import-not-found]
else:  # PyPy
    from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

    from sif_writable.copies.store import Copies

_PYTHON_LOADERS = (_external.SourceFileLoader, _external.SourcelessFileLoader)
_outermost: "Any" = None
"""What :func:`hooks` returned when the outermost import that is under way began."""
_settled = 0
"""How many ``atexit`` callbacks the modules of :data:`registered` have registered in all."""
begun: "dict[str, Before]" = {}
"""Packages, with the state before their execution."""
registered: "dict[str, int]" = {}
"""Modules whose import has registered ``atexit`` callbacks, with how many."""


def _callbacks() -> int:
    """Return the number of ``atexit`` callbacks, without those that the standard library registers when imported."""
    import atexit

    count = atexit._ncallbacks()  # noqa: SLF001 - there is no other way to ask
    for name in ("logging", "multiprocessing.util"):
        if name in sys.modules:
            count -= 1
    finalize: Any = getattr(sys.modules.get("weakref"), "finalize", None)
    return count - bool(getattr(finalize, "_registered_with_atexit", False))


def hooks() -> "tuple[Any, ...]":
    """Return the hooks and lists of the process, which a module that is executed twice would set or extend twice."""
    import _signal  # type: ignore[import-not-found]
    import builtins

    return (
        [*map(_signal.getsignal, range(1, _signal.NSIG))],
        [*sys.meta_path],
        [*sys.path_hooks],
        (sys.excepthook, sys.displayhook, sys.unraisablehook, builtins.__import__),
        [*getattr(sys.modules.get("logging"), "_handlerList", ())],
    )


class Before:
    """The state before a module is executed, as far as a second execution could change it twice."""

    __slots__ = ("callbacks", "handled", "hooks", "settled", "threads", "time")

    def __init__(self) -> None:
        """Record it, without a system call, in a few microseconds."""
        import _thread
        import time

        self.handled = sys.exc_info()[1]
        """The error that is being handled: it is the context of all that happens, and no cause of it."""
        self.callbacks = _callbacks()
        self.settled = _settled
        self.threads = _thread._count()  # noqa: SLF001 - likewise
        self.time = time.clock_gettime(time.CLOCK_BOOTTIME)
        self.hooks = _outermost

    def callbacks_since(self) -> int:
        """Return how many ``atexit`` callbacks are new, without those of other modules that were imported meanwhile."""
        return _callbacks() - self.callbacks - (_settled - self.settled)


def _execute(watcher: "Watcher", loader: "Any", module: "ModuleType") -> None:  # pragma: no cover - it has another name
    """Execute a module in place of its loader, and once more from a writable copy where that cures its failure."""
    global _outermost
    vars(loader).pop("exec_module", None)  # from now on the loader is what it is without us
    outermost = _outermost is None
    if outermost:
        _outermost = hooks()
    before = Before()
    if "__path__" in vars(module):
        begun[module.__name__] = before
    again = first = None
    try:
        try:
            loader.exec_module(module)
        except (Exception, SystemExit) as error:
            again = watcher.try_again(module, error, before)
            if again is None:
                raise
        else:
            _settle(module.__name__, before)
            watcher.copies.untried.discard(module.__name__)
        if again is not None:  # outside the handler, so that the next try does not see this one's exception
            try:
                while True:
                    try:
                        again.loader.exec_module(module)
                        break
                    except (Exception, SystemExit) as error:
                        if is_of_a_handler(error):
                            raise
                        if not again.goes_on(error):
                            first = again.first
                            break
            finally:
                again.end()
                again = None
    finally:
        if outermost:
            _outermost = None
    if first is not None:
        context = first.__context__
        try:
            raise first.with_traceback(first.__traceback__ and first.__traceback__.tb_next)
        finally:
            first.__context__ = context  # not what is being handled around this import, as the raising has it
            del first


# A traceback through an import shows none of the import system's frames: it is cut at a function of this name in this
# file. Ours takes part, so that the user sees no more than without us.
_execute.__code__ = _execute.__code__.replace(
    co_filename="<frozen importlib._bootstrap>", co_name="_call_with_frames_removed"
)


def _settle(name: str, before: Before) -> None:
    """Note the ``atexit`` callbacks of an imported module: executing another one again does not repeat them."""
    global _settled
    more = before.callbacks_since()
    if more:
        registered[name] = more
        _settled += more


class Watcher:
    """Has modules executed by us, whoever finds and loads them."""

    def __init__(self, copies: "Copies", lead: "Callable[[], None]") -> None:
        """Take the copies of this image, and what has the finder asked first."""
        self.copies = copies
        self._lead = lead

    def watched(self, spec: "ModuleSpec") -> "ModuleSpec":
        """Have the module of a spec executed by us.

        Its loader stays what it is, whoever's: it only gets an attribute of its own, for as long as nothing is
        executed. Another stands for one that several modules share.
        """
        loader: Any = spec.loader
        if isinstance(loader, _PYTHON_LOADERS) and loader.path == spec.origin and "exec_module" not in vars(loader):
            loader.exec_module = partial(_execute, self, loader)  # type: ignore[method-assign]
        elif (
            str(spec.origin).endswith(".py")
            and type(loader).__module__ != "zipimport"
            and not isinstance(loader, (*FILE_LOADERS, _Standing))
        ):
            spec.loader = _Standing(loader, self)  # type: ignore[assignment] # it is what a loader is by __getattr__
        return spec

    def try_again(self, module: "ModuleType", error: BaseException, before: Before) -> "Any":
        """Return the next try of a failed import, or None."""
        try:
            refused = may_be_a_refusal(error, before.handled)
            if not (refused or module.__name__ in self.copies.untried) or is_of_a_handler(error) or storage_hangs():
                return None
            self._lead()
            if not refused:
                from sif_writable.copies import fallback

                return fallback.prepare(module, error, before, self.copies)
            from sif_writable.copies import retry

            return retry.prepare(module, error, before, self.copies)
        except Exception as problem:  # noqa: BLE001 - whatever goes wrong with us, the user gets his own error
            first_import.note(problem)
            return None


class _Standing:
    """Stands for a loader that several modules share, until it is asked to execute one."""

    def __init__(self, loader: "Any", watcher: Watcher) -> None:
        self._loader = loader
        self._watcher = watcher

    def __getattr__(self, name: str) -> "Any":
        return getattr(self._loader, name)

    def exec_module(self, module: "ModuleType") -> None:  # pragma: no cover - it has another name
        """Put the loader in its place, and execute the module as :func:`_execute` does."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        _execute(self._watcher, self._loader, module)

    exec_module.__code__ = exec_module.__code__.replace(
        co_filename="<frozen importlib._bootstrap>", co_name="_call_with_frames_removed"
    )
