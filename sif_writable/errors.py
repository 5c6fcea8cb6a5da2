"""What a caller may want to catch. The hook raises only where it is asked to: what the job demands is not there."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

    from sif_writable.gpu.diagnosis import Diagnosis

EXIT_CODE = 1
"""With which a job ends whose demand is not met, as with any error that nobody catches."""


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

    def __init__(self, fact: str, remedy: str, trigger: str = "") -> None:
        """:param fact: what is wrong; :param remedy: what to do; :param trigger: the module that was to be imported."""
        super().__init__(f"{fact}\n{remedy}")
        self.fact = fact
        self.remedy = remedy
        self.name = trigger

    def __reduce__(self) -> tuple[type[UnmetDemandError], tuple[Any, ...]]:
        """Let it travel between processes: pools and launchers pickle the errors of their workers."""
        return type(self), (self.fact, self.remedy, self.name)


class GpuUnavailableError(UnmetDemandError):
    """``SIF_WRITABLE_GPU=require``, and there is no GPU that meets what is demanded."""

    def __init__(self, diagnosis: Diagnosis, trigger: str) -> None:
        """:param trigger: the module whose import asked for the check."""
        super().__init__(diagnosis.fact, diagnosis.remedy, trigger)
        self.diagnosis = diagnosis

    def __reduce__(self) -> tuple[type[GpuUnavailableError], tuple[Any, ...]]:
        """Let it travel between processes, with the diagnosis."""
        return type(self), (self.diagnosis, self.name)


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
