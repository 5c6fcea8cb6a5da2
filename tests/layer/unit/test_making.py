"""A layer that cannot be made, or only in part: a sentence why, and this process is as it was."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from typing import TYPE_CHECKING, Any

import pytest

from sif_writable.layer import child, enter, full, inherited, join, kernel, make, memory, trial
from sif_writable.layer.enter import Layer
from tests.layer.refusals import descriptors, refuse

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@pytest.fixture
def layer(tmp_path: Path) -> Layer:
    """Return a layer that is to be made over a folder."""
    (tmp_path / "place").mkdir(mode=0o700)
    (tmp_path / "over").mkdir()
    made = Layer(str(tmp_path / "place"), "token", "image-x")
    made.directories = [str(tmp_path / "over")]
    return made


# --- The kernel ---


def test_new_namespaces_are_as_they_are_where_only_their_mounts_cannot_be_slaves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called: list[str] = []
    monkeypatch.setattr(kernel, "call", lambda name, *_: called.append(name))
    monkeypatch.setattr(kernel, "_write", lambda path, _: called.append(path.rpartition("/")[2]))
    kernel.separate_mounts()
    assert called == ["unshare", "mount"]
    called.clear()
    monkeypatch.setattr(kernel, "mount", refuse(errno.EINVAL))  # the root of a chroot
    kernel.separate(1, 1)
    assert called == ["unshare", "setgroups", "uid_map", "gid_map"]
    monkeypatch.setattr(kernel, "mount", refuse(errno.EPERM))
    with pytest.raises(PermissionError):
        kernel.separate(1, 1)


def test_paths_that_are_too_long_for_the_kernel_are_named_by_descriptors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted: list[tuple[Any, ...]] = []
    monkeypatch.setattr(kernel, "mount", lambda *arguments: mounted.append(arguments))
    before = descriptors()
    kernel.overlay(["/a:b", "/c,d"], "/up", "/work", "/a:b", "index=on")
    assert mounted.pop()[-1] == "index=on,lowerdir=/a\\:b:/c\\,d,upperdir=/up,workdir=/work"
    folder = tmp_path.joinpath(*["x" * 200] * 7)
    folder.mkdir(parents=True)
    kernel.overlay([str(folder), str(folder)], str(folder), str(folder), "/target", "index=on")
    words = mounted.pop()[-1].split(",")
    assert [word.partition("=")[0] for word in words] == ["index", "lowerdir", "upperdir", "workdir"]
    assert all(path.startswith("/proc/self/fd/") for word in words[1:] for path in word.partition("=")[2].split(":"))
    assert descriptors() == before


def test_mount_points_with_blanks_are_read_as_they_are() -> None:
    text = "30 1 0:5 / /a\\040b rw - ext4 /dev/a rw\n31 1 0:6 /sub /c\\134d rw shared:1 - tmpfs tmpfs rw\n"
    found = kernel.table(text)
    assert found == [("/", "/a b", "ext4"), ("/sub", "/c\\d", "tmpfs")]
    assert kernel.mounts_below(["/a b", "/c\\d"], found) == []
    assert kernel.mounts_below(["/", ""], found) == ["/a b", "/c\\d"]


def test_a_lock_that_is_never_given_back_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    ours, theirs = (os.open(tmp_path / "lock", os.O_RDWR) for _ in range(2))
    assert kernel.locked(ours, 0.0)
    os.lockf(ours, os.F_ULOCK, 1)
    fcntl.fcntl(theirs, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0))
    assert not kernel.locked(ours, 0.0)
    os.close(theirs)
    assert kernel.locked(ours, 0.0)
    os.close(ours)


@pytest.mark.parametrize(
    ("number", "refused"), [(errno.EPERM, True), (errno.EINVAL, True), (errno.EMFILE, False), (errno.ENOSPC, False)]
)
def test_what_the_kernel_refuses_is_noted_and_a_passing_failure_is_not(
    layer: Layer, monkeypatch: pytest.MonkeyPatch, number: int, *, refused: bool
) -> None:
    monkeypatch.setattr(kernel, "separate", refuse(number))
    before = descriptors()
    said = kernel.mount_layer(layer, "")
    assert said == f"a user namespace cannot be made here: {os.strerror(number)}"
    assert layer.refused is refused
    assert descriptors() == before


@pytest.mark.parametrize("fails", [0, 1, 2, 3, 4])
def test_what_was_mounted_before_a_failure_is_taken_away(
    layer: Layer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    """Two directories, the second of which has something mounted in it."""
    layer.directories = [str(tmp_path / name) for name in ("over", "second")]
    os.mkdir(layer.directories[1])
    os.mkdir(point := f"{layer.directories[1]}/mounted")
    layer.name = make.prepare(layer.place, layer.directories, "", "")
    steps: list[str] = []
    undone: list[str] = []

    def step(target: str) -> None:
        if len(steps) == fails:
            refuse(errno.EPERM)()
        steps.append(target)

    monkeypatch.setattr(kernel, "separate", lambda *_: None)
    monkeypatch.setattr(kernel, "drop_capabilities", lambda **_: undone.append("capabilities"))
    monkeypatch.setattr(kernel, "bind", lambda _, target: step(target))
    monkeypatch.setattr(kernel, "overlay", lambda *words: step(words[3]))
    monkeypatch.setattr(kernel, "unmount", undone.append)
    before = descriptors()
    said = kernel.mount_layer(layer, "", [("/", point, "tmpfs")])
    hidden = [f"{layer.folder}/hidden/{number}" for number in (0, 1)]
    order = [hidden[0], layer.directories[0], hidden[1], layer.directories[1]]
    what = point if fails == 4 else layer.directories[fails // 2]
    assert said.startswith(f"what is mounted at {what} " if fails == 4 else f"an overlay over {what} ")
    assert undone == [*reversed(order[:fails]), "capabilities"]
    assert descriptors() == before


def test_what_is_only_good_to_have_is_no_reason_to_have_no_layer(layer: Layer, tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_PATH)
    where = os.getcwd()
    layer.name = "gone"
    kernel._leave_tidy(layer, where, here)
    assert os.getcwd() == where
    os.close(here)


def test_a_layer_in_memory_that_cannot_be_begun_leaves_nothing_mounted(
    layer: Layer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mounted: list[str] = []
    monkeypatch.setattr(kernel, "mount", lambda _, target, *__: mounted.append(target))
    monkeypatch.setattr(kernel, "unmount", mounted.remove)
    layer.in_memory, layer.origin = True, "id-a"
    layer.name = "memory-1"
    os.mkdir(layer.folder)
    enter.write(f"{layer.folder}/about", f"boot\n\n{layer.place}/generations\nid-a\n/gone")
    monkeypatch.setattr(os, "fork", refuse(errno.EAGAIN))
    with pytest.raises(FileExistsError):
        memory.begin(layer)
    assert mounted == []
    assert "storage has not answered" in capsys.readouterr().err


# --- The first process of a container ---


def first(layer: Layer, tmp_path: Path) -> str:
    """Ask for a layer where no directory is the image's."""
    return make.first(list, layer, str(tmp_path / "storage"), "mnt:[1]", "0 0 1", [])


