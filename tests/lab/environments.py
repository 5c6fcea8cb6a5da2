"""Python environments with and without this project, one per interpreter, made by that interpreter's own pip.

They are made at /venv, where `PlainMachine` shows them, so that even the paths in their scripts are right there.
"""

from __future__ import annotations

import glob
import os
import subprocess
import zipfile
from typing import TYPE_CHECKING

from tests.lab import measured, scratch, wheels
from tests.lab.plain_machine import VENV, PlainMachine
from tests.lab.store import ORDINARY_UID, REPOSITORY, digest_of_files, provide
from tests.lab.unavailable import LabUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.lab.pythons import Python

PYTHON = f"{VENV}/bin/python"
PIP, WHEEL = "/pip", "/wheel"
"""Where pip and this project's wheel are shown to commands that `install` something."""

_BUNDLED = """
import ensurepip, os, sysconfig
print(os.path.join(os.path.dirname(ensurepip.__file__), "_bundled"))
print(sysconfig.get_config_var("WHEEL_PKG_DIR") or "")
"""


def bare(python: Python) -> str:
    """Return an environment that holds what the project needs, and not the project."""
    needed = (*wheels.DEPENDENCIES, *measured.PACKAGES)
    dependencies = wheels.download("dependencies", needed, python.version)

    def make(path: str) -> None:
        _own(path)
        with scratch.fresh() as places:
            machine = PlainMachine(places)
            _check(machine.run([python.path, "-m", "venv", "--without-pip", VENV], venv=path, writable=True))
            words = ["install", "--no-index", "--find-links=/dependencies", *needed]
            _check(pip(machine, python, path, words, binds=[f"{dependencies}:/dependencies:ro"]))
        if measured.ON:
            measured.start(packages(path))

    return provide(f"environment-bare-{_tag(python)}", (python, dependencies, *measured.RECIPE), make)


def hooked(python: Python) -> str:
    """Return an environment with the project's wheel, built from the present sources."""
    start, wheel = bare(python), wheels.project_wheel()

    def make(path: str) -> None:
        copy(start, path)
        with scratch.fresh() as places:
            _check(install(PlainMachine(places), python, path))

    return provide(f"environment-{_tag(python)}", (start, wheel), make)


def of_sources(python: Python) -> str:
    """Return an environment with the project's sources as they are now: what a wheel has, in a moment."""
    start, source = bare(python), os.path.join(REPOSITORY, "sif_writable")

    def make(path: str) -> None:
        copy(start, path)
        subprocess.run(["cp", "-a", source, packages(path)], check=True)
        subprocess.run(["cp", f"{source}/hook/sif_writable.pth", packages(path)], check=True)
        subprocess.run([python.path, "-m", "compileall", "-q", packages(path)], check=True)

    return provide(f"environment-sources-{_tag(python)}", (start, digest_of_files(wheels.sources())), make)


def copy(environment: str, path: str) -> str:
    """Copy an environment, for a test that changes it."""
    subprocess.run(["cp", "-a", "--reflink=auto", "-T", environment, path], check=True)
    return path


def install(
    machine: PlainMachine, python: Python, environment: str, *options: str, binds: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Install the project's wheel as a user would, into an environment that is writable for this."""
    wheel = wheels.project_wheel()
    words = ["install", "--no-deps", *options, f"{WHEEL}/{os.path.basename(wheel)}"]
    return pip(machine, python, environment, words, binds=[f"{os.path.dirname(wheel)}:{WHEEL}:ro", *binds])


def pip(
    machine: PlainMachine,
    python: Python,
    environment: str,
    words: Sequence[str],
    *,
    program: str = PYTHON,
    binds: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Run the pip that came with an interpreter, on an environment that is writable for this."""
    argv = [program, "-m", "pip", "--quiet", "--disable-pip-version-check", *words]
    binds = [f"{_pip(python)}:{PIP}:ro", *binds]
    return machine.run(argv, venv=environment, writable=True, image=False, binds=binds, env={"PYTHONPATH": PIP})


def packages(environment: str) -> str:
    """Return the site-packages of an environment."""
    (folder,) = glob.glob(os.path.join(glob.escape(environment), "lib", "py*3.*", "site-packages"))
    return folder


def _pip(python: Python) -> str:
    asked = subprocess.run([python.path, "-I", "-c", _BUNDLED], capture_output=True, text=True, check=True)
    folders = [folder for folder in asked.stdout.splitlines() if folder]
    found = [wheel for folder in folders for wheel in glob.glob(os.path.join(glob.escape(folder), "pip-*.whl"))]
    if not found and python.build:  # Debian's, whose wheels lie in this machine's own folders
        found = glob.glob(os.path.join(wheels.download("pip", ("pip",), python.version), "pip-*.whl"))
    if not found:
        raise LabUnavailable(
            f"this machine has a Python {python.name} without the wheel of pip that ensurepip installs"
        )

    def make(path: str) -> None:
        with zipfile.ZipFile(found[0]) as file:
            file.extractall(path)
        subprocess.run([python.path, "-I", "-m", "compileall", "-q", path], check=True)

    return provide(f"pip-{_tag(python)}", (python, found), make)


def _tag(python: Python) -> str:
    return python.name.replace(".", "")


def _own(folder: str) -> None:
    os.makedirs(folder, exist_ok=True)
    if os.getuid() == 0:
        os.chown(folder, ORDINARY_UID, ORDINARY_UID)


def _check(result: subprocess.CompletedProcess[str]) -> None:
    if result.returncode != 0:
        raise RuntimeError(f"making an environment failed:\n{result.stdout}\n{result.stderr}")
