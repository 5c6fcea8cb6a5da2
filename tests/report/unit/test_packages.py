"""Which packages `status` lists: those that have a copy, shall have one, or were refused one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sif_writable.report import packages

if TYPE_CHECKING:
    import pytest


def test_what_gets_no_copy_is_not_promised_one(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIF_WRITABLE_PACKAGES", "platformdirs,pytest")
    assert [entry["name"] for entry in packages.listed(str(tmp_path))] == ["pytest"]
