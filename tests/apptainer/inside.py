"""The interpreter of the test image, and how it is run there."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from subprocess import CompletedProcess

    from tests.lab.apptainer_root import Apptainer

PYTHON = "/opt/venv/bin/python"
SITE = "/opt/venv/lib/python3.11/site-packages"


def run(apptainer: Apptainer, sif: str, argv: list[str], options: Sequence[str] = ()) -> CompletedProcess[str]:
    """Run a command in an image."""
    return apptainer.exec(sif, argv, options=options)
