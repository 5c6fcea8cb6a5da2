"""Errors that end a thread or a process of multiprocessing are learned from, and leave no line of ours behind."""

from __future__ import annotations

import importlib.util
import sys
import threading
import traceback
from importlib.machinery import ModuleSpec
from multiprocessing import process as processes
from typing import TYPE_CHECKING, Any

import pytest

from sif_writable import uncaught

if TYPE_CHECKING:
    from pathlib import Path


def test_somebody_is_called_when_a_module_is_there(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text("value = 1\n")
    spec = importlib.util.spec_from_file_location("late", tmp_path / "late.py")
    assert spec is not None
    called: list[str] = []
    assert uncaught.watched(spec, lambda: called.append("x")) is spec
    loader: Any = spec.loader
    watched = loader.exec_module
    assert uncaught.watched(spec, lambda: called.append("second")) is spec
    assert loader.exec_module is watched  # once
    module = importlib.util.module_from_spec(spec)
    assert called == []
    loader.exec_module(module)
    assert (module.value, called, "exec_module" in vars(loader)) == (1, ["x"], False)


@pytest.mark.parametrize("spec", [None, ModuleSpec("built", object())])  # type: ignore[arg-type]
def test_what_python_does_not_load_from_a_file_is_left_alone(spec: ModuleSpec | None) -> None:
    before = None if spec is None else dict(vars(spec))
    assert uncaught.watched(spec, lambda: None) is spec
    assert before == (None if spec is None else vars(spec))


class Broken(processes.BaseProcess):
    """A process that fails; its work is done in this one."""

    def run(self) -> None:
        """Fail."""
        raise OSError(30, "Read-only file system")


class Changed(Broken):
    """One whose `run` a program has set itself."""

    def __init__(self) -> None:
        """Do as programs that wrap it do."""
        super().__init__()
        self.run = self.other  # type: ignore[method-assign]

    def other(self) -> None:
        """Fail with another error."""
        raise ValueError("the program's own")


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> list[BaseException | None]:
    """Return what is learned from."""
    found: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    monkeypatch.setattr(processes.BaseProcess, "_bootstrap", lambda self: self.run())
    listener = uncaught.Listener(found.append)
    listener.listen()
    listener.listen()  # what is wrapped is not wrapped twice
    return found


def test_a_thread_and_a_process_are_learned_from(learned: list[BaseException | None]) -> None:
    thread = threading.Thread(target=lambda: 1 // 0)
    thread.start()
    thread.join()
    with pytest.raises(OSError, match="Read-only") as caught:
        Broken()._bootstrap()  # type: ignore[attr-defined]
    assert [type(each) for each in learned] == [ZeroDivisionError, OSError]
    assert [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)][-1] == "run"
    if sys.version_info >= (3, 11):  # an older one puts the frame back
        assert "_run" not in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]


def test_a_process_with_work_of_its_own_is_left_alone(learned: list[BaseException | None]) -> None:
    with pytest.raises(ValueError, match="the program's own"):
        Changed()._bootstrap()  # type: ignore[attr-defined]
    assert learned == []


def test_where_neither_is_loaded_nothing_is_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    hook = threading.excepthook
    bootstrap = vars(processes.BaseProcess)["_bootstrap"]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "threading", None)
        patch.setitem(sys.modules, "multiprocessing.process", None)
        uncaught.Listener(lambda _: None).listen()
    assert (threading.excepthook, vars(processes.BaseProcess)["_bootstrap"]) == (hook, bootstrap)
