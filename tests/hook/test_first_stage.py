"""What waits in ``sys.meta_path`` for the first import of somebody's package, and what is left of it at the end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.lab import scratch

if TYPE_CHECKING:
    from tests.lab.hooked import Hooked

_PROGRAM = """
import atexit, os, sys

def ours():
    return sorted(name for name in sys.modules if name.startswith("sif_writable"))

def finders():
    return [finder for finder in sys.meta_path if finder.__module__.startswith("sif_writable")]

def at_the_end():  # the first that was registered is the last to be called
    import json
    print(json.dumps([found, [finder.__module__ for finder in finders()]]))

atexit.register(at_the_end)
(stage,) = finders()
found = {"start": ours(), "held": sorted({"os", "sys", "sif_writable"}.intersection(stage.__globals__))}
found["hash"] = bool(hash(stage))
import json, email.message, concurrent.futures, sqlite3
for name in ("sitecustomize", "usercustomize", "apport_python_hook"):
    try:
        __import__(name)
    except ImportError:
        pass
found["library"] = ours()
IN_FRONT
for name in [name for name in os.environ if name.startswith("SIF_WRITABLE")]:
    del os.environ[name]
try:
    import of_nobody
except ModuleNotFoundError as error:
    found["error"] = str(error)
from sif_writable import importhook
(finder,) = finders()
found["finder"] = [type(finder) is importhook.Finder, sys.meta_path[0] is finder]
found["folder"] = importhook.folder()
"""
_IN_FRONT = """
class Other:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return None
sys.meta_path.insert(0, Other)
import wave
found["behind another"] = sys.meta_path[0] is not Other
"""


@pytest.mark.parametrize("state", ["active", "inherited"])
def test_nothing_more_is_loaded_before_the_first_import_of_a_package(hooked: Hooked, state: str) -> None:
    assert hooked.state() == "active"
    env = hooked.ask("dict(os.environ)") if state == "inherited" else {}
    for in_front in ("", _IN_FRONT):
        result = hooked.run("-c", _PROGRAM.replace("IN_FRONT", in_front), env=env)
        assert (result.returncode, result.stderr) == (0, ""), result
        found, left = json.loads(result.stdout)
        more = ["sif_writable.warm"] if state == "active" else []
        assert found["start"] == found["library"] == ["sif_writable", "sif_writable.child", *more]
        assert (found["held"], found["hash"]) == ([], True)
        assert found["error"] == "No module named 'of_nobody'"
        assert found["finder"] == [True, True]
        # It goes by the variables as they were when the process began.
        assert found["folder"].startswith(f"{scratch.HOME}/.cache/sif-writable/image-")
        assert found.get("behind another", True)
        assert left == []


def test_a_finder_that_cannot_be_loaded_leaves_the_imports_to_others(hooked: Hooked) -> None:
    changed = hooked.copy()
    changed.write("sif_writable/importhook.py", "raise RuntimeError('spoilt')\n")
    changed.write("somebody.py", "VALUE = 1\n")
    asked = "(__import__('somebody').VALUE, repr(sys.modules['sif_writable'].failure))"
    assert changed.ask(asked) == (1, "RuntimeError('spoilt')")


def test_the_finder_comes_where_the_standard_library_is_asked_for_too(each: Hooked) -> None:
    """Where bytecode goes to storage: an image that ships none, or none of ``-O``."""
    image = each.copy()
    image.write("writes_beside.py", "import os\nopen(os.path.dirname(__file__) + '/made', 'a').close()\n")
    program = (
        "import sys, writes_beside, sif_writable; "
        "print(sif_writable.failure, bool(sys.pycache_prefix), '/packages-' in writes_beside.__file__)"
    )
    done = image.run("-OO", "-c", program, env={"SIF_WRITABLE_OVERLAY": "off"})
    assert (done.returncode, done.stdout) == (0, "None True True\n"), done
