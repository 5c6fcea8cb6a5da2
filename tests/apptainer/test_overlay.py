"""Overlays in a real SIF, run by Apptainer without privileges."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab.overlaid import PRELUDE, PYTHON, TREE, Sif, ask

if TYPE_CHECKING:
    from tests.apptainer.conftest import Rebuilt
    from tests.lab.apptainer_root import Apptainer


@pytest.fixture
def world(apptainer: Apptainer, sif: str) -> Sif:
    """Return the image."""
    return Sif(apptainer, sif)


def test_overlays_stacked_too_deep_are_refused(world: Sif) -> None:
    code = f"""
from sif_writable.overlay.decide import Plan, Target
assert serve({TREE!r}) == ""
inner = {TREE!r} + "/fonts"
answer(overlay.enter(Plan((Target(inner, "overlay", (inner,), "test"),), ()), os.environ, IMAGE))
"""
    assert ask(world, code).startswith("overlays are stacked too deep")


@pytest.mark.parametrize("option", ["--containall", "--pid", "--fakeroot", "--underlay", "--no-home"])
def test_other_ways_to_run_the_image(world: Sif, option: str) -> None:
    code = f"""
problem = serve("/var/log/tool", {TREE!r})
os.makedirs("/var/log/tool", exist_ok=True)
try:
    write({TREE!r} + "/x", "x")
except OSError as error:
    problem += str(error)
answer(problem)
"""
    result = world.run([PYTHON, "-c", PRELUDE + code], options=[option])
    assert result.stdout.splitlines()[-1:] == ['""'], result


def test_two_images_never_share_an_upper_layer(world: Sif, rebuilt: Rebuilt) -> None:
    code = f"""
problem = serve("/var/log/tool", {TREE!r})
os.makedirs("/var/log/tool", exist_ok=True)
seen = os.listdir("/var/log/tool"), os.path.exists({TREE!r} + "/x")
write("/var/log/tool/x", "x"); write({TREE!r} + "/x", "x")
answer([problem, *seen])
"""
    other = Sif(world.apptainer, rebuilt.folder)
    assert ask(world, code) == ["", [], False]
    assert ask(other, code) == ["", [], False]
    assert ask(world, code) == ["", ["x"], True]
