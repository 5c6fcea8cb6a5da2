"""CPythons of Debian releases, made to run from a folder of this machine, whatever the C library that it has itself."""

from __future__ import annotations

import glob
import os
import subprocess

from tests.lab import apt, debian, wheels
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
    debian.require_root()
    tag = version.replace(".", "")
    # Debian's own would need more of the machine: files with certificates, for one.
    pip = wheels.download(f"ensurepip-{tag}", ("pip", "setuptools"), version)

    def make(path: str) -> None:
        apt.ensure("patchelf")
        debian.unpack(path, _RELEASES[version], (f"python{version}-venv",))
        library = os.path.join(path, "usr", "lib", f"python{version}")
        _use_own_libraries(path, _in(path, version))
        tried = subprocess.run([_in(path, version), "-I", "-S", "-c", "pass"], check=False)
        if tried.returncode:  # seen with the patchelf of Debian 13
            raise LabUnavailable(f"Debian's does not run as patchelf has left it here (exit code {tried.returncode})")
        # Debian's hook would shadow anybody's sitecustomize in here: this one shall be like upstream's.
        os.unlink(os.path.join(library, "sitecustomize.py"))
        for file in glob.glob(os.path.join(glob.escape(library), "_sysconfigdata*.py")):
            _replace(file, _WHEELS, repr(pip))
        # As Debian's installation does, which has not run; nobody else may write here later.
        subprocess.run([_in(path, version), "-m", "compileall", "-q", "-j0", library], check=True)

    return _in(provide(f"python-{tag}", (_RELEASES[version], pip, 1), make), version)


def _in(tree: str, version: str) -> str:
    return os.path.join(tree, "usr", "bin", f"python{version}")


def _use_own_libraries(tree: str, program: str) -> None:
    """Have a program find the loader and the libraries of its own tree; extension modules find them by the program."""
    (folder,) = glob.glob(os.path.join(glob.escape(tree), "usr", "lib", "*-linux-gnu*"))
    (loader,) = glob.glob(os.path.join(glob.escape(folder), "ld-linux-*.so.*"))
    command = ["patchelf", "--set-interpreter", loader, "--force-rpath", "--set-rpath", folder, program]
    subprocess.run(command, check=True)


def _replace(file: str, old: str, new: str) -> None:
    with open(file, encoding="utf-8") as text:
        changed = text.read().replace(old, new)
    with open(file, "w", encoding="utf-8") as text:
        text.write(changed)
