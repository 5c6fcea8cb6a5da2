"""What counts as fixed."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.corpus import cases
from tests.corpus.cases import MEANS, Case
from tests.corpus.replay import Replay, State, look, new_words, problems
from tests.lab import scratch

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
    opens=("pkg/shipped",),
    remedy="",
    exits=(0, 0),
    by_copies="",
    rare=False,
    healthy=False,
)
CACHE, LOG = "/var_tmp/storage/pkg/cache-1.bin", "/HOME/pkg/log"
OTHER = "/tmp/pkg-of-this-process/pkg/cache-1.bin"
KEPT = "/HOME/x/layer/gen/tree/pkg/shipped"
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
        (_run(), {**HEALTHY, KEPT: State(3, 10)}, f"{KEPT} is kept, and no run has changed it"),
        (_run(), {**HEALTHY, "/tmp/.new-x": State(3, 10)}, "/tmp/.new-x is left over"),
    ],
)
def test_what_is_not_healthy_is_reported(
    second: subprocess.CompletedProcess[str], left: dict[str, State], problem: str
) -> None:
    assert _found(second, left) == [problem]


@pytest.mark.parametrize("gone", [CACHE, LOG])
def test_what_is_missing_is_reported(gone: str) -> None:
    left = {path: state for path, state in HEALTHY.items() if path != gone}
    (found,) = problems(CASE, Replay((_run(), _run()), (left, left)))
    assert found.startswith("nothing is left at …/pkg/")


@pytest.mark.parametrize(
    ("said", "new"),
    [
        ("W0001 12:01 /opt/x.py:7: UserWarning: It is slow.", False),
        ("Map: 100%|██████| 2/2 [00:00<00:00, 371.82 examples/s]", False),
        ("Generating train split: 2 examples [00:00, 17.1 examples/s]", False),
        ("UserWarning: It is slower.", True),
    ],
)
def test_only_words_that_no_healthy_run_says_are_new(said: str, new: bool) -> None:
    healthy = Replay(
        (_run(), subprocess.CompletedProcess([], 0, "", "W2 10:59 /x.py:1: UserWarning: It is slow.\n")), ()
    )
    replayed = Replay((_run(), subprocess.CompletedProcess([], 0, "", f"{said}\n")), ())
    expected = [f"run 2 says, and no healthy run does: {said}"] if new else []
    assert new_words(replayed, healthy) == expected


def test_of_a_layer_the_newest_generation_counts_and_what_is_written_again() -> None:
    def write(path: str, text: str) -> str:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    with scratch.fresh() as places:
        layer = f"{places.var_tmp}/storage/layer"
        log, cache = (write(f"{layer}/gen-9/tree/pkg/{name}", "x") for name in ("log", "cache-1.bin"))
        first = look(places)
        os.makedirs(f"{layer}/gen-10/tree/pkg")
        os.link(cache, f"{layer}/gen-10/tree/pkg/cache-1.bin")
        os.link(log, f"{layer}/gen-10/tree/pkg/log")
        write(f"{layer}/replica-x-10/tree/pkg/cache-1.bin", "x")
        second = look(places)
        assert problems(CASE, Replay((_run(), _run()), (first, second))) == []
        write(f"{layer}/upper-x/0/pkg/cache-1.bin", "x")  # the very same, so there is no new generation of it
        (found,) = problems(CASE, Replay((_run(), _run()), (first, look(places))))
        assert found == "/var_tmp/storage/layer/upper/0/pkg/cache-1.bin is made again by the second run"
        os.unlink(cache)
        os.unlink(f"{layer}/gen-10/tree/pkg/cache-1.bin")
        left = look(places)
        (found,) = problems(CASE, Replay((_run(), _run()), (left, left)))
        assert found == "nothing is left at …/pkg/cache-*.bin"


@pytest.mark.parametrize("table", [cases.load(), cases.frameworks()])
def test_the_table_is_whole(table: tuple[Case, ...]) -> None:
    named = {case.name: case for case in table}
    assert len(named) == len(table)
    for case in table:
        assert case.means in MEANS
        assert all(case.lock == other.lock for other in table if other.environment == case.environment)
        assert set(case.source) <= set(case.lock)
        assert (case.remedy != "") == (case.means == cases.OVERLAY)
        assert case.leaves or case.rewrites or case.removes or case.opens or case.healthy
