"""An error that could not find a path whose directory can not be made either: which variable led to it."""

from __future__ import annotations

import os

import pytest

from sif_writable import evidence
from sif_writable.copies import messages, sent

MISSING = FileNotFoundError(2, "No such file or directory", "/proc/no-such-mount/data/x")


@pytest.fixture(autouse=True)
def _nobody_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer root, too, that /proc cannot be written, as an ordinary user is answered."""
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != "/proc" and access(path, mode))


@pytest.mark.parametrize(
    ("error", "path"),
    [
        (MISSING, "/proc/no-such-mount/data/x"),
        (FileNotFoundError(2, "No such file or directory", "/tmp/no-such-file"), ""),
        (FileNotFoundError(2, "No such file or directory", "/tmp/no-such-folder/file"), ""),  # that can be made
        (FileNotFoundError(2, "No such file or directory", "/proc/no-such-file"), ""),  # a typing error
        (FileNotFoundError(2, "No such file or directory", "no-such-file"), ""),
        (FileNotFoundError(2, "No such file or directory", b"/proc/no-such-mount"), ""),
        (FileNotFoundError("words alone: /proc/no-such-mount"), ""),
        (OSError(30, "Read-only file system", "/proc/no-such-mount"), ""),
        (ValueError("/proc/no-such-mount"), ""),
    ],
    ids=str,
)
def test_only_what_looks_as_if_it_were_not_bound_counts(error: BaseException, path: str) -> None:
    assert evidence.misses_a_mount(error) == path


def test_what_it_came_from_counts_too() -> None:
    error = RuntimeError("no data")
    error.__cause__ = MISSING
    assert evidence.misses_a_mount(error) == "/proc/no-such-mount/data/x"


def test_a_line_is_said_only_where_a_variable_led_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(messages, "_said", set())
    monkeypatch.setenv("MY_DATA", "/proc/no-such-mount")
    sent.report_missing("/proc/no-such-mount/data/x")
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("MNE_DATA", "/proc/no-such-mount/data")
    sent.report_missing("/proc/no-such-mount/data/x")
    said = capsys.readouterr().err
    assert said.startswith("sif_writable: /proc/no-such-mount/data/x is not there: MNE_DATA=/proc/no-such-mount/data ")
    assert "leads there. Remedy: bind that directory (apptainer exec --bind /proc/no-such-mount), or unset " in said
