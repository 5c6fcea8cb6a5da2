"""Which layer a process is in, as its table of mounts shows it."""

from __future__ import annotations

import sys

import pytest

from sif_writable.layer import inherited

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
