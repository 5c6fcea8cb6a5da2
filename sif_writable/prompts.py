"""See each error in an interactive session, not only of the last one. Loaded where there is a session.

IPython, and with it each notebook, reports a cell's error by an event. The console of the standard library, which is
also the prompt since CPython 3.13, shows it by a method. Only the prompt in C has nothing but ``sys.excepthook``, which
is touched there and nowhere else: its mere presence changes what some programs do (PyQt aborts or not). CPython 3.13
and later still have that prompt where the terminal is none, or a simple one (``TERM=dumb``).
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def listen(learn: Callable[[BaseException | None], None]) -> bool:
    """Have a function called with each error from now on; return False where the session is not there yet."""
    shell: Any = getattr(sys.modules.get("IPython.core.interactiveshell"), "InteractiveShell", None)
    if shell is not None and shell.initialized():
        shell.instance().events.register("post_run_cell", _cell(learn))
        return True
    if not hasattr(sys, "ps1") and not sys.flags.interactive:
        return False
    console: Any = getattr(sys.modules.get("code"), "InteractiveInterpreter", None)
    if console is not None and not _is_in_c():
        _wrap_console(console, learn)
    else:
        _wrap_hook(learn)
    return True


def _is_in_c() -> bool:
    """Whether the prompt is the one in C, as far as this can be seen. A console asks `sys.excepthook`, too."""
    newer: Any = sys.modules.get("_pyrepl.main")  # loaded wherever there is a prompt, whether it can be used or not
    if newer is None or os.environ.get("PYTHON_BASIC_REPL"):
        return bool(sys.flags.interactive or os.environ.get("PYTHON_BASIC_REPL"))
    return not newer.CAN_USE_PYREPL


def _cell(learn: Callable[[BaseException | None], None]) -> Callable[..., None]:
    def post_run_cell(*results: Any) -> None:  # before IPython 5 there is no result
        for result in results:
            learn(getattr(result, "error_in_exec", None) or getattr(result, "error_before_exec", None))

    return post_run_cell


def _wrap_console(console: Any, learn: Callable[[BaseException | None], None]) -> None:
    show = console.showtraceback

    def showtraceback(self: Any) -> None:
        error = sys.exc_info()[1]
        show(self)
        learn(error)

    console.showtraceback = showtraceback


def _wrap_hook(learn: Callable[[BaseException | None], None]) -> None:
    previous = sys.excepthook

    def excepthook(kind: Any, error: BaseException, traceback: Any) -> None:
        previous(kind, error, traceback)
        learn(error)

    sys.excepthook = excepthook
