"""A read-only root without a container engine and without privileges: this machine's own, shown read-only.

It needs user namespaces and this machine's Python, no more. Its superblocks are read-only, as an image's is: every
write gives EROFS.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from tests.lab import pythons, scratch, wheels
from tests.lab.store import LAB, ORDINARY_UID, provide
from tests.lab.unavailable import LabUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.lab.pythons import Python
    from tests.lab.scratch import Scratch

_PATH = "/opt/venv/bin:/usr/local/bin:/usr/bin:/bin"


def venv() -> str:
    """Return a virtual environment with the packages of the test image, to stand at /opt/venv in the read-only root."""
    python = _reachable_python()
    wheel = wheels.project_wheel()
    wheelhouse = wheels.download("host-wheelhouse", (*wheels.PACKAGES, *wheels.DEPENDENCIES), python.version)
    pip = ("/opt/venv/bin/pip", "install", "--quiet", "--disable-pip-version-check", "--no-index")

    def make_packages(path: str) -> None:
        install = [*pip, f"--find-links={_inside(wheelhouse)}", *wheels.PACKAGES, *wheels.DEPENDENCIES]
        _fill(path, [python.path, "-m", "venv", "/opt/venv"], install)

    packages = provide("host-packages", (python, wheelhouse), make_packages)

    def make(path: str) -> None:
        subprocess.run(["cp", "-a", "--reflink=auto", packages, path], check=True)
        _fill(path, [*pip, _inside(wheel)])

    return provide("host-venv", (packages, wheel), make)


def _fill(folder: str, *commands: Sequence[str]) -> None:
    """Run commands that find this folder at /opt/venv, where they can write it."""
    with scratch.fresh() as places:
        os.makedirs(folder, exist_ok=True)
        if os.getuid() == 0:
            os.chown(folder, ORDINARY_UID, ORDINARY_UID)
        for command in commands:
            result = scratch.run(
                places,
                command,
                mirror=True,
                binds=[f"{folder}:/opt/venv", f"{LAB}:/lab:ro"],
                tmpfs=["/tmp"],
                environment={"PATH": _PATH, "HOME": "/"},
                timeout=600,
            )
            if result.returncode != 0:
                raise LabUnavailable(f"the root could not be shown read-only: {result.stderr.strip()[-500:]}")


def _inside(path: str) -> str:
    return os.path.join("/lab", os.path.relpath(path, LAB))


class ReadonlyRoot:
    """Runs commands as the ordinary user in this machine's root, shown read-only."""

    def __init__(self, folder: str, places: Scratch) -> None:
        """Take what to enter, and the writable places to show there."""
        self.venv = folder
        self.places = places

    def run(
        self,
        argv: Sequence[str],
        *,
        home: str | None = "/home/nobody-is-here",
        env: Mapping[str, str] | None = None,
        binds: Sequence[str] = (),
        userns: bool = True,
        timeout: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command; `binds` are `outside:inside[:ro]`, and inside is made where it does not exist."""
        environment = {"PATH": _PATH, "LANG": "C.UTF-8", **({} if home is None else {"HOME": home}), **(env or {})}
        return scratch.run(
            self.places,
            argv,
            mirror=True,
            layers=[f"{self.venv}:/opt/venv"],
            binds=[*self.places.world, *binds],
            environment=environment,
            user_namespaces=userns,
            timeout=timeout,
        )


def _reachable_python() -> Python:
    """Return an interpreter that the ordinary user can start, and that is on the root filesystem."""
    for python in pythons.of_this_machine():
        path = os.path.realpath(python.path)
        folders = [path]
        while folders[-1] != "/":
            folders.append(os.path.dirname(folders[-1]))
        open_to_all = all(os.stat(folder).st_mode & 0o001 for folder in folders)
        if open_to_all and os.stat(path).st_dev == os.stat("/").st_dev:
            return python
    raise LabUnavailable("there is no Python that an ordinary user can start from the root filesystem")
