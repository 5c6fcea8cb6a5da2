"""One image for all of these tests: the sources as they are, and small packages that write beside themselves."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.conftest import NOT_RUN, or_skip
from tests.lab import environments, pythons, scratch, store
from tests.lab.plain_machine import PlainMachine
from tests.lab.writing_image import Image
from tests.layer.conftest import Box, owned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.pythons import Python


@pytest.fixture(scope="session")
def shared() -> Iterator[PlainMachine]:
    """Return a machine for all of these tests: what takes longest is to show the environment in its root."""
    with scratch.fresh() as places:
        yield PlainMachine(places)


@pytest.fixture(scope="session")
def interpreter(shared: PlainMachine) -> Python:
    """Return the interpreter of these tests."""
    tried = shared.run(["unshare", "--user", "true"])
    if tried.returncode:
        pytest.skip(f"{NOT_RUN}no ordinary user can make a user namespace: {tried.stderr.strip()[-200:]}")
    python: Python = or_skip(pythons.own)
    return python


@pytest.fixture(scope="session")
def sources(interpreter: Python) -> str:
    """Return the environment."""
    return str(or_skip(owned, interpreter, environments.of_sources))


@pytest.fixture
def machine(shared: PlainMachine) -> PlainMachine:
    """Return it with empty writable places."""
    places = shared.places
    for folder in (places.home, places.tmp, places.var_tmp, places.shm, places.work):
        for name in os.listdir(folder):
            store.remove(os.path.join(folder, name))
    return shared


@pytest.fixture
def image(machine: PlainMachine, sources: str) -> Image:
    """Return that image where there are copies and no layer."""
    return Image(machine.places, sources, machine)


@pytest.fixture
def box(machine: PlainMachine, sources: str) -> Box:
    """Return rootless containers of that image, where there is a layer."""
    return Box(machine.places, sources, machine)


@pytest.fixture
def built(machine: PlainMachine, interpreter: Python) -> str:
    """Return an environment with the sources alone, which one test changes."""
    return environments.copy(or_skip(environments.of_sources, interpreter), f"{machine.places.folder}/venv")
