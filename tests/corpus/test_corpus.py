"""Every case works as if the root were writable, with the hook and no other setting, and goes on from what it left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conftest import or_skip
from tests.corpus.cases import NEXT, OVERLAY
from tests.corpus.replay import problems

if TYPE_CHECKING:
    from concurrent.futures import Future

    from tests.corpus.cases import Case
    from tests.corpus.conftest import Replays
    from tests.corpus.replay import Replay


def _assert_fixed(case: Case, replay: Future[Replay]) -> None:
    if found := problems(case, or_skip(replay.result)):
        pytest.fail("\n".join(found), pytrace=False)


def test_fixed_in_a_sif(case: Case, replays: Replays, profile: str) -> None:
    _assert_fixed(case, replays.in_sif[profile])


def test_fixed_on_a_kernel_mount_without_namespaces(case: Case, replays: Replays, kernel_profile: str) -> None:
    replay = replays.on_kernel_mount[kernel_profile]
    if case.means == OVERLAY:
        assert case.remedy in or_skip(replay.result).said
    elif case.by_copies == NEXT:
        first, later = or_skip(replay.result).split()
        assert "; from the next run on it is imported from a writable copy in " in first.said
        assert not problems(case, later)
    else:
        _assert_fixed(case, replay)


def test_broken_without_the_hook(case: Case, replays: Replays) -> None:
    assert case.healthy or problems(case, or_skip(replays.without_hook.result))
