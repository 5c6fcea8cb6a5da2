"""A read-only root without a container engine and without privileges: this machine's own, shown read-only.

It needs user namespaces and this machine's Python, no more. The root is an overlay without an upper layer: its
superblock is read-only, as an image's is, and every write gives EROFS.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.lab import pythons, scratch, wheels
from tests.lab.store import LAB, provide
from tests.lab.unavailable import LabUnavailable

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence

    from tests.lab.pythons import Python
    from tests.lab.scratch import Scratch

_PATH = "/opt/venv/bin:/usr/local/bin:/usr/bin:/bin"


def venv(packages: tuple[str, ...] = wheels.PACKAGES) -> str:
    """Return the folder of a virtual environment that stands at /opt/venv in the read-only root."""
    python = _reachable_python()
    wheel = wheels.project_wheel()
    wheelhouse = wheels.download("host-wheelhouse", (*packages, *wheels.DEPENDENCIES), python.version)

    def make(path: str) -> None:
        with scratch.fresh() as places:
            made = places.new_folder("venv")
            lab = f"{LAB}:/lab:ro"
            sources = ("/lab/" + os.path.relpath(folder, LAB) for folder in (wheelhouse, os.path.dirname(wheel)))
            links = [f"--find-links={folder}" for folder in sources]
            pip = ["/opt/venv/bin/pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", *links]
            for command in ([python.path, "-m", "venv", "/opt/venv"], [*pip, *packages, "sif-writable"]):
                environment = {"PATH": _PATH, "HOME": "/"}
                result = scratch.run(
                    places,
                    command,
                    mirror=True,
                    binds=[f"{made}:/opt/venv", lab],
                    tmpfs=["/tmp"],
                    environment=environment,
                )
                if result.returncode != 0:
                    raise LabUnavailable(f"could not make a read-only root of itself: {result.stderr.strip()[-500:]}")
            os.rename(made, path)

    return provide("host-venv", (python, wheel, wheelhouse), make)


class ReadonlyRoot:
    """Runs commands as the ordinary user in this machine's root, shown read-only."""

    def __init__(self, folder: str, places: Scratch) -> None:
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
    for python in pythons.found():
        path = os.path.realpath(python.path)
        folders = [path]
        while folders[-1] != "/":
            folders.append(os.path.dirname(folders[-1]))
        open_to_all = all(os.stat(folder).st_mode & 0o001 for folder in folders)
        if open_to_all and os.stat(path).st_dev == os.stat("/").st_dev:
            return python
    raise LabUnavailable("has no Python that an ordinary user can start from the root filesystem")
