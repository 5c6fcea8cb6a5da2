"""Which lines run in the lab's environments, where `coverage run` measures the tests: see `tests/coverage`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.lab.store import LAB

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ON = bool(os.environ.get("COVERAGE_RUN"))
"""`coverage run` says so to its children."""
PACKAGES = ("coverage",) if ON else ()
"""What environments need for it."""
NO_SITE = () if ON else ("-S",)
"""The flag of an interpreter that starts quicker without `site`, which is what lets it be measured."""
FOLDER = os.path.join(LAB, "coverage")
"""What the processes in containers have measured."""
_INSIDE = "/coverage"
_TEXT = """[run]
branch = true
parallel = true
source_pkgs = sif_writable
patch = _exit
disable_warnings = module-not-imported, no-data-collected
"""
"""Those of pyproject.toml, which coverage reads from Python 3.11 on only, but `patch = subprocess`: see `start`."""
_MODULE = "_lab_coverage"
_PTH = f"0{_MODULE}.pth"
"""It is read before our own, so that all of a start is measured."""
_STARTING = """import atexit, os, sys

def _posix_spawn(path, argv, env, **options):  # the name of the caller's: an error is judged by its innermost frame
    # Without `site`, an interpreter reads no .pth file: the code that it is given begins with what that would do.
    argv = list(argv)
    if "-S" in argv and "-c" in argv:
        place = argv.index("-c") + 1
        here = os.path.dirname(__file__)
        argv[place] = f"import sys; sys.path.append({{here!r}}); import _lab_coverage; sys.path.pop()\\n{{argv[place]}}"
    return posix_spawn(path, argv, env, **options)

def save():
    try:
        measuring._atexit()
    except Exception:  # a program may have gone where nothing can be written, and what it says is compared
        pass

if os.path.exists("{0}/settings") and "coverage" not in sys.modules:
    own = {{"COVERAGE_PROCESS_START": "{0}/settings", "COVERAGE_FILE": "{0}/.coverage"}}
    os.environ.update(own)
    try:
        import coverage
        measuring = coverage.process_startup()
    except Exception:  # the working directory is gone, or HOME cannot be read: nothing is measured there
        pass
    else:
        atexit.unregister(measuring._atexit)
        atexit.register(save)
        posix_spawn, os.posix_spawn = os.posix_spawn, _posix_spawn
    finally:
        for name in own:
            del os.environ[name]
"""
RECIPE = (_STARTING,) if ON else ()
"""By what environments differ."""


def binds(place: Callable[[str], str] = str) -> Sequence[str]:
    """Return what a machine shows where an interpreter of it is measured.

    :param place: turns a path of the lab into the one that whoever binds it sees.
    """
    return (f"{place(folder())}:{_INSIDE}",) if ON else ()


def mount_point(tree: str) -> None:
    """Make the folder that is covered by those, in an image that is going to be read-only."""
    if ON:
        os.mkdir(tree + _INSIDE)


def start(site_packages: str, where: str = _INSIDE) -> list[str]:
    """Let each interpreter with these site-packages measure itself; return the files that do.

    By a file that is there, not by variables: tests give interpreters bare environments, and compare these.

    :param where: what these interpreters know :data:`FOLDER` by.
    """
    made = []
    for name, text in files(where).items():
        made.append(os.path.join(site_packages, name))
        with open(made[-1], "w", encoding="utf-8") as file:
            file.write(text)
    return made


def files(where: str = _INSIDE) -> dict[str, str]:
    """Return what lets the interpreters of a site-packages measure themselves: name and text."""
    return {f"{_MODULE}.py": _STARTING.format(where), _PTH: f"import {_MODULE}\n"}


def unmeasured() -> dict[str, str]:
    """Return the environment of a program of the lab itself, which goes where it could write no file."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


def folder() -> str:
    """Return that folder, made and with the settings in it."""
    os.makedirs(FOLDER, exist_ok=True)
    os.chmod(FOLDER, 0o1777)
    with open(os.path.join(FOLDER, "settings"), "w", encoding="utf-8") as file:
        file.write(_TEXT)
    return FOLDER
