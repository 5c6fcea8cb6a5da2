"""A kept plan: whatever has changed since, a start decides as if there were none."""

from __future__ import annotations

import ast
import glob
import json
import os
import shutil
import time
from typing import TYPE_CHECKING, Any, Callable

import pytest

from tests.lab.environments import PYTHON
from tests.lab.hooked import DECIDED
from tests.lab.plain_machine import HOSTS, WORK

if TYPE_CHECKING:
    from tests.lab.hooked import Hooked

OUTCOME = f"({DECIDED}, sys.pycache_prefix, dict(os.environ))"
KEPT = "sif-writable/image-*/plan-*"


def _kept(hooked: Hooked) -> str:
    (path,) = glob.glob(os.path.join(glob.escape(hooked.machine.places.home), ".cache", KEPT))
    return path


def _session(environment: dict[str, str]) -> dict[str, str]:
    """Return an environment without what is another in each run."""
    return {name: value for name, value in environment.items() if name != "SIF_WRITABLE_SESSION"}


@pytest.fixture
def warm(hooked: Hooked) -> Hooked:
    """Return a machine on which one start has been."""
    assert hooked.state() == "active"
    return hooked


def test_the_second_start_decides_nothing(each: Hooked) -> None:
    first, second = each.ask(OUTCOME), each.ask(OUTCOME)
    assert (first[0], second[0]) == (True, False)
    assert first[1:] == second[1:]


# What is common on a cluster: where, options of the machine.
PLACES: dict[str, tuple[str, dict[str, Any]]] = {
    "HOME is a link": ("ln -s /home/user home", {"home": f"{WORK}/home"}),
    "a group of the user's own may write": ("chmod g+w /home/user /home/user/.cache", {}),
    "no passwd entry, no HOME, no name": ("", {"home": None, "env": {"USER": "", "LOGNAME": ""}}),
    "a job's own folder": ("mkdir job", {"home": "/no/such/home", "env": {"SLURM_TMPDIR": f"{WORK}/job"}}),
    "a place that the user gave": ("mkdir -m 755 given", {"env": {"SIF_WRITABLE_DIR": f"{WORK}/given"}}),
    "the place given has our name": ("mkdir sif-writable", {"env": {"SIF_WRITABLE_DIR": f"{WORK}/sif-writable"}}),
    "a place that cannot be had": ("", {"env": {"SIF_WRITABLE_DIR": "/no/such/place"}}),
}


@pytest.mark.parametrize("place", PLACES)
def test_common_surroundings_take_the_warm_path_too(hooked: Hooked, place: str) -> None:
    script, options = PLACES[place]
    assert hooked.machine.run(["sh", "-c", f"mkdir -p /home/user/.cache; {script or ':'}"]).returncode == 0
    program = f"import os, sys; print(repr({OUTCOME}))"
    first, second, third = [hooked.run("-c", program, **options) for _ in range(3)]
    outcomes = [ast.literal_eval(result.stdout) for result in (first, second, third)]
    assert [decided for decided, *_ in outcomes] == [True, False, False]
    assert outcomes[0][1:] == outcomes[1][1:]
    assert first.stderr == second.stderr == third.stderr


def test_root_of_a_namespace_takes_the_warm_path_too(hooked: Hooked) -> None:
    words = ["unshare", "--user", "--map-root-user", PYTHON, "-c", f"print(repr({OUTCOME}))"]
    words[-1] = f"import os, sys; {words[-1]}"
    results = [hooked.machine.run(words, venv=hooked.environment, binds=[HOSTS]) for _ in range(2)]
    if "Operation not permitted" in results[0].stderr:
        pytest.skip("user namespaces are switched off")
    first, second = [ast.literal_eval(result.stdout) for result in results]
    assert (first[0], second[0]) == (True, False)
    assert first[1:] == second[1:]


