"""Lines on stderr, each with the name of this package before it."""

import os
import sys

import sif_writable
from sif_writable import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def say(lines: "Iterable[str]") -> None:
    """Print lines on stderr, if there is one, each after the name of who says it."""
    text = "".join([f"sif_writable: {line}\n" for line in lines])
    stream, real = sys.stderr, sys.__stderr__
    if not text or stream is None:
        return
    with signals.suppress(Exception):  # it is closed, or full, or what stands for it in this program does not work
        if real is not None and stream is real:
            # Not through the stream: what it cannot write stays in its buffer, and the program ends with code 120.
            os.write(real.fileno(), text.encode("utf-8", "backslashreplace"))
        else:  # a notebook's or a test's
            stream.write(text)
            stream.flush()


def note(problem: BaseException) -> None:
    """Keep what went wrong with us where ``status`` looks, and print it where somebody debugs us.

    :raises Exception: the problem itself, where it is none of ours but from a signal handler of the program.
    """
    signals.let_pass(problem)
    sif_writable.failure = problem
    if os.environ.get(sif_writable.DEBUG) == "1":
        say([f"{type(problem).__name__}: {problem}"])
