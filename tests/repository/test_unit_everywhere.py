"""The unit tests on the oldest and the newest CPython: the decisions shall not depend on the interpreter."""

from __future__ import annotations

import glob
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.lab.store import REPOSITORY, provide
from tests.lab.wheels import DEPENDENCIES

if TYPE_CHECKING:
    from tests.lab.pythons import Python

RUNNER = ("pytest>=8", "pytest-timeout", "tomli; python_version < '3.11'", *DEPENDENCIES)


def test_unit_tests_pass(each_python: Python) -> None:
    if each_python.version == "{}.{}".format(*sys.version_info) and not each_python.debian:
        pytest.skip("this run's own interpreter has them already")

    def make(path: str) -> None:
        subprocess.run([each_python.path, "-m", "venv", path], check=True)
        install = [f"{path}/bin/python", "-m", "pip", "install", "-qq", "--disable-pip-version-check", *RUNNER]
        subprocess.run(install, check=True)

    environment = provide(f"unit-{each_python.name.replace('.', '')}", (each_python, RUNNER), make)
    # Bytecode of several interpreters side by side is fine; pytest's cache folder is not.
    folders = ["tests/unit", *sorted(glob.glob(f"{glob.escape(REPOSITORY)}/tests/*/unit"))]
    command = [f"{environment}/bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *folders]
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COVERAGE"))}
    done = subprocess.run(command, cwd=REPOSITORY, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout.splitlines()[-1]
