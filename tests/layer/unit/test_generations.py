"""Generations in a plain folder: published by many at once, merged by directory, copied, superseded."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from sif_writable.layer import alive, files, generations, publish, records, replicas, seen
from sif_writable.layer.make import newest_generation
from tests.layer.node import PKG, Node, in_children


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_many_publishers_at_once_lose_nothing(node: Node) -> None:
    layers = [node.layer() for _ in range(8)]
    for number, layer in enumerate(layers):
        node.write(layer, f"of-{number}/x", str(number))
        node.write(layer, f"of-{number}/y", str(number))
    assert in_children(*[lambda layer=layer: node.publish(layer) for layer in layers]) == [0] * 8
    assert newest_generation(node.storage) == 8
    assert node.newest() == {f"of-{n}/{name}": str(n) for n in range(8) for name in "xy"}
    assert not [name for name in os.listdir(node.storage) if name.startswith(".new")]


def test_a_directory_that_both_changed_is_taken_whole_from_the_later_one(node: Node) -> None:
    node.write(first := node.layer(), "cache/index", "base")
    node.publish(first)
    base = node.replica()
    ours, theirs = node.layer(base), node.layer(base)
    node.write(theirs, "cache/index", "theirs")
    node.write(theirs, "cache/data-of-theirs", "theirs")
    node.write(theirs, "other/theirs", "theirs")
    time.sleep(0.02)
    node.write(ours, "cache/data-of-ours", "ours")
    node.write(ours, "another/ours", "ours")
    assert node.publish(theirs) == []
    (line,) = node.publish(ours)
    # The later one's view: what it started from, and what it wrote.
    assert node.newest() == {
        "cache/index": "base",
        "cache/data-of-ours": "ours",
        "other/theirs": "theirs",
        "another/ours": "ours",
    }
    assert f"{PKG}/cache was changed by two containers at once; the earlier published files are in " in line
    aside = line.rpartition(" ")[2]
    assert sorted(os.listdir(f"{aside}{PKG}/cache")) == ["data-of-theirs", "index"]


def test_the_earlier_one_is_set_aside_when_it_is_published_later(node: Node) -> None:
    ours, theirs = node.layer(), node.layer()
    node.write(ours, "cache/x", "ours")
    time.sleep(0.02)
    node.write(theirs, "cache/x", "theirs")
    node.publish(theirs)
    (line,) = node.publish(ours)
    assert node.newest() == {"cache/x": "theirs"}
    assert "the later published files are in" in line
    with open(f"{line.rpartition(' ')[2]}{PKG}/cache/x", encoding="utf-8") as file:
        assert file.read() == "ours"


def test_a_database_goes_with_its_journal_and_never_with_that_of_others(node: Node) -> None:
    def fill(layer: str, value: int) -> None:
        """Leave a database as a killed process does: with a hot journal."""
        folder = f"{layer}/0{PKG[2:]}"
        os.makedirs(folder, exist_ok=True)
        connection = sqlite3.connect(f"{folder}/t.db", isolation_level=None)
        connection.execute("begin")  # one transaction: else each row is flushed
        connection.execute("create table t (x)")
        connection.executemany("insert into t values (?)", [(value,)] * 500)
        connection.execute("commit")
        connection.execute("pragma cache_size=1")
        connection.execute("begin")
        connection.execute("update t set x = -1")
        os._exit(0)

    ours, theirs = node.layer(), node.layer()
    in_children(lambda: fill(ours, 1))
    in_children(lambda: fill(theirs, 2))
    node.publish(ours)
    node.publish(theirs)
    folder = f"{node.storage}/gen-2/tree{PKG}"
    assert sorted(os.listdir(folder)) == ["t.db", "t.db-journal"]
    connection = sqlite3.connect(f"{folder}/t.db")
    assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
    assert connection.execute("select distinct x from t").fetchall() == [(2,)]


def test_what_was_removed_is_removed_again(node: Node) -> None:
    first = node.layer()
    node.write(first, "cache/x", "x")
    node.write(first, "cache/y", "y")
    upper = f"{first}/0{PKG[2:]}"
    try:
        os.mknod(f"{upper}/config.json", stat.S_IFCHR, 0)
        os.mknod(f"{upper}/__init__.py", stat.S_IFCHR, 0)
    except PermissionError:
        pytest.skip("not run: no whiteout can be made in the test's folder")
    (line,) = node.publish(first)
    assert f"{PKG}/__init__.py: code in the place of the image's" in line
    base = node.replica()
    assert files.is_whiteout(f"{base}/tree{PKG}/config.json", os.lstat(f"{base}/tree{PKG}/config.json"))
    assert not os.path.lexists(f"{base}/tree{PKG}/__init__.py")
    second = node.layer(base)
    node.write(second, "config.json", "new")
    os.makedirs(f"{second}/0{PKG[2:]}/cache")
    os.mknod(f"{second}/0{PKG[2:]}/cache/x", stat.S_IFCHR, 0)
    assert node.publish(second) == []
    assert node.newest() == {"cache/y": "y", "config.json": "new"}
    assert records.read(node.storage, 2).removed == set()


def test_a_layer_is_folded_in_once_and_again_when_more_was_written(node: Node) -> None:
    layer = node.layer()
    node.write(layer, "cache/x", "1")
    node.publish(layer)
    assert node.publish(layer) == []
    assert newest_generation(node.storage) == 1
    node.write(layer, "cache/y", "2")
    assert node.publish(layer) == []  # and no conflict with itself
    assert node.newest() == {"cache/x": "1", "cache/y": "2"}


def test_a_publisher_killed_at_any_moment_leaves_a_whole_generation_or_none(
    node: Node, request: pytest.FixtureRequest
) -> None:
    node.write(first := node.layer(), "cache/old", "old")
    node.publish(first)
    layer = node.layer(node.replica())
    for number in range(40):
        node.write(layer, f"cache/{number}", "new")
    everything = request.config.getoption("--all-faults")
    for delay in [number / 2000 for number in range(100)] if everything else [0.0, 0.003, 0.01, 0.04]:
        child = os.fork()
        if child == 0:
            try:
                node.publish(layer)
            finally:
                os._exit(0)
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert len(node.newest()) in (1, 41)
    node.publish(layer)
    assert len(node.newest()) == 41
    generations.tidy(node.storage, time.time() + 2 * generations.STALE_SECONDS)
    assert not [name for name in os.listdir(node.storage) if name.startswith(".new")]


def test_superseded_generations_go_after_an_hour_and_large_ones_stay(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        node.write(layer := node.layer(), "cache/x", str(number))
        node.publish(layer)
    generations.tidy(node.storage, time.time())
    assert newest_generation(node.storage) == 3
    assert len([name for name in os.listdir(node.storage) if name.startswith("gen-")]) == 3
    monkeypatch.setattr(generations, "REPLICA_BYTES", 0)
    generations.tidy(node.storage, time.time() + 4000)
    assert len([name for name in os.listdir(node.storage) if name.startswith("gen-")]) == 3
    monkeypatch.undo()
    generations.tidy(node.storage, time.time() + 4000)
    assert [name for name in os.listdir(node.storage) if name.startswith("gen-")] == ["gen-3"]


def test_nothing_changes_where_storage_is_full(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.write(first := node.layer(), "cache/x", "x")
    node.publish(first)
    layer = node.layer(node.replica())
    node.write(layer, "cache/y", "y")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", node.storage)

    monkeypatch.setattr(files, "sync", full)
    with pytest.raises(OSError, match="No space left"):
        node.publish(layer)
    assert node.newest() == {"cache/x": "x"}
    assert not [name for name in os.listdir(node.storage) if name.startswith(".new")]


def test_what_a_layer_removes_of_its_own_after_it_was_published_goes_too(node: Node) -> None:
    """A transaction was open when the last process that was seen ended: its journal would undo what came later."""
    layer = node.layer()
    node.write(layer, "db", "old")
    node.write(layer, "db-journal", "x")
    node.write(layer, "locks/lock", "x")
    node.write(layer, "only/now", "x")
    node.publish(layer)
    node.write(other := node.layer(node.replica()), "of-another/file", "x")
    node.publish(other)
    upper = f"{layer}/0{PKG[2:]}"
    for name in ("db-journal", "locks/lock", "only/now"):
        os.unlink(f"{upper}/{name}")
    os.rmdir(f"{upper}/only")
    node.write(layer, "db", "new")
    assert node.publish(layer) == []
    assert node.newest() == {"db": "new", "of-another/file": "x"}
    assert not os.path.exists(f"{node.storage}/gen-3/tree{PKG}/only")
    for name in ("db", "db-journal"):
        if os.path.exists(f"{upper}/{name}"):
            os.unlink(f"{upper}/{name}")
    assert node.publish(layer) == []
    assert node.newest() == {"of-another/file": "x"}


def test_a_side_that_has_lost_stays_out_when_it_is_folded_in_again(node: Node) -> None:
    ours, theirs = node.layer(), node.layer()
    node.write(ours, "cache/index", "ours")
    time.sleep(0.02)
    node.write(theirs, "cache/data", "theirs")
    node.publish(theirs)
    assert "later published files" in node.publish(ours)[0]
    node.write(ours, "elsewhere/x", "x")
    assert node.publish(ours) == []  # it was said
    assert node.newest() == {"cache/data": "theirs", "elsewhere/x": "x"}
    node.write(ours, "cache/index", "anew")
    assert "earlier published files" in node.publish(ours)[0]
    assert node.newest() == {"cache/index": "anew", "elsewhere/x": "x"}


def test_files_of_any_name_mode_and_size_are_kept(node: Node) -> None:
    layer = node.layer()
    names = ["new\nline/x\ny", "back\\nslash/\\", "\udcff/\udcfe", "1 2/ 3"]
    for name in names:
        node.write(layer, name, "x")
    upper = f"{layer}/0{PKG[2:]}"
    node.write(layer, "closed", "x")
    os.chmod(f"{upper}/closed", 0o000)
    with open(f"{upper}/sparse", "wb") as file:
        file.seek(1 << 40)
        file.write(b"end")
    node.publish(layer)
    base = node.replica()
    node.write(second := node.layer(base), f"{names[0]}-more", "x")
    assert node.publish(second) == []
    tree = f"{node.storage}/gen-2/tree{PKG}"
    assert {name for name, status in files.walk(tree) if stat.S_ISREG(status.st_mode)} == {
        *names,
        f"{names[0]}-more",
        "closed",
        "sparse",
    }
    assert stat.S_IMODE(os.stat(f"{tree}/closed").st_mode) == 0
    sparse = os.stat(f"{tree}/sparse")
    assert (sparse.st_size, sparse.st_blocks < 1000) == ((1 << 40) + 3, True)
    assert set(records.read(node.storage, 2).stamps) == {os.path.dirname(f"{PKG}/{name}") for name in names} | {PKG}
    assert records.read(node.storage, 2).size < 1 << 20


@pytest.mark.timeout(20)
def test_sparse_files_are_compared_by_what_is_in_them(tmp_path: Path) -> None:
    """A database that reserves a terabyte is opened to be written, and left as it was: that is seen at the exit."""

    def sparse(name: str, *parts: tuple[int, bytes]) -> str:
        with open(path := f"{tmp_path}/{name}", "wb") as file:
            file.truncate(1 << 40)
            for at, data in parts:
                file.seek(at)
                file.write(data)
        return path

    one = sparse("one", (0, b"head"), (1 << 39, b"x" * 9000))
    assert files.are_same(one, sparse("same", (0, b"head"), (1 << 39, b"x" * 9000)))
    assert files.are_same(one, sparse("zeros", (0, b"head"), (1 << 20, b"\0" * 9000), (1 << 39, b"x" * 9000)))
    assert not files.are_same(one, sparse("more", (0, b"head"), (1 << 39, b"x" * 9000), (3 << 38, b"y")))
    assert not files.are_same(one, sparse("other", (0, b"head"), (1 << 39, b"x" * 8999 + b"y")))
    assert not files.are_same(sparse("empty"), one)
    assert files.are_same(sparse("empty"), sparse("hole"))


def test_generations_of_another_storage_at_the_same_path_are_not_taken_for_these(node: Node) -> None:
    replicas.mark(node.storage)
    node.write(first := node.layer(), "x", "of the first")
    node.publish(first)
    before = node.replica()
    os.rename(node.storage, f"{node.storage}-away")
    assert replicas.mark(node.storage)
    node.write(second := node.layer(), "x", "of the second")
    node.publish(second)
    after = node.replica()
    texts = [Path(f"{base}/tree{PKG}/x").read_text(encoding="utf-8") for base in (before, after)]
    assert texts == ["of the first", "of the second"]
    left = node.layer(before, origin=before.split("-")[-2])
    node.write(left, "y", "of the first")
    with pytest.raises(FileNotFoundError, match="the storage of that run is not there"):
        node.publish(left)


def test_storage_that_cannot_be_listed_is_not_empty_storage(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2):
        node.write(layer := node.layer(), "x", str(number))
        node.publish(layer)
    generations.tidy(node.storage, time.time() + 4000)  # now the first number is free again
    node.write(layer := node.layer(node.replica()), "y", "y")
    real = os.listdir

    def failing(path: str) -> list[str]:
        if path == node.storage:
            raise OSError(5, "Input/output error", path)
        return real(path)

    monkeypatch.setattr(os, "listdir", failing)
    with pytest.raises(OSError, match="Input/output"):
        node.publish(layer)
    monkeypatch.undo()
    assert [name for name in os.listdir(node.storage) if name.startswith("gen-")] == ["gen-2"]


def test_copies_made_before_the_machine_has_started_are_made_again(node: Node) -> None:
    node.write(layer := node.layer(), "x", "x")
    node.publish(layer)
    base = node.replica()
    replicas.drop_unflushed(node.place)
    assert os.path.isdir(base)
    Path(f"{base}/boot").write_text("another", encoding="utf-8")
    replicas.drop_unflushed(node.place)
    assert not os.path.exists(base)
    assert node.replica() == base


def test_who_writes_the_very_same_loses_nothing(node: Node) -> None:
    for number in range(3):
        node.write(layer := node.layer(), "cache/index", "same")
        node.write(layer, f"of-{number}/x", "x")
        assert node.publish(layer) == []
    assert node.newest() == {"cache/index": "same", "of-0/x": "x", "of-1/x": "x", "of-2/x": "x"}
    assert "set-aside" not in os.listdir(node.storage)


def test_what_may_still_be_written_is_not_published_at_an_exit(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that enters a layer while another one publishes it at its end may have a file open."""
    node.write(layer := node.layer(), "cache/x", "")
    original = lambda _, directory: node.image + directory  # noqa: E731

    def at_exit() -> list[str]:
        return publish.publish(layer, original, alone={str(os.getpid())})

    monkeypatch.setattr(alive, "is_last", lambda *_: False)
    assert (at_exit(), newest_generation(node.storage)) == ([], 0)
    monkeypatch.setattr(alive, "is_last", lambda *_: True)
    real = seen.read_changes

    def writing(*words: Any) -> Any:
        found = real(*words)
        node.write(layer, "cache/x", "whole")
        return found

    monkeypatch.setattr(publish, "read_changes", writing)
    assert (at_exit(), newest_generation(node.storage)) == ([], 0)
    monkeypatch.setattr(publish, "read_changes", real)
    assert (at_exit(), node.newest()) == ([], {"cache/x": "whole"})


