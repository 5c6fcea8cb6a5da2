"""Children for which the user wants something else than what was decided for their parent."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.lab import scratch
from tests.lab.plain_machine import WORK

if TYPE_CHECKING:
    from tests.lab.hooked import Hooked

_REPORT = """
import json, os, sys
print(json.dumps([sys.modules["sif_writable"].state, sys.pycache_prefix, dict(os.environ)]))
"""
# Has a child report for each change of the environment, where `null` takes a variable away; and each child's own child.
_FAMILY = """
import json, os, subprocess, sys
changes = [{}, *json.loads(sys.argv[2])]
family = "import subprocess, sys\\n" + sys.argv[1] + "sys.stdout.flush()\\n"
family += "subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"
exec(sys.argv[1])
sys.stdout.flush()
for change in changes:
    env = {name: value for name, value in {**os.environ, **change}.items() if value is not None}
    subprocess.run([sys.executable, "-c", family, sys.argv[1]], env=env, check=True)
"""


class Report(NamedTuple):
    """What an interpreter reported about itself."""

    state: str
    pycache: str | None
    env: dict[str, str]


def _family(hooked: Hooked, changes: list[dict[str, str | None]], **options: Any) -> tuple[Report, list[list[Report]]]:
    """Return what the parent reported, and for no change and each of these ones the child and its child."""
    result = hooked.run("-c", _FAMILY, _REPORT, json.dumps(changes), **options)
    assert (result.returncode, result.stderr) == (0, ""), result
    parent, *others = [Report(*json.loads(line)) for line in result.stdout.splitlines()]
    return parent, [others[at : at + 2] for at in range(0, len(others), 2)]


def _different(env: dict[str, str], other: dict[str, str]) -> set[str]:
    names = {name for name in env.keys() | other.keys() if env.get(name) != other.get(name)}
    return names - {"SIF_WRITABLE_SESSION", "LC_CTYPE"}


def test_a_child_for_which_the_user_wants_something_else_is_decided_anew(hooked: Hooked) -> None:
    other_home = f"{WORK}/home"
    changes: list[dict[str, str | None]] = [
        {"SIF_WRITABLE_DIR": f"{WORK}/given"},
        {"SIF_WRITABLE_HOME": "redirect"},
        {"HOME": "/no/such/home"},
        {"HOME": other_home},
        {"HF_HOME": "/of/mine"},
        {"TRITON_HOME": "/of/mine"},
        {"XDG_CACHE_HOME": f"{WORK}/cache"},
        {"NUMBA_CACHE_DIR": "/of/mine"},
        {"NUMBA_CACHE_DIR": None},
        {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": "/x", "ANYTHING": "1"},
    ]
    hooked.run("-c", f"import os; os.mkdir({other_home!r})")
    parent, (same, given, redirected, broken, moved, hf, triton, xdg, own, without, indifferent) = _family(
        hooked, changes
    )
    assert [child.state for child in same] == ["inherited", "inherited"]
    assert not _different(same[1].env, parent.env)
    assert [child.state for child in indifferent] == ["inherited", "inherited"]
    for child, grandchild in (given, redirected, broken, moved, hf, triton, xdg, own, without):
        assert (child.state, grandchild.state) == ("active", "inherited")
        assert not _different(child.env, grandchild.env)
        assert child.env["SIF_WRITABLE_SESSION"] == grandchild.env["SIF_WRITABLE_SESSION"]
    assert given[0].env["NUMBA_CACHE_DIR"].startswith(f"{WORK}/given/")
    assert given[0].env["SIF_WRITABLE_COPIES"].partition(":")[2].startswith(f"{WORK}/given/")
    assert redirected[0].env["HOME"] != parent.env["HOME"]
    assert broken[0].env["HOME"].startswith("/var/tmp/")
    assert broken[0].env["SIF_WRITABLE_OLD_HOME"] == "/no/such/home"
    assert moved[0].env["HOME"] == other_home
    assert moved[0].env["NUMBA_CACHE_DIR"].startswith(f"{other_home}/.cache/")
    assert "NUMBA_CACHE_DIR" not in xdg[0].env  # which is right where the user has chosen for all
    assert own[0].env["NUMBA_CACHE_DIR"] == "/of/mine"
    assert without[0].env["NUMBA_CACHE_DIR"] == parent.env["NUMBA_CACHE_DIR"]
    assert "TRITON_CACHE_DIR" in parent.env
    assert "TRITON_CACHE_DIR" not in triton[0].env  # its parent decides it
    assert hf[0].env["HF_HOME"] == "/of/mine"


def test_off_takes_back_all_that_was_set(each: Hooked) -> None:
    _assert_off_takes_back(each, {"HOME": "/no/such/home"})


@pytest.mark.parametrize("before", [{}, {"SIF_WRITABLE_DIR": f"{WORK}/given"}], ids=str)
def test_off_takes_back_what_other_starts_set(hooked: Hooked, before: dict[str, str]) -> None:
    _assert_off_takes_back(hooked, before)


def _assert_off_takes_back(hooked: Hooked, before: dict[str, str]) -> None:
    env = {"PYTENSOR_FLAGS": "device=cpu", **before}  # flags of the user's, to which something is added
    off: dict[str, str | None] = {"SIF_WRITABLE": "off"}
    without, _ = _family(hooked, [], env={**env, "SIF_WRITABLE": "off"})
    parent, (_, children) = _family(hooked, [off], env=env)
    assert parent.state == "active"
    assert parent.env["PYTENSOR_FLAGS"] != "device=cpu"
    for child in children:
        assert (child.state, child.pycache) == ("off", without.pycache)
        assert not _different(child.env, without.env)
        assert "SIF_WRITABLE_SESSION" not in child.env


def test_a_name_for_the_user_and_bytecode_in_storage_are_taken_back(hooked: Hooked) -> None:
    """An image without bytecode, and a process whose interpreter has got the folder for it from its parent."""
    plain = hooked.copy()
    for where, folders, _ in os.walk(plain.packages):
        if "__pycache__" in folders:
            shutil.rmtree(os.path.join(where, "__pycache__"))
    parent, (_, (off, _), (anew, _)) = _family(plain, [{"SIF_WRITABLE": "off"}, {"HF_HOME": "/x"}], env={"USER": ""})
    assert parent.env["PYTHONPYCACHEPREFIX"] == parent.pycache
    assert parent.pycache
    assert (off.state, off.pycache, off.env.get("PYTHONPYCACHEPREFIX")) == ("off", None, None)
    assert (anew.state, anew.pycache, anew.env["PYTHONPYCACHEPREFIX"]) == ("active", parent.pycache, parent.pycache)


_STATUS = """
import json, os, subprocess, sys
words = [sys.executable, "-m", "sif_writable", "status", "--no-gpu"]
for change in ({}, *json.loads(sys.argv[1])):
    env = {**os.environ, **change}
    print(subprocess.check_output([*words, "--json"], env=env, text=True).replace("\\n", " "))
