"""The library that speaks NVML's ABI, compiled once, and a container for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.gpu import container

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    why = container.missing()
    if why:
        pytest.skip(f"the GPU checks need a C compiler and bubblewrap: {why}")
    return container.build(tmp_path_factory.mktemp("fake_nvml"))


@pytest.fixture
def room(tmp_path: Path, nvml: Path) -> container.Container:
    return container.Container(tmp_path, nvml)
