"""What lies under an overlay, and what becomes of a mount or a trial that fails: real folders, no kernel."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

import sif_writable.layer
from sif_writable.layer import kernel
from sif_writable.overlay import enter, layers, mounting, obstacles, path_queries, trial
from sif_writable.overlay import kernel as overlay_kernel
from sif_writable.overlay.decide import GRAFT, OVERLAY, Plan, Target
from sif_writable.settings import IN_OVERLAY

if TYPE_CHECKING:
    from collections.abc import Callable

OTHER = 54321
"""Who owns the image's files."""


def refuse(number: int) -> Callable[..., NoReturn]:
    """Return a function that fails with an errno."""

    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.fixture
def image(tmp_path: Path) -> str:
    """Return a directory of an image, with all that may be in one."""
    point = tmp_path / "image"
    (point / "folder" / "deep").mkdir(parents=True)
    (point / "folder" / "file").write_text("text", encoding="utf-8")
    (point / "folder" / "code.py").touch()
    (point / "link").symlink_to("folder/file")
    os.mkfifo(point / "pipe")
    return str(point)


# --- Upper layers ---


def test_what_is_of_others_is_mirrored_and_what_could_not_be_is_looked_at_again(
    image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upper, done = f"{tmp_path}/upper", f"{tmp_path}/done"
    os.mkdir(upper)
    monkeypatch.setattr(os, "geteuid", lambda: OTHER)
    wanted = [f"{image}/folder", f"{image}/new/below", f"{image}/link"]
    layers.mirror(image, upper, wanted, done, leave=(".py",))
    assert sorted(name for _, name, _ in layers.walk(upper)) == ["folder", "folder/deep", "folder/file"]
    assert set(Path(done).read_text(encoding="utf-8").split()) == set(wanted)

    (tmp_path / "second").touch()  # a file in the place of the folder
    os.unlink(done)
    layers.mirror(image, f"{tmp_path}/second", wanted[:1], done)
    assert not os.path.exists(done)
    assert not layers._mirror_tree(f"{image}/gone", f"{tmp_path}/third", [1, 1], ())
    monkeypatch.setattr(os, "scandir", refuse(errno.EACCES))
    assert layers._mirror_tree(image, f"{tmp_path}/third", [1, 1], ())  # it stays as it is, at the next time, too


def test_a_passing_failure_to_look_at_a_path_is_not_its_last_word(
    image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.lstat
    for number, known in ((errno.EIO, False), (errno.EACCES, True)):
        done = f"{tmp_path}/done-{number}"

        def lstat(path: str, number: int = number) -> os.stat_result:
            return refuse(number)() if str(path).endswith("/deep") else real(path)

        monkeypatch.setattr(os, "lstat", lstat)
        monkeypatch.setattr(layers, "_mirror_one", lambda *_: True)
        monkeypatch.setattr(os.path, "lexists", lambda _: True)
        layers.mirror(image, f"{tmp_path}/upper", [f"{image}/folder/deep"], done)
        monkeypatch.undo()
        assert os.path.exists(done) is known


def test_a_layer_in_memory_begins_with_what_storage_keeps_and_is_brought_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, upper = tmp_path / "overlay" / "kept", tmp_path / "upper"
    (kept / "folder").mkdir(parents=True)
    upper.mkdir()
    (kept / "folder" / "small").write_text("small", encoding="utf-8")
    (kept / "large").write_bytes(b"x" * (layers.SMALL + 1))
    (kept / "link").symlink_to("folder/small")
    os.mkfifo(kept / "pipe")
    attributes: list[tuple[str, str, bytes]] = []
    monkeypatch.setattr(os, "listxattr", lambda _: ["user.overlay.opaque", "user.mine"])
    monkeypatch.setattr(os, "getxattr", lambda _, name: name.encode())
    monkeypatch.setattr(os, "setxattr", lambda path, name, value: attributes.append((path, name, value)))
    nodes: list[str] = []

    def mknod(path: str, mode: int, device: int) -> None:
        assert (stat.S_ISCHR(mode), device) == (True, 0)
        nodes.append(path)
        Path(path).touch()

    layers.seed(str(kept), str(upper))
    assert os.readlink(upper / "link") == "folder/small"
    assert os.readlink(upper / "large") == str(kept / "large")
    assert (upper / "folder" / "small").read_text(encoding="utf-8") == "small"
    assert not os.path.lexists(upper / "pipe")
    assert attributes == [(f"{upper}/folder", "user.overlay.opaque", b"user.overlay.opaque")]

    before = layers.snapshot(str(upper))
    (upper / "folder" / "small").write_text("changed", encoding="utf-8")
    (upper / "new" / "deep").mkdir(parents=True)
    (upper / "new" / "deep" / "file").write_text("new", encoding="utf-8")
    (upper / "new" / "to").symlink_to("deep")
    (upper / "#123").touch()  # the kernel's own
    os.unlink(upper / "link")
    (upper / "link").symlink_to("elsewhere")
    assert layers.carry(str(upper), str(kept), before, replace=False) == []
    assert (kept / "folder" / "small").read_text(encoding="utf-8") == "small"  # another session may have it mounted
    assert os.readlink(kept / "new" / "to") == "deep"
    assert layers.carry(str(upper), str(kept), before, replace=True) == []
    assert (kept / "folder" / "small").read_text(encoding="utf-8") == "changed"
    assert os.readlink(kept / "link") == "elsewhere"
    assert not os.path.lexists(kept / "#123")

    gone = os.stat_result((stat.S_IFCHR, *([0] * 9)), {"st_rdev": 0})
    monkeypatch.setattr(os, "mknod", mknod)
    for _ in range(2):  # it is there already
        layers._bring(str(upper / "link"), f"{kept}/removed", gone)
    assert nodes == [f"{kept}/removed"]

    (tmp_path / "file").touch()
    failed = layers.carry(str(upper), f"{tmp_path}/file", layers.snapshot(str(upper / "new")), replace=True)
    assert f"link: {os.strerror(errno.EEXIST)}" in failed


def test_what_was_removed_in_an_earlier_session_is_removed_in_memory(tmp_path: Path) -> None:
    kept, upper = tmp_path / "kept", tmp_path / "upper"
    kept.mkdir()
    upper.mkdir()
    try:
        os.mknod(kept / "gone", stat.S_IFCHR, 0)
    except PermissionError:
        pytest.skip("not run: no whiteout can be made in the test's folder")
    layers.seed(str(kept), str(upper))
    status = os.lstat(upper / "gone")
    assert (stat.S_ISCHR(status.st_mode), status.st_rdev) == (True, 0)
    os.unlink(kept / "gone")
    assert layers.carry(str(upper), str(kept), {}, replace=True) == []
    assert stat.S_ISCHR(os.lstat(kept / "gone").st_mode)


# --- Mounting ---


def test_what_stands_against_namespaces_of_its_own_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(kernel, "separate_mounts", lambda: called.append("mounts"))
    monkeypatch.setattr(kernel, "separate", lambda *_: called.append("user"))
    assert mounting.separate(strong=True) == ""
    assert called == ["mounts"]
    monkeypatch.setattr(kernel, "separate_mounts", refuse(errno.EPERM))
    assert mounting.separate(strong=True) == ""
    assert called == ["mounts", "user"]
    monkeypatch.setattr(kernel, "separate", refuse(errno.ENOSPC))
    assert mounting.separate() == obstacles.unshare_words(errno.ENOSPC)
    monkeypatch.delattr(sif_writable.layer, "kernel")
    monkeypatch.setitem(sys.modules, "sif_writable.layer.kernel", None)
    assert mounting.separate().startswith("this interpreter cannot make system calls of its own (")
    monkeypatch.setattr(overlay_kernel, "privileged", refuse(errno.EACCES))
    assert mounting.privileged()  # then nothing is taken away


def test_a_graft_that_cannot_show_what_the_image_has_is_taken_away(
    image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted: list[str] = []

    def bind(_: str, target: str) -> None:
        if target != image:
            refuse(errno.ENOENT)()
        mounted.append(target)

    monkeypatch.setattr(kernel, "bind", bind)
    monkeypatch.setattr(kernel, "unmount", mounted.remove)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        mounting.graft(Target(image, GRAFT, (), "why"), f"{tmp_path}/graft")
    assert mounted == []
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EBUSY])
def test_what_storage_cannot_carry_is_in_memory_unless_another_process_has_it(
    image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    shared: list[bool] = []

    def overlay(*_: str, shared: bool, asked: list[bool] = shared) -> None:
        asked.append(shared)
        if shared:
            refuse(number)()

    monkeypatch.setattr(overlay_kernel, "overlay", overlay)
    monkeypatch.setattr(mounting, "_memories", [])
    monkeypatch.setattr(os.path, "ismount", lambda _: True)  # a tmpfs, from the directory before
    target, folder = Target(image, OVERLAY, (image,), "why"), f"{tmp_path}/storage/overlay"
    if number == errno.EBUSY:
        with pytest.raises(OSError, match="busy"):
            mounting.mount(target, folder, "")
        assert shared == [True]
        return
    done = mounting.mount(target, folder, "")
    assert done.note == f"in memory, brought to storage at exit: {obstacles.mount_words(number, image, [])}"
    assert shared == [True, False]
    (memory,) = mounting._memories
    Path(f"{memory.upper}/new").write_text("new", encoding="utf-8")
    assert mounting.carry_back() == []
    assert Path(f"{done.kept}/new").read_text(encoding="utf-8") == "new"
    monkeypatch.setattr(fcntl, "flock", refuse(errno.EWOULDBLOCK))
    with pytest.raises(OSError, match="busy"):
        mounting._be_the_only_one(f"{tmp_path}/lock")
    monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOLCK))
    mounting._be_the_only_one(f"{tmp_path}/lock")


