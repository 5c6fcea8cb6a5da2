"""The lease on a folder: a shared lock that says who uses it, and that nobody waits for in vain."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING, NoReturn

import pytest

from sif_writable import lease

if TYPE_CHECKING:
    from pathlib import Path


def test_who_removes_something_is_waited_for_and_who_never_ends_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(tmp_path)
    first = lease._lock(folder)
    assert first is not None
    second = lease._lock(folder)  # it is shared
    assert second is not None
    for descriptor in (first, second):
        os.close(descriptor)
    remover = os.open(f"{folder}/{lease.NAME}", os.O_RDONLY)
    fcntl.flock(remover, fcntl.LOCK_EX)
    tries: list[float] = []
    monkeypatch.setattr("time.sleep", tries.append)
    assert lease._lock(folder) is None
    assert tries == [lease._PAUSE] * lease._TRIES

    def ends(_: float) -> None:
        os.rename(f"{folder}/{lease.NAME}", f"{folder}/away")
        os.close(remover)

    monkeypatch.setattr("time.sleep", ends)
    third = lease._lock(folder)
    assert third is not None
    assert lease.is_there(folder, third)
    os.unlink(f"{folder}/{lease.NAME}")
    assert not lease.is_there(folder, third)
    os.close(third)


def test_a_folder_that_cannot_hold_it_has_none(tmp_path: Path) -> None:
    for folder in (tmp_path / "gone", tmp_path / "taken"):
        if folder.name == "taken":
            (folder / lease.NAME).mkdir(parents=True)
            os.chmod(folder, 0o700)
            (folder / lease.NAME).rmdir()
            (folder / lease.NAME).symlink_to("elsewhere")
        lease.hold(str(folder))
        assert lease.held(str(folder)) is None
        with pytest.raises(OSError, match=r"No such file|Too many levels"):
            lease._lock(str(folder))


def test_where_files_cannot_be_locked_there_is_no_lease_and_no_second_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    asked: list[int] = []

    def refuse(descriptor: int, _: int) -> NoReturn:
        asked.append(descriptor)
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    folder = str(tmp_path)
    for _ in range(2):
        lease.hold(folder)
    assert lease.held(folder) is None
    assert len(asked) == 1
    assert os.listdir(folder) == [lease.NAME]

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(fcntl, "flock", interrupt)
    with pytest.raises(KeyboardInterrupt):
        lease._lock(folder)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_lease_that_was_removed_while_it_was_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    removed = [f"{tmp_path}/{lease.NAME}"] * 2

    def remove(*_: object) -> None:
        if removed:
            os.unlink(removed.pop())

    monkeypatch.setattr(fcntl, "flock", remove)
    descriptor = lease._lock(str(tmp_path))
    assert descriptor is not None
    assert lease.is_there(str(tmp_path), descriptor)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    os.utime(descriptor, (0, 0))
    lease._touch(descriptor)
    assert os.fstat(descriptor).st_mtime > lease.DAY
    os.close(descriptor)
    lease._touch(descriptor)  # of a daemon that has closed all its descriptors
