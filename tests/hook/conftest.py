"""Interpreters with the built wheel installed, and a plain machine to start them on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.conftest import NOT_RUN, or_skip
from tests.lab import environments, pythons, scratch
from tests.lab.hooked import TARGET, Hooked
from tests.lab.plain_machine import PlainMachine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.pythons import Python


@pytest.fixture(scope="session")
def debian_python() -> Python:
    """Return Debian's own interpreter."""
    for python in pythons.found():
        if python.debian:
            return python
    pytest.skip(f"{NOT_RUN}this machine has no Python of Debian's")


@pytest.fixture(scope="session")
def target(main_python: Python) -> Iterator[str]:
    """Return a folder that was filled by `pip install --target`."""
    with scratch.fresh() as places:
        folder = places.new_folder("target")
        environment = environments.copy(environments.bare(main_python), os.path.join(places.folder, "venv"))
        environments.install(
            PlainMachine(places), main_python, environment, "--target", TARGET, binds=[f"{folder}:{TARGET}"]
        )
        yield folder


@pytest.fixture
def bare(machine: PlainMachine, main_python: Python) -> Hooked:
    """Return an environment without the package, for one interpreter."""
    return Hooked(machine, main_python, str(or_skip(environments.bare, main_python)))


@pytest.fixture
def debian(machine: PlainMachine, debian_python: Python) -> Hooked:
    """Return an environment with the package, made from Debian's interpreter."""
    return Hooked(machine, debian_python, str(or_skip(environments.hooked, debian_python)))
