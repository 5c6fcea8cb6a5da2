"""The oldest releases of what we need that pyproject.toml allows, and those that images pin, in cold starts."""

from __future__ import annotations

import os
import re
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.conftest import or_skip
from tests.lab import environments, pythons, wheels
from tests.lab.hooked import STATE, Hooked, question
from tests.lab.plain_machine import WORK
from tests.lab.store import REPOSITORY

if TYPE_CHECKING:
    from tests.lab.plain_machine import PlainMachine

OLDEST = ("filelock==3.4", "platformdirs==2.5", "nvidia-ml-py==11.495.46")
FILELOCKS = ("3.6.0", "3.8.0", "3.9.0", "3.11.0", "3.12.4", "3.13.1", "3.14.0", "3.15.4", "3.18.0")
"""Those that left an object half made when an argument was new to them, and two that did not."""

# Cold, with a home to make under a lock; then whether the lock of this filelock is a real one.
_COLD = f"""
import fcntl, os, sys
{question(STATE).partition("; ")[2]}
import filelock
from sif_writable.storage.publish import bounded_lock
with bounded_lock({WORK!r}, "x"):
    descriptor = os.open({WORK!r} + "/x.lock", os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("held", filelock.__file__.startswith({WORK!r}), os.path.isdir(os.environ["HOME"]))
"""


def _older(machine: PlainMachine, requirements: tuple[str, ...]) -> str:
    """Unpack releases where commands see them; return that folder as they name it."""
    names = [requirement.replace("==", "-").replace("nvidia-ml-py", "nvidia_ml_py") for requirement in requirements]
    everything = (*OLDEST, *(f"filelock=={version}" for version in FILELOCKS))
    folder = str(or_skip(lambda: wheels.pinned("older-dependencies", everything, (), kept=1)))
    for name in names:
        (wheel,) = (n for n in os.listdir(folder) if re.match(rf"{re.escape(name)}(\.0)*-py", n))
        with zipfile.ZipFile(os.path.join(folder, wheel)) as file:
            file.extractall(os.path.join(machine.places.work, "older"))
    return f"{WORK}/older"


@pytest.mark.parametrize("version", FILELOCKS)
def test_no_filelock_complains_on_cold_storage(hooked: Hooked, version: str) -> None:
    path = _older(hooked.machine, (f"filelock=={version}",))
    done = hooked.run("-c", _COLD, env={"PYTHONPATH": path}, home="/no/such/home")
    assert (done.returncode, done.stdout, done.stderr) == (0, "'active'\nheld True True\n", "")


@pytest.mark.parametrize("name", ["3.9", "3.11"])
def test_the_oldest_releases_that_are_allowed_serve(machine: PlainMachine, name: str) -> None:
    python = or_skip(pythons.get, name)
    hooked = Hooked(machine, python, str(or_skip(environments.hooked, python)))
    path = {"PYTHONPATH": _older(machine, OLDEST)}
    done = hooked.run("-c", _COLD, env=path, home="/no/such/home")
    assert (done.returncode, done.stdout, done.stderr) == (0, "'active'\nheld True True\n", "")
    asked = "import platformdirs as p, pynvml; print(*sorted(m.__file__ for m in (p, pynvml)))"
    assert hooked.run("-c", asked, env=path).stdout.count(f"{WORK}/older/") == 2
    for words in (("status", "--json"), ("doctor",)):
        done = hooked.run("-m", "sif_writable", *words, env=path)
        assert (done.returncode, done.stderr) == (0, "")


def test_what_is_tried_is_what_pyproject_allows() -> None:
    with open(os.path.join(REPOSITORY, "pyproject.toml"), encoding="utf-8") as file:
        (line,) = (line for line in file if line.startswith("dependencies = "))
    bounds = re.findall(r'"([\w-]+)>=([\d.]+)"', line)
    assert sorted(f"{name}=={bound}" for name, bound in bounds) == sorted(
        requirement.replace("11.495.46", "11.495") for requirement in OLDEST
    )
