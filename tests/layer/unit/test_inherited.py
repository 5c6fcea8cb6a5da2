"""Which layer a process is in, as its table of mounts shows it."""

from __future__ import annotations

import fcntl
import os
import sys
from typing import TYPE_CHECKING

import pytest

from sif_writable.layer import inherited, join

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LINE = "90 80 0:50 / {point} rw - overlay sif-writable rw,upperdir=/home/me/image-{name}/layer/{upper},x"


def line(point: str, name: str, upper: str = "upper-1/0") -> str:
    return LINE.format(point=point, name=name, upper=upper)


@pytest.mark.parametrize("turned", [False, True])
def test_of_several_it_is_that_of_this_interpreter(monkeypatch: pytest.MonkeyPatch, turned: bool) -> None:
    monkeypatch.setattr(sys, "prefix", "/usr")
    monkeypatch.setattr(sys, "path", ["", "/usr/lib/python3.11", "/usr/local/lib/site", "/usr/lib/python3/site"])
    lines = [line("/opt/venv", "a"), line("/usr/lib/python3/site", "a", "upper-1/1"), line("/usr/local/lib/site", "b")]
    lines.append("91 80 0:51 / /home/me rw - ext4 /dev/sda rw")
    assert inherited.folder(lines[::-1] if turned else lines) == "/home/me/image-b/layer/upper-1"


def test_what_is_no_layer_is_none_and_one_of_another_environment_is_better_than_none() -> None:
    assert inherited.folder(["91 80 0:51 / /opt rw - overlay overlay rw,upperdir=/a/upper-1/0"]) == ""
    assert inherited.folder([line("/nowhere/else", "a\\040b", ".new-upper-1/0")]) == "/home/me/image-a b/layer/upper-1"


def test_a_layer_that_another_process_reads_is_waited_for_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "about").write_text("boot\n\n\n\n/v", encoding="utf-8")
    (tmp_path / "hidden").mkdir(mode=0o500)
    other = os.open(tmp_path / "about", os.O_RDWR)
    fcntl.flock(other, fcntl.LOCK_EX)
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(inherited, "_SECONDS", 0.01)
    with pytest.raises(BlockingIOError, match="another process has it"), inherited.image(str(tmp_path)):
        pass
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(other)
    with inherited.image(str(tmp_path)) as original:
        assert [original(path) for path in ("/v/x", "/v")] == [f"{tmp_path}/hidden/0{name}" for name in ("/x", "")]
        assert original("/w") == "/w"
    assert (tmp_path / "hidden").stat().st_mode & 0o777 == 0o500


def test_an_identity_is_made_once_and_known_then(tmp_path: Path) -> None:
    (tmp_path / "about").write_text("boot\n\n\n\n/v", encoding="utf-8")
    (tmp_path / "hidden").mkdir(mode=0o700)
    asked: list[str] = []

    def find(original: Callable[[str], str]) -> str:
        asked.append(original("/v"))
        return "abc"

    for _ in range(2):
        assert inherited.identity(str(tmp_path), "/v", find) == "abc"
        assert inherited.identities(str(tmp_path)) == {"/v": "image-abc"}
    assert asked == [f"{tmp_path}/hidden/0"]


def test_a_wish_is_noted_only_in_a_layer_of_this_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[str] = []
    monkeypatch.setattr(join, "note_wish", noted.append)
    monkeypatch.setattr(inherited, "folder", lambda lines: next(iter(lines)))
    inherited.note_wish([""])
    inherited.note_wish([f"{tmp_path}/gone"])
    assert noted == []
    monkeypatch.setattr(inherited, "is_ours", lambda _: True)
    inherited.note_wish([str(tmp_path)])
    assert noted == [str(tmp_path)]
