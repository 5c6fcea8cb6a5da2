"""Runs inside an image: real packages that write when they are imported or used, each in an interpreter of its own.

Tests hand this text to `python -S -c`, so that the hook does not run in this process but in its children. The argument
is how many times to use the packages. It prints one JSON object, a `Seen`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, TypedDict


class Use(TypedDict):
    """What one package did."""

    code: int
    said: str
    """What it wrote to stderr."""
    hits: int
    """Compiled functions that came from the cache."""
    files: dict[str, int]
    """The files in its cache afterwards, with the time of their last change; none when it failed."""


class Seen(TypedDict):
    """What a run saw."""

    status: dict[str, Any]
    """`sif-writable status --json`."""
    said: str
    """What it wrote to stderr."""
    modules: list[str]
    """The modules of sif_writable in the last interpreter, which found everything made."""
    rounds: list[dict[str, Use]]
    """What each package did, each time."""


# The source file of the compiled function lies in the image.
_NUMBA = """
import json, numba
from fontTools.misc import arrayTools
area = numba.njit(cache=True)(arrayTools.rectArea)
assert area((0.0, 0.0, 3.0, 2.0)) == 6.0
print(json.dumps({"cache": area.stats.cache_path, "hits": sum(area.stats.cache_hits.values())}))
"""
_MATPLOTLIB = """
import json, matplotlib.pyplot
from matplotlib import font_manager
assert font_manager.fontManager.ttflist
print(json.dumps({"cache": matplotlib.get_cachedir()}))
"""
# It makes a folder in HOME for its settings, and cannot be imported without one.
_KIVY = """
import json, kivy
from kivy.config import Config
assert Config.getint("kivy", "log_enable") == 1
print(json.dumps({"cache": kivy.kivy_home_dir}))
"""
_MODULES = """
import json, sys
print(json.dumps([name for name in sys.modules if name.startswith("sif_writable.")]))
"""
PACKAGES = {"numba": _NUMBA, "matplotlib": _MATPLOTLIB, "kivy": _KIVY}


def main() -> None:
    """Ask for the status, use the packages, and print what they did."""
    status = _start("-m", "sif_writable", "status", "--json")
    output, said = status.communicate()
    rounds = [_use_all() for _ in range(int(sys.argv[1]))]
    modules = _start("-c", _MODULES).communicate()[0]
    seen: Seen = {"status": json.loads(output), "said": said, "modules": json.loads(modules), "rounds": rounds}
    print(json.dumps(seen))


def _use_all() -> dict[str, Use]:
    """Use all of them at once, as a job does."""
    running = {name: _start("-c", program) for name, program in PACKAGES.items()}
    return {name: _use(process) for name, process in running.items()}


def _use(process: subprocess.Popen[str]) -> Use:
    output, said = process.communicate()
    answer: dict[str, Any] = json.loads(output) if process.returncode == 0 else {"cache": ""}
    files = _times(answer["cache"])
    return {"code": process.returncode, "said": said, "hits": answer.get("hits", 0), "files": files}


def _start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _times(folder: str) -> dict[str, int]:
    """Map each file to the time of its last change; logs are no cache."""
    paths = [os.path.join(where, name) for where, _, names in os.walk(folder) for name in names]
    return {path: os.stat(path).st_mtime_ns for path in paths if "/logs/" not in path}


if __name__ == "__main__":
    main()
