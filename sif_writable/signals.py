"""Signals of the program while our code runs: what its handlers raise passes, and no child of ours runs a handler."""

import os

from sif_writable.startup import from_handler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Optional


class suppress:  # noqa: N801 - as contextlib's
    """Suppress errors of some classes within a block, as :class:`contextlib.suppress` does, but for what must pass."""

    def __init__(self, *classes: "type[BaseException]") -> None:
        """Take the classes."""
        self.classes = classes

    def __enter__(self) -> None:
        """Begin the block."""

    def __exit__(
        self, kind: "Optional[type[BaseException]]", error: "Optional[BaseException]", _: "Optional[TracebackType]"
    ) -> bool:
        """Whether the error that ended the block, if any, is suppressed."""
        return error is not None and isinstance(error, self.classes) and not from_handler(error)


def fork() -> int:
    """Fork a child that runs our code alone: what the program's handlers would do there, they have done in the parent.

    A terminal and Slurm send a signal to all processes of a job: a handler that saves a checkpoint would do it
    twice, at the same time. In the child those signals are ignored; the others do what they did.

    :raises OSError: there can be no more processes.
    :raises RuntimeError: not from here (a subinterpreter).
    """
    import _signal  # type: ignore[import-not-found] # built in

    all_signals = _signal.valid_signals()
    before = _signal.pthread_sigmask(_signal.SIG_BLOCK, all_signals)
    child = 0
    try:
        child = os.fork()
        if child == 0:
            for number in all_signals:
                if callable(_signal.getsignal(number)):
                    _signal.signal(number, _signal.SIG_IGN)
    finally:
        try:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, before)
        except BaseException:  # out of a handler, for a signal that came meanwhile: nobody will know of the child
            if child:
                os.kill(child, _signal.SIGKILL)
                os.waitpid(child, 0)
            raise
    return child
