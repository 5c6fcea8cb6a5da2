"""What is said on stderr about packages that write into their own directory: each sentence once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sif_writable import stderr
from sif_writable.copies import policy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sif_writable.copies.store import Copies
    from sif_writable.copies.units import Unit

_said: set[str] = set()


def say(sentence: str) -> None:
    """Write a sentence to stderr, once in a process."""
    if sentence not in _said:
        _said.add(sentence)
        stderr.say([sentence])


def from_the_next_run_on(units: Iterable[Unit], copies: Copies, more: str = "") -> None:
    """Say that packages are imported from copies from the next run on, and how that is undone."""
    names = sorted({unit.name for unit in units})
    write = "writes into its own directory, which cannot be written here; from the next run on it is imported from a"
    if len(names) > 1:
        write = "write into their own directories, which cannot be written here; from the next run on they are imported"
        write += " from a"
    say(
        f"{policy.join(names)} {write} writable copy in {copies.folder}. {more}To undo this: "
        f"sif-writable cache forget {' '.join(names)}"
    )


def first_line(error: BaseException) -> str:
    """Return an error in words, at most a line of it."""
    text = str(error).strip().split("\n", 1)[0][:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
