"""Every case works as if the root were writable, with the hook and no other setting, and goes on from what it left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.conftest import or_skip
from tests.corpus.cases import OVERLAY
from tests.corpus.replay import problems

if TYPE_CHECKING:
    from concurrent.futures import Future

    from tests.corpus.cases import Case
    from tests.corpus.conftest import Replays
    from tests.corpus.replay import Replay


def _problems(case: Case, replay: Future[Replay]) -> str:
    return "\n".join(problems(case, or_skip(replay.result)))


def test_fixed_in_a_sif(case: Case, replays: Replays, profile: str) -> None:
    assert not _problems(case, replays.in_sif[profile])


def test_fixed_on_a_kernel_mount_without_namespaces(case: Case, replays: Replays, kernel_profile: str) -> None:
    replay = replays.on_kernel_mount[kernel_profile]
    if case.means == OVERLAY:
        assert case.remedy in or_skip(replay.result).said
    else:
        assert not _problems(case, replay)


def test_broken_without_the_hook(case: Case, replays: Replays) -> None:
    assert case.healthy or _problems(case, replays.without_hook)
