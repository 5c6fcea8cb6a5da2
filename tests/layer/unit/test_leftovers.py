"""What dead layers have left on a node: published, kept or removed, whatever is wrong with it."""

from __future__ import annotations

import errno
import os
import shutil
import time
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from sif_writable.layer import (
    alive,
    collect,
    files,
    generations,
    make,
    names,
    neighbours,
    publish,
    replicas,
    seen,
    survey,
)
from sif_writable.layer.enter import Layer
from sif_writable.layer.make import NEW
from sif_writable.layer.publish import IN_MEMORY
from tests.layer.node import PKG, Node, conflict

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def refuse(number: int) -> Callable[..., NoReturn]:
    """Return a function that fails with an errno."""

    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def age(path: str, seconds: float) -> None:
    """Make something old."""
    when = time.time() - seconds
    os.utime(path, (when, when), follow_symlinks=False)


def test_where_storage_does_not_answer_the_newest_copy_serves(
    node: Node, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkdir(f"{node.place}/{make.replica('id-a', 3)}")
    monkeypatch.setattr(os, "fork", refuse(errno.EAGAIN))
    found = collect.before_making(node.place, node.storage, "id-a")
    assert found == f"{node.place}/{make.replica('id-a', 3)}"
    assert "what earlier runs wrote may be missing here: storage has not answered" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["layers", "stamps"])
def test_a_damaged_generation_is_said_and_the_newest_copy_serves(node: Node, file: str) -> None:
    origin = replicas.mark(node.storage)
    node.put(f"{node.storage}/gen-1/{file}", "damaged\n")  # without the stamps it is taken for one that just went
    os.mkdir(f"{node.place}/{make.replica(origin, 0)}")
    base, line = collect._collect(node.place, node.storage, origin).split("\n")
    assert base == f"{node.place}/{make.replica(origin, 0)}"
    assert line.startswith("what earlier runs wrote may be missing here: ")
    assert line.rpartition(" (")[2].startswith((node.place, node.storage))


def test_a_dead_layer_is_taken_in_only_where_it_is_whole_free_and_of_this_storage(node: Node) -> None:
    origin = replicas.mark(node.storage)

    def take(name: str) -> list[str]:
        return collect._take_in(node.place, name, node.storage, origin)

    os.mkdir(f"{node.place}/{NEW}-upper-a")
    assert take(f"{NEW}-upper-a") == []  # it is being made
    assert os.path.isdir(f"{node.place}/{NEW}-upper-a")
    age(f"{node.place}/{NEW}-upper-a", 2 * collect.UNFINISHED_SECONDS)
    assert take(f"{NEW}-upper-a") == []  # its maker was killed at once
    assert os.listdir(node.place) == []
    assert take("upper-gone") == []

    name = os.path.basename(layer := node.layer(origin="another"))
    node.write(layer, "cache/x", "kept")
    assert take(name) == []  # it goes to another storage, and waits for a run that has it
    assert os.path.isdir(layer)

    name = os.path.basename(layer := node.layer(origin=origin[3:]))
    node.write(layer, "cache/x", "kept")
    lock = alive.lock(layer)
    assert take(name) == []  # another process has it
    assert os.path.isdir(layer)
    os.close(lock)

    os.unlink(f"{layer}/about")
    assert take(name) == []  # without that nothing is known, and nothing is removed
    os.mkdir(f"{layer}/about")
    (line,) = take(name)
    assert "is not in storage yet" in line
    assert os.path.isfile(f"{layer}/0{PKG[2:]}/cache/x")


def test_what_nobody_uses_on_a_node_is_removed(node: Node) -> None:
    def note(name: str, text: str) -> str:
        os.symlink(text, f"{node.place}/{name}")
        age(f"{node.place}/{name}", 2 * collect.LINK_SECONDS)
        return name

    layer = os.path.basename(node.layer())
    kept = [note("container-lives", f"{layer}:1:1"), layer]
    os.symlink("upper-gone:1:1", f"{node.place}/container-young")
    kept.append("container-young")
    note("container-ended", "upper-gone:1:1")
    for name, boot in ((f"{IN_MEMORY}a", make.boot()), (f"{IN_MEMORY}b", "another")):
        node.put(f"{node.place}/{name}/about", f"{boot}\n\n\n\n/v")
        kept += [name] * (boot == make.boot())
    os.mkdir(f"{node.place}/{NEW}-aside")
    age(f"{node.place}/{NEW}-aside", 2 * collect.STALE_SECONDS)
    os.mkdir(f"{node.place}/{replicas.GONE}a")
    collect._tidy(node.place, "", time.time())
    assert sorted(os.listdir(node.place)) == sorted(kept)


