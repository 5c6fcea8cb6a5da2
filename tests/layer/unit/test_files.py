"""Trees of a layer as programs leave them: closed to their owner, and changing while they are read."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from sif_writable.layer import child, files
from tests.lab.users import VICTIM, as_user, needs_two_users

if TYPE_CHECKING:
    from collections.abc import Callable


def test_what_a_program_has_closed_to_its_owner_is_copied_with_its_modes() -> None:
    needs_two_users(in_lab=False)

    def work(top: str) -> dict[str, object]:
        os.makedirs(f"{top}/from/closed/deep")
        Path(f"{top}/from/closed/deep/file").write_text("in it", encoding="utf-8")
        for path, mode in (("closed/deep/file", 0), ("closed/deep", 0o400), ("closed", 0)):
            os.chmod(f"{top}/from/{path}", mode)
        seen = {path: stat.S_IMODE(status.st_mode) for path, status in files.walk(f"{top}/from")}
        os.chmod(f"{top}/from/closed", 0o700)
        os.chmod(f"{top}/from/closed/deep", 0o700)
        source = f"{top}/from/closed/deep/file"
        size = files.copy(source, f"{top}/copy", os.lstat(source))
        modes = [stat.S_IMODE(os.lstat(path).st_mode) for path in (source, f"{top}/copy")]
        os.chmod(f"{top}/copy", 0o600)
        return {"seen": seen, "copied": (size, modes, Path(f"{top}/copy").read_text(encoding="utf-8"))}

    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        os.chown(folder, VICTIM, VICTIM)
        found = as_user(VICTIM, lambda: work(folder))
    assert found == {
        "seen": {"closed": 0, "closed/deep": 0o400, "closed/deep/file": 0},
        "copied": [5, [0, 0], "in it"],
    }


@pytest.mark.parametrize("gone", ["a/b", "a"])
def test_what_vanishes_while_it_is_read_is_an_error_only_where_nothing_may(tmp_path: Path, gone: str) -> None:
    def vanish(strict: bool) -> list[str]:
        for path in ("a/b", "c"):
            (tmp_path / path).mkdir(parents=True, exist_ok=True)
        seen = []
        for path, _ in files.walk(str(tmp_path), strict=strict):
            seen.append(path)
            if path == gone:  # it is named, and is looked into later
                for each in ("a/b", "a"):
                    if each.startswith(gone) and (tmp_path / each).is_dir():
                        (tmp_path / each).rmdir()
        return seen

    assert vanish(strict=False) == (["a", "c", "a/b"] if gone == "a/b" else ["a", "c"])
    with pytest.raises(FileNotFoundError):
        vanish(strict=True)


def refuse(number: int) -> Callable[..., NoReturn]:
    """Return a function that fails with an errno."""

    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return fail


def test_a_file_that_vanishes_before_it_is_looked_at_is_an_error_only_where_nothing_may(tmp_path: Path) -> None:
    def vanish(strict: bool) -> list[str]:
        seen = []
        for name in "abc":
            (tmp_path / name).touch()
        for path, _ in files.walk(str(tmp_path), strict=strict):
            seen.append(path)
            (tmp_path / "b").unlink(missing_ok=True)
        return seen

    assert vanish(strict=False) == ["a", "c"]
    with pytest.raises(FileNotFoundError):
        vanish(strict=True)


def test_an_attribute_that_cannot_be_asked_for_is_no_answer(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not files.is_opaque(str(tmp_path))
    assert not files.is_opaque(f"{tmp_path}/gone")
    for path in (f"{tmp_path}/file/below", f"{tmp_path}/{'x' * 300}"):
        with pytest.raises(OSError, match=r"Not a directory|File name too long"):
            files.is_opaque(path)


@pytest.mark.parametrize("refused", ["fchmod", "utime"])
def test_modes_that_a_filesystem_does_not_keep_are_no_failure_and_a_broken_disk_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    (tmp_path / "from").write_text("in it", encoding="utf-8")
    source, target = f"{tmp_path}/from", f"{tmp_path}/to"
    count = len(os.listdir("/proc/self/fd"))
    for number, passes in ((errno.EPERM, True), (errno.EOPNOTSUPP, True), (errno.EIO, False)):
        with monkeypatch.context() as patch:
            patch.setattr(os, refused, refuse(number))
            if passes:
                assert files.copy(source, target, os.lstat(source)) == 5
            else:
                with pytest.raises(OSError, match="Input/output error"):
                    files.copy(source, target, os.lstat(source))
        assert Path(target).read_text(encoding="utf-8") == "in it"
    assert len(os.listdir("/proc/self/fd")) == count


@pytest.mark.parametrize("has_holes", [True, False])
def test_a_sparse_file_is_copied_with_what_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_holes: bool
) -> None:
    source, target = f"{tmp_path}/from", f"{tmp_path}/to"
    with open(source, "wb") as file:
        file.write(b"data")
        file.truncate(1 << 18)
    if not has_holes:
        seek = os.lseek

        def lseek(descriptor: int, at: int, how: int) -> int:
            return refuse(errno.EINVAL)() if how in {os.SEEK_DATA, os.SEEK_HOLE} else seek(descriptor, at, how)

        monkeypatch.setattr(os, "lseek", lseek)
    flushed: list[int] = []
    monkeypatch.setattr(os, "fdatasync", flushed.append)
    monkeypatch.setattr(files, "_CHUNK", 1 << 14)
    monkeypatch.setattr(files, "_FLUSHED", 1 << 16)
    size = files.copy(source, target, os.lstat(source))
    assert Path(target).read_bytes() == Path(source).read_bytes()
    assert size == 1 << 18 if not has_holes else 4 <= size <= 1 << 18
    assert len(flushed) == size // (1 << 16)
    assert files.are_same(source, target)


def test_a_file_that_shrinks_while_it_is_copied_is_copied_as_far_as_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = f"{tmp_path}/from", f"{tmp_path}/to"
    Path(source).write_bytes(b"12345678")
    monkeypatch.setattr(files, "_CHUNK", 4)
    monkeypatch.setattr(child, "progress", lambda: os.truncate(source, 4))
    assert files.copy(source, target, os.lstat(source)) == 4
    assert Path(target).read_bytes() == b"1234"


def test_links_are_the_same_where_they_lead_to_the_same_path(tmp_path: Path) -> None:
    for name, to in (("a", "x"), ("b", "x"), ("c", "y")):
        (tmp_path / name).symlink_to(to)
    (tmp_path / "x").touch()
    assert files.are_same(f"{tmp_path}/a", f"{tmp_path}/b")
    assert not files.are_same(f"{tmp_path}/a", f"{tmp_path}/c")
    assert not files.are_same(f"{tmp_path}/a", f"{tmp_path}/x")
    assert not files.are_same(f"{tmp_path}/a", f"{tmp_path}/gone")


def test_a_folder_is_flushed_where_its_filesystem_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "fsync", refuse(errno.EINVAL))
    files.flush(str(tmp_path))
    monkeypatch.setattr(os, "fsync", refuse(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        files.flush(str(tmp_path))
    assert len(os.listdir("/proc/self/fd")) == count


def test_a_file_in_the_way_of_a_directory_goes_and_what_is_mounted_in_a_tree_stays(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("in the way", encoding="utf-8")
    files.make_folder(str(tmp_path), "a/b", 0o555)
    assert stat.S_IMODE(os.lstat(tmp_path / "a/b").st_mode) == 0o755
    status = os.lstat(tmp_path)
    files.remove(str(tmp_path), device=status.st_dev + 1)
    assert (tmp_path / "a/b").is_dir()
    files.remove(str(tmp_path / "a"), device=status.st_dev)
    assert os.listdir(tmp_path) == []
