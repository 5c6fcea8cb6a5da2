"""The loader that checks before a heavy module is executed, and what the check does where it fails itself."""

from __future__ import annotations

import copy
import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec, SourceFileLoader
from typing import TYPE_CHECKING, Any

import pytest

import sif_writable
from sif_writable import importhook, preflight
from sif_writable.errors import StorageUnavailableException, StorageUnavailableExit
from sif_writable.session import REFUSED, STRICT

if TYPE_CHECKING:
    from pathlib import Path


def found(name: str, folder: Path) -> ModuleSpec:
    """Return the spec of a module or package of a folder."""
    spec = importlib.machinery.PathFinder.find_spec(name, [str(folder)])
    assert spec is not None
    return spec


def test_a_module_is_checked_once_and_has_its_own_loader_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "heavy.py").write_text("value = 1\n")
    asked: list[str] = []
    monkeypatch.setattr(preflight, "_check", asked.append)
    finder = importhook.Finder(frozenset(["heavy"]), "/folder")
    spec = preflight.with_check(found("heavy", tmp_path), finder)
    loader: Any = spec.loader
    assert isinstance(loader, SourceFileLoader)  # it passes for what it stands for
    assert type(spec.loader).__name__ == "CheckedLoader"
    assert preflight.with_check(spec, finder).loader is loader  # no second time
    module = importlib.util.module_from_spec(spec)
    assert asked == []  # to find is no import
    loader.exec_module(module)
    assert (asked, module.value, type(spec.loader), finder.awaited) == (["heavy"], 1, SourceFileLoader, frozenset())
    assert module.__loader__ is spec.loader


class Old:
    """A loader of the old protocol."""

    def load_module(self, name: str) -> str:
        """Return something that stands for a module."""
        return f"the module {name}"


def test_an_old_way_of_loading_checks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(preflight, "_check", asked.append)
    spec = ModuleSpec("heavy", Old())  # type: ignore[arg-type]
    preflight.with_check(spec, importhook.Finder(frozenset(["heavy"]), "/folder"))
    loader: Any = spec.loader
    assert loader.load_module("heavy") == "the module heavy"
    assert asked == ["heavy"]
    assert type(spec.loader).__name__ == "Old"


def test_a_namespace_is_checked_and_what_has_no_loader_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "space").mkdir()
    asked: list[str] = []
    monkeypatch.setattr(preflight, "_check", asked.append)
    finder = importhook.Finder(frozenset(["space"]), "/folder")
    spec = found("space", tmp_path)
    spec.loader = None  # as finders of editable installs return one
    loader: Any = preflight.with_check(spec, finder).loader
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    assert (asked, list(module.__path__)) == (["space"], [str(tmp_path / "space")])
    assert preflight.with_check(ModuleSpec("nothing", None), finder).loader is None


def test_it_can_be_copied(tmp_path: Path) -> None:
    (tmp_path / "heavy.py").write_text("")
    spec = preflight.with_check(found("heavy", tmp_path), importhook.Finder(frozenset(), ""))
    twin: Any = copy.copy(spec.loader)
    assert twin.path == str(tmp_path / "heavy.py")


def test_whatever_goes_wrong_with_the_check_the_module_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> None:
        raise ValueError("of ours")

    monkeypatch.setattr(preflight, "_check", fail)
    monkeypatch.setattr(sif_writable, "failure", None)
    preflight.before_import("heavy")
    assert str(sif_writable.failure) == "of ours"


@pytest.mark.parametrize("waits", [True, False])
def test_a_demanded_place_that_was_refused_ends_the_import(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, waits: bool
) -> None:
    monkeypatch.setenv(STRICT, "1")
    monkeypatch.setenv(REFUSED, "/place cannot be written\nbind another")
    if waits:
        monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    else:
        monkeypatch.delattr(sys, "ps1", raising=False)
    with pytest.raises(StorageUnavailableException if waits else StorageUnavailableExit) as caught:
        preflight.before_import("heavy")
    assert "/place cannot be written" in str(caught.value)
    assert ("heavy" in capsys.readouterr().err) is not waits  # whoever waits sees the error itself
    assert os.environ[STRICT] == "1"