def test_copies_that_are_replaced_go_when_no_layer_was_made_from_them(node: Node) -> None:
    base, used, unused = (f"{node.place}/{make.replica('id-a', number)}" for number in (3, 2, 1))
    for path in (base, used, unused):
        os.mkdir(path)
    replicas.drop_unused(node.place, "", time.time(), [used])
    replicas.drop_unused(node.place, base, time.time(), [used])  # a start may be about to mount it
    assert len(os.listdir(node.place)) == 3
    replicas.drop_unused(node.place, base, time.time() + 2 * replicas.REPLACED_SECONDS, [used])
    assert sorted(os.listdir(node.place)) == sorted(map(os.path.basename, (base, used)))


def test_what_was_removed_is_there_again_only_where_a_filesystem_cannot_say_so(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = f"{node.place}/tree"
    monkeypatch.setattr(os, "mknod", refuse(errno.EPERM))
    folder = f"{node.image}{PKG}"
    os.mkdir(tree)
    replicas._replay([f"{folder}/config.json", "/no/such/folder/x"], tree)
    assert os.listdir(f"{tree}{folder}") == []
    assert os.listdir(tree) == [folder.split("/")[1]]
    monkeypatch.setattr(os, "mknod", refuse(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        replicas._replay([f"{folder}/config.json"], tree)


def test_a_generation_that_is_superseded_while_it_is_copied_is_none_to_wait_for(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.write(layer := node.layer(), "cache/x", "kept")
    node.publish(layer)
    copy, first = replicas._copy, f"{node.storage}/gen-1"
    shutil.copytree(first, f"{node.storage}/away")

    def superseded(newest: Any, aside: str) -> None:
        if newest.number == 1:
            os.rename(f"{node.storage}/away", f"{node.storage}/gen-2")
            files.remove(first)
            refuse(errno.ENOENT)()
        copy(newest, aside)

    monkeypatch.setattr(replicas, "_copy", superseded)
    assert replicas.replicate(node.storage, node.place) == (f"{node.place}/{make.replica('', 2)}", "")

    def always(newest: Any, _: str) -> None:
        os.rename(newest.folder, f"{node.storage}/gen-{newest.number + 1}")
        refuse(errno.ENOENT)()

    files.remove(f"{node.place}/{make.replica('', 2)}")
    monkeypatch.setattr(replicas, "_copy", always)
    before = sorted(os.listdir(node.place))
    with pytest.raises(OSError, match="others have published all the time"):
        replicas.replicate(node.storage, node.place)
    assert sorted(os.listdir(node.place)) == before


def test_a_layer_with_nothing_in_it_makes_no_storage(node: Node) -> None:
    layer = seen.read_changes(node.layer(), lambda _, directory: node.image + directory)[0]
    folder = f"{node.storage}/gone"
    assert generations.publish(folder, layer) == generations.Published(0, [], "")
    assert not os.path.exists(folder)


def test_who_never_gets_the_next_number_gives_up_and_leaves_nothing(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.write(layer := node.layer(), "cache/x", "kept")
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(generations, "ATTEMPTS", 3)
    rename = os.rename

    def taken(source: str, target: str) -> None:
        if os.path.basename(target).startswith("gen-"):
            refuse(errno.ENOTEMPTY)()
        rename(source, target)

    monkeypatch.setattr(os, "rename", taken)
    with pytest.raises(OSError, match="others have published all the time"):
        node.publish(layer)
    assert [name for name in os.listdir(node.storage) if not name.startswith("id-")] == []

    def lost(source: str, target: str) -> None:
        if os.path.basename(target).startswith("gen-"):
            refuse(errno.ENOENT)()
        rename(source, target)

    monkeypatch.setattr(os, "rename", lost)
    with pytest.raises(FileNotFoundError):  # nobody has superseded it
        node.publish(layer)
    assert [name for name in os.listdir(node.storage) if not name.startswith("id-")] == []


def test_damaged_words_of_a_layer_say_nothing(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = node.layer()
    with pytest.raises(ValueError, match="/elsewhere"):
        seen.read_changes(layer, lambda _, directory: directory)[0].source("/elsewhere/x")
    assert not seen.read_changes(layer, lambda _, directory: node.image + directory)[0].in_image("/elsewhere/x")
    assert survey.about(layer).directories == ["/v"]
    node.put(f"{layer}/about", "half\nof it")
    with pytest.raises(OSError, match="it is damaged"):
        seen.about(layer)
    assert survey.about(layer) == survey.About(False, "", "", [])
    assert survey.written(layer) == survey.Written([], 0)
    assert not survey.is_kept(layer)
    assert names.written(f"{tmp_path}/gone", ["/v"]) == frozenset()
    assert neighbours.member(Layer(node.place, "token"), "upper-1:x:1") is None
    assert neighbours.member(Layer(node.place, "token"), "upper-1:1:") is None
    monkeypatch.setattr(os, "listdir", refuse(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        list(survey._files(layer))


def test_a_layer_that_nobody_answers_for_or_that_is_being_read_stays(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = os.path.basename(node.layer())
    folder = f"{node.place}/{name}"
    lock = alive.lock(folder)
    monkeypatch.setattr(survey, "in_use", lambda _: "")
    assert survey.remove(folder) == "is being read by another process, which keeps what is in it"
    os.close(lock)
    monkeypatch.undo()
    monkeypatch.setattr(os, "fork", refuse(errno.EAGAIN))
    assert survey.states(node.place, []) == {}
    assert survey.states(node.place, [name]) == {name: survey.UNKNOWN}
    assert survey.remove(folder) == "may be used by programs that run: the kernel cannot be asked here"
    assert os.path.isdir(folder)
    os.unlink(f"{folder}/about")
    monkeypatch.setattr(survey, "in_use", lambda _: "")
    assert survey.remove(folder) == ""  # it is half of a layer
    assert os.listdir(node.place) == []


def test_what_is_to_be_published_from_within_stays_where_it_cannot_be(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    (line,) = publish._publish_from_within(f"{node.place}/upper-gone")
    assert line.startswith("what was written in the environment is not in storage yet: No such file or directory. ")
    (line,) = publish._publish_from_within(f"{node.place}/{IN_MEMORY}gone")
    assert line.startswith("what was written in the environment is lost: it was in memory")
    node.write(layer := node.layer(), "cache/x", "kept")
    lock = alive.lock(layer)
    monkeypatch.setattr(publish, "SECONDS", 0.01)
    assert publish._publish_from_within(layer) == []  # who has it publishes it
    os.close(lock)
    assert os.path.isfile(f"{layer}/0{PKG[2:]}/cache/x")


def test_whose_a_written_file_is_is_read_from_its_layer(node: Node) -> None:
    layer = node.layer()
    node.put(f"{layer}/about", f"{make.boot()}\n\n{node.storage}\n\n/w\n/v")
    node.put(f"{layer}/1/lib/site-packages/new/__init__.py", "")
    node.put(f"{layer}/1/lib/site-packages/new-1.dist-info/RECORD", "new/__init__.py,,\nnew-1.dist-info/RECORD,,\n")
    packages = "/v/lib/site-packages"
    paths = [f"{packages}/new/__init__.py", f"{packages}/new-1.dist-info/RECORD", "/x/lost-1.dist-info/RECORD"]
    found = survey.units(layer, paths, "/v")
    assert {top for unit in found if "new" in unit.names for top in unit.tops} >= {f"{packages}/new"}


def test_what_was_set_aside_for_a_generation_that_another_one_took_goes_again(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, _ = conflict(node)
    before = {*os.listdir(node.storage), "set-aside"}
    monkeypatch.setattr(generations, "ATTEMPTS", 1)
    rename = os.rename
    aside: list[str] = []

    def taken(source: str, target: str) -> None:
        if os.path.basename(target).startswith("gen-"):
            aside.extend(os.listdir(f"{node.storage}/set-aside"))
            refuse(errno.EEXIST)()
        rename(source, target)

    monkeypatch.setattr(os, "rename", taken)
    with pytest.raises(OSError, match="others have published all the time"):
        node.publish(ours)
    assert len(aside) == 1
    assert os.listdir(f"{node.storage}/set-aside") == []
    assert {*os.listdir(node.storage)} == before
    monkeypatch.undo()
    (line,) = node.publish(ours)
    assert "the earlier published files are in " in line