text = subprocess.check_output(words, text=True)
print(json.dumps([text, dict(os.environ)]))
"""


def test_status_of_a_child_shows_what_it_has_and_who_decided(hooked: Hooked) -> None:
    """HOME moves and with it all that hangs on it, but for what is pinned where it works."""
    hooked.run("-c", "import os; os.makedirs(os.path.expanduser('~/.cellpose/models'))")
    changes = [{"SIF_WRITABLE": "off"}, {"HF_HUB_CACHE": "/of/mine", "SIF_WRITABLE_DIR": f"{WORK}/given"}]
    result = hooked.run(
        "-c", _STATUS, json.dumps(changes), env={"SIF_WRITABLE_HOME": "redirect", "TORCH_HOME": "/mine"}
    )
    assert (result.returncode, result.stderr) == (0, ""), result
    inherited, off, anew, (text, env) = [json.loads(line) for line in result.stdout.splitlines()]
    assert (inherited["hook"]["state"], inherited["hook"]["by"]) == ("inherited", "an ancestor")
    assert "as an ancestor of this process has decided" in " ".join(text.split())
    pinned = f"{scratch.HOME}/.cellpose/models"
    shown = {entry["variable"]: entry["value"] for entry in inherited["redirects"]}
    assert shown["CELLPOSE_LOCAL_MODELS_PATH"] == pinned
    assert shown == {name: env[name] for name in shown}
    assert [entry["variable"] for entry in inherited["user_set"]] == ["TORCH_HOME"]
    assert (inherited["home"]["value"], inherited["home"]["old"]) == (env["HOME"], scratch.HOME)
    assert inherited["notes"] == []
    assert (off["hook"]["state"], off["hook"]["by"], off["hook"]["active"]) == ("off", "", False)
    assert (off["redirects"], off["packages"], off["storage"]) == ([], [], [])
    assert [entry["variable"] for entry in off["user_set"]] == ["TORCH_HOME"]
    assert off["home"] == {"value": scratch.HOME, "old": None, "private": False, "why": "works"}
    assert (anew["hook"]["state"], anew["hook"]["by"]) == ("active", "this process")
    assert sorted(entry["variable"] for entry in anew["user_set"]) == ["HF_HUB_CACHE", "TORCH_HOME"]
    assert {entry["place"] for entry in anew["storage"] if entry["kind"] == "data"} == {"SIF_WRITABLE_DIR"}


def test_the_shell_drops_what_a_changed_wish_no_longer_sets(hooked: Hooked) -> None:
    """The user has taken over the redirects, and then over again: with another wish, and with none at all."""
    show = """python -S -c 'import json, os; print(json.dumps(dict(os.environ)))'"""
    take = """eval "$(python -m sif_writable env)"\n"""
    script = f"""{take}{show}\nexport HF_HOME=/of/mine\n{take}{show}\nexport SIF_WRITABLE=off\n{take}{show}\n"""
    result = hooked.machine.run(["sh", "-c", script], venv=hooked.environment, home="/no/such/home")
    assert (result.returncode, result.stderr) == (0, "")
    first, second, off = [json.loads(line) for line in result.stdout.splitlines()]
    gone = {"HF_HUB_CACHE", "HF_DATASETS_CACHE"}
    assert gone < set(first)
    assert not gone & set(second)
    assert second["NUMBA_CACHE_DIR"] == first["NUMBA_CACHE_DIR"]
    assert off["HOME"] == "/no/such/home"
    assert [name for name, value in off.items() if "sif-writable" in value] == []
    assert {name for name in off if name.startswith("SIF_WRITABLE")} == {"SIF_WRITABLE"}


def test_a_child_that_is_decided_anew_does_not_say_the_same_again(hooked: Hooked) -> None:
    changes = [{"TMPDIR": "/var/tmp"}, {"SIF_WRITABLE_DIR": "/no/other"}, {"SIF_WRITABLE_DIR": None}]
    result = hooked.run("-c", _FAMILY, _REPORT, json.dumps(changes), env={"SIF_WRITABLE_DIR": "/no/place"})
    assert result.returncode == 0
    assert [line.partition(" does not exist")[0] for line in result.stderr.splitlines()] == [
        "sif_writable: SIF_WRITABLE_DIR=/no/place", "sif_writable: SIF_WRITABLE_DIR=/no/other",
    ]  # fmt: skip
    states = [json.loads(line)[0] for line in result.stdout.splitlines()]
    assert states == ["active", "inherited", "inherited", *["active", "inherited"] * 3]
