"""What a signal handler of the program raises is distinguished from our own errors, whatever kind of handler it is."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import threading
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import sif_writable
from sif_writable.errors import is_passing
from sif_writable.signals import fork, from_handler, let_pass, suppress
from sif_writable.system.filesystem import explain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def _raise(error: BaseException) -> None:
    raise error


def _handler(number: int, _frame: Any) -> None:
    raise TimeoutError(f"signal {number}")


def _indirect(_number: int, _frame: Any) -> None:
    _raise(ValueError("from within"))


def _with_more(more: str, _number: int, _frame: Any) -> None:
    raise PermissionError(13, "Permission denied", more)


def _anything(*_: Any) -> None:
    raise OSError(30, "Read-only file system", "/x")


def _closing(_number: int, frame: Any) -> None:
    def inner() -> None:
        raise KeyError(repr(frame))

    inner()


class _Object:
    def method(self, _number: int, _frame: Any) -> None:
        raise RuntimeError("of a method")

    def __call__(self, *_: Any) -> None:
        raise RuntimeError("of an object")


HANDLERS: dict[str, Callable[..., Any]] = {
    "function": _handler,
    "one that calls others": _indirect,
    "one with more arguments": partial(_with_more, "/x"),
    "method": _Object().method,
    "object": _Object(),
    "any arguments": _anything,
    "a variable of an inner function": _closing,
}


@pytest.fixture
def handled() -> Iterator[Callable[[Callable[..., Any]], None]]:
    """Return how to install a handler of SIGUSR1."""
    before = signal.getsignal(signal.SIGUSR1)

    def install(handler: Callable[..., Any]) -> None:
        signal.signal(signal.SIGUSR1, handler)

    yield install
    signal.signal(signal.SIGUSR1, before)


def _interrupted() -> None:
    os.kill(os.getpid(), signal.SIGUSR1)
    for _ in range(1000):
        pass


@pytest.mark.parametrize("kind", HANDLERS)
def test_what_a_handler_raises_passes(handled: Callable[[Callable[..., Any]], None], kind: str) -> None:
    handled(HANDLERS[kind])
    with pytest.raises(Exception, match=r".") as caught:
        _interrupted()
    assert from_handler(caught.value)
    with pytest.raises(type(caught.value)) as again:
        let_pass(caught.value)
    assert again.value is caught.value
    assert from_handler(caught.value)
    with pytest.raises(type(caught.value)), suppress(Exception):
        _interrupted()
    if isinstance(caught.value, OSError):
        for asked in (explain, is_passing):
            with pytest.raises(type(caught.value)):
                asked(caught.value)


def _traced(frame: Any, event: str, _: Any) -> None:
    raise PermissionError(13, "Permission denied", f"{event} {frame.f_lineno}")


def _of_a_debugger() -> None:
    _traced(sys._getframe(), "call", None)


@pytest.mark.parametrize(
    "action", [_of_a_debugger, lambda: _raise(ValueError("x")), lambda: os.stat("/no/such"), [].pop]
)
def test_what_is_raised_otherwise_does_not(action: Callable[[], Any]) -> None:
    with pytest.raises(Exception, match=r".") as caught:
        action()
    assert not from_handler(caught.value)
    let_pass(caught.value)
    with suppress(Exception):
        action()
    assert not from_handler(ValueError("never raised"))


def test_only_the_named_classes_are_suppressed() -> None:
    with pytest.raises(ValueError, match="x"), suppress(OSError):
        _raise(ValueError("x"))


# --- In every module that is loaded into a program; commands, and processes that ask for us, have no handlers but ours.

PACKAGE = Path(__file__).parents[2] / "sif_writable"
ALONE = (
    *("image/manifest.py", "cleanup/request.py", "cleanup/roots.py", "overlay/path_queries.py", "gpu/nvml.py"),
    *("trace/judge.py", "trace/watch.py"),
)
PASSING = ("let_pass(", "explain(", "is_passing(", "_raise_if_passing(", "complaint(", "note(", "is_of_a_handler(")
WIDE = ("OSError", "RuntimeError", "Exception", "BaseException", "EnvironmentError")
"""Classes that handlers raise: TimeoutError is an OSError, and the usual one."""


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _swallowing() -> Iterator[str]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name.startswith(("attach/", "commands/", "hook/", "image/", "report/")) or name in ALONE:
            continue
        for node in ast.walk(_parsed(path)):
            if not isinstance(node, ast.ExceptHandler):
                continue
            classes = (
                {"BaseException"} if node.type is None else {n.id for n in ast.walk(node.type) if hasattr(n, "id")}
            )
            text = "\n".join(map(ast.unparse, node.body))
            passes = any(word in text for word in PASSING) or isinstance(node.body[-1], ast.Raise)
            if classes.intersection(WIDE) and not passes:
                yield f"{name}:{node.lineno}"


def _suppressing() -> Iterator[str]:
    """Yield where the standard library's ``suppress`` is given such a class: it swallows what a handler raises."""
    for folder in ("", "layer"):
        for path in sorted((PACKAGE / folder).glob("*.py")):
            for node in ast.walk(_parsed(path)):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "contextlib.suppress":
                    yield f"{path.name}:{node.lineno}"


