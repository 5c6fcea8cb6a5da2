"""`sif-writable env` through the shells themselves: what a path or a value contains is never a command."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.conftest import NOT_RUN
from tests.lab import apt
from tests.lab.environments import PYTHON
from tests.lab.hooked import question
from tests.lab.plain_machine import WORK

if TYPE_CHECKING:
    from tests.lab.hooked import Hooked

_ENV = f"{PYTHON} -m sif_writable env --shell"
_SHOW = f"""{PYTHON} -S -c 'import json, os; print(json.dumps(dict(os.environ)))'"""
READERS = {
    "sh": f'eval "$({_ENV} sh)"\n{_SHOW}\n',
    "dash": f'eval "$({_ENV} sh)"\n{_SHOW}\n',
    "bash": f'eval "$({_ENV} sh)"\n{_SHOW}\n',
    "fish": f"{_ENV} fish | source\n{_SHOW}\n",
    "tcsh": f'eval "`{_ENV} csh`"\n{_SHOW}\n',
}
"""How a user takes the redirects over, for each shell."""
NASTY = [
    "it's $(touch pwned) `touch pwned` \"x\" ;touch pwned;&|<>*?[]{}~#!x \\",
    "\udcff\udcfe not text",
    "-n", "--help", "%s%n", "a" * 200,
]  # fmt: skip
FLAGS = {"PYTENSOR_FLAGS": "x" * 100_000 + "';touch pwned;$(touch pwned)`touch pwned`"}
"""A variable of the user's own that ours is appended to; one string of an environment is at most 128 KiB."""


@pytest.mark.parametrize("shell", READERS)
@pytest.mark.parametrize("name", NASTY, ids=lambda name: ascii(name)[:20])
def test_a_shell_takes_over_exactly_what_python_has(hooked: Hooked, shell: str, name: str) -> None:
    if apt.find(shell) is None:
        pytest.skip(f"{NOT_RUN}this machine has no {shell}")
    env = {"SIF_WRITABLE_DIR": f"{WORK}/{name}/below", "PYTHONIOENCODING": "utf-8:strict", **FLAGS}
    words = [apt.find(shell) or shell, *(["-f"] if shell == "tcsh" else []), f"{WORK}/script"]
    with open(f"{hooked.machine.places.work}/script", "w", encoding="utf-8") as file:
        file.write(READERS[shell])
    result = hooked.machine.run(words, venv=hooked.environment, env=env)
    assert (result.returncode, result.stderr) == (0, ""), (result.stdout[-500:], result.stderr[-500:])
    taken = _without_inputs(json.loads(result.stdout))
    result = hooked.run("-c", "import json, os; print(json.dumps(dict(os.environ)))", env=env)
    own = _without_inputs(json.loads(result.stdout))
    assert own["NUMBA_CACHE_DIR"].startswith(f"{WORK}/{name}/below/")
    assert own["PYTENSOR_FLAGS"].startswith("xxx")
    assert {key: taken.get(key) for key in own if key not in ("PWD", "SHLVL", "_")} == {
        key: value for key, value in own.items() if key not in ("PWD", "SHLVL", "_")
    }
    assert "pwned" not in os.listdir(hooked.machine.places.work)


def _without_inputs(env: dict[str, str]) -> dict[str, str]:
    """Return an environment without that part of the session which says what it holds for: shells set variables."""
    parts = env["SIF_WRITABLE_SESSION"].split(";")
    return {**env, "SIF_WRITABLE_SESSION": ";".join(parts[:3] + parts[4:])}


def test_a_session_that_names_what_is_no_name_prints_no_command(hooked: Hooked) -> None:
    """The session is in the user's own environment; still, what is printed for a shell are assignments."""
    evil = "x;touch pwned;y"
    session = hooked.ask("os.environ['SIF_WRITABLE_SESSION']").split(";")
    session[2] += f",{evil.replace(';', ' ')},a-b,$(touch pwned)"
    env = {"SIF_WRITABLE_SESSION": ";".join(session), evil.replace(";", " "): "1", "a-b": "1", "$(touch pwned)": "1"}
    result = hooked.run("-m", "sif_writable", "env", env=env)
    assert result.returncode == 0
    assert "pwned" not in result.stdout.replace(env["SIF_WRITABLE_SESSION"], "")
    assert "a-b=" not in result.stdout
    assert hooked.ask("1") == 1


def test_places_with_line_breaks_are_refused_and_named_in_one_line(hooked: Hooked) -> None:
    result = hooked.run(
        "-c", question("os.environ['NUMBA_CACHE_DIR']"), env={"SIF_WRITABLE_DIR": f"{WORK}/a\nb;touch x"}
    )
    assert WORK not in result.stdout
    assert len(result.stderr.splitlines()) == 1