def test_nothing_of_an_overlay_is_worth_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enter, "refused", [])
    said = enter.serve([None], {}, str(tmp_path))  # type: ignore[list-item]
    assert said.startswith("the overlay failed: AttributeError: ")
    assert enter.refused == []


def test_without_storage_or_namespaces_there_is_no_overlay(
    image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Target(image, OVERLAY, (image,), "why")
    plan = Plan((target,), ())
    assert enter.enter(Plan((), ()), {}, "") == ""
    monkeypatch.setattr(obstacles, "obstacle", lambda _: "")
    assert enter.enter(plan, {}, "") == "there is no storage that could hold what is written"
    assert enter.enter(plan, {}, f"{tmp_path}/gone") == "there is no storage that could hold what is written"
    (tmp_path / enter.FOLDER).touch()  # a file is in the way
    assert str(tmp_path) in enter.enter(plan, {}, str(tmp_path))
    monkeypatch.setattr(mounting, "separate", lambda **_: "no namespace")
    assert enter._enter((target,), str(tmp_path), "") == "no namespace"
    assert trial._trial((target,), str(tmp_path), f"{tmp_path}/try", "") == "no namespace"


@pytest.mark.parametrize("number", [errno.EPERM, errno.EBUSY])
def test_a_mount_that_fails_leaves_its_paths_read_only_and_says_so(
    image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    monkeypatch.setattr(enter, "refused", [])
    monkeypatch.setattr(enter, "entered", [])
    monkeypatch.setattr(mounting, "privileged", lambda: True)
    monkeypatch.setattr(mounting, "separate", lambda **_: "")
    monkeypatch.setattr(mounting, "mount", refuse(number))
    monkeypatch.setenv(IN_OVERLAY, "")
    said = enter._enter((Target(image, OVERLAY, (image,), "why"),), str(tmp_path), "")
    assert enter.refused == [(image, said)]
    assert ("stays read-only here: another process" in capsys.readouterr().err) == (number == errno.EBUSY)
    assert os.environ[IN_OVERLAY] == f"{obstacles.namespace()};"
    assert enter.current(os.environ) == []


def test_what_is_asked_where_there_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = path_queries.PathQueries()
    assert queries.entries(f"{tmp_path}/gone") is None
    assert queries.size(f"{tmp_path}/gone") == 0
    assert obstacles.uid_map(f"{tmp_path}/gone") == "unknown"
    monkeypatch.setattr(os, "readlink", refuse(errno.ENOENT))
    assert obstacles.namespace() == ""
    monkeypatch.delattr(os, "posix_spawn")
    assert (
        obstacles.switched_off("/gone", "/gone") == "this Python has no os.posix_spawn, and cannot mount either (PyPy)"
    )


# --- The trial ---


def test_a_trial_that_fails_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(os.listdir("/proc/self/fd"))
    assert trial._try_in_child(lambda: "") == ""
    assert trial._try_in_child(lambda: "it is refused") == "it is refused"
    assert trial._try_in_child(lambda: os._exit(1)) == "trying it ended the child that did"
    assert trial._try_in_child(refuse(errno.EIO)) == "trying it failed: OSError: [Errno 5] Input/output error"
    monkeypatch.setattr(trial, "TRIAL_SECONDS", 0.01)
    assert trial._try_in_child(lambda: str(os.read(os.pipe()[0], 1))) == "trying it took more than 0 seconds"
    monkeypatch.setattr(os, "fork", refuse(errno.EAGAIN))
    said = trial._try_in_child(lambda: "")
    assert said == f"no child process can be made to try it in: {os.strerror(errno.EAGAIN)}"
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_a_trial_changes_is_a_directory_and_a_small_file(image: str, tmp_path: Path) -> None:
    folder = f"{image}/folder"
    assert {os.path.basename(path) for path in trial._samples(folder)} in ({"deep", "file"}, {"deep", "code.py"})
    assert trial._samples(f"{folder}/file") == [f"{folder}/file"]
    assert trial._samples(f"{image}/gone") == []
    with open(f"{tmp_path}/large", "wb") as file:
        file.truncate(layers.SMALL + 1)
    assert trial._samples(f"{tmp_path}/large") == []
    trial._rewrite(f"{image}/pipe")  # which nobody reads
    trial._rewrite(f"{folder}/file")
    assert stat.S_ISFIFO(os.lstat(f"{image}/pipe").st_mode)
    assert sorted(os.listdir(folder)) == ["code.py", "deep", "file"]
    trial._exercise(folder)
    assert sorted(os.listdir(folder)) == ["code.py", "deep", "file"]
