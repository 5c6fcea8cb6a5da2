"""What a signal handler of the program raises is told from our own errors, whatever kind of handler it is."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from sif_writable.facts.filesystem import explain, is_passing
from sif_writable.signals import suppress
from sif_writable.startup import from_handler, let_pass

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