def test_what_was_only_opened_to_be_written_is_no_change_and_wins_nothing(node: Node) -> None:
    def as_before(layer: str, name: str, source: str) -> None:
        os.makedirs(f"{layer}/0{PKG[2:]}", exist_ok=True)
        shutil.copy2(source, f"{layer}/0{PKG[2:]}/{name}")

    as_before(reads := node.layer(), "config.json", f"{node.image}{PKG}/config.json")
    as_before(reads, "__init__.py", f"{node.image}{PKG}/__init__.py")
    assert node.publish(reads) == []
    assert newest_generation(node.storage) == 0
    node.write(first := node.layer(), "db", "1")
    node.publish(first)
    base = node.replica()
    node.write(writes := node.layer(base), "db", "2")
    time.sleep(0.02)
    as_before(reads := node.layer(base), "db", f"{base}/tree{PKG}/db")
    assert node.publish(writes) == []
    assert node.publish(reads) == []
    assert node.newest() == {"db": "2"}


def test_a_package_of_the_image_that_was_removed_or_linked_elsewhere_is_there_again(node: Node) -> None:
    node.put(f"{node.image}/v/lib/other/__init__.py", "")
    node.put(f"{node.image}/v/lib/other/data", "")
    node.put(f"{node.image}/v/lib/data/x", "")
    node.put(f"{node.image}{PKG}/module.py", "")
    layer = node.layer()
    node.write(layer, "new", "x")
    node.write(layer, "module.py/x", "in its place")
    os.symlink("/elsewhere", f"{layer}/0/lib/other")
    os.symlink("/elsewhere", f"{layer}/0/lib/data")
    (line,) = node.publish(layer)
    assert line.startswith("/v/lib/other and 1 more: code in the place of the image's")
    assert node.newest() == {"new": "x"}
    tree = f"{node.storage}/gen-1/tree/v/lib"
    assert sorted(os.listdir(tree)) == ["data", "pkg"]
    if os.getuid() == 0:  # what the kernel makes for a removed directory
        os.unlink(f"{layer}/0/lib/other")
        os.mknod(f"{layer}/0/lib/other", stat.S_IFCHR, os.makedev(0, 0))
        _, found, changes, kept = seen.read_changes(layer, lambda _, directory: node.image + directory)
        assert sorted(kept.dropped) == ["/v/lib/other/__init__.py", "/v/lib/other/data", f"{PKG}/module.py/x"]
        assert found.installed(changes) == set(kept.dropped)