def test_what_a_handler_raised_is_not_suppressed_in_the_layer() -> None:
    assert list(_suppressing()) == []


def test_wherever_we_catch_a_wide_class_what_a_handler_raised_passes() -> None:
    known = {
        "__init__.py": "our own files are damaged, and cannot say",
        "overlay/kernel.py": "all but EINVAL is raised again",
        "overlay/trial.py": "a child of ours, in which no handler of the program runs",
        "hanging.py": "in a thread, where no handler runs",
        "copies/execution.py": "the error is reported, and raised again",
    }
    places = list(_swallowing())
    assert [place for place in places if place.partition(":")[0] not in known] == []
    assert len(places) <= 5


def test_a_child_of_ours_runs_no_handler_of_the_program(handled: Callable[[Callable[..., Any]], None]) -> None:
    readable, writable = os.pipe()
    handled(lambda *_: os.write(writable, b"handled "))
    child = fork()
    if child == 0:
        try:
            os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGINT)
            os.write(writable, b"lives")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writable)
    with open(readable, "rb") as pipe:
        assert pipe.read() == b"lives"


def test_a_signal_during_the_fork_is_handled_afterwards_and_leaves_no_child(
    handled: Callable[[Callable[..., Any]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    handled(_handler)
    forked, original = [], os.fork

    def signalled() -> int:
        child = original()
        if child:
            forked.append(child)
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)  # os.kill may choose another thread
        return child

    monkeypatch.setattr(os, "fork", signalled)
    parent = os.getpid()
    try:
        with pytest.raises(TimeoutError, match="signal"):
            fork()
    finally:
        if os.getpid() != parent:
            os._exit(0)
    with pytest.raises(ChildProcessError):
        os.waitpid(forked[0], 0)


def test_a_child_of_ours_does_not_call_the_programs_handler() -> None:
    """In a process of its own: another thread would get the signal. A child of the program's calls it still."""
    code = """
import os, signal, time
from sif_writable.layer import child
from sif_writable.signals import own_child

ended = []
signal.signal(signal.SIGCHLD, lambda number, frame: ended.append(number))
print(child.ask(lambda: "forked", 20), child.ask(lambda: 1 / 0, 20), len(ended))
print(child.start("sif_writable.layer.names", [], 20), len(ended))  # it has no `main`
theirs = os.posix_spawn("/bin/sleep", ["sleep", "0.2"], {})
print(child.ask(lambda: time.sleep(0.6) or "slow", 20), len(ended), os.waitpid(theirs, os.WNOHANG)[0] == theirs)
theirs = os.posix_spawn("/bin/sleep", ["sleep", "0.2"], {})
own = own_child()
with own:
    own.pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(own.pid, 0)
    os.waitid(os.P_PID, theirs, os.WEXITED | os.WNOWAIT)  # its signal is one with ours
print(len(ended), os.waitpid(theirs, 0)[0] == theirs)
os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
print(len(ended))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert done.stdout.splitlines() == ["forked None 0", "None 0", "slow 1 True", "2 True", "3"], done.stderr


def _meet(call: Callable[[], Any]) -> None:
    try:
        call()
    except OSError as error:
        sif_writable.let_pass(error)


def test_the_hook_passes_on_what_a_handler_raises_and_not_what_a_system_call_does() -> None:
    _meet(partial(os.stat, "/no/such/file"))
    before = signal.signal(signal.SIGUSR1, partial(_with_more, "of the program"))
    try:
        with pytest.raises(PermissionError, match="of the program"):
            _meet(partial(signal.raise_signal, signal.SIGUSR1))
    finally:
        signal.signal(signal.SIGUSR1, before)
