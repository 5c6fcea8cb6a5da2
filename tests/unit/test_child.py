"""What a child asks before it does as its ancestor has decided."""

from __future__ import annotations

import os
import sys
from types import FunctionType
from typing import TYPE_CHECKING, Any

import pytest

import sif_writable
from sif_writable import MODE, SESSION, child, hanging

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("error", "ids", "elevated"),
    [
        (PermissionError(13, "Permission denied"), (1, 1, 1, 1), True),
        (FileNotFoundError(2, "No such file or directory"), (1, 1, 1, 1), False),
        (FileNotFoundError(2, "No such file or directory"), (0, 1, 1, 1), True),
        (FileNotFoundError(2, "No such file or directory"), (1, 1, 0, 1), True),
    ],
)
def test_whether_a_program_has_more_rights_than_its_caller(
    monkeypatch: pytest.MonkeyPatch, error: OSError, ids: tuple[int, ...], *, elevated: bool
) -> None:
    def refuse(*_: object) -> int:
        raise error

    assert not child.elevated()  # by the kernel's own word
    for name, value in zip(("geteuid", "getuid", "getegid", "getgid"), ids):
        monkeypatch.setattr(os, name, lambda value=value: value)
    monkeypatch.setattr(os, "open", refuse)
    assert child.elevated() is elevated


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a storage root."""
    tmp_path.chmod(0o700)
    monkeypatch.setattr(child, "timed_out", "")
    return str(tmp_path)


def session(kinds: str, *roots: str) -> str:
    """Return a session of this container run."""
    return f"2{kinds};{child.token()};;{child.inputs()};{':'.join(roots)}"


def test_whether_a_session_is_still_right(root: str) -> None:
    assert child.is_current(session(""))  # nothing was redirected
    assert child.is_current(session("s", root))
    assert not child.is_current(session("s", root, f"{root}/gone"))
    os.mkdir(f"{root}/open")
    os.chmod(f"{root}/open", 0o777)  # as somebody else may make it
    assert not child.is_current(session("ss", root, f"{root}/open"))
    for damaged in ("", "2;", session("s", root).replace(child.token(), "x"), "3" + session("s", root)[1:]):
        assert not child.is_current(damaged)
    assert child.timed_out == ""


def test_storage_that_hangs_is_passed_over(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def times_out(path: str, kind: str) -> bool:
        asked.append(kind + path)
        return path.endswith("hangs")

    monkeypatch.setattr(hanging, "times_out", times_out)
    kind = hanging.REMOTE
    assert child.is_current(session(f"s{kind}", root, root))
    assert child.timed_out == ""
    assert not child.is_current(session(f"s{kind}{kind}", root, f"{root}/hangs", root))
    assert child.timed_out == f"{root}/hangs"
    assert asked == [kind + root, f"{kind}{root}/hangs"]


def test_bytecode_in_storage_is_used_again(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {name.encode(): value.encode() for name, value in ((SESSION, "x"), (child.PYCACHE, root), (MODE, "on"))}
    monkeypatch.setenv(SESSION, "x")
    monkeypatch.setenv(child.PYCACHE, root)
    installed: list[object] = []
    monkeypatch.setattr(child, "is_current", lambda _: True)
    monkeypatch.setattr(child, "install", installed.append)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    with monkeypatch.context() as patch:
        patch.setattr(child, "elevated", lambda: True)
        assert child.start(data) == "elevated"
    assert (sys.pycache_prefix, installed) == (None, [])
    assert child.start(data) == "inherited"
    assert (sys.pycache_prefix, installed) == (root, [data])
    monkeypatch.setattr(sys, "pycache_prefix", "/mine")
    assert child.start(data) == "inherited"
    assert sys.pycache_prefix == "/mine"


def test_what_waits_is_put_in_place_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(child, "stage", None)
    before = list(sys.meta_path)
    child.install({})
    child.install({})
    assert sys.meta_path == [child.stage, *before]
    stage: Any = child.stage
    assert stage("sif_writable.first_import", list(sif_writable.__path__)) is None  # what it loads itself
    assert stage("sitecustomize") is None
    names = dict(stage.__globals__, finders=[object()], library=("json",))
    finder = FunctionType(stage.__code__, names, "find_spec", (None, None))
    asked: list[str] = []

    class FirstImport:
        """Stands for the module that puts the finder in place."""

        def go_on(self, name: str, *_: object) -> None:
            """Note what it was asked for."""
            asked.append(name)

    monkeypatch.setattr(sif_writable, "follow", lambda _: FirstImport())
    names["this"] = finder
    assert finder("json") is None
    assert asked == ["json"]  # somebody stands before us, and is asked by us from now on
    names["finders"] = [finder]
    assert finder("json") is None
    assert asked == ["json"]
