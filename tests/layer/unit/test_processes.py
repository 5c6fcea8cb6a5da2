"""Who is in a layer, who may be started for it, and who joins it: answers that fail, processes that have ended."""

from __future__ import annotations

import errno
import fcntl
import os
import select
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from sif_writable import LAYER, mounted
from sif_writable.child import KEEP
from sif_writable.layer import alive, child, enter, join, kernel, members, others
from sif_writable.layer.enter import Layer
from tests.layer.node import Node
from tests.layer.refusals import descriptors, refuse

if TYPE_CHECKING:
    from pathlib import Path


# --- Is anybody in it? ---


def test_without_namespaces_no_layer_is_taken_for_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert alive.states(str(tmp_path), []) == {}
    monkeypatch.setattr(kernel, "separate", refuse(errno.EPERM))
    assert alive.states(str(tmp_path), ["upper-1"]) == {"upper-1": alive.UNKNOWN}
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "state"),
    [
        (errno.EBUSY, alive.ALIVE),
        (errno.EINVAL, alive.DEAD),
        (errno.ESTALE, alive.DEAD),
        (errno.EPERM, alive.UNKNOWN),
        (errno.ENODEV, alive.UNKNOWN),
    ],
)
def test_what_the_kernel_says_of_a_second_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, state: str
) -> None:
    (tmp_path / "aside").mkdir()
    layer = Node(tmp_path).layer()
    monkeypatch.setattr(kernel, "overlay", refuse(number))
    assert alive.state_of(layer, str(tmp_path / "aside")) == state


def test_a_member_that_cannot_be_looked_into_keeps_a_layer_from_being_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, here = str(tmp_path), os.readlink("/proc/self/ns/pid")
    (tmp_path / "about").write_text(f"\n\n\n\n{tmp_path}", encoding="utf-8")
    real, listing = os.stat, os.listdir

    def stat(path: Any, **more: Any) -> os.stat_result:
        return refuse(errno.EACCES)() if str(path).startswith("/proc/1/root") else real(path, **more)

    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(os, "listdir", lambda path: ["1"] if path == "/proc" else listing(path))
    for lines, last in (
        ("", True),
        (f"1 {here}\n", False),
        (f"1 {here}\n-1\n", True),
        ("7 pid:[1]\n", False),  # not all that there are can be seen from here
    ):
        (tmp_path / "members").write_text(lines, encoding="utf-8")
        assert alive.is_last(folder, ()) is last, lines


def test_a_layer_that_goes_while_it_is_locked_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "about").touch()
    before = descriptors()
    lock = alive.lock(str(tmp_path))
    assert lock >= 0
    assert alive.lock(str(tmp_path)) == -1
    os.close(lock)
    monkeypatch.setattr(fcntl, "flock", lambda *_: (tmp_path / "about").unlink())
    with pytest.raises(FileNotFoundError):
        alive.lock(str(tmp_path))
    assert descriptors() == before


# --- Another process ---


def test_where_no_process_can_be_made_there_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    before = descriptors()
    for words in (["a\0b"], ["x" * (1 << 18)]):  # ValueError; E2BIG
        assert child.start("sif_writable.layer.publish", words, 1.0) is None
    with pytest.raises(TypeError):
        child.start("sif_writable.layer.publish", [None], 1.0)  # type: ignore[list-item]
    monkeypatch.setattr(os, "fork", refuse(errno.EAGAIN))
    assert child.ask(lambda: "an answer", 1.0) is None

    def ends() -> NoReturn:
        raise RuntimeError("can't fork at interpreter shutdown")

    monkeypatch.setattr(os, "fork", ends)
    with pytest.raises(RuntimeError):
        child.ask(lambda: "an answer", 1.0)
    assert descriptors() == before


def test_a_process_that_has_ended_keeps_nobody_from_publishing() -> None:
    assert child.is_ours("0")  # there is none with that number
    assert not child.is_ours(str(os.getpid()))


# --- Joining ---


@pytest.fixture
def layer(tmp_path: Path) -> Layer:
    """Return a layer over a folder, whose only member is this process."""
    made = Layer(str(tmp_path), "token")
    made.name = "upper-1"
    (tmp_path / "upper-1").mkdir()
    (tmp_path / "upper-1" / "about").write_text(f"boot\nbase\n\n\n{tmp_path}", encoding="utf-8")
    (tmp_path / "upper-1" / "members").write_text(join.me(), encoding="utf-8")
    return made


def record(tmp_path: Path) -> str:
    """Return how a container notes a layer that is in the namespace of this process."""
    return f"upper-1:{os.stat('/proc/self/ns/mnt').st_ino}:{os.stat(tmp_path).st_dev}"


def test_a_damaged_record_or_a_layer_without_a_word_about_it_is_not_joined(layer: Layer, tmp_path: Path) -> None:
    for text in ("upper-1", "upper-1:x:1", "upper-1:1:", "upper-2:1:1"):
        assert not join.join(layer, text, "mnt:[1]")
    number, device = record(tmp_path).split(":")[1:]
    assert not join.join(layer, f"upper-1:{number}:{int(device) + 1}", f"mnt:[{number}]")
    assert not join.join(layer, "upper-1:1:1", "mnt:[2]")  # nobody has that namespace


