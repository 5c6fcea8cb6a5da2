"""What a process makes in a group's folder is noted, and opened to the group at its end; nothing else is."""

from __future__ import annotations

import errno
import os
import stat
import sys
from typing import TYPE_CHECKING, NoReturn

from sif_writable import shared
from sif_writable.shared import Shared

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def mode(path: Path) -> int:
    """Return the mode of something."""
    return stat.S_IMODE(path.stat().st_mode)


def closed(folder: Path, *names: str) -> None:
    """Make files, closed as tempfile makes them, with the folders that they lie in."""
    for name in names:
        (folder / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for above in (folder / name).parents:
            if folder in above.parents:
                above.chmod(0o700)
        os.close(os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o600))


def test_what_was_made_is_opened_and_what_was_there_is_not(tmp_path: Path) -> None:
    closed(tmp_path, "made/below/file", "renamed", "read", "there", "fetched")
    noted = Shared(str(tmp_path))
    noted.note("os.mkdir", (f"{tmp_path}/made", 0o700, -1))
    noted.note("open", (os.fsencode(f"{tmp_path}/made/below/file"), "w", os.O_WRONLY))
    noted.note("os.rename", ("/elsewhere", f"{tmp_path}/renamed", -1, -1))
    noted.note("open", (f"{tmp_path}/read", "r", os.O_RDONLY))
    noted.note("open", (f"{tmp_path}/../{tmp_path.name}/there", "w", os.O_WRONLY))
    noted.note("os.remove", (f"{tmp_path}/there", -1))  # which makes nothing
    noted.note("open", (f"{tmp_path}/there",))  # another one than CPython's
    noted.note("open", (3, "w", os.O_WRONLY))
    noted.open_all()
    assert mode(tmp_path / "made") == 0o2770
    assert mode(tmp_path / "made" / "below") == 0o2770
    assert mode(tmp_path / "made" / "below" / "file") == 0o660
    assert mode(tmp_path / "renamed") == 0o660
    assert [mode(tmp_path / name) for name in ("read", "there", "fetched")] == [0o600] * 3


def test_links_second_names_and_what_is_gone_stay_as_they_are(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    folder.mkdir()
    closed(tmp_path, "elsewhere/secret", "elsewhere/second")
    (folder / "link").symlink_to(elsewhere)
    (folder / "to").symlink_to(elsewhere / "secret")
    os.link(elsewhere / "second", folder / "second")
    os.mkfifo(folder / "pipe", 0o600)
    noted = Shared(str(folder))
    for name in ("link/secret", "to", "second", "pipe", "gone", "gone/below"):
        noted.note("open", (f"{folder}/{name}", "w", os.O_WRONLY))
    noted.open_all()
    assert [mode(elsewhere / name) for name in ("secret", "second")] == [0o600] * 2
    assert [mode(elsewhere), mode(folder / "pipe")] == [0o700, 0o600]
    Shared(f"{tmp_path}/gone").open_all()


def test_what_another_user_made_is_looked_through_and_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed(tmp_path, "made/file")
    noted = Shared(str(tmp_path))
    noted.note("os.mkdir", (f"{tmp_path}/made", 0o700, -1))
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(tmp_path).st_uid + 1)
    noted.open_all()
    assert (mode(tmp_path / "made"), mode(tmp_path / "made" / "file")) == (0o700, 0o600)


def test_a_file_of_another_group_gets_that_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed(tmp_path, "file")
    status = os.stat(tmp_path / "file")
    descriptor = os.open(tmp_path / "file", os.O_RDONLY)
    given: list[tuple[int, int, int]] = []
    monkeypatch.setattr(os, "fchown", lambda *words: given.append(words))
    shared._give(descriptor, status, status.st_gid + 1)
    assert given == [(descriptor, -1, status.st_gid + 1)]
    assert mode(tmp_path / "file") == 0o660

    def refuse(*_: object) -> NoReturn:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    os.fchmod(descriptor, 0o600)
    monkeypatch.setattr(os, "fchown", refuse)
    top = os.open(tmp_path, os.O_RDONLY)
    shared._open(top, ["file"], status.st_gid + 1)  # who is not in that group
    assert mode(tmp_path / "file") == 0o600
    for each in (top, descriptor):
        os.close(each)


def test_a_folder_is_watched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hooks: list[object] = []
    monkeypatch.setattr(shared, "watching", {})
    monkeypatch.setattr(sys, "addaudithook", hooks.append)
    monkeypatch.setattr("atexit.register", hooks.append)
    for _ in range(2):
        shared.watch(str(tmp_path))
    noted = shared.watching[str(tmp_path)]
    assert hooks == [noted.note, noted.open_all]
