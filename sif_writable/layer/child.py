"""Do something in another process that ends with it: what hangs or fails there does not concern the program."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING

from sif_writable import signals
from sif_writable.signals import let_pass

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WHOLE_SECONDS = 300.0
"""How long anything may take that makes progress all the time."""
_REAP_SECONDS = 1.0
"""How long a killed process is waited for: one that a FUSE server holds does not end before that server does."""
_EVERY = 0.25
_PROGRESS, _BEGIN, _END = b"\1", b"\2", b"\0"

_CODE = """import sys
sys.path.append(sys.argv[1])
import {0}
{0}.main(sys.argv[2:])
"""

_reported = 0.0


def ask(work: Callable[[], str], seconds: float) -> str | None:
    """Return what something returns in a forked child, or None: it failed, or made no progress and was killed.

    :param seconds: how long it may go on without calling :func:`progress`.
    :raises RuntimeError: this interpreter makes no children any more, since it ends (CPython 3.12).
    """
    readable, writable = os.pipe()
    own = signals.own_child()
    with own:
        try:
            own.pid = signals.fork()
        except BaseException as error:
            os.close(readable)
            os.close(writable)
            let_pass(error)
            if isinstance(error, OSError):
                return None
            raise
        if own.pid == 0:
            _be_child(work, writable)
        os.close(writable)
        return _result(own.pid, readable, seconds)


def start(module: str, words: Sequence[str], seconds: float) -> str | None:
    """Return what ``main`` of a module of ours answers in an interpreter of its own, or None as :func:`ask` does.

    For the end of a process: it may have threads, and CPython 3.12 forks no more then. ``main`` calls :func:`answer`.
    """
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    # Not known where the program was started by another name and PATH does not lead to it.
    program = sys.executable if os.access(sys.executable or "", os.X_OK) else os.readlink("/proc/self/exe")
    argv = [program, "-I", "-S", "-B", "-c", _CODE.format(module), package, *words]
    readable, writable = os.pipe()
    own = signals.own_child()
    with own:
        try:
            actions = [
                (os.POSIX_SPAWN_DUP2, writable, 1),
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0),
            ]
            # What waits for this process's end by a lock in a signal handler is no business of the new one.
            own.pid = os.posix_spawn(program, argv, os.environ, file_actions=actions, setsigmask=())
        except BaseException as error:
            os.close(readable)
            os.close(writable)
            let_pass(error)
            if isinstance(error, (OSError, ValueError)):
                return None
            raise
        os.close(writable)
        return _result(own.pid, readable, seconds)


def is_ours(pid: str) -> bool:
    """Whether a process is one that :func:`start` has started, such as the publisher of another one that has ended."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return _CODE.partition("{")[0].encode() + __package__.encode() in file.read()
    except OSError as error:  # it has ended
        let_pass(error)
        return True


def alone() -> None:
    """Begin a process that :func:`start` has started: it goes on when the program is asked to end.

    What it makes it may use itself, whatever the program's files are to be.
    """
    os.umask(os.umask(0) & 0o077)
    os.closerange(3, 1 + max([int(name) for name in os.listdir("/proc/self/fd")]))
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def progress() -> None:
    """Say that this process goes on: it is not to be killed for being slow."""
    global _reported
    now = time.monotonic()
    if _answers >= 0 and now - _reported > _EVERY:
        _reported = now
        with signals.suppress(OSError):  # nobody waits any more
            os.write(_answers, _PROGRESS)


_answers = -1


def answer(text: str, descriptor: int = 1) -> None:
    """Send a text to the process that waits for this one."""
    rest = _BEGIN + text.encode("utf-8", "surrogateescape") + _END
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def reports_to(descriptor: int) -> None:
    """Have :func:`progress` report to whoever reads there."""
    global _answers
    _answers = descriptor


def _be_child(work: Callable[[], str], writable: int) -> None:
    try:
        os.dup2(writable, 0)
        # Who reads what the program writes waits until the last process that could write has ended.
        os.closerange(1, 1 + max([int(name) for name in os.listdir("/proc/self/fd")]))
        reports_to(0)
        answer(work(), 0)
    finally:
        os._exit(0)


def _result(child: int, readable: int, seconds: float) -> str | None:
    answer = None
    try:
        answer = _listen(readable, seconds)
    finally:
        if answer is None:  # also where a handler of the program ends the waiting
            with signals.suppress(OSError):
                os.kill(child, signal.SIGKILL)
        os.close(readable)
        _reap(child)
    return answer


def _listen(readable: int, seconds: float) -> str | None:
    whole = time.monotonic() + WHOLE_SECONDS
    deadline = time.monotonic() + seconds
    text = b""
    poll = select.poll()
    poll.register(readable, select.POLLIN)
    while poll.poll(max(0.0, min(deadline, whole) - time.monotonic()) * 1000):
        part = os.read(readable, 1 << 16)
        if not part:
            return None  # it ended without an answer
        text += part
        if text.endswith(_END):
            return text.partition(_BEGIN)[2][:-1].decode("utf-8", "surrogateescape")
        deadline = time.monotonic() + seconds
    return None


def _reap(child: int) -> None:
    """Wait for a process that is about to end, or cannot."""
    pause, passed = 0.0002, 0.0
    with signals.suppress(ChildProcessError):  # the program ignores SIGCHLD
        while os.waitpid(child, os.WNOHANG)[0] == 0 and passed < _REAP_SECONDS:
            time.sleep(pause)
            passed += pause
            pause = min(2 * pause, 0.02)
