"""How NVML is asked where no process can be had, and which part of an answer is understood."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from sif_writable import signals
from sif_writable.gpu import ask, nvml
from tests.lab.store import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable


def refuse(error: Exception) -> Callable[..., None]:
    """Return a function that fails."""

    def refused(*_: object) -> None:
        raise error

    return refused


@pytest.mark.parametrize("missing", ["sys.executable", "os.posix_spawn"])
def test_without_an_interpreter_to_start_it_is_not_asked(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setattr(ask, "_may_fork", lambda: True)
    monkeypatch.setattr(signals, "fork", refuse(RuntimeError("fork not supported for isolated subinterpreters")))
    if missing == "sys.executable":
        monkeypatch.setattr(sys, "executable", "")
    else:
        monkeypatch.delattr(os, "posix_spawn")
    open_before = len(os.listdir("/proc/self/fd"))
    answer = ask.ask(timeout=5)
    assert answer.not_asked.startswith("the process that asks NVML could not be started (")
    assert missing in answer.not_asked
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_a_process_that_cannot_look_at_itself_is_not_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "listdir", refuse(FileNotFoundError(2, "No such file or directory")))
    assert not ask._may_fork()


def test_whoever_has_ended_meanwhile_is_let_be(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        monkeypatch.setattr(time, "sleep", lambda _: None)
        ask._end(child.pid, 0)  # it is not waited for without end
        assert child.poll() is None
        monkeypatch.undo()
        ask._end(child.pid, child.pid)
        child.returncode = -9  # it was reaped there
    ask._end(child.pid, child.pid)  # it is gone, and reaped


def test_what_an_answer_says() -> None:
    answer = ask.Nvml()
    text = "pid\t7\ncalls\tnvmlInit_v2\nno-details\tnvidia-ml-py is not installed\nnot-asked\tMemoryError: \nodd\tx\n"
    assert ask._read(text, answer) == 7
    assert (answer.details_error, answer.not_asked) == ("nvidia-ml-py is not installed", "MemoryError: ")
    assert answer.pending_call == "nvmlInit_v2"


def test_whatever_goes_wrong_the_reader_learns_of_it() -> None:
    program = (
        f"import sys; sys.path.insert(0, {REPOSITORY!r})\n"
        "from sif_writable.gpu import nvml\n"
        "def fails(*_): raise ValueError('of\\nours')\n"
        "nvml._answer = fails\n"
        "nvml.run(1, 0, False, '')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "not-asked\tValueError: of ours\n"


class Old:
    """The library of a driver before 2018, which has fewer functions."""

    def __init__(self, code: int) -> None:
        """Answer each call with this."""
        self.code = code

    def __getitem__(self, name: str) -> Callable[..., int]:
        """Return a function, if there is one."""
        if name == "nvmlInitWithFlags":
            raise AttributeError(name)
        return lambda *_: self.code if name == "nvmlInit_v2" else 0

    class nvmlErrorString:  # noqa: N801 - its name there
        """Returns the text of a code."""

        def __new__(cls, code: int) -> Any:
            """Return it."""
            return f"text of {code}".encode()


@pytest.mark.parametrize(
    ("code", "last"),
    [(0, ["count\t0", "calls\tnvmlShutdown", "done"]), (9, ["failed\tnvmlInit_v2\t9\ttext of 9", "done"])],
)
def test_an_old_driver_is_asked_in_its_own_way(monkeypatch: pytest.MonkeyPatch, code: int, last: list[str]) -> None:
    written: list[str] = []
    monkeypatch.setattr(nvml, "_write", lambda *fields: written.append("\t".join(map(str, fields))))
    monkeypatch.setattr(nvml, "_load", lambda: Old(code))
    nvml._answer(0, details=False, path="")
    assert written[:3] == [f"pid\t{os.getpid()}", "calls\tnvmlInitWithFlags", "calls\tnvmlInit_v2"]
    assert written[-len(last) :] == last


def test_without_nvidia_ml_py_there_are_no_details(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[object, ...]] = []
    monkeypatch.setattr(nvml, "_write", lambda *fields: written.append(fields))
    nvml._details(Old(0), {}, "")  # type: ignore[arg-type]
    assert written[-1] == ("no-details", "nvidia-ml-py is not installed")