def test_code_with_the_same_bytes_is_no_other_code(node: Node) -> None:
    """What was touched or made executable belongs to what was noted beside it."""
    names = {"__init__.py": "x = 1\n", "bin/tool": "#!/bin/sh\n", "more.py": "", "gone.py": ""}
    for name, text in names.items():
        node.put(f"{node.image}{PKG}/{name}", text)
    layer = node.layer()
    for name in ("__init__.py", "bin/tool"):
        node.write(layer, name, names[name])
    os.chmod(f"{layer}/0{PKG[2:]}/bin/tool", 0o755)
    node.write(layer, "done", "yes")
    assert node.publish(layer) == []
    assert node.newest() == {"__init__.py": "x = 1\n", "bin/tool": "#!/bin/sh\n", "done": "yes"}
    assert os.lstat(f"{node.storage}/gen-1/tree{PKG}/bin/tool").st_mode & 0o777 == 0o755
    node.write(layer := node.layer(), "more.py", "y = 2\n")
    node.write(layer, "bin/tool", "#!/bin/sh \n")
    os.symlink("table.py", f"{layer}/0{PKG[2:]}/gone.py")
    (line,) = node.publish(layer)
    assert f"{PKG}/gone.py and 2 more: code in the place of the image" in line


def test_a_module_that_is_generated_is_data_with_its_bytecode(node: Node) -> None:
    marked = '\n# table.py\n# This file is automatically generated. Do not edit.\n_signature = "{}"\n'
    for name in ("table.py", "patched.py", "plain.py"):
        node.put(f"{node.image}{PKG}/{name}", "" if name == "plain.py" else marked.format("image"))
        node.put(f"{node.image}{PKG}/__pycache__/{name}c".replace(".py", ".cpython-311.py"), "image")
    layer = node.layer()
    node.write(layer, "table.py", marked.format("made"))
    node.write(layer, "patched.py", "# by hand")
    node.write(layer, "plain.py", marked.format("made"))  # the image's does not say so
    for name in ("table", "patched", "plain"):
        node.write(layer, f"__pycache__/{name}.cpython-311.pyc", "made")
    node.write(layer, "state.json", "made")
    (line,) = node.publish(layer)
    assert f"{PKG}/patched.py and 1 more: code in the place of the image" in line
    kept = {"table.py": marked.format("made"), "__pycache__/table.cpython-311.pyc": "made", "state.json": "made"}
    assert node.newest() == kept
    shown = {f"{PKG}/table.py", f"{PKG}/__pycache__/table.cpython-311.pyc"}  # in `status`, as what replaces the image's
    assert records.read(node.storage, 1).overridden == shown
    later = node.layer(node.replica())
    node.write(later, "__pycache__/table.cpython-312.pyc", "another interpreter's")
    node.write(later, "__pycache__/table.cpython-311.pyc", "made again")
    assert node.publish(later) == []
    assert node.newest()["__pycache__/table.cpython-311.pyc"] == "made again"
    removed = node.layer(node.replica())
    os.makedirs(f"{removed}/0/lib/pkg")
    if os.getuid() == 0:
        os.mknod(f"{removed}/0/lib/pkg/table.py", stat.S_IFCHR, os.makedev(0, 0))
        (line,) = node.publish(removed)
        assert f"{PKG}/table.py: code in the place of the image" in line


