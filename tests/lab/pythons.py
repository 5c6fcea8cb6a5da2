"""The CPythons that the package has to work with: this machine's own, and the lab's for versions that it lacks."""

from __future__ import annotations

import functools
import glob
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

from tests.lab import compiled_python, debian_pythons
from tests.lab.unavailable import LabUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

SUPPORTED = tuple(f"3.{minor}" for minor in range(9, 16))
DEBIAN = "3.11-debian"
_MAIN = ("3.11", "3.12", "3.10", "3.13", "3.14", "3.9", "3.15")
"""A test that runs on one interpreter runs on the first of these that is there."""

_ASK = (
    "import sys, sysconfig; from importlib.util import find_spec; assert find_spec('venv') and find_spec('ensurepip');"
    "print(sys.implementation.name, '%d.%d' % sys.version_info[:2], sysconfig.get_path('purelib'))"
)


class Python(NamedTuple):
    """One interpreter, which can make virtual environments."""

    version: str
    """Such as `3.9`."""
    path: str
    debian: bool
    """Debian's own: it has a sitecustomize already, and its packages are in dist-packages."""
    build: str = ""
    """How it was built, where not as CPython is by default."""

    @property
    def name(self) -> str:
        """What a report calls it."""
        return self.version + ("-debian" if self.debian else "") + (f"-{self.build}" if self.build else "")


_BUILDS: dict[str, Callable[[], str]] = {
    "3.11-pypy": debian_pythons.pypy,
    "3.13-debug": debian_pythons.debug,
    "3.13-freethreaded": compiled_python.interpreter,
}
BUILDS = tuple(_BUILDS)
"""Other builds, each of which the lab makes."""


def get(name: str) -> Python:
    """Return the interpreter of that name, or say why there is none."""
    if name in _BUILDS:
        version, _, build = name.partition("-")
        return Python(version, _BUILDS[name](), debian=False, build=build)
    for python in found():
        if python.name == name:
            return python
    why = f", and the lab makes none: {missing()[name]}" if name in missing() else ""
    raise LabUnavailable(f"this machine has no CPython {name.replace('-debian', ' of Debian')}{why}")


def main() -> Python:
    """Return the one interpreter that tests run on where one is enough: none of Debian's, if there is another."""
    there = {python.version: python for python in reversed(found())}
    for version in _MAIN:
        if version in there:
            return there[version]
    raise LabUnavailable("this machine has no CPython that can make virtual environments")


@functools.cache
def own() -> Python:
    """Return the interpreter that runs the tests, or the one that its virtual environment was made from."""
    python = _ask(os.path.realpath(sys.executable))
    if python is None:
        raise LabUnavailable("the interpreter of the tests cannot make virtual environments")
    return python


def asked_for(*, every: bool) -> tuple[str, ...]:
    """Name what tests of every interpreter run on: all there are, or the oldest, that of most tests and the newest."""
    return (*SUPPORTED, DEBIAN) if every else (SUPPORTED[0], _MAIN[0], SUPPORTED[-1])


def found() -> tuple[Python, ...]:
    """Return at most one interpreter per version, and Debian's own besides."""
    return (*of_this_machine(), *_of_the_lab()[0])


def missing() -> dict[str, str]:
    """Return the supported versions that there is no interpreter of, and why the lab has none."""
    return _of_the_lab()[1]


@functools.cache
def of_this_machine() -> tuple[Python, ...]:
    """Return what is installed."""
    pythons: dict[tuple[str, bool], Python] = {}
    for version in SUPPORTED:
        for path in _candidates(version):
            python = _ask(path)
            if python is not None and python.version == version:
                pythons.setdefault((version, python.debian), python)
    return tuple(pythons.values())


@functools.cache
def _of_the_lab() -> tuple[list[Python], dict[str, str]]:
    """Make what is not installed; return it, and why the rest cannot be made."""
    made, failed = [], {}
    installed = {python.version for python in of_this_machine()}
    for version in SUPPORTED:
        if version not in installed:
            try:
                made.append(Python(version, debian_pythons.interpreter(version), debian=False))
            except LabUnavailable as why:
                failed[version] = str(why)
    return made, failed


def _candidates(version: str) -> list[str]:
    """List places where that version may be: the folders of pyenv, uv and a workflow's tools, and what PATH names."""
    get, program = os.environ.get, os.path.join("bin", f"python{version}")
    folders_of = (
        (get("PYENV_ROOT") or os.path.expanduser("~/.pyenv"), "versions", f"{version}.*"),
        (get("UV_PYTHON_INSTALL_DIR") or os.path.expanduser("~/.local/share/uv/python"), f"cpython-{version}.*"),
        (get("RUNNER_TOOL_CACHE") or "/opt/hostedtoolcache", "Python", f"{version}.*", "*"),
    )
    builds = [path for top, *rest in folders_of for path in glob.glob(os.path.join(glob.escape(top), *rest, program))]
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
