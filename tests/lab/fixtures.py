"""Fixtures of the environments that tests of several folders look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conftest import or_skip
from tests.lab import environments, writing_image
from tests.lab.hooked import Hooked
from tests.lab.plain_machine import PlainMachine
from tests.lab.writing_image import Image

if TYPE_CHECKING:
    from tests.lab.pythons import Python
    from tests.lab.scratch import Scratch


@pytest.fixture
def machine(places: Scratch) -> PlainMachine:
    """Return a machine with empty writable places."""
    return PlainMachine(places)


@pytest.fixture
def each(machine: PlainMachine, each_python_or_debians: Python) -> Hooked:
    """Return an environment with the package, for every interpreter."""
    return Hooked(machine, each_python_or_debians, str(or_skip(environments.hooked, each_python_or_debians)))


@pytest.fixture
def hooked(machine: PlainMachine, main_python: Python) -> Hooked:
    """Return an environment with the package, for one interpreter."""
    return Hooked(machine, main_python, str(or_skip(environments.hooked, main_python)))


@pytest.fixture(scope="session")
def each_environment(each_python: Python) -> str:
    """Return an environment whose packages write beside themselves, for every interpreter, in turn."""
    return str(or_skip(writing_image.environment, each_python))


@pytest.fixture
def each_image(places: Scratch, each_environment: str) -> Image:
    """Return that environment, shown read-only, for every interpreter, in turn."""
    return Image(places, each_environment)


@pytest.fixture(scope="session")
def one_environment(main_python: Python) -> str:
    """Return such an environment for one interpreter."""
    return str(or_skip(writing_image.environment, main_python))


@pytest.fixture
def one_image(places: Scratch, one_environment: str) -> Image:
    """Return it, shown read-only, for one interpreter."""
    return Image(places, one_environment)
