"""What the first execution of a module did that a second one would do once more. Loaded when an import has failed."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import sys
import threading
from types import FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from sif_writable.copies import execution

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_STARTED = 21
"""The place of the start time in /proc/PID/stat, in clock ticks since boot, counted from the end of the name."""


def since(before: execution.Before, names: Collection[str]) -> str:
    """Say what a second execution would double, or return an empty string.

    :param names: packages whose modules are executed again; what other modules did as they were imported stays once.
    """
    own = tuple(f"{name}." for name in names)
    again = sum(more for name, more in execution.registered.items() if f"{name}.".startswith(own))
    if before.callbacks_since() + again > 0:
        return "it has registered something with atexit"
    if _threads(before, own):
        return "it has started a thread"
    if _processes(before):
        return "it has started a process"
    return _hooks(before)


def _threads(before: execution.Before, own: tuple[str, ...]) -> bool:
    """Whether a thread runs that the module has started: where others ran before, one that runs code of its own."""
    import _thread

    if _thread._count() <= before.threads:  # noqa: SLF001 - there is no other way to ask
        return False
    if not before.threads:
        return True
    frames = sys._current_frames()  # noqa: SLF001 - what the other threads run
    frames.pop(threading.get_ident(), None)
    for frame in frames.values():
        at: Any = frame
        while at is not None:
            if f"{at.f_globals.get('__name__')}.".startswith(own):
                return True
            at = at.f_back
    return False


def _processes(before: execution.Before) -> bool:
    """Whether a child runs that was started since."""
    ticks = os.sysconf("SC_CLK_TCK")
    with contextlib.suppress(OSError, ValueError, IndexError):
        for task in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{task}/children", encoding="ascii") as file:
                children = file.read().split()
            for child in children:
                with (
                    contextlib.suppress(OSError),
                    open(f"/proc/{child}/stat", encoding="utf-8", errors="replace") as stat,
                ):
                    started = int(stat.read().rpartition(")")[2].split()[_STARTED - 2])
                    if started / ticks >= before.time - 1.5 / ticks:
                        return True
    return False


def _hooks(before: execution.Before) -> str:
    if before.hooks is None:
        return ""
    signals, meta_path, path_hooks, single, handlers = before.hooks
    now = execution.hooks()
    if now[0] != signals:
        return "it has set a handler for a signal"
    if now[1] != meta_path or now[2] != path_hooks or now[3] != single:
        return "it has hooked into the interpreter"
    logging: Any = sys.modules.get("logging")
    known = {id(reference) for reference in handlers}
    for reference in now[4]:
        handler = reference() if id(reference) not in known else None
        if handler is not None and not isinstance(handler, logging.NullHandler) and handler is not logging.lastResort:
            return "it has added a handler to logging"
    return ""


def handed_out(names: Iterable[str]) -> str:
    """Say which objects of these modules others hold, which a second execution would make anew; or return nothing.

    A function that replaced another one calls the original by a name in its module. After a second execution that name
    is the function itself, which would call itself for ever. What was registered would be registered twice.

    :param names: the modules.
    """
    modules = {name: sys.modules.get(name) for name in names}
    mine = _Mine(modules)
    for name, module in list(sys.modules.items()):
        if name in modules or not isinstance(module, ModuleType):
            continue
        for key, value in list(vars(module).items()):
            if value is None or isinstance(value, (str, int)):
                continue
            if mine.made(value):
                return f"it is in use as {name}.{key}"
            if mine.contained(value):
                return f"{name}.{key} holds a part of it"
            if isinstance(value, type) and value.__module__ == name:
                for attribute, part in list(vars(value).items()):
                    if mine.made(part):
                        return f"it is in use as {name}.{key}.{attribute}"
                    if mine.contained(part):
                        return f"{name}.{key}.{attribute} holds a part of it"
    lists = [each for each in gc.get_objects() if type(each) is list and 0 < len(each) < _MOST and mine.contained(each)]
    for each in lists:
        if not [holder for holder in gc.get_referrers(each) if holder is not lists]:
            return "the interpreter calls a function of it"  # at a fork, for an audit, for a codec
    return ""


_MOST = 1000
"""Elements of a container that are examined."""


class _Mine:
    """Recognises what modules have defined."""

    def __init__(self, modules: dict[str, Any]) -> None:
        self._names = {*modules}
        self._globals = {id(vars(module)) for module in modules.values() if isinstance(module, ModuleType)}

    def made(self, value: Any) -> bool:
        """Whether a value is a function or a class of the modules, or an object of such a class."""
        if isinstance(value, (staticmethod, classmethod, MethodType)):
            value = value.__func__
        elif type(value) is property:
            value = value.fget
        elif type(value) is functools.partial:
            value = value.func
        if isinstance(value, FunctionType):
            return id(value.__globals__) in self._globals
        kind = value if isinstance(value, type) else type(value)
        return kind.__dict__.get("__module__") in self._names

    def contained(self, value: Any) -> bool:
        """Whether one of the first parts of a container is made by the modules."""
        if type(value) not in (list, dict, set):
            return False
        with contextlib.suppress(RuntimeError):  # another thread is changing it
            if type(value) is dict:
                return any(self.made(part) for part in _first(value.values())) or any(map(self.made, _first(value)))
            return any(self.made(part) for part in _first(value))
        return False


def _first(parts: Iterable[Any]) -> Iterable[Any]:
    return [part for part, _ in zip(parts, range(_MOST))]
