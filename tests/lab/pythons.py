"""The CPythons of this machine that the package has to work with."""

from __future__ import annotations

import functools
import glob
import os
import shutil
import subprocess
from typing import NamedTuple

SUPPORTED = tuple(f"3.{minor}" for minor in range(9, 15))

_ASK = (
    "import sys, sysconfig; import venv, ensurepip;"
    "print(sys.implementation.name, '%d.%d' % sys.version_info[:2], sysconfig.get_path('purelib'))"
)


class Python(NamedTuple):
    """One interpreter, which can make virtual environments."""

    version: str
    """Such as `3.9`."""
    path: str
    debian: bool
    """Debian's own: it has a sitecustomize already, and its packages are in dist-packages."""

    @property
    def name(self) -> str:
        """What a report calls it."""
        return self.version + ("-debian" if self.debian else "")


def missing() -> list[str]:
    """List the supported versions that this machine has no interpreter of."""
    return [version for version in SUPPORTED if version not in {python.version for python in found()}]


@functools.cache
def found() -> tuple[Python, ...]:
    """Return at most one interpreter per version, and Debian's own besides."""
    pythons: dict[tuple[str, bool], Python] = {}
    for version in SUPPORTED:
        for path in _candidates(version):
            python = _ask(path)
            if python is not None and python.version == version:
                pythons.setdefault((version, python.debian), python)
    return tuple(pythons.values())


def _candidates(version: str) -> list[str]:
    """List places where that version may be: pyenv's folders, and whatever PATH names."""
    pyenv = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    builds = glob.glob(os.path.join(glob.escape(pyenv), "versions", f"{version}.*", "bin", f"python{version}"))
    folders = [*os.environ.get("PATH", "").split(os.pathsep), "/usr/local/bin", "/usr/bin"]
    # Shims stand for whatever is switched on at the moment, which the builds' own folders say better.
    named = [shutil.which(f"python{version}", path=folder) for folder in folders if os.path.basename(folder) != "shims"]
    return [*sorted(builds), *(path for path in named if path)]


def _ask(path: str) -> Python | None:
    """Ask an interpreter what it is; `None` where it is no CPython or cannot make virtual environments."""
    result = subprocess.run([path, "-I", "-c", _ASK], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        return None
    implementation, version, purelib = result.stdout.split(maxsplit=2)
    return Python(version, path, "dist-packages" in purelib) if implementation == "cpython" else None
