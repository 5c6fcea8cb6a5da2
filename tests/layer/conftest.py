"""A rootless container around an environment full of packages that write beside themselves."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import or_skip
from tests.lab import environments
from tests.lab.environments import PYTHON
from tests.lab.plain_machine import PlainMachine
from tests.lab.store import ORDINARY_UID, provide
from tests.lab.writing_image import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.lab.pythons import Python
    from tests.lab.scratch import Scratch

HERE = os.path.dirname(os.path.abspath(__file__))
STORAGE = "/home/user/.cache/sif-writable/image-test"
PRELUDE = f"""
import importlib, json, os, sys, time
from sif_writable import LAYER
from sif_writable.layer import alive, collect, decide, join, kernel, trial
from sif_writable.layer import enter as entering
if "TOKEN" in os.environ:
    entering._token = lambda: os.environ["TOKEN"]
STORAGE = os.environ.get("STORAGE", {STORAGE!r})
def enter(*directories):
    problem = entering.enter(lambda: directories or ["/venv"], STORAGE, "image-test", os.environ)
    importlib.invalidate_caches()
    return problem
def write(path, text="x", mode="w"):
    with open(path, mode) as file:
        file.write(text)
def read(path):
    with open(path) as file:
        return file.read()
def answer(value):
    print(json.dumps(value), flush=True)
SITE = next(path for path in sys.path if path.endswith("site-packages"))
"""


class Box:
    """Runs programs in rootless containers on one machine."""

    def __init__(self, places: Scratch, environment: str, machine: PlainMachine | None = None) -> None:
        """Take where to run, and what."""
        self.places = places
        self.environment = environment
        self.machine = machine or PlainMachine(places)
        self.runs = 0
        folder = places.home
        for name in (".cache", "sif-writable", "image-test"):
            folder = f"{folder}/{name}"
            os.mkdir(folder, 0o700)
            if os.getuid() == 0:
                os.chown(folder, ORDINARY_UID, ORDINARY_UID)
        self.storage = folder
        self.inside = STORAGE

    def shell(
        self, script: str, *, env: Mapping[str, str] | None = None, rootless: bool = True, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell script in one container; `$P` is the interpreter with the prelude of :data:`PRELUDE`."""
        self.runs += 1
        with open(f"{self.places.work}/p.py", "w", encoding="utf-8") as file:
            file.write(f"{PRELUDE}\nexec(sys.argv[1])\n")
        environ = {"SIF_WRITABLE": "off", "TOKEN": f"run-{self.runs}", **(env or {})}
        start = [PYTHON, "-I", "/tests-of-layer/box.py"] if rootless else []
        script = f'P="{PYTHON} /work-folder/p.py"\n{script}'
        binds = [f"{HERE}:/tests-of-layer:ro", *options.pop("binds", ())]
        return self.machine.run(
            [*start, "sh", "-c", script], venv=self.environment, env=environ, binds=binds, **options
        )

    def run(self, code: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run one program in a container of its own."""
        with open(f"{self.places.work}/code.py", "w", encoding="utf-8") as file:
            file.write(code)
        return self.shell('$P "$(cat /work-folder/code.py)"', **options)

    def answer(self, code: str, **options: Any) -> Any:
        """Return the answer of a program that must work and complain of nothing."""
        result = self.run(code, **options)
        assert (result.returncode, result.stderr) == (0, ""), result
        return json.loads(result.stdout.splitlines()[-1])

    @property
    def place(self) -> str:
        """Return the folder of the layers, outside."""
        return f"{self.storage}/layer"

    def generation(self) -> dict[str, str]:
        """Return what the newest generation holds: path in the image to text."""
        numbers = [int(name[4:]) for name in os.listdir(self.place) if name.startswith("gen-")]
        tree = f"{self.place}/gen-{max(numbers)}/tree" if numbers else ""
        found = {}
        for where, _, names in os.walk(tree):
            for name in names:
                path = f"{where}/{name}"
                if os.path.islink(path):
                    found[path[len(tree) :]] = os.readlink(path)
                else:
                    with open(path, encoding="utf-8", errors="replace") as file:
                        found[path[len(tree) :]] = file.read()
        return found


def owned(python: Python, made_by: Callable[[Python], str] = environments.hooked) -> str:
    """Return that environment as rootless engines show it: everything is the user's."""
    start = environment(python, made_by)

    def make(path: str) -> None:
        environments.copy(start, path)
        if os.getuid() == 0:
            subprocess.run(["chown", "-R", "-h", f"{ORDINARY_UID}:{ORDINARY_UID}", path], check=True)

    return provide(f"environment-owned-{python.name.replace('.', '')}", (start,), make)


@pytest.fixture(scope="session")
def writers(main_python: Python) -> str:
    """Return the environment for one interpreter."""
    return str(or_skip(owned, main_python))


@pytest.fixture(scope="session")
def each_environment(each_python: Python) -> str:
    """Return the environment for every interpreter, in turn."""
    return str(or_skip(owned, each_python))


@pytest.fixture
def box(places: Scratch, writers: str) -> Box:
    """Return containers of one interpreter."""
    return Box(places, writers)


@pytest.fixture
def each_box(places: Scratch, each_environment: str) -> Box:
    """Return containers of every interpreter, in turn."""
    return Box(places, each_environment)
