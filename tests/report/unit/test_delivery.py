"""How the hook came in, where no file beside the package tells."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from sif_writable.report import delivery

ATTACHED = "/sif-writable-attached/sif_writable/hook/sitecustomize.py"


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
