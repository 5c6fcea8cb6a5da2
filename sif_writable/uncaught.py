"""Errors that nobody catches in threads, in processes of multiprocessing and at prompts.

Loaded with the modules that run such code. The error that ends the program itself is known at its end
(:meth:`sif_writable.importhook.Finder.listen`); threads and processes leave no such trace: what these are about to run
is wrapped.
"""

import _frozen_importlib_external as _external
import sys

if "_functools" in sys.builtin_module_names:
    from _functools import partial  # type: ignore[import-not-found]
else:  # PyPy
    from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any, Optional

_LOADERS = (_external.SourceFileLoader, _external.SourcelessFileLoader)


def watched(spec: "Optional[ModuleSpec]", listen: "Callable[[], None]") -> "Optional[ModuleSpec]":
    """Have something called once the module of a spec is there; return the spec."""
    loader: Any = getattr(spec, "loader", None)
    if isinstance(loader, _LOADERS) and "exec_module" not in vars(loader):
        loader.exec_module = partial(_execute, loader, listen)  # type: ignore[method-assign]
    return spec


def _execute(  # pragma: no cover - it has another name
    loader: "Any", listen: "Callable[[], None]", module: "ModuleType"
) -> None:
    vars(loader).pop("exec_module", None)  # from now on the loader is what it is without us
    loader.exec_module(module)
    listen()


# A traceback shows nothing of it; see copies/execution.py.
_execute.__code__ = _execute.__code__.replace(
    co_filename="<frozen importlib._bootstrap>", co_name="_call_with_frames_removed"
)


class Listener:
    """Notices errors that nobody caught, and has them learned from."""

    def __init__(self, learn: "Callable[[Optional[BaseException]], None]") -> None:
        """:param learn: is given each such error."""
        self.learn = learn
        self._threads = False
        self._processes = False
        self._prompts = False

    def listen(self) -> None:
        """Wrap what is there by now."""
        if not self._threads:
            threading = sys.modules.get("threading")
            previous = getattr(threading, "excepthook", None)
            if previous is not None:
                self._threads = True

                def excepthook(arguments: "Any", /) -> None:
                    previous(arguments)
                    self.learn(arguments.exc_value)

                threading.excepthook = excepthook  # type: ignore[union-attr]
        if not self._prompts and (
            hasattr(sys, "ps1") or sys.flags.interactive or "IPython.core.interactiveshell" in sys.modules
        ):
            from sif_writable import prompts

            self._prompts = prompts.listen(self.learn)
        if not self._processes:
            process: Any = getattr(sys.modules.get("multiprocessing.process"), "BaseProcess", None)
            bootstrap = getattr(process, "_bootstrap", None)
            if bootstrap is not None:
                self._processes = True
                learn = self.learn

                def _bootstrap(self: "Any", *arguments: "Any", **named: "Any") -> "Any":
                    if "run" not in vars(self):
                        self.run = partial(_run, self, learn)  # which adds no line to a traceback
                    return bootstrap(self, *arguments, **named)

                process._bootstrap = _bootstrap  # noqa: SLF001 - the only way into processes of each kind


def _run(process: "Any", learn: "Callable[[BaseException], None]") -> None:
    """Do the work of a process of multiprocessing, and learn from the error that ends it."""
    del process.run  # the program finds its process as it knows it
    try:
        process.run()
    except (Exception, SystemExit) as error:
        learn(error)
        if error.__traceback__ is not None:
            error.__traceback__ = error.__traceback__.tb_next  # without this frame, since CPython 3.11
        raise
