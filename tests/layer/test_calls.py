"""Each call of publishing, copying to the node and collecting fails, or is the last one of its process."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sif_writable.layer import alive, collect, files, generations, publish, replicas
from tests.faults import calls
from tests.layer.node import PKG, Node, conflict, generation, numbers, tree

if TYPE_CHECKING:
    from collections.abc import Iterator

DONE, REFUSED = 0, 3 << 8
SAMPLE = 30
"""How many faults are tried of each kind of work without --all-faults, evenly spread over all."""


def clean(node: Node) -> list[str]:
    """Return what is left aside once all that is old has been removed."""
    late = time.time() + 2 * generations.STALE_SECONDS
    generations.tidy(node.storage, late)
    collect._tidy(node.place, "", late)
    return [name for place in (node.storage, node.place) for name in os.listdir(place) if name.startswith(".new")]


def again(node: Node, saved: Path) -> None:
    """Bring everything back to what it was."""
    for place in (node.storage, node.place):
        files.remove(place)
        shutil.copytree(f"{saved}{place}", place, symlinks=True)


@pytest.fixture
def memory() -> Iterator[Path]:
    """Return a folder on a tmpfs: a disk would be flushed thousands of times."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.fixture
def node(memory: Path) -> Node:
    return Node(memory)


@pytest.fixture
def size(request: pytest.FixtureRequest) -> int:
    """Return how many faults are tried of each kind of work; 0: all."""
    return 0 if request.config.getoption("--all-faults") else SAMPLE


def save(node: Node, saved: Path) -> None:
    for place in (node.storage, node.place):
        shutil.copytree(place, f"{saved}{place}", symlinks=True)


def test_publishing(node: Node, memory: Path, size: int) -> None:
    """A generation is whole or not there, a conflict's other side is kept, and a later try publishes all."""
    ours, _ = conflict(node)
    save(node, memory / "saved")
    before = generation(node.storage, 2)
    status, seen = calls.run(lambda: node.publish(ours))
    assert status == DONE
    whole = generation(node.storage, 3)
    assert {name: text[-4:] for name, text in whole["tree"].items() if "cache/" in name} == {
        f"{PKG[1:]}/cache/data-of-ours": "ours",
        f"{PKG[1:]}/cache/index": "base",
    }
    for at, error in calls.faults(seen, size):
        again(node, memory / "saved")
        status, _ = calls.run(lambda: node.publish(ours), at, error)
        where = f"{seen[at]} number {at}, {error}"
        assert status in (DONE, REFUSED, 9), where
        assert generation(node.storage, 2) == before, where
        after = numbers(node.storage)
        assert after in ([1, 2], [1, 2, 3]), where
        assert after[-1] == 2 or generation(node.storage, 3) == whole, where
        assert status != DONE or after[-1] == 3, where
        node.publish(ours)
        assert generation(node.storage, numbers(node.storage)[-1]) == whole, where
        aside = [tree(f"{node.storage}/set-aside/{name}") for name in os.listdir(f"{node.storage}/set-aside")]
        theirs = [{name.rpartition("/")[2] for name, text in each.items() if text.endswith("theirs")} for each in aside]
        assert {"index", "data-of-theirs"} in theirs, where
        assert clean(node) == [], where


def test_copying_to_the_node(node: Node, memory: Path, size: int) -> None:
    ours, _ = conflict(node)
    node.publish(ours)
    save(node, memory / "saved")
    status, seen = calls.run(node.replica)
    assert status == DONE
    whole = tree(node.replica())
    for at, error in calls.faults(seen, size):
        again(node, memory / "saved")
        status, _ = calls.run(node.replica, at, error)
        where = f"{seen[at]} number {at}, {error}"
        assert status in (DONE, REFUSED, 9), where
        names = [name for name in os.listdir(node.place) if name.startswith("replica-") and name.endswith("-3")]
        assert [tree(f"{node.place}/{name}") for name in names] in ([], [whole]), where
        assert tree(node.replica()) == whole, where
        assert clean(node) == [], where


def test_collecting(node: Node, memory: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a start does with a dead layer: it is published whole and removed, or it is kept; never half of either."""
    ours, origin = conflict(node)
    save(node, memory / "saved")
    name = os.path.basename(ours)
    monkeypatch.setattr(alive, "states", lambda _, names, *__: dict.fromkeys(names, alive.DEAD))
    monkeypatch.setattr(replicas, "replicate", lambda *_: ("", ""))  # its calls were tried
    # The directories are seen as they are in the image, which is elsewhere here.
    real = publish.publish
    monkeypatch.setattr(publish, "publish", lambda folder, _, target: real(folder, lambda _, d: node.image + d, target))

    def work() -> None:
        Path(memory / "said").write_text(json.dumps(collect._collect(node.place, node.storage, f"id-{origin}")))

    status, seen = calls.run(work)
    assert status == DONE
    assert not os.path.exists(ours)
    whole = generation(node.storage, 3)
    kept = 0
    for at, error in calls.faults(seen, size):
        again(node, memory / "saved")
        status, _ = calls.run(work, at, error)
        where = f"{seen[at]} number {at}, {error}"
        assert status in (DONE, REFUSED, 9), where
        if os.path.exists(ours):
            kept += 1
            assert tree(f"{ours}/0") == tree(f"{memory}/saved{ours}/0"), where
        else:
            assert generation(node.storage, 3) == whole, where
        if status == DONE and os.path.exists(f"{node.place}/{name}"):
            assert "is not in storage yet" in Path(memory / "said").read_text(), where
        work()
        assert not os.path.exists(ours), where
        assert generation(node.storage, numbers(node.storage)[-1]) == whole, where
        assert clean(node) == [], where
    assert kept
