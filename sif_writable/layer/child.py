"""Do something in a forked child that ends with it: what hangs or fails there does not concern the program."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from typing import TYPE_CHECKING

from sif_writable import signals

if TYPE_CHECKING:
    from collections.abc import Callable


def ask(work: Callable[[], str], seconds: float) -> str | None:
    """Return what something returns in a child, or None: it failed, or took too long and was killed.

    :raises RuntimeError: this interpreter makes no children any more, since it ends.
    """
    readable, writable = os.pipe()
    try:
        child = signals.fork()
    except BaseException as error:
        os.close(readable)
        os.close(writable)
        if isinstance(error, OSError):
            return None
        raise
    if child == 0:
        _be_child(work, writable)
    os.close(writable)
    try:
        return _listen(child, readable, seconds)
    finally:
        os.close(readable)
        with contextlib.suppress(ChildProcessError):  # the program ignores SIGCHLD
            os.waitpid(child, 0)


def _be_child(work: Callable[[], str], writable: int) -> None:
    try:
        os.dup2(writable, 0)
        # Who reads what the program writes waits until the last process that could write has ended.
        os.closerange(1, 1 + max([int(name) for name in os.listdir("/proc/self/fd")]))
        answer = work().encode("utf-8", "surrogateescape") + b"\0"
        while answer:
            answer = answer[os.write(0, answer) :]
    finally:
        os._exit(0)


def _listen(child: int, readable: int, seconds: float) -> str | None:
    deadline = time.monotonic() + seconds
    text = b""
    poll = select.poll()
    poll.register(readable, select.POLLIN)
    while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        part = os.read(readable, 1 << 16)
        if not part:
            return None  # it ended without an answer
        text += part
        if text.endswith(b"\0"):
            return text[:-1].decode("utf-8", "surrogateescape")
    os.kill(child, signal.SIGKILL)
    return None
