"""What counts as fixed."""

from __future__ import annotations

import subprocess

import pytest

from tests.corpus import cases
from tests.corpus.cases import MEANS, Case
from tests.corpus.replay import Replay, State, problems

CASE = Case(
    name="x",
    environment="x",
    lock=(),
    source=(),
    debian=(),
    mb=1,
    means="redirect",
    env={},
    snippet="",
    prints="done",
    leaves=("pkg/cache-*.bin",),
    rewrites=("pkg/log",),
    removes=("pkg/tmp*",),
    remedy="",
    exits=(0, 0),
    healthy=False,
)
CACHE, LOG = "/var_tmp/storage/pkg/cache-1.bin", "/HOME/pkg/log"
OTHER = "/tmp/pkg-of-this-process/pkg/cache-1.bin"
HEALTHY = {CACHE: State(1, 10), LOG: State(2, 20)}


def _run(code: int = 0, said: str = "done\n") -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess([], code, "", said)


def _found(second: subprocess.CompletedProcess[str], left: dict[str, State]) -> list[str]:
    return problems(CASE, Replay((_run(), second), (HEALTHY, left)))


def test_a_healthy_replay_has_no_problem() -> None:
    assert _found(_run(), {CACHE: State(1, 10), LOG: State(2, 21)}) == []


@pytest.mark.parametrize(
    ("second", "left", "problem"),
    [
        (_run(1), HEALTHY, "run 2 exits 1, not 0:\ndone\n"),
        (_run(said="hm\n"), HEALTHY, "run 2 does not print 'done':\nhm\n"),
        (_run(said="done\nWarning: Read-only file system\n"), HEALTHY, "run 2 says: Warning: Read-only file system"),
        (_run(said="done\nsif_writable: before it: no\n"), HEALTHY, "run 2 says: sif_writable: before it: no"),
        (_run(), {**HEALTHY, CACHE: State(1, 11)}, f"{CACHE} is made again by the second run"),
        (_run(), {**HEALTHY, CACHE: State(3, 10)}, f"{CACHE} is made again by the second run"),
        (_run(), {**HEALTHY, OTHER: State(3, 10)}, f"{OTHER} is made again by the second run"),
        (
            _run(),
            {**HEALTHY, "/tmp/pkg/tmpx1": State(3, 10)},
            "/tmp/pkg/tmpx1 is left, and no healthy run leaves it",
        ),
        (_run(), {**HEALTHY, "/tmp/.new-x": State(3, 10)}, "/tmp/.new-x is left over"),
    ],
)
def test_what_is_not_healthy_is_told(
    second: subprocess.CompletedProcess[str], left: dict[str, State], problem: str
) -> None:
    assert _found(second, left) == [problem]


@pytest.mark.parametrize("gone", [CACHE, LOG])
def test_what_is_missing_is_told(gone: str) -> None:
    left = {path: state for path, state in HEALTHY.items() if path != gone}
    (found,) = problems(CASE, Replay((_run(), _run()), (left, left)))
    assert found.startswith("nothing is left at …/pkg/")


def test_the_table_is_whole() -> None:
    table = cases.load()
    named = {case.name: case for case in table}
    assert len(named) == len(table)
    for case in table:
        assert case.means in MEANS
        assert case.lock == named[case.environment].lock
        assert set(case.source) <= set(case.lock)
        assert (case.remedy != "") == (case.means == cases.OVERLAY)
        assert case.leaves or case.rewrites or case.removes or case.healthy
