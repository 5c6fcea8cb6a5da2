"""What is checked once, just before the first heavy import: the storage that the job demands, and the GPU."""

from __future__ import annotations

import os

from sif_writable.act import REFUSED
from sif_writable.errors import StorageUnavailableError
from sif_writable.report.startup import REMEDY


def before_import(name: str) -> None:
    """Check what a heavy module needs before it is imported.

    :param name: the module about to be imported, for the message.
    :raises StorageUnavailableError: ``SIF_WRITABLE_STRICT=1`` and the place that the user named cannot be used.
    """
    if os.environ.get("SIF_WRITABLE_STRICT") == "1" and os.environ.get(REFUSED):
        fact = os.environ[REFUSED].partition(" Remedy:")[0]
        raise StorageUnavailableError(f"{name} is not imported: {fact}", f"Remedy: {REMEDY}.")
