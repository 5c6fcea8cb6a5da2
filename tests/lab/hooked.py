"""An environment with the package on a machine of its own, and how tests ask a fresh interpreter there."""

from __future__ import annotations

import ast
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import NOT_RUN
from tests.lab import environments
from tests.lab.environments import PYTHON
from tests.lab.plain_machine import WORK

if TYPE_CHECKING:
    import subprocess

    from tests.lab.plain_machine import PlainMachine
    from tests.lab.pythons import Python

TARGET = "/target"
"""Where commands see the folder that was filled by `pip install --target`."""
STATE = "getattr(sys.modules.get('sif_writable'), 'state', None)"
"""What the hook did, as an expression; `None` where it did not run."""


DECIDED = "'sif_writable.redirects.decide' in sys.modules"
"""Whether that start decided anything itself, as an expression."""
_MEMORY = ("brk", "mmap", "munmap", "mprotect", "mremap", "madvise")


class Hooked:
    """An environment with the package, on a machine of its own."""

    def __init__(self, machine: PlainMachine, python: Python, environment: str) -> None:
        """Take where to run, and what."""
        self.machine = machine
        self.python = python
        self.environment = environment

    def run(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Start the environment's interpreter with these words."""
        return self.machine.run([PYTHON, *words], venv=self.environment, **options)

    def ask(self, expression: str, *flags: str, **options: Any) -> Any:
        """Return the value of an expression in a fresh interpreter, which must say nothing else."""
        return answer(self.run(*flags, "-c", question(expression), **options))

    def state(self, *flags: str, **options: Any) -> str | None:
        """Return what the hook did in a fresh interpreter; `None` where it did not run at all."""
        found: str | None = self.ask(STATE, *flags, **options)
        return found

    def copy(self) -> Hooked:
        """Return this machine with an environment that the test may change."""
        path = environments.copy(self.environment, os.path.join(self.machine.places.folder, "venv"))
        return Hooked(self.machine, self.python, path)

    def without(self) -> Hooked:
        """Return this machine with an environment without the package."""
        return Hooked(self.machine, self.python, environments.bare(self.python))

    @property
    def packages(self) -> str:
        """Return the environment's site-packages, outside."""
        return environments.packages(self.environment)

    def write(self, name: str, text: str) -> str:
        """Write a file into site-packages; return its path outside."""
        return write(os.path.join(self.packages, name), text)


def question(expression: str) -> str:
    """Return a program that prints a value without loading any module."""
    return f"import os, sys; print(repr({expression}))"


def answer(result: subprocess.CompletedProcess[str]) -> Any:
    """Return the value that such a program printed."""
    assert (result.returncode, result.stderr) == (0, ""), result
    return ast.literal_eval(result.stdout)


def system_calls(hooked: Hooked, strace: str, options: dict[str, Any]) -> list[str]:
    """Return the system calls of an interpreter that does nothing, memory apart."""
    words = [strace, "-f", "-qq", "-s", "4096", "-o", f"{WORK}/trace", PYTHON, "-c", "pass"]
    result = hooked.machine.run(words, venv=hooked.environment, **options)
    if result.returncode != 0 and "ptrace" in result.stderr:
        pytest.skip(f"{NOT_RUN}this machine does not let processes be traced")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    with open(os.path.join(hooked.machine.places.work, "trace"), encoding="utf-8", errors="replace") as file:
        calls = [line.split(maxsplit=1)[1] for line in file]
    return [call for call in calls if call.partition("(")[0] not in _MEMORY]


def write(path: str, text: str) -> str:
    """Write a file, with the folders that it needs."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def contents(folder: str) -> set[str]:
    """List everything below a folder, bytecode apart."""
    return {
        os.path.relpath(os.path.join(where, name), folder)
        for where, folders, files in os.walk(folder)
        for name in (*folders, *files)
        if "__pycache__" not in (*where.split("/"), name)
    }
