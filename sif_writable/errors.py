"""What is wrong, as data; and what a caller may want to catch.

The hook raises only where it is asked to: what the job demands is not there.
"""

from __future__ import annotations

import sys

from sif_writable import let_pass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

    from typing_extensions import Self

EXIT_CODE = 1
"""With which a job ends whose demand is not met, as with any error that nobody catches."""


class Problem(tuple[str, str, str]):
    """What is wrong: a code for programs, a text and a remedy for people. No text is ever parsed again.

    It is a named tuple made by hand: ``typing`` alone would cost a heavy import ten times what the GPU check costs.
    """

    __slots__ = ()

    def __new__(cls, code: str, text: str, remedy: str = "") -> Self:
        """:param code: a word, such as no-gpu; :param text: a sentence; :param remedy: what to do, or empty."""
        return tuple.__new__(cls, (code, text, remedy))

    def __getnewargs__(self) -> tuple[str, str, str]:
        """Let it travel between processes."""
        return self[0], self[1], self[2]

    def __str__(self) -> str:
        """Return both sentences on one line."""
        return f"{self.text} Remedy: {self.remedy}" if self.remedy else self.text

    @property
    def code(self) -> str:
        """The word that programs compare."""
        return self[0]

    @property
    def text(self) -> str:
        """What is wrong."""
        return self[1]

    @property
    def remedy(self) -> str:
        """What to do; empty where there is nothing."""
        return self[2]


class SifWritableError(Exception):
    """Base of the errors of this package's own commands and functions."""


class UnmetDemandError(BaseException):
    """What the job demands is not there, so its first heavy import ends it.

    No Exception: a program that says ``try: import torch`` and goes on without it shall not do so in silence. Each
    kind comes in two classes, and a handler for the kind catches both. The one that ends the process is a SystemExit,
    so that ``finally`` and ``atexit`` do their work; its two lines are on stderr when it is raised. The other is an
    Exception, but no ImportError: for where nothing else is handed on to the one who waits
    (:func:`somebody_waits`).
    """

    def __init__(self, problem: Problem, trigger: str) -> None:
        """:param trigger: the module that was to be imported."""
        super().__init__(f"{problem.text}\n{problem.remedy}")
        self.problem = problem
        self.name = trigger

    def __reduce__(self) -> tuple[type[UnmetDemandError], tuple[Any, ...]]:
        """Let it travel between processes: pools and launchers pickle the errors of their workers."""
        return type(self), (self.problem, self.name)


class GpuUnavailableError(UnmetDemandError):
    """``SIF_WRITABLE_GPU=require``, and there is no GPU that meets what is demanded."""


class GpuUnavailableExit(GpuUnavailableError, SystemExit):  # noqa: N818 - it is an exit
    """The one that ends the process."""

    code = EXIT_CODE


class GpuUnavailableException(GpuUnavailableError, SifWritableError):  # noqa: N818 - its base has the name
    """The one that is handed on to whoever waits."""


class StorageUnavailableError(UnmetDemandError):
    """``SIF_WRITABLE_STRICT=1``, and the place that the user named for storage cannot be used."""


class StorageUnavailableExit(StorageUnavailableError, SystemExit):  # noqa: N818 - it is an exit
    """The one that ends the process."""

    code = EXIT_CODE


class StorageUnavailableException(StorageUnavailableError, SifWritableError):  # noqa: N818 - its base has the name
    """The one that is handed on to whoever waits."""


def somebody_waits() -> bool:
    """Say whether an error that is no Exception would do harm here, instead of ending the job.

    At a prompt and in a notebook (IPython sets ``sys.ps1``, too) it would end somebody's session. The pools of
    multiprocessing, also those of threads, hand on every Exception and nothing else: who waits for the result would
    wait for ever. A worker of gunicorn that exits is started again, for ever, while an Exception ends the server.
    """
    if hasattr(sys, "ps1"):
        return True
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001
    while frame is not None:
        if frame.f_globals.get("__name__") in _HAND_ON.get(frame.f_code.co_name, ()):
            return True
        frame = frame.f_back
    return False


_HAND_ON = {"worker": ("multiprocessing.pool", "multiprocess.pool"), "spawn_worker": ("gunicorn.arbiter",)}
"""Functions below which an Exception is handed on and a SystemExit is not, with their modules."""


def is_passing(error: OSError) -> bool:
    """Whether an error says nothing about the file itself, which may well be readable the next moment.

    What such an error hides must not be taken for absent where that would be kept.

    :raises OSError: the error itself, where a signal handler of the program has raised it.
    """
    import errno

    let_pass(error)
    passing = (errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.ENOTCONN)
    return error.errno in (*passing, errno.ETIMEDOUT, errno.EHOSTDOWN)