def test_new_code_that_is_run_in_the_place_of_the_images_is_gone_with_the_layer(node: Node) -> None:
    for name in (
        "lib/space/inner/code.py",
        "lib/data/table.csv",
        "lib/module.pyc",
        "lib/python3.11/site-packages/far.py",
    ):
        node.put(f"{node.image}/v/{name}", "")
    layer = node.layer()
    gone = ["lib/pkg.py", "lib/module.py", "lib/space/__init__.py", "lib/pkg/fast.so", "lib/pkg/fast/__init__.py"]
    gone += ["lib/pkg/fast/part.py", "lib/python3.11/dist-packages/far.so"]
    kept = [
        "lib/data.py",
        "lib/space/more.py",
        "lib/pkg/new/__init__.py",
        "lib/pkg/new.py",
        "lib/pkg/fast.pyc",
        "lib/far.py",
    ]
    node.put(f"{node.image}{PKG}/fast.py", "")
    os.makedirs(f"{node.image}/v/lib/python3.11/dist-packages")
    for name in [*gone[1:], *kept]:
        node.put(f"{layer}/0/{name}", "x")
    (line,) = node.publish(layer)
    assert f"and {len(gone) - 2} more: code in the place of the image's, or installed; gone with" in line
    tree = f"{node.storage}/gen-1/tree/v"
    found = [os.path.relpath(f"{where}/{name}", tree) for where, _, names in os.walk(tree) for name in names]
    assert sorted(found) == sorted(kept)


def test_what_an_older_installer_listed_is_gone_with_the_layer(node: Node) -> None:
    node.write(layer := node.layer(), "../q.egg-info/installed-files.txt", "../q/data\n../../share/q\n")
    node.put(f"{layer}/0/share/q", "")
    node.write(layer, "../q/data", "")
    node.write(layer, "mine", "")
    (line,) = node.publish(layer)
    assert "/v/lib/q.egg-info and 3 more: code in the place of the image's, or installed; gone" in line
    assert node.newest() == {"mine": ""}
    assert not os.path.exists(f"{node.storage}/gen-1/tree/v/share/q")


def test_what_is_gone_is_said_once_though_other_files_change_before_the_layer_is_dead(node: Node) -> None:
    layer = node.layer()
    node.write(layer, "__init__.py", "changed")
    node.write(layer, "db", "x")
    node.write(layer, "db-wal", "open")
    (line,) = node.publish(layer)
    assert "gone with this container" in line
    os.unlink(f"{layer}/0{PKG[2:]}/db-wal")
    assert node.publish(layer) == []
    node.write(layer, "../more/__init__.py", "is new, and kept")
    node.write(layer, "evil.pth", "")
    (line,) = node.publish(layer)
    assert "and 1 more: code in the place of the image's" in line
