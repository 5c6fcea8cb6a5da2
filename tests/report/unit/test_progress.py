"""The progress bar: on a terminal, and nowhere else."""

from __future__ import annotations

import io
import os
import pty
import sys
from typing import TYPE_CHECKING

from sif_writable.report import progress

if TYPE_CHECKING:
    import pytest


def test_a_terminal_has_a_bar_which_goes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SECONDS", 0.0)
    ours, theirs = pty.openpty()
    with open(theirs, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        bar = progress.Progress("compiling")
        bar("a/very/long/path/" * 10, 0.5)
        bar.done()
        shown = ""
        while shown.count("\033[K") < 2:  # what is written in two parts may be read in two
            shown += os.read(ours, 1000).decode()
    os.close(ours)
    line, _, rest = shown[1:].partition("\r")
    assert line.startswith(f"compiling [{'#' * 15}{'.' * 15}]  50% ")
    assert len(line) < 90
    assert rest == "\033[K"


def test_a_file_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in (io.StringIO(), None):
        monkeypatch.setattr(sys, "stderr", stream)
        bar = progress.Progress("compiling")
        bar("x", 0.5)
        bar.done()
        assert stream is None or stream.getvalue() == ""
