"""The environment whose packages write beside themselves, on a machine with empty places."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.conftest import NOT_RUN, or_skip
from tests.faults import image
from tests.lab import apt, pythons, scratch
from tests.lab.plain_machine import WORK, PlainMachine

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence

    from tests.lab.pythons import Python
    from tests.lab.scratch import Scratch

PLACES = ("/var/tmp:2G",)
"""The best place for storage is a file system in memory, so that thousands of runs are quick."""


class Faulty:
    """That environment, on a machine whose home can only be read."""

    def __init__(self, places: Scratch, python: Python, environment: str) -> None:
        """Take where to run, and what."""
        self.places = places
        self.python = python
        self.environment = environment
        self.machine = PlainMachine(places)
        image.fill_home(places.home)

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        binds: Sequence[str] = (),
        images: Sequence[str] = (),
        tmpfs: Sequence[str] = PLACES,
        timeout: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command there."""
        home = f"{self.places.home}:{scratch.HOME}:ro"
        return self.machine.run(
            argv,
            venv=self.environment,
            env=env,
            binds=[home, *binds],
            images=images,
            tmpfs=tmpfs,
            timeout=timeout,
        )

    def script(self, path: str, *words: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a script of these tests with an interpreter in which the hook does not run."""
        shutil.copy(path, self.places.work)
        return self.run([self.python.path, "-I", "-S", f"{WORK}/{os.path.basename(path)}", *words], timeout=timeout)


@pytest.fixture(scope="session")
def faulty_python() -> Python:
    """Return the interpreter of these tests: one is enough, since system calls are of the kernel."""
    found = {python.version: python for python in reversed(pythons.found())}
    for version in ("3.11", "3.12", "3.10", "3.13", "3.14", "3.9"):
        if version in found:
            return found[version]
    pytest.skip(f"{NOT_RUN}this machine has no CPython that can make virtual environments")


@pytest.fixture
def faulty(places: Scratch, faulty_python: Python) -> Faulty:
    """Return that environment."""
    return Faulty(places, faulty_python, str(or_skip(image.environment, faulty_python)))


@pytest.fixture(scope="session")
def strace() -> str:
    """Return the program, as commands in the machine see it."""
    or_skip(apt.ensure, "strace")
    return str(apt.find("strace"))
