"""How the hook came in, where no file beside the package shows it."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from sif_writable.report import delivery

if TYPE_CHECKING:
    from pathlib import Path

ATTACHED = "/sif-writable-attached/sif_writable/hook/sitecustomize.py"


@pytest.mark.parametrize(
    ("no_site", "there", "problem", "remedy"),
    [
        (1, False, "was started with -S", "drop -S"),
        (0, True, "is in place but did not run", "run: python -v"),
        (0, False, "is not a site directory of this interpreter", "set PYTHONPATH="),
    ],
)
def test_why_it_did_not_run_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: str, remedy: str, *, no_site: int, there: bool
) -> None:
    if there:
        (tmp_path / "sif_writable.pth").touch()
    monkeypatch.setattr(delivery, "_site_directories", lambda: [str(tmp_path)])
    monkeypatch.setattr(sys, "flags", SimpleNamespace(no_site=no_site))
    found = delivery.delivery(ran=False)
    assert found.how == ""
    assert problem in found.problem
    assert remedy in found.remedy


@pytest.mark.parametrize(
    ("path", "how"), [(ATTACHED, ATTACHED), ("/mine/sitecustomize.py", "a call of sif_writable.run()")]
)
def test_what_has_started_the_hook_is_named(path: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    custom = ModuleType("sitecustomize")
    custom.__file__ = path
    monkeypatch.setitem(sys.modules, "sitecustomize", custom)
    monkeypatch.setattr(delivery, "_site_directories", list)
    monkeypatch.setattr(sys, "path", ["/elsewhere"])
    assert delivery.delivery(ran=True) == (how, "", "")
