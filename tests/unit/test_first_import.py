"""Modules of ours that are loaded past the import system are what they are by it."""

from __future__ import annotations

import glob
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import sif_writable
from sif_writable import first_import

if TYPE_CHECKING:
    import pytest

ROOT = os.path.dirname(os.path.dirname(sif_writable.__file__))
NAMES = ("importhook", "layer.enter", "layer.names")
ASK = """
import json, sys
sys.path.insert(0, sys.argv[1])
import sif_writable
names = sys.argv[3:]
if sys.argv[2] == "past":
    sif_writable.follow("first_import").load(*names)
    loaded = [f"sif_writable.{name}" in sys.modules for name in names]
else:
    loaded = [True for name in names if __import__(f"sif_writable.{name}")]
facts = []
for name in ("layer", *names):
    module = sys.modules[f"sif_writable.{name}"]
    spec, parent = module.__spec__, sys.modules[f"sif_writable.{name}".rpartition(".")[0]]
    facts.append([
        module.__name__, module.__file__, module.__package__, module.__doc__, getattr(module, "__path__", None),
        type(module.__loader__).__name__, module.__loader__ is spec.loader, module.__loader__.path,
        spec.name, spec.origin, spec.parent, spec.has_location, spec.submodule_search_locations, spec.cached,
        getattr(parent, name.rpartition(".")[2]) is module, sorted(set(vars(module)) - {"__builtins__", "__cached__"}),
    ])
import sif_writable.layer.decide as another
facts.append([another.enter is sys.modules["sif_writable.layer.enter"], loaded])
print(json.dumps(facts))
"""


def _facts(way: str) -> Any:
    words = [sys.executable, "-I", "-S", "-c", ASK, ROOT, way, *NAMES]
    return json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout)


def test_they_are_the_same() -> None:
    past = _facts("past")
    assert past == _facts("by the import system")
    assert past[-1] == [True, [True] * len(NAMES)]


def test_the_first_file_of_each_folder_is_empty_and_need_not_be_read() -> None:
    files = glob.glob(f"{glob.escape(ROOT)}/sif_writable/*/__init__.py")
    assert len(files) > 5
    assert [path for path in files if os.path.getsize(path)] == []


def test_what_another_loader_has_loaded_is_left_to_the_import_system(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sif_writable.layer.names", "sif_writable.layer.enter"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sif_writable.__spec__, "loader", object())
    first_import.load("layer.names")
    assert "sif_writable.layer.names" not in sys.modules
