"""What a caller may want to catch. The hook itself raises only the GPU error, and only where it is asked to."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sif_writable.plan.diagnosis import Diagnosis


class SifWritableError(Exception):
    """Base of all errors of this package."""


class GpuUnavailableError(SifWritableError, ImportError):
    """``SIF_WRITABLE_GPU=require``, and there is no GPU that meets what is demanded.

    An ImportError, since it ends the import of the module that wants the GPU; ``name`` is that module.
    """

    def __init__(self, diagnosis: Diagnosis, trigger: str) -> None:
        """:param trigger: the module whose import asked for the check."""
        super().__init__(f"{diagnosis.fact}\n{diagnosis.remedy}")
        self.diagnosis = diagnosis
        self.name = trigger

    def __reduce__(self) -> tuple[type[GpuUnavailableError], tuple[Diagnosis, str]]:
        """Let it travel between processes: pools and launchers pickle the errors of their workers."""
        return type(self), (self.diagnosis, self.name or "")


class StorageUnavailableError(SifWritableError, ImportError):
    """``SIF_WRITABLE_STRICT=1``, and the place that the user named for storage cannot be used."""

    def __init__(self, fact: str, remedy: str) -> None:
        """:param fact: what is wrong, with the path; :param remedy: what to do."""
        super().__init__(f"{fact}\n{remedy}")
        self.fact = fact
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[StorageUnavailableError], tuple[str, str]]:
        """Let it travel between processes, as the errors of workers do."""
        return type(self), (self.fact, self.remedy)
