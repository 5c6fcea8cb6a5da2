"""An interpreter with more rights than its caller obeys nothing that the caller can set: the hook stays out.

Real ones: a copy of the interpreter that is set-user-id, set-group-id, or has a file capability.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import NOT_RUN
from tests.lab import apt
from tests.lab.environments import PYTHON
from tests.lab.hooked import STATE, Hooked, contents, question
from tests.lab.plain_machine import WORK
from tests.lab.users import NEIGHBOUR, VICTIM, needs_two_users

if TYPE_CHECKING:
    from collections.abc import Callable

_OWN = "('NUMBA_CACHE_DIR' in os.environ, [f.__module__ for f in sys.meta_path if 'sif' in f.__module__])"
_IDS = "(os.getuid(), os.geteuid(), os.getegid())"


def _owned(path: str, uid: int, gid: int, mode: int) -> None:
    os.chown(path, uid, gid)
    os.chmod(path, mode)


def _capable(path: str) -> None:
    setcap = apt.find("setcap")
    if setcap is None:
        pytest.skip(f"{NOT_RUN}this machine has no setcap")
    done = subprocess.run([setcap, "cap_dac_override+ep", path], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{NOT_RUN}this filesystem keeps no file capabilities: {done.stderr.strip()}")


RIGHTS: dict[str, Callable[[str], object]] = {
    "set-user-id root": lambda path: _owned(path, 0, 0, 0o4755),
    "set-user-id of another user": lambda path: _owned(path, NEIGHBOUR, 0, 0o4755),
    "set-group-id": lambda path: _owned(path, 0, NEIGHBOUR, 0o2755),
    "file capability": _capable,
}


@pytest.fixture
def own_interpreter(hooked: Hooked) -> Hooked:
    """Return an environment whose interpreter is a file of its own."""
    needs_two_users()
    changed = hooked.copy()
    path = f"{changed.environment}/bin/python"
    real = os.path.realpath(hooked.python.path)
    os.unlink(path)
    shutil.copyfile(real, path)
    os.chmod(path, 0o755)
    return changed


@pytest.mark.parametrize("right", RIGHTS)
@pytest.mark.parametrize("session", ["none", "current"])
def test_an_elevated_interpreter_is_left_alone(own_interpreter: Hooked, right: str, session: str) -> None:
    place = f"{WORK}/given"
    env = {"SIF_WRITABLE": "on", "SIF_WRITABLE_DIR": place}
    options: dict[str, Any] = {"writable": True, "setuid": True}
    assert own_interpreter.state(env=env, **options) == "active"  # as an ordinary program it is
    if session == "current":
        env = own_interpreter.ask("dict(os.environ)", env=env, **options)
        assert own_interpreter.state(env=env, **options) == "inherited"
    else:
        shutil.rmtree(f"{own_interpreter.machine.places.work}/given")
    RIGHTS[right](f"{own_interpreter.environment}/bin/python")
    before = contents(own_interpreter.machine.places.work)
    program = question(f"({STATE}, {_OWN}, {_IDS})")
    for flags in ([], ["-I"]):
        result = own_interpreter.machine.run(
            [PYTHON, *flags, "-c", program], venv=own_interpreter.environment, env=env, **options
        )
        assert (result.returncode, result.stderr) == (0, ""), result
        state, own, ids = eval(result.stdout)  # noqa: S307 - our own program's tuple
        assert state == "elevated"
        assert own == (session == "current", [])
        assert (ids == (VICTIM, VICTIM, VICTIM)) == (right == "file capability"), ids
    assert contents(own_interpreter.machine.places.work) == before


def test_status_says_so(own_interpreter: Hooked) -> None:
    RIGHTS["set-user-id of another user"](f"{own_interpreter.environment}/bin/python")
    words = [PYTHON, "-m", "sif_writable", "status"]
    env = {"SIF_WRITABLE": "on"}
    result = own_interpreter.machine.run(words, venv=own_interpreter.environment, env=env, setuid=True)
    assert "the interpreter runs with other rights than its caller" in " ".join(result.stdout.split()), result


def test_rights_that_the_kernel_withholds_are_none(own_interpreter: Hooked) -> None:
    """No new privileges, as container engines set it: the bit is there, and the program is an ordinary one."""
    RIGHTS["set-user-id root"](f"{own_interpreter.environment}/bin/python")
    assert own_interpreter.state(env={"SIF_WRITABLE": "on"}, writable=True) == "active"