def test_without_directories_there_is_no_layer(layer: Layer, tmp_path: Path) -> None:
    assert first(layer, tmp_path) == "no directory of the environment is the image's own"


def test_who_is_in_a_layer_without_knowing_it_learns_which(
    layer: Layer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(make, "read", lambda _: f"1 1 0:1 / /v rw{enter.MOUNTED}rw,upperdir=/a/upper-1/0\n")
    monkeypatch.setattr(inherited, "folder", lambda _: "/a/upper-1")
    monkeypatch.setattr(inherited, "export", said.append)
    assert first(layer, tmp_path) == ""
    assert said == ["/a/upper-1"]


@pytest.mark.parametrize("refused", [True, False])
def test_a_refusal_of_the_kernel_is_not_asked_for_again(
    layer: Layer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, refused: bool
) -> None:
    layer.refused = refused
    monkeypatch.setattr(make, "settled", lambda *_: (layer.place, ["one", "two", "ok", "/v"]))
    monkeypatch.setattr(make, "make", lambda *_: "it is not permitted")
    assert first(layer, tmp_path) == "it is not permitted"
    assert enter.read(f"{layer.place}/trial") == ("one\ntwo\nit is not permitted" if refused else "")


def build(layer: Layer, dead: Sequence[str] = ()) -> str:
    """Make a layer that goes no further than this node."""
    return make.make(layer, "", "mnt:[1]", dead, [])


def test_what_keeps_a_layer_from_being_made_is_said(
    layer: Layer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = descriptors()
    gone = Layer(f"{tmp_path}/gone", "token")
    assert build(gone) == f"{tmp_path}/gone/lock cannot be made: No such file or directory"

    with monkeypatch.context() as patch:
        patch.setattr(kernel, "locked", lambda *_: False)
        assert build(layer) == "another process has been making the layer of this container for 10 seconds"

    with monkeypatch.context() as patch:
        patch.setattr(kernel, "mount_layer", lambda *_: "it cannot be mounted")
        assert build(layer) == "it cannot be mounted"

    layer.directories = [f"{tmp_path}/gone"]
    assert build(layer).startswith("the layer failed: [Errno 2] No such file or directory")

    layer.directories = []
    descriptor = os.open(tmp_path, os.O_PATH)
    monkeypatch.setattr(make, "_neighbour", lambda _: (1, descriptor))
    assert build(layer) == "the layer of another environment in this container is over all its directories"
    assert descriptors() == before


def test_a_base_that_was_just_collected_is_chosen_anew(layer: Layer, monkeypatch: pytest.MonkeyPatch) -> None:
    bases = [f"{layer.place}/replica-gone", ""]
    monkeypatch.setattr(make, "_base", lambda *_: bases.pop(0))
    assert make._prepared(layer, "", []) == ""
    assert layer.name.startswith(f"{make.NEW}-upper-")
    assert os.path.isdir(f"{layer.folder}/0")
    monkeypatch.setattr(make, "_base", lambda *_: f"{layer.place}/replica-gone")
    with pytest.raises(FileNotFoundError, match="it was collected just now"):
        make._prepared(layer, "", [])


def test_a_layer_that_others_cannot_find_is_this_processs_alone(layer: Layer, monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[str] = []
    monkeypatch.setattr(join, "entered", lambda _, namespace: entered.append(namespace))
    here = os.readlink("/proc/self/ns/mnt")
    layer.name = f"{make.NEW}-upper-gone"
    make._appear(layer)
    monkeypatch.setattr(os, "readlink", refuse(errno.ENOMEM))
    make._appear(layer)
    assert entered == [here, here]
    assert not os.path.lexists(layer.link)


def test_what_is_used_up_is_said_and_a_folder_that_is_gone_lacks_nothing(tmp_path: Path) -> None:
    assert full.lack(f"{tmp_path}/gone") == ""
    assert full.lack("/proc") == "space"  # it has none


# --- The trial ---


def test_a_place_for_layers_is_made_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "filesystem", lambda _: "ext4")
    top = str(tmp_path)
    assert trial._make_place(f"{top}/image/layer", keep_parent=True) == f"{top}/image is not there"
    assert os.listdir(top) == []
    assert trial._make_place(f"{top}/ours/image", keep_parent=False) == ""
    assert os.path.isfile(f"{top}/ours/{trial.MARKER}")
    (tmp_path / "file").touch()
    assert trial._make_place(f"{top}/file/image", keep_parent=False).endswith("cannot be made: Not a directory")
    os.mkdir(f"{top}/open")
    os.chmod(f"{top}/open", 0o777)
    assert trial._make_place(f"{top}/open", keep_parent=True) == f"{top}/open is not this user's alone"
    monkeypatch.setattr(trial, "filesystem", lambda _: "")
    said = trial._make_place(f"{top}/ours/image", keep_parent=True)
    assert said == f"no layer on an unknown filesystem ({top}/ours/image)"


def test_directories_are_tried_each_and_the_environment_first(
    layer: Layer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = [str(tmp_path / name) for name in ("over", "b", "c")]
    for path in over[1:]:
        os.mkdir(path)
    for answers, found in (
        (["ok", "it fails", "ok"], ([over[0], over[2]], "it fails")),
        (["it fails", "ok", "ok"], ([], "it fails")),
        ([None], ([], f"trying a layer over {over[0]} failed, or took 20 seconds")),
    ):
        monkeypatch.setattr(child, "ask", lambda *_, answers=answers: answers.pop(0))
        assert trial._try(layer.place, over) == found
        assert os.listdir(layer.place) == []
    monkeypatch.setattr(child, "ask", lambda *_: "ok")
    said = trial._try(f"{layer.place}/gone", over)
    assert said == ([], f"no layer on what refuses to hold it ({layer.place}/gone: No such file or directory)")


def test_of_several_places_the_first_that_can_is_taken_and_a_passing_failure_is_not_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (str(tmp_path / name) for name in "ab")
    for path in (one, two):
        os.mkdir(path, 0o700)
    monkeypatch.setattr(enter, "places", lambda *_: iter([one, two]))
    monkeypatch.setattr(trial, "_make_place", lambda *_, **__: "")

    def settle(disk: dict[str, tuple[list[str], str]], memory: dict[str, tuple[list[str], str]]) -> tuple[str, Any]:
        monkeypatch.setattr(
            trial, "_try", lambda place, _, in_memory=False: (memory if in_memory else disk).get(place, ([], ""))
        )
        return trial.settle(["/v"], "", "image", ["here", "quick"])

    no: tuple[list[str], str] = ([], "no layer on nfs")
    passing: tuple[list[str], str] = ([], f"{trial.PASSING}it fails")
    assert settle({one: passing, two: no}, {}) == (one, ["here", "quick", f"{trial.PASSING}it fails"])
    assert os.listdir(one) == []
    assert settle({one: no, two: (["/v"], "")}, {}) == (two, ["here", "quick", "ok", "/v"])
    assert enter.read(f"{two}/trial") == "here\nquick\nok\n/v"
    in_memory = ["here", "quick", "ok", "/v", trial.IN_MEMORY]
    assert settle({one: no, two: no}, {two: (["/v"], "")}) == (two, in_memory)
    assert settle({one: no, two: no}, {one: no, two: no}) == (one, ["here", "quick", "no layer on nfs"])


def test_what_a_trial_does_with_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert trial._plain(f"{tmp_path}/gone") == ""
    assert trial._plain(str(tmp_path)) == ""
    (tmp_path / "file").touch()
    assert trial._plain(str(tmp_path)) == str(tmp_path)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").touch()
    trial._make_again(str(folder))
    assert os.listdir(folder) == []
    make_one = os.mkdir

    def comes_back(path: str) -> None:
        make_one(path)
        (folder / "file").touch()

    monkeypatch.setattr(os, "mkdir", comes_back)
    with pytest.raises(FileExistsError, match="what was removed is there again"):
        trial._make_again(str(folder))


@pytest.mark.parametrize(("number", "begins"), [(errno.ENOSPC, trial.PASSING), (errno.EPERM, "a layer over ")])
def test_a_trial_says_what_failed(
    layer: Layer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, begins: str
) -> None:
    over = tmp_path / "over"
    monkeypatch.setattr(kernel, "mount_layer", lambda *_: "")
    assert trial._trial(layer) == ""  # with nothing in it
    (over / "folder").mkdir()
    (over / "folder" / "file").write_text("x", encoding="utf-8")
    (over / "file").write_text("x", encoding="utf-8")
    assert trial._trial(layer) == ""
    assert (over / "file").read_bytes() == (b"" if (over / "file").stat().st_size == 0 else b"x")
    (over / "file").write_text("x", encoding="utf-8")
    monkeypatch.setattr(trial, "_rewrite", refuse(number))
    said = trial._trial(layer)
    assert said.startswith(begins)
    assert f"changing {over}/file in it fails: {os.strerror(number)}" in said
