"""What is checked once, just before the first heavy import: the storage that the job demands, and the GPU."""

from __future__ import annotations

import os

from sif_writable.act import REFUSED, gpucheck
from sif_writable.errors import StorageUnavailableError
from sif_writable.report.startup import REMEDY


def before_import(name: str) -> None:
    """Check what a heavy module needs before it is imported.

    :param name: the module about to be imported, for the message.
    :raises StorageUnavailableError: ``SIF_WRITABLE_STRICT=1`` and the place that the user named cannot be used.
    :raises GpuUnavailableError: ``SIF_WRITABLE_GPU=require`` and no GPU meets what is demanded.
    """
    if os.environ.get("SIF_WRITABLE_STRICT") == "1" and os.environ.get(REFUSED):
        fact = os.environ[REFUSED].partition(" Remedy:")[0]
        raise StorageUnavailableError(f"{name} is not imported: {fact}", f"Remedy: {REMEDY}.")
    gpucheck.enforce(name, os.environ, gpucheck.declared())
