"""A progress bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
import time

_WIDTH = 30
_SECONDS = 0.1


class Progress:
    """Shows how far some work is, on stderr."""

    def __init__(self, what: str) -> None:
        """:param what: the work, in a word or two."""
        self._what = what
        self._on = sys.stderr is not None and sys.stderr.isatty()
        self._next = 0.0

    def __call__(self, item: str, part: float) -> None:
        """Show what is worked on now, and the part that is done, from 0 to 1."""
        if not self._on or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _SECONDS
        full = int(part * _WIDTH)
        bar = "#" * full + "." * (_WIDTH - full)
        sys.stderr.write(f"\r{self._what} [{bar}] {part:4.0%} {item[-30:]:<30}\033[K")
        sys.stderr.flush()

    def done(self) -> None:
        """Take the bar away."""
        if self._on:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
