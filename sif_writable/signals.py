"""Errors that a signal handler of the program raises while our code runs: they pass, whatever their class is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sif_writable.startup import from_handler

if TYPE_CHECKING:
    from types import TracebackType


class suppress:  # noqa: N801 - as contextlib's
    """Suppress errors of some classes within a block, as :class:`contextlib.suppress` does, but for what must pass."""

    def __init__(self, *classes: type[BaseException]) -> None:
        """Take the classes."""
        self.classes = classes

    def __enter__(self) -> None:
        """Begin the block."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        """Whether the error that ended the block, if any, is suppressed."""
        return error is not None and isinstance(error, self.classes) and not from_handler(error)
