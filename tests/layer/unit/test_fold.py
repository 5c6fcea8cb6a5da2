"""One directory of a layer folded into the next generation: what goes, what takes its place, what is of no use."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from sif_writable.layer import files, fold, merge
from sif_writable.layer.merge import Change
from sif_writable.layer.records import Generation

EMPTY = Generation(0, "", {}, set(), {}, 0, set(), {})
WHERE = "/v/pkg"


@pytest.fixture
def tree(tmp_path: Path) -> str:
    """Return the tree of the generation that is built, in which a directory of the image has two files."""
    top = tmp_path / "tree"
    (top / "v/pkg/deep").mkdir(parents=True)
    for name in ("data", "deep/file"):
        (top / "v/pkg" / name).write_text("there", encoding="utf-8")
    return str(top)


def layer(tmp_path: Path, changes: list[Change], *, base: int = 0, replica: str = "") -> fold.Layer:
    """Return a layer whose upper directory is ``upper``; the image has ``config.json`` in the package."""
    return fold.Layer(
        "upper-1",
        changes,
        lambda path: f"{tmp_path}/upper{path}",
        base,
        replica,
        lambda path: path.endswith("config.json"),
    )


def now(path: str, kind: str) -> Change:
    """Return a change of just now."""
    return Change(f"{WHERE}/{path}", kind, time.time_ns())


def test_what_is_removed_goes_unless_others_have_written_below(tmp_path: Path, tree: str) -> None:
    removed = [now("deep", merge.GONE), now("data", merge.GONE), now("config.json", merge.GONE)]
    new = EMPTY._replace(number=2, stamps={f"{WHERE}/deep": (2, 1)}, removed=set())
    fold._apply(layer(tmp_path, removed, base=1), (), removed, tree, new)
    assert os.listdir(f"{tree}{WHERE}") == ["deep"]
    assert os.listdir(f"{tree}{WHERE}/deep") == ["file"]
    assert new.removed == {f"{WHERE}/config.json"}  # only what the image has needs to be hidden
    fold._apply(layer(tmp_path, removed, base=1), (2,), removed, tree, new)  # those were this layer itself
    assert os.listdir(f"{tree}{WHERE}") == []


def test_what_cannot_be_removed_is_not_said_to_be_gone(
    tmp_path: Path, tree: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "remove", lambda _: None)  # which removes as far as possible
    changes = [now("data", merge.GONE)]
    with pytest.raises(OSError, match="it cannot be removed"):
        fold._apply(layer(tmp_path, changes), (), changes, tree, EMPTY)


def test_a_file_takes_the_place_of_a_directory_and_the_other_way_round(tmp_path: Path, tree: str) -> None:
    (tmp_path / "upper/v/pkg/data").mkdir(parents=True)
    (tmp_path / "upper/v/pkg/deep").write_text("a file now", encoding="utf-8")
    changes = [now("data", merge.FOLDER), now("deep", merge.FILE)]
    new = EMPTY._replace(removed={f"{WHERE}/deep"})
    fold._apply(layer(tmp_path, changes), (), changes, tree, new)
    assert os.path.isdir(f"{tree}{WHERE}/data")
    assert Path(f"{tree}{WHERE}/deep").read_text(encoding="utf-8") == "a file now"
    assert new.removed == set()


def test_a_journal_without_its_database_is_of_no_use(tmp_path: Path, tree: str) -> None:
    upper = tmp_path / "upper/v/pkg"
    upper.mkdir(parents=True)
    for name in ("gone.db-journal", "data-journal", "config.json.lock"):
        (upper / name).write_text("journal", encoding="utf-8")
    changes = [now(name, merge.FILE) for name in sorted(os.listdir(upper))]
    new = EMPTY._replace(number=1, stamps={}, removed=set(), overridden=set())
    assert fold._take(layer(tmp_path, changes, base=1), new, tree, f"{tmp_path}/beside", WHERE, changes) == merge.BOTH
    assert sorted(os.listdir(f"{tree}{WHERE}")) == ["config.json.lock", "data", "data-journal", "deep"]
    assert new.stamps[WHERE] == (2, max(change.time for change in changes))


def test_a_directory_is_taken_from_what_a_layer_began_with(tmp_path: Path, tree: str) -> None:
    replica = tmp_path / "replica/tree/v/pkg"
    replica.mkdir(parents=True)
    (replica / "kept").write_text("kept", encoding="utf-8")
    (replica / "forgotten").write_text("forgotten", encoding="utf-8")
    (replica / "folder").mkdir()
    try:
        os.mknod(replica / "config.json", 0o020000, 0)
    except PermissionError:
        pytest.skip("not run: no whiteout can be made in the test's folder")
    began = layer(tmp_path, [], base=1, replica=f"{tmp_path}/replica")
    assert fold._clone_files(began, {f"{WHERE}/forgotten": 2}, tree, WHERE) == [f"{WHERE}/config.json"]
    assert sorted(os.listdir(f"{tree}{WHERE}")) == ["data", "deep", "kept"]


def test_a_generation_has_what_a_layer_did_only_word_for_word(tmp_path: Path, tree: str) -> None:
    upper = tmp_path / "upper/v/pkg"
    (upper / "deep").mkdir(parents=True)
    (upper / "data").write_text("there", encoding="utf-8")
    newest = EMPTY._replace(number=1, folder=os.path.dirname(tree))

    def has(*changes: Change, removed: str = "", forgotten: str = "") -> bool:
        known = newest._replace(removed={removed}, forgotten={forgotten: 1})
        return fold.is_there(layer(tmp_path, list(changes)), known)

    data, deep, gone = now("data", merge.FILE), now("deep", merge.FOLDER), now("gone", merge.GONE)
    assert has(data, deep, gone)
    assert not has(data, deep, now("deep/file", merge.GONE))  # it is there
    assert not has(now("config.json", merge.GONE))
    assert has(now("config.json", merge.GONE), removed=f"{WHERE}/config.json")
    assert not has(now("new", merge.FOLDER))
    assert not has(data, forgotten=f"{WHERE}/data")
    (upper / "data").write_text("other", encoding="utf-8")
    assert not has(data)
    assert not fold.is_there(layer(tmp_path, [data]), EMPTY)