def test_a_manifest_takes_the_warm_path_too(hooked: Hooked) -> None:
    changed = hooked.copy()
    changed.write("sif_writable.manifest", "stamp: 0123456789abcdef\nuser-site: no\nheavy: of.the.image\n")
    first, second = changed.ask(OUTCOME), changed.ask(OUTCOME)
    assert (first[0], second[0]) == (True, False)
    assert _session(first[2]) == _session(second[2])
    changed.write("sif_writable.manifest", "stamp: 0123456789abcdef\nuser-site: no\n")
    assert changed.ask(OUTCOME)[0]


@pytest.mark.parametrize("home", ["/home/user", "/no/such/home"])
def test_an_image_without_bytecode_takes_the_warm_path_too(hooked: Hooked, home: str) -> None:
    """In a place of one's own the interpreter learns it from its own variable, in one for all from the hook."""
    plain = hooked.copy()
    for where, folders, _ in os.walk(plain.packages):
        if "__pycache__" in folders:
            shutil.rmtree(os.path.join(where, "__pycache__"))
    first, second = plain.ask(OUTCOME, home=home), plain.ask(OUTCOME, home=home)
    assert (first[0], second[0]) == (True, False)
    assert first[1].startswith("/var/tmp/" if home == "/no/such/home" else "/home/user/.cache/")
    assert (first[1], _session(first[2])) == (second[1], _session(second[2]))
    assert plain.ask(OUTCOME, "-B", home=home)[1] is None


def test_status_shows_the_same_from_a_kept_plan(warm: Hooked) -> None:
    words = ("-m", "sif_writable", "status", "--json", "--no-gpu")
    from_kept = json.loads(warm.run(*words).stdout)
    os.unlink(_kept(warm))
    decided = json.loads(warm.run(*words).stdout)
    assert len(decided["redirects"]) > 10
    for status in (from_kept, decided):
        for storage in status["storage"]:
            del storage["free_bytes"], storage["free_inodes"]
        del status["space"]
    assert from_kept == decided


def _below(hooked: Hooked, *parts: str) -> str:
    return os.path.join(hooked.machine.places.home, *parts)


def _read_only_default(hooked: Hooked) -> None:
    path = _below(hooked, ".config", "matplotlib")
    os.makedirs(path)
    os.chmod(path, 0o555)


def _dangling(hooked: Hooked) -> None:
    os.symlink("/nowhere", _below(hooked, ".triton"))


def _settings(hooked: Hooked) -> None:
    with open(_below(hooked, ".pytensorrc"), "w", encoding="utf-8") as file:
        file.write("[global]\nbase_compiledir = /mine\n")


def _cleared(hooked: Hooked) -> None:
    hooked.environment = hooked.copy().environment
    hooked.write("matplotlib/__init__.py", "")  # folders are made for what is there at the first start
    shutil.rmtree(_below(hooked, ".cache", "sif-writable"))
    assert hooked.state() == "active"
    made = glob.glob(os.path.join(glob.escape(_below(hooked, ".cache", "sif-writable")), "image-*", "config", "*"))
    assert made
    for path in made:
        shutil.rmtree(path)


def _moved(hooked: Hooked) -> None:
    root = _below(hooked, ".cache", "sif-writable")
    os.rename(root, root + ".old")


