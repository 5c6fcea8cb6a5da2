"""Where the files of our folder come from: this package, and what it needs, from where they are installed here.

They have to serve Python 3.9, since nobody knows which one an image has. What is installed for a newer one only is
fetched once more, by pip; without it that goes into a folder for the newer ones, and the others do without it: locks
only save work, and the details of GPUs and the user's directories are only for reports.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

OLDEST = 9
"""The minor version of the oldest Python that this package runs on."""
NEEDED = {"platformdirs": "platformdirs", "filelock": "filelock", "nvidia-ml-py": "pynvml"}
"""Distributions, and their modules."""
_AT_LEAST = re.compile(r"(?:>=|~=|>|==)\s*3\.(\d+)")
_SKIPPED = ("__pycache__",)


class Source(NamedTuple):
    """One distribution, as files to copy."""

    name: str
    version: str
    """Empty where nothing says it."""
    minor: int
    """The oldest Python 3 that it serves."""
    files: dict[str, str]
    """The path in a folder of packages, and the file."""

    @property
    def words(self) -> str:
        """What it is called."""
        return f"{self.name} {self.version}".strip()


def package() -> Source:
    """Return this package, wherever it was loaded from."""
    import sif_writable

    folder = os.path.dirname(os.path.abspath(sif_writable.__file__))
    files = {f"sif_writable/{path}": f"{folder}/{path}" for path in _walk(folder)}
    return Source("sif-writable", sif_writable.__version__, OLDEST, {**files, **_about("sif-writable", folder)})


def installed(name: str, folders: list[str] | None = None) -> Source | None:
    """Return what is installed of a distribution, or None: nothing, or not in plain Python.

    :param folders: where to look; by default where this interpreter does.
    """
    module = NEEDED[name]
    if folders is None:
        spec = importlib.util.find_spec(module)
        origin = spec.origin if spec is not None else None
    else:
        places = [f"{folder}/{module}{end}" for folder in folders for end in ("/__init__.py", ".py")]
        origin = next(filter(os.path.isfile, places), None)
    if origin is None or not origin.endswith(".py"):
        return None
    folder = os.path.dirname(origin)
    if os.path.basename(origin) == "__init__.py":
        files = {f"{module}/{path}": f"{folder}/{path}" for path in _walk(folder)}
        folder = os.path.dirname(folder)
    else:
        files = {os.path.basename(origin): origin}
    if any(path.endswith((".so", ".pyd")) for path in files):
        return None
    about = _about(name, f"{folder}/{module}")
    metadata = next((path for new, path in about.items() if new.endswith("/METADATA")), "")
    version, minor = _said(metadata)
    return Source(name, version, max(minor, _syntax(files)), {**files, **about})


def fetched(name: str, folder: str) -> Source | None:
    """Return a distribution for the oldest Python, from where pip gets it, or None.

    :param folder: an empty one, which the files lie in then.
    """
    words = ["download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    words += [f"--python-version=3.{OLDEST}", "--timeout=15", "--retries=1", f"--dest={folder}", name]
    # The version of this interpreter is no matter, nor are packages of the working directory.
    command = [sys.executable, "-I", "-m", "pip", *words]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False)
        if done.returncode:
            return None
        (wheel,) = (f"{folder}/{entry}" for entry in os.listdir(folder) if entry.endswith(".whl"))
        with zipfile.ZipFile(wheel) as file:
            file.extractall(folder)  # which makes no path outside of it
    except (OSError, ValueError, zipfile.BadZipFile, subprocess.TimeoutExpired):
        return None
    return installed(name, [folder])


def _walk(folder: str) -> Iterator[str]:
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED)
        for name in sorted(files):
            if not name.endswith((".pyc", ".pyo")):
                yield os.path.relpath(f"{here}/{name}", folder)


def _about(name: str, module: str) -> dict[str, str]:
    """Return the metadata of a distribution with its licence, where they lie beside its module."""
    beside = os.path.dirname(module)
    for distribution in importlib.metadata.distributions(name=name, path=[beside]):
        place = str(getattr(distribution, "_path", ""))
        if place.endswith(".dist-info") and os.path.isdir(place):
            base = os.path.basename(place)
            found = {f"{base}/{path}": f"{place}/{path}" for path in _walk(place)}
            # These describe how it was installed; here it is only copied.
            return {
                new: path for new, path in found.items() if not new.endswith(("/RECORD", "/INSTALLER", "/REQUESTED"))
            }
    return {}


def _said(metadata: str) -> tuple[str, int]:
    """Return the version and the oldest minor version of Python that METADATA names."""
    version, minor = "", OLDEST
    if metadata:
        with open(metadata, encoding="utf-8", errors="replace") as file:
            for line in file.read().partition("\n\n")[0].split("\n"):
                key, _, value = line.partition(": ")
                if key == "Version":
                    version = value.strip()
                elif key == "Requires-Python":
                    minor = max([OLDEST, *map(int, _AT_LEAST.findall(value))])
    return version, minor


def _syntax(files: dict[str, str]) -> int:
    """Return the oldest minor version of Python that can read all sources."""
    for minor in range(OLDEST, sys.version_info[1] + 1):
        try:
            for path in files.values():
                if path.endswith(".py"):
                    with open(path, "rb") as file:
                        ast.parse(file.read(), feature_version=(3, minor))
        except SyntaxError:
            continue
        return minor
    return sys.version_info[1]
