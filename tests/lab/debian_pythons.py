"""CPythons of Debian releases, made to run from a folder of this machine, whatever the C library that it has itself."""

from __future__ import annotations

import contextlib
import glob
import os
import subprocess
import sys

from tests.lab import debian, wheels
from tests.lab.store import provide
from tests.lab.unavailable import LabUnavailable

_RELEASES = {"3.11": "bookworm", "3.13": "trixie", "3.14": "forky", "3.15": "forky"}
# Debian 11 has 3.9, but its ensurepip knows only a pip of its own, in pieces; no release has 3.10 or 3.12.
_WHEELS = "'/usr/share/python-wheels/'"
"""As it stands in the settings that the interpreter was built with: where ensurepip looks."""


def interpreter(version: str) -> str:
    """Return the path of an interpreter of that version, which makes virtual environments as any other does."""
    if version not in _RELEASES:
        raise LabUnavailable("no release of Debian has one to offer")
    return _provide(version.replace(".", ""), version, _RELEASES[version], (f"python{version}-venv",))


def debug() -> str:
    """Return the path of a debug build."""
    return _provide("313d", "3.13", "trixie", ("python3.13-dbg", "python3.13-venv"), "python3.13d")


def pypy() -> str:
    """Return the path of PyPy 3.11."""
    return _provide("pypy311", "3.11", "trixie", ("pypy3-venv",), "pypy3.11")


def _provide(tag: str, version: str, release: str, packages: tuple[str, ...], name: str = "") -> str:
    debian.require_root()
    # Debian's own would need more of the machine: files with certificates, for one.
    pip = wheels.download(f"ensurepip-{version.replace('.', '')}", ("pip", "setuptools"), version)
    program = os.path.join("usr", "bin", name or f"python{version}")

    def make(path: str) -> None:
        debian.unpack(path, release, packages)
        library = os.path.join(path, "usr", "lib", f"{'pypy' if 'pypy' in name else 'python'}{version}")
        python = os.path.join(path, program)
        _use_own_libraries(path, python)
        tried = subprocess.run([python, "-I", "-S", "-c", "pass"], check=False)
        if tried.returncode:
            raise LabUnavailable(f"Debian's does not run as patchelf has left it here (exit code {tried.returncode})")
        # Debian's hook would shadow anybody's sitecustomize in here: this one shall be like upstream's.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(library, "sitecustomize.py"))
        for file in glob.glob(os.path.join(glob.escape(library), "_sysconfigdata*.py")):
            _replace(file, _WHEELS, repr(pip))
        # As Debian's installation does, which has not run; nobody else may write here later.
        subprocess.run([python, "-m", "compileall", "-q", "-j0", library], check=True)

    recipe = (release, pip, 1) if not name else (release, pip, packages, 1)
    return os.path.join(provide(f"python-{tag}", recipe, make), program)


def _use_own_libraries(tree: str, program: str) -> None:
    """Have a program find the loader and the libraries of its own tree; extension modules find them by the program."""
    (folder,) = glob.glob(os.path.join(glob.escape(tree), "usr", "lib", "*-linux-gnu*"))
    (loader,) = glob.glob(os.path.join(glob.escape(folder), "ld-linux-*.so.*"))
    patchelf = os.path.join(os.path.dirname(sys.executable), "patchelf")  # what that of Debian 13 has changed crashes
    command = [patchelf, "--set-interpreter", loader, "--force-rpath", "--set-rpath", folder, program]
    subprocess.run(command, check=True)


def _replace(file: str, old: str, new: str) -> None:
    with open(file, encoding="utf-8") as text:
        changed = text.read().replace(old, new)
    with open(file, "w", encoding="utf-8") as text:
        text.write(changed)
