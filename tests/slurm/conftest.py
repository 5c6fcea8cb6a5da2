"""The image whose packages write."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conftest import or_skip
from tests.slurm import writers

if TYPE_CHECKING:
    from tests.lab.apptainer_root import Runtime


@pytest.fixture(scope="session")
def writing_image(apptainer_runtime: Runtime) -> str:
    """Return the image of `writers`."""
    assert apptainer_runtime
    return str(or_skip(writers.image))
