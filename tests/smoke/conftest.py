"""One image for all of these tests: the sources as they are, and small packages that write beside themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conftest import NOT_RUN, or_skip
from tests.lab import environments, pythons, scratch
from tests.lab.plain_machine import PlainMachine
from tests.lab.writing_image import Image
from tests.layer.conftest import Box, owned

if TYPE_CHECKING:
    from tests.lab.scratch import Scratch


@pytest.fixture(scope="session")
def sources() -> str:
    """Return the environment for the interpreter of these tests."""
    with scratch.fresh() as places:
        tried = PlainMachine(places).run(["unshare", "--user", "true"])
    if tried.returncode:
        pytest.skip(f"{NOT_RUN}no ordinary user can make a user namespace: {tried.stderr.strip()[-200:]}")
    return str(or_skip(owned, or_skip(pythons.own), environments.of_sources))


@pytest.fixture
def image(places: Scratch, sources: str) -> Image:
    """Return that image where there are copies and no layer."""
    return Image(places, sources)


@pytest.fixture
def box(places: Scratch, sources: str) -> Box:
    """Return rootless containers of that image, where there is a layer."""
    return Box(places, sources)
