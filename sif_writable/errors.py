"""What can go wrong in a way that a caller may want to catch. The hook itself raises only the GPU error, and only if asked."""

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
