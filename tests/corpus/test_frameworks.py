"""Large frameworks do in a SIF what they do on a writable root, and the second run goes on from what the first left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.corpus.replay import SifMachine, new_words, problems, replay
from tests.lab import scratch
from tests.lab.apptainer_root import Apptainer

if TYPE_CHECKING:
    from tests.corpus.cases import Case
    from tests.corpus.replay import Replay
    from tests.lab.apptainer_root import Runtime

pytestmark = pytest.mark.timeout(3600)  # the image of an environment is made by its first test


def test_healthy_on_a_writable_root(framework: Case, healthy: Replay) -> None:
    """What the case expects is what happens without us."""
    assert problems(framework, healthy) == []


def test_as_on_a_writable_root(
    framework: Case, framework_profile: str, framework_sif: str, healthy: Replay, apptainer_runtime: Runtime
) -> None:
    with scratch.fresh() as places:
        machine = SifMachine(Apptainer(apptainer_runtime, places), framework_sif)
        replayed = replay(framework, framework_profile, machine)
    assert problems(framework, replayed) + new_words(replayed, healthy) == []
