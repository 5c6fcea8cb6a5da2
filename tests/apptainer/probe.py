"""Runs inside the image: real packages that write when they are imported or used, each in an interpreter of its own.

Tests pass this text to `python -S -c`, so that the hook does not run in this process but in its children; the argument
is the number of passes. It prints one JSON object: what `sif-writable status` says, and what each package did in each
pass, with the files of its cache afterwards.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

# A kernel whose source file lies in the image.
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
# Makes a folder in HOME and writes its settings there; without one it cannot be imported.
_KIVY = """
import json, kivy
from kivy.config import Config
assert Config.getint("kivy", "log_enable") == 1
print(json.dumps({"cache": kivy.kivy_home_dir}))
"""
_PACKAGES = {"numba": _NUMBA, "matplotlib": _MATPLOTLIB, "kivy": _KIVY}


def main() -> None:
    """Use every package that many times."""
    status = _call("-m", "sif_writable", "status", "--json")
    passes = [{name: _use(program) for name, program in _PACKAGES.items()} for _ in range(int(sys.argv[1]))]
    print(json.dumps({"status": json.loads(status.stdout), "said": status.stderr, "passes": passes}))


def _use(program: str) -> dict[str, object]:
    result = _call("-c", program)
    told = json.loads(result.stdout) if result.returncode == 0 else {"cache": ""}
    return {**told, "code": result.returncode, "said": result.stderr, "files": _times(told["cache"])}


def _call(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)


def _times(folder: str) -> dict[str, int]:
    """Map each file to the time of its last change; a log is no cache."""
    paths = [os.path.join(where, name) for where, _, names in os.walk(folder) for name in names]
    return {path: os.stat(path).st_mtime_ns for path in paths if "/logs/" not in path}


if __name__ == "__main__":
    main()
