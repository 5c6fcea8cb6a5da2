"""An environment full of packages that write beside themselves, shown read-only."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from tests.conftest import BY_COPY
from tests.lab import environments
from tests.lab.environments import PYTHON
from tests.lab.plain_machine import PlainMachine
from tests.lab.scratch import HOME
from tests.lab.shapes import BARE, SHAPES
from tests.lab.store import provide
from tests.lab.ways import WAYS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.lab.pythons import Python
    from tests.lab.scratch import Scratch


class Image:
    """A read-only environment with small packages that write, on a machine with empty writable places."""

    def __init__(self, places: Scratch, environment: str, machine: PlainMachine | None = None) -> None:
        """Take where to run, and what."""
        self.places = places
        self.environment = environment
        self.machine = machine or PlainMachine(places)

    def run(
        self,
        code: str = "",
        *,
        argv: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        binds: Sequence[str] = (),
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program, or the interpreter with other arguments.

        There are copies and no layer, whoever runs the tests, unless `env` says something of overlays. An ordinary user
        runs them in a user namespace of one user, where there could be a layer.
        """
        arguments = [PYTHON, *(argv or ("-c", code))]
        way = {} if any(name.startswith("SIF_WRITABLE_OVERLAY") for name in env or ()) else BY_COPY
        env = {**way, **(env or {})}
        return self.machine.run(arguments, venv=self.environment, env=env, binds=binds, timeout=timeout)

    def says(self, code: str, **options: object) -> str:
        """Return what a program prints that must work and complain of nothing."""
        result = self.run(code, **options)  # type: ignore[arg-type]
        assert (result.returncode, result.stderr) == (0, ""), result
        return result.stdout

    @property
    def folder(self) -> str:
        """Return the folder of copies, outside."""
        (image,) = (n for n in os.listdir(self._storage) if n.startswith("image-"))
        (packages,) = (n for n in os.listdir(f"{self._storage}/{image}") if n.startswith("packages-"))
        return f"{self._storage}/{image}/{packages}"

    @property
    def _storage(self) -> str:
        return f"{self.places.home}/.cache/sif-writable"

    def copy(self, path: str) -> str:
        """Return where the copy of a path is, outside; the path is below the folder that holds site-packages."""
        lib = environments.packages(self.environment)[len(self.environment) :].rpartition("/")[0]
        return f"{self.folder}/tree/venv{lib}/{path}"

    def has(self, path: str) -> bool:
        """Whether a path below the folder that holds site-packages was copied or made, and not linked."""
        start = self.copy("")
        parts = path.split("/")
        steps = [start + "/".join(parts[: number + 1]) for number in range(len(parts))]
        linked = any(os.path.islink(step) and os.readlink(step).startswith("/venv/") for step in steps)
        return os.path.lexists(steps[-1]) and not linked

    def learned(self) -> str:
        """Return the learned list."""
        with open(f"{self.folder}/learned", encoding="utf-8") as file:
            return file.read()

    def inside(self, path: str) -> str:
        """Return how commands name a path below HOME."""
        return HOME + path[len(self.places.home) :]


def environment(python: Python, made_by: Callable[[Python], str] = environments.hooked) -> str:
    """Return an environment with the project and all the small packages, bytecode included."""
    start = made_by(python)
    files = dict(SHAPES)
    for way in WAYS:
        files.update(way.files)

    def make(path: str) -> None:
        environments.copy(start, path)
        for name, text in files.items():
            target = os.path.join(environments.packages(path), name)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "w", encoding="utf-8") as file:
                file.write(text)
        bare = [os.path.join(environments.packages(path), name) for name in BARE]
        subprocess.run([python.path, "-m", "compileall", "-q", "-b", *bare], check=True)
        for name in bare:
            os.remove(name)
        subprocess.run([python.path, "-m", "compileall", "-q", environments.packages(path)], check=True)

    return provide(f"environment-writers-{python.name.replace('.', '')}", (start, files, BARE), make)
