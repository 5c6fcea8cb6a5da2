"""Makes each call of a function to the kernel fail, or be the last one of its process: in forked children of a test.

For code that has nothing mounted and no namespaces: then a fault costs a fork, and every call can be tried.
"""

from __future__ import annotations

import builtins
import os
import signal
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

ERRORS = {
    "EIO": ("open", "mkdir", "rename", "link", "symlink", "unlink", "rmdir", "lstat", "stat", "scandir", "listdir"),
    "ENOSPC": (
        "open",
        "write",
        "mkdir",
        "rename",
        "link",
        "symlink",
        "mknod",
        "fsync",
        "fdatasync",
        "ftruncate",
        "close",
    ),
    "EDQUOT": ("open", "write", "mkdir", "rename", "link", "symlink", "mknod", "fsync", "close"),
    "ESTALE": ("open", "read", "write", "lstat", "stat", "scandir", "listdir", "rename", "fsync"),
    "EACCES": ("open", "mkdir", "rename", "unlink", "rmdir", "scandir", "listdir", "chmod", "link"),
    "EROFS": ("open", "mkdir", "rename", "link", "symlink", "unlink", "rmdir", "chmod", "fchmod", "utime", "mknod"),
    "EINTR": ("fsync", "fdatasync"),
}
"""What each function may say. Not ENOENT: that is an answer, and believed."""
MORE = {"EIO": ("read", "write", "getxattr", "readlink", "fchmod", "utime", "fsync", "fdatasync", "lseek", "close")}
FUNCTIONS = sorted({name for names in (*ERRORS.values(), *MORE.values()) for name in names})
CHANGING = ("open", "write", "mkdir", "rename", "link", "symlink", "unlink", "rmdir", "mknod", "chmod", "utime")
KILL = "SIGKILL"


def errors(name: str) -> list[str]:
    return [error for error in ERRORS if name in ERRORS[error] + MORE.get(error, ())]


class Injector:
    """Counts calls of `os`, and fails one of them."""

    def __init__(self, at: int = -1, error: str = "") -> None:
        """:param at: the number of the call that fails, from 0; negative: none does.

        :param error: the name of an errno, or :data:`KILL`.
        """
        self.at, self.error = at, error
        self.calls: list[str] = []

    def install(self) -> None:
        """Take the place of the functions, in this process."""
        for name in FUNCTIONS:
            setattr(os, name, self._wrapped(name, getattr(os, name)))
        builtins.open = self._wrapped("open", builtins.open)

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*words: Any, **more: Any) -> Any:
            number = len(self.calls)
            self.calls.append(name)
            if number == self.at:
                if self.error == KILL:
                    os.kill(os.getpid(), signal.SIGKILL)
                import errno

                code: int = getattr(errno, self.error)
                if name == "close":  # it is closed all the same
                    real(*words, **more)
                raise OSError(code, os.strerror(code), words[0] if words else None)
            return real(*words, **more)

        return call


def run(work: Callable[[], object], at: int = -1, error: str = "") -> tuple[int, list[str]]:
    """Do something in a child with one fault; return the number of the signal or 256 times the code, and the calls.

    The child ends with 0 where the work was done, with 3 where it raised an OSError, and with 1 for anything else.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        leave, write = os._exit, os.write
        injector = Injector(at, error)
        try:
            injector.install()
            try:
                work()
                code = 0
            except OSError:
                code = 3
            except BaseException:  # noqa: BLE001
                traceback.print_exc()
            write(writing, " ".join(injector.calls).encode())
        finally:
            leave(code)
    os.close(writing)
    output = b""
    while part := os.read(reading, 1 << 16):
        output += part
    os.close(reading)
    return os.waitpid(child, 0)[1], output.decode().split()


def faults(calls: list[str], size: int) -> list[tuple[int, str]]:
    """Return what is tried: (number of the call, error); a process is also killed at each call that changes something.

    :param size: how many of them, evenly spread; 0: all.
    """
    found = []
    for number, name in enumerate(calls):
        found += [(number, error) for error in errors(name)]
        found += [(number, KILL)] if name in CHANGING else []
    return found if not size else [found[at * len(found) // size] for at in range(size)]
