"""Wheels: this project's own, built from the working tree, and the packages that test images are made of."""

from __future__ import annotations

import glob
import os
import platform
import shutil
import subprocess
import sys

from tests.lab import measured
from tests.lab.store import REPOSITORY, digest_of_files, provide
from tests.lab.unavailable import LabUnavailable

PACKAGES = ("numba==0.68.1", "numpy==2.4.6", "matplotlib==3.11.2", "Kivy==2.3.1")
"""Real packages that write when they are imported or used: kernels, a font cache, a folder in HOME."""

DEPENDENCIES = ("platformdirs", "filelock", "nvidia-ml-py")
"""What sif-writable itself needs, so that the image's second build step installs nothing but its wheel."""

IMAGE_PYTHON = "3.11"

# pip takes files for another Python, but asks its own for `python_version` in what packages require.
_FOR_ANOTHER_PYTHON = """
import runpy, sys
from pip._vendor.packaging import markers
version, own = sys.argv.pop(1), markers.default_environment
markers.default_environment = lambda: {**own(), "python_version": version, "python_full_version": f"{version}.0"}
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""
_GLIBC_MINORS = (36, 35, 34, 31, 28, 27, 26, 24, 17)
"""Of the tags of wheels that run in the images: pip does not take the older ones along by itself."""


def sources() -> list[str]:
    """List the files of the package."""
    everything = glob.glob(os.path.join(REPOSITORY, "sif_writable", "**"), recursive=True)
    return [path for path in everything if os.path.isfile(path) and not path.endswith(".pyc")]


def project_wheel() -> str:
    """Return this project's wheel, built from the present sources."""
    made_from = [*sources(), *(os.path.join(REPOSITORY, name) for name in ("pyproject.toml", "README.md", "LICENSE"))]

    def make(path: str) -> None:
        command = [sys.executable, "-m", "build", "--quiet", "--wheel", "--no-isolation", "--outdir", path, REPOSITORY]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise RuntimeError(f"building the wheel failed:\n{result.stdout}\n{result.stderr}")

    folder = provide("wheel", digest_of_files([path for path in made_from if os.path.exists(path)]), make)
    (wheel,) = glob.glob(os.path.join(folder, "*.whl"))
    return wheel


def wheelhouse() -> str:
    """Return a folder with the wheels of everything in the test image but this project."""
    return download("wheelhouse", (*PACKAGES, *DEPENDENCIES, *measured.PACKAGES))


def download(name: str, requirements: tuple[str, ...], python: str = IMAGE_PYTHON) -> str:
    """Return a folder with the wheels of these requirements and all that they need, for that version of Python."""
    platforms = _platforms()
    return provide(name, (requirements, python, platforms), lambda path: _fetch(path, requirements, python, platforms))


def pinned(name: str, requirements: tuple[str, ...], source: tuple[str, ...], *, kept: int) -> str:
    """Return a folder with wheels of exactly these releases, for the images' Python; several of one project are fine.

    :param source: those of them that are published without a wheel; they have to be pure Python.
    """
    platforms = _platforms()

    def make(path: str) -> None:
        if source:
            _pip("wheel", "--no-deps", "--wheel-dir", path, *source)
        rest = [requirement for requirement in requirements if requirement not in source]
        while rest:  # pip takes one release of a project at a time
            batch = {requirement.partition("==")[0]: requirement for requirement in rest}
            _fetch(path, tuple(batch.values()), IMAGE_PYTHON, platforms, "--no-deps")
            rest = [requirement for requirement in rest if requirement not in batch.values()]

    return provide(name, (requirements, source, platforms), make, kept=kept)


def installed(name: str, requirements: tuple[str, ...], python: str, source: tuple[str, ...] = ()) -> str:
    """Return a folder for PYTHONPATH with these releases and all that they need, for that version of Python.

    :param source: what they need that is published without a wheel; it has to be pure Python.
    """
    platforms = _platforms()

    def make(path: str) -> None:
        built = path + ".wheels"
        if source:
            _pip("wheel", "--no-deps", "--wheel-dir", built, *source)
        options = ["--target", path, "--find-links", built, *_target(python, platforms)]
        _pip("install", *options, *requirements, python=python)
        shutil.rmtree(built, ignore_errors=True)

    return provide(name, (requirements, source, python, platforms), make, kept=1)


def _platforms() -> list[str]:
    machine = platform.machine()
    return [*(f"manylinux_2_{minor}_{machine}" for minor in _GLIBC_MINORS), f"manylinux2014_{machine}"]


def _fetch(path: str, requirements: tuple[str, ...], python: str, platforms: list[str], *options: str) -> None:
    _pip("download", "--dest", path, *_target(python, platforms), *options, *requirements, python=python)


def _target(python: str, platforms: list[str]) -> list[str]:
    """Return pip's options for wheels of an interpreter other than the one that runs it."""
    abi = "cp" + python.replace(".", "")
    target = [f"--python-version={python}", "--implementation=cp", f"--abi={abi}", "--abi=abi3", "--abi=none"]
    return ["--only-binary=:all:", *target, *(f"--platform={name}" for name in (*platforms, "any"))]


def _pip(*arguments: str, python: str = "") -> None:
    how = ["-c", _FOR_ANOTHER_PYTHON, python] if python else ["-m", "pip"]
    command = [sys.executable, *how, *arguments, "--quiet", "--disable-pip-version-check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise LabUnavailable(f"pip {arguments[0]} did not succeed: {result.stderr.strip()[-500:]}")
