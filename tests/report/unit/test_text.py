"""What `status --full` and `doctor` say of what is seldom: shares, notes, warnings, a Python of the host's."""

from __future__ import annotations

import copy
import io
import os
import site
from typing import TYPE_CHECKING, Any

import pytest

import sif_writable
from sif_writable.redirects.decision import Decision
from sif_writable.report import checks, debug, packages, status, text

if TYPE_CHECKING:
    from pathlib import Path

    from sif_writable.report.model import Status

PAINT = text.Painter(io.StringIO())
WARNING = {"text": "there is little left", "remedy": "make room"}


@pytest.fixture(scope="module")
def real() -> Status:
    return status.status(gpu=False)


@pytest.fixture
def model(real: Status) -> Any:
    """Return a status that can be changed."""
    found: Any = copy.deepcopy(real)
    found.update(usage=[], space=[], refused=[], user_set=[], packages=[], layer=None, overlay=None, notes=[], gpu=None)
    return found


def said(model: Any) -> str:
    return " ".join(text.render(model, PAINT).split())


def test_what_is_seldom_is_said_too(model: Any) -> None:
    place = {"place": "SIF_WRITABLE_DIR", "filesystem": "ext4", "lasting": "job", "note": "a small overlay"}
    room = {"free_bytes": 1 << 30, "total_bytes": 2 << 30, "free_inodes": 0, "total_inodes": 0}
    model["root"]["note"] = "an overlay makes it writable"
    model["storage"] = [{"kind": "data", "folder": "/s/data", **place, **room}]
    model["refused"] = [{"place": "HOME", "path": "/h", "why": "cannot be written", "remedy": "bind it"}]
    model["space"] = [{"what": "HOME", "path": "/h", "filesystem": "nfs", "warnings": [WARNING], **room}]
    model["user_set"] = [
        {"variable": "HF_HOME", "value": "/gone", "problem": "is not there", "remedy": "make it", "level": "warn"},
        {"variable": "TORCH_HOME", "value": "/t", "problem": "", "remedy": "", "level": ""},
    ]
    model["notes"] = ["a note\x1b[31m"]
    found = said(model)
    for words in (
        "an overlay makes it writable",
        "lasts as long as the job",
        "a small overlay",
        "not HOME: /h cannot be written",
        "remedy: bind it",
        "nearly full: there is little left remedy: make room",
        "HF_HOME=/gone warning: is not there remedy: make it",
        "TORCH_HOME=/t",
        "notes a note",
    ):
        assert words in found
    assert "\x1b" not in found


@pytest.mark.parametrize(
    ("runs", "words"), [(True, "; this driver runs it"), (False, "; this driver is too old for it"), (None, "")]
)
def test_the_cuda_of_the_image(model: Any, runs: bool | None, words: str) -> None:
    model["gpu"] = {
        "severity": "ok",
        "fact": "1 GPU",
        "expected": None,
        "remedy": "",
        "devices": [],
        "unknown": None,
        "driver": None,
        "highest_cuda": None,
        "image_cuda": "12.4",
        "image_cuda_from": "torch-2.4.0",
        "runs_image_cuda": runs,
    }
    assert f"the image has CUDA 12.4 (torch-2.4.0){words}" in text.render(model, PAINT)


def test_a_group_is_named_if_it_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "shares it: each of them can replace what programs read there" in status._shared_words(str(tmp_path))
    real = os.stat

    def of_group(number: int) -> Any:
        return lambda path: os.stat_result((*real(path)[:5], number, *real(path)[6:10]))

    for number, name in ((987654, "group 987654 shares it"), (65534, "the group of its directory shares it")):
        with monkeypatch.context() as patch:
            patch.setattr(os, "stat", of_group(number))
            assert status._shared_words(str(tmp_path)).startswith(name)
    monkeypatch.setattr("sif_writable.storage.sharing.inherits", lambda _: True)
    assert status._shared_words(str(tmp_path)).endswith("no code goes there")


@pytest.mark.parametrize(
    ("state", "grade", "words"),
    [("failed", checks.FAIL, "ValueError: of ours"), ("off", checks.WARN, "switched off by SIF_WRITABLE=off")],
)
def test_a_hook_that_does_nothing_is_reported(model: Any, state: str, grade: str, words: str) -> None:
    model["hook"].update(problem="", state=state)
    model["root"]["writable"] = False
    model["notes"] = ["ValueError: of ours"]
    (found,) = checks._hook(model)
    assert (found[0], words in found.text) == (grade, True)


def test_what_the_host_brings_into_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = f"{os.path.dirname(sif_writable.__file__)}/hook"
    own = str(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{hook}:{own}:{own}/gone:/proc")
    monkeypatch.setattr(site, "ENABLE_USER_SITE", True)
    monkeypatch.setattr(site, "getusersitepackages", lambda: own)
    monkeypatch.setattr(sif_writable, "in_container", lambda _: False)
    assert checks._host_leaks() == []
    monkeypatch.setattr(sif_writable, "in_container", lambda _: True)
    assert "user site" not in [found[1] for found in checks._host_leaks()]  # it is empty
    (tmp_path / "package").mkdir()
    found = {each.text: each for each in checks._host_leaks()}
    assert f"packages in {own} are found before the image's own" in found
    assert f"PYTHONPATH names {own}/gone, which does not exist here" in found
    assert "PYTHONPATH brings in /proc, which is not part of the image" in found
    assert not any(hook in words for words in found)
    monkeypatch.delenv("PYTHONPATH")
    monkeypatch.setattr(site, "ENABLE_USER_SITE", False)
    (good,) = checks._host_leaks()
    assert good.remedy == ""


def test_how_a_package_is_served() -> None:
    assert [
        packages._how("", copied=True, mounted=True),
        packages._how("", copied=False, mounted=True),
        packages._how("too large", copied=False, mounted=False),
        packages._how("", copied=False, mounted=False),
    ] == ["copy", "mount", "refused: too large", "next import"]


def test_where_bytecode_goes_is_said_in_debugging() -> None:
    decision = Decision()
    assert "bytecode" not in "\n".join(debug.decision_lines(decision))
    decision.pycache = "/s/pycache"
    assert "bytecode goes to /s/pycache: the image ships none" in debug.decision_lines(decision)
