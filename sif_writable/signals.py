"""Signals of the program while our code runs: what its handlers raise passes, and no child of ours runs a handler."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Optional

_HAS_VARARGS = 4
"""The flag of a code object with ``*arguments`` (``inspect.CO_VARARGS``)."""


def from_handler(error: BaseException) -> bool:
    """Whether a signal handler of the program raised an error while our code ran: then it is not ours to swallow.

    It can be of any class, OSError included. The interpreter calls handlers between any two steps, with the number of
    the signal and the frame that it interrupts: no other function gets these two, one after the other. A handler that
    is written in C leaves no such trace, nor does one that gives both names another meaning.
    """
    trace = error.__traceback__
    while trace is not None:
        code, values = trace.tb_frame.f_code, trace.tb_frame.f_locals
        given = [values.get(name) for name in code.co_varnames[: code.co_argcount]]
        if code.co_flags & _HAS_VARARGS:
            given += values.get(code.co_varnames[code.co_argcount + code.co_kwonlyargcount], ())
        for number, frame in zip(given, given[1:]):
            if type(frame) is type(trace.tb_frame) and isinstance(number, int):
                return True
        trace = trace.tb_next
    return False


def let_pass(error: BaseException) -> None:
    """Raise an error again that is not ours (:func:`from_handler`); called wherever a class like OSError is caught."""
    if from_handler(error):
        raise error


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


class own_child:  # noqa: N801 - as `suppress`
    """Have the program's handler of SIGCHLD not called for a child of ours, which is made and waited for in the block.

    The handler is called later for the program's own children that end meanwhile: of two such signals that wait the
    kernel keeps one, so it is sent again where any child has ended. One that another thread gets is not held back.
    """

    def __init__(self) -> None:
        """Begin with no child."""
        self.pid = 0
        self.before: Optional[set[int]] = None
        """Which signals were blocked; none: there is no handler, and nothing to be done."""

    def __enter__(self) -> None:
        """Hold the signal back, if there is a handler; PyPy cannot say whose it is."""
        import _signal

        if hasattr(os, "waitid") and _signal.getsignal(_signal.SIGCHLD) not in (_signal.SIG_DFL, _signal.SIG_IGN):
            self.before = _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGCHLD,))

    def __exit__(self, *_: object) -> None:
        """Take the signal of our child away, and no other."""
        import _signal

        if self.before is None:
            return
        try:
            taken = _signal.sigtimedwait((_signal.SIGCHLD,), 0)
            if taken is not None and (taken.si_pid != self.pid or _has_ended_child()):
                os.kill(os.getpid(), _signal.SIGCHLD)
        finally:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, self.before)


def _has_ended_child() -> bool:
    with suppress(ChildProcessError):
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    return False