def test_who_is_in_the_namespace_already_is_in_the_layer(
    layer: Layer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[str] = []
    monkeypatch.setattr(join, "entered", lambda _, namespace: entered.append(namespace))
    here = os.readlink("/proc/self/ns/mnt")
    assert join.join(layer, record(tmp_path), here)
    assert entered == [here]


def test_a_namespace_that_does_not_let_this_process_in_is_left_alone(layer: Layer, tmp_path: Path) -> None:
    before, where = descriptors(), os.getcwd()
    namespaces = [os.readlink(f"/proc/self/ns/{kind}") for kind in ("mnt", "user")]
    assert not join.join(layer, record(tmp_path), "mnt:[1]")  # nobody enters his own user namespace again
    assert [os.readlink(f"/proc/self/ns/{kind}") for kind in ("mnt", "user")] == namespaces
    assert (descriptors(), os.getcwd()) == (before, where)


def test_who_cannot_be_noted_is_in_the_layer_all_the_same(
    layer: Layer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("join_namespaces", "drop_capabilities"):
        monkeypatch.setattr(join, name, lambda *_, **__: None)
    entered: list[str] = []
    monkeypatch.setattr(join, "entered", lambda _, namespace: entered.append(namespace))
    os.unlink(f"{layer.folder}/members")
    os.mkdir(f"{layer.folder}/members")  # others find it in /proc
    assert join.join(layer, record(tmp_path), "mnt:[1]")
    assert entered == [os.readlink("/proc/self/ns/mnt")]


def test_a_process_that_ends_while_it_is_asked_has_no_namespace(tmp_path: Path) -> None:
    assert join._owner("/proc/0") == -1
    assert join._owner("/proc/self") == os.geteuid()
    gone = Layer(str(tmp_path), "token")
    gone.directories = [f"{tmp_path}/gone"]
    before = descriptors()
    number = os.stat("/proc/self/ns/mnt").st_ino
    assert join._namespace_of(os.getpid(), {number}, gone, os.stat(tmp_path).st_dev) is None
    assert join._namespace_of(0, {number}, gone, 0) is None
    assert descriptors() == before


def test_what_is_no_namespace_has_no_owner(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    descriptor = os.open(tmp_path / "file", os.O_RDONLY)
    with pytest.raises(OSError, match="Inappropriate ioctl"):
        join._owner_of(descriptor)
    os.close(descriptor)


def test_a_wish_is_noted_where_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEEP, " All ")
    join.note_wish(f"{tmp_path}/gone")
    join.note_wish(str(tmp_path))
    assert (tmp_path / "keep").read_text(encoding="utf-8") == "all"
    monkeypatch.setenv(KEEP, "everything")  # which is none of the words
    join.note_wish(str(tmp_path))
    assert (tmp_path / "keep").read_text(encoding="utf-8") == "all"


def test_half_a_change_of_namespaces_leaves_no_capabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []

    def call(_: str, what: str, *__: object) -> None:
        called.append(what)
        if what == "setns mnt":
            refuse(errno.EPERM)()

    monkeypatch.setattr(join, "call", call)
    mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    with pytest.raises(PermissionError):
        join.join_namespaces(mounts, strong=False)
    os.close(mounts)
    assert called == ["setns user", "setns mnt", "capset"]


def test_a_working_directory_that_is_gone_is_entered_by_its_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert join.cwd() == str(folder)
    here = os.open(".", os.O_PATH)
    folder.rmdir()
    assert join.cwd() == ""
    os.chdir("/")
    join.come_back("", here)
    os.close(here)
    assert os.stat(".").st_nlink == 0
    os.chdir(tmp_path)


# --- What else is asked of a layer ---


def test_a_list_that_another_one_has_replaced_is_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "members").write_text("1 pid:[1]\n", encoding="utf-8")
    monkeypatch.setattr(fcntl, "flock", lambda *_: (tmp_path / "members").unlink())
    members.drop_ended(str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_who_moves_on_is_noted_where_it_has_a_layer(
    layer: Layer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enter, "current", None)
    members.moved()
    text = tmp_path / "upper-1" / "members"
    assert text.read_text(encoding="utf-8") == join.me()
    monkeypatch.setattr(enter, "current", layer)
    members.moved()
    added = f"{join.me()[:-1]} {os.stat('/proc/self/ns/mnt').st_ino}\n"
    assert text.read_text(encoding="utf-8") == join.me() + added


def test_a_path_that_vanishes_is_nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(others, "covers", lambda _: True)
    assert not others.is_others(f"{tmp_path}/new")
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(tmp_path).st_uid + 1)
    assert others.is_others(f"{tmp_path}/new")
    monkeypatch.setattr(others, "covers", refuse(errno.EACCES))
    assert not others.is_others(f"{tmp_path}/new")


def test_a_child_is_killed_where_it_says_nothing() -> None:
    assert child.ask(lambda: str(select.poll().poll()), 0.01) is None


def test_a_process_that_is_in_a_layer_already_enters_no_other_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounted, "in_layer", lambda words: ["image", "/v"] if words == "known" else [])
    monkeypatch.setattr(enter, "obstacle", lambda *_, **__: "there is none here")
    assert enter.enter(list, str(tmp_path), "image", {LAYER: "known"}) == ""
    assert enter.enter(list, str(tmp_path), "image", {LAYER: "damaged"}) == "there is none here"
    monkeypatch.setattr(os, "readlink", refuse(errno.ENOENT))
    assert enter.enter(list, str(tmp_path), "image", {}) == "/proc is not mounted here, or cannot be read"