CHANGES: dict[str, tuple[Callable[[Hooked], None] | None, dict[str, Any]]] = {
    "a variable of a row": (None, {"env": {"NUMBA_CACHE_DIR": "/mine"}}),
    "a parent of a row": (None, {"env": {"HF_HOME": "/mine"}}),
    "flags of the user": (None, {"env": {"PYTENSOR_FLAGS": "device=cpu"}}),
    "an XDG base": (None, {"env": {"XDG_CONFIG_HOME": "/mine"}}),
    "TMPDIR": (None, {"env": {"TMPDIR": "/var/tmp"}}),
    "another user's name": (None, {"env": {"USER": "somebody", "TMPDIR": "/nowhere"}}),
    "an empty variable": (None, {"env": {"CUDA_CACHE_PATH": ""}}),
    "a wish": (None, {"env": {"SIF_WRITABLE_OPT_IN": "JAX_COMPILATION_CACHE_DIR"}}),
    "a word not understood": (None, {"env": {"SIF_WRITABLE_HOME": "perhaps"}}),
    "a private HOME": (None, {"env": {"SIF_WRITABLE_HOME": "redirect"}}),
    "an empty HOME": (None, {"home": ""}),
    "another HOME": (None, {"home": "/nowhere"}),
    "a place given": (None, {"env": {"SIF_WRITABLE_DIR": "/work-folder/given"}}),
    "a default that cannot be written": (_read_only_default, {}),
    "a default that leads nowhere": (_dangling, {}),
    "settings of the user": (_settings, {}),
    "folders taken away": (_cleared, {}),
    "storage taken away": (_moved, {}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(warm: Hooked, change: str) -> None:
    do, options = CHANGES[change]
    if do is not None:
        do(warm)
    decided, *outcome = warm.ask(OUTCOME, **options)
    if change not in ("another user's name", "storage taken away"):  # else both starts make their storage anew
        assert decided
    for folder, _, names in os.walk(warm.machine.places.folder):
        for name in names:
            if name.startswith("plan-"):
                os.unlink(os.path.join(folder, name))
    again, *anew = warm.ask(OUTCOME, **options)
    assert again
    assert (outcome[0], _session(outcome[1])) == (anew[0], _session(anew[1]))


def _cut(path: str, size: int) -> None:
    with open(path, "r+b") as file:
        file.truncate(size)


def _flip(path: str, at: int) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 0x40]))


def _replace(path: str, make: Callable[[str], None]) -> None:
    os.unlink(path)
    make(path)


def _give_away(path: str) -> None:
    os.chmod(path, 0o644)
    os.chown(path, 12345, 12345)


DAMAGE: dict[str, Callable[[str], None]] = {
    "empty": lambda path: _cut(path, 0),
    "cut in the check sum": lambda path: _cut(path, 5),
    "only the check sum": lambda path: _cut(path, 8),
    "cut in half": lambda path: _cut(path, os.path.getsize(path) // 2),
    "another check sum": lambda path: _flip(path, 3),
    "another byte": lambda path: _flip(path, 200),
    "a folder": lambda path: _replace(path, os.mkdir),
    "a named pipe": lambda path: _replace(path, os.mkfifo),
    "a link to itself": lambda path: _replace(path, lambda place: os.symlink(place, place)),
    "not ours to read": lambda path: os.chmod(path, 0),
    "anybody's to write": lambda path: os.chmod(path, 0o622),
}
if os.getuid() == 0:
    DAMAGE["another user's"] = _give_away


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_plan_counts_as_none(warm: Hooked, damage: str) -> None:
    expected = warm.ask(OUTCOME)
    assert not expected[0]
    DAMAGE[damage](_kept(warm))
    found = warm.ask(OUTCOME)
    assert found[0]
    assert found[1:] == expected[1:]


def test_the_end_of_a_plan_may_be_damaged_where_no_name_that_was_asked_for_has_come(warm: Hooked) -> None:
    path = _kept(warm)
    _cut(path, os.path.getsize(path) - 1)
    assert not warm.ask(OUTCOME)[0]
    assert warm.ask(OUTCOME, env={"HF_HOME": "/mine"})[0]


def test_in_storage_that_anybody_may_write_all_is_decided_anew(warm: Hooked) -> None:
    os.chmod(_below(warm, ".cache", "sif-writable"), 0o777)
    assert warm.ask(OUTCOME)[0]


def test_a_plan_that_does_not_fit_is_kept_for_a_while(warm: Hooked) -> None:
    path = _kept(warm)
    before = os.stat(path)
    assert warm.ask(OUTCOME, env={"HF_HOME": "/mine"})[0]
    assert os.stat(path).st_ino == before.st_ino
    assert not warm.ask(OUTCOME)[0]
    os.utime(path, (before.st_atime, time.time() - 61))
    assert warm.ask(OUTCOME, env={"HF_HOME": "/mine"})[0]
    assert os.stat(path).st_ino != before.st_ino
    assert not warm.ask(OUTCOME, env={"HF_HOME": "/mine"})[0]
    assert warm.ask(OUTCOME)[0]
