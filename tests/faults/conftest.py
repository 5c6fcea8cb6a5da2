"""The environment whose packages write beside themselves, on a machine with empty places."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.conftest import or_skip
from tests.faults import image
from tests.lab import scratch
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


@pytest.fixture
def faulty(places: Scratch, main_python: Python) -> Faulty:
    """Return that environment of one interpreter, which is enough, since system calls are of the kernel."""
    return Faulty(places, main_python, str(or_skip(image.environment, main_python)))
