"""HOME: which directory it is, and what the interpreter had derived from it before the hook ran."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any

import pytest

from tests.lab import debian, scratch
from tests.lab.hooked import STATE, Hooked, answer, question, write
from tests.lab.plain_machine import WORK
from tests.lab.store import ORDINARY_UID

HERE = "(os.environ.get('HOME'), os.path.expanduser('~/results.csv'))"


def _passwd(hooked: Hooked, home: str | None) -> list[str]:
    """Return the bind of a passwd file in which the user has this home, or no entry at all."""
    text = "root:x:0:0:root:/root:/bin/sh\n" + ("" if home is None else debian.account(home)["/etc/passwd"])
    return [f"{write(f'{hooked.machine.places.folder}/passwd', text)}:/etc/passwd:ro"]


def test_without_the_variable_home_is_what_the_passwd_entry_says(each: Hooked) -> None:
    asked = f"({STATE}, *{HERE}, os.environ['NUMBA_CACHE_DIR'], os.path.isdir('/var/tmp/sif-writable-1000'))"
    state, home, results, cache, elsewhere = each.ask(asked, home=None)
    assert (state, home, results) == ("active", None, f"{scratch.HOME}/results.csv")
    assert cache.startswith(f"{scratch.HOME}/.cache/")
    assert not elsewhere
    assert each.ask(asked) == ("active", scratch.HOME, *each.ask(asked, home=None)[2:])
    assert each.state(home=None, writable=True) == "writable"


def test_children_whose_environment_was_cleaned_write_where_they_would(hooked: Hooked) -> None:
    """``env -i``, and ``env={"PATH": …}``, with the session of their parent and without."""
    child = f"import os, sys; open(os.path.expanduser('~/' + sys.argv[1]), 'w').close(); print(({STATE}, *{HERE}))"
    program = f"""
import os, subprocess, sys
without = {{name: value for name, value in os.environ.items() if name != "HOME"}}
for name, env in [("none", {{}}), ("path", {{"PATH": os.environ["PATH"]}}), ("session", without)]:
    subprocess.run([sys.executable, "-c", {child!r}, name], env=env, check=True)
"""
    result = hooked.run("-c", program)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [str(("active", None, f"{scratch.HOME}/results.csv"))] * 3
    assert {"none", "path", "session"} < set(os.listdir(hooked.machine.places.home))


@pytest.mark.parametrize(
    ("home", "why"),
    [
        (None, "HOME is not set, and this user has no passwd entry"),
        ("/no/such", "HOME is not set, and /no/such of the passwd entry names a directory that does not exist"),
        ("/usr", "HOME is not set, and /usr of the passwd entry cannot be written by this user"),
        ("/", "HOME is not set, and / of the passwd entry is the root of the image"),
    ],
)
def test_where_the_passwd_entry_is_of_no_use_home_is_repaired(hooked: Hooked, home: str | None, why: str) -> None:
    options: dict[str, Any] = {"home": None, "binds": _passwd(hooked, home)}
    found = json.loads(hooked.run("-m", "sif_writable", "status", "--json", "--no-gpu", **options).stdout)["home"]
    assert (found["private"], found["old"], found["why"]) == (True, None, why)
    assert found["value"].startswith("/var/tmp/")
    # And a child for which that is switched off has none again.
    child = f"[subprocess.run([sys.executable, '-c', {question(HERE)!r}], env={{**os.environ, 'SIF_WRITABLE': 'off'}})]"
    result = hooked.run("-c", f"import os, subprocess, sys; {child}", **options)
    expected = f"{home}/results.csv".replace("//", "/") if home else "~/results.csv"
    assert answer(result) == (None, expected)


def test_a_relative_home_that_works_is_left_alone(hooked: Hooked) -> None:
    place = f"{hooked.machine.places.work}/mine"
    os.mkdir(place)
    if os.getuid() == 0:
        os.chown(place, ORDINARY_UID, ORDINARY_UID)
    asked = f"({STATE}, *{HERE}, os.environ['NUMBA_CACHE_DIR'])"
    state, home, results, cache = hooked.ask(asked, home="mine")
    assert (state, home, results) == ("active", "mine", "mine/results.csv")
    assert cache.startswith(f"{WORK}/mine/.cache/")
    assert hooked.state(home="mine", writable=True) == "writable"


# --- The user's own packages, of an interpreter that is no virtual environment.

SITES = (
    "(HOME := os.environ['HOME'], [p.replace(HOME, '~') for p in sys.path],"
    " (s := sys.modules['site']).ENABLE_USER_SITE, s.USER_SITE.replace(HOME, '~'), s.USER_BASE.replace(HOME, '~'))"
)


class Base:
    """An interpreter that is no virtual environment, with the package in its own site-packages."""

    def __init__(self, hooked: Hooked) -> None:
        """Take the environment to copy the package from."""
        self.hooked = hooked
        self.path = os.path.realpath(hooked.python.path)
        folder = hooked.machine.places.new_folder("own")
        shutil.copytree(hooked.packages, folder, dirs_exist_ok=True)
        ask = "import os, site; print([path for path in site.getsitepackages() if os.path.isdir(path)][-1])"
        own = subprocess.check_output([self.path, "-I", "-c", ask], text=True).strip()
        self.binds = [f"{folder}:{own}:ro"]

    def run(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Start the interpreter with these words."""
        return self.hooked.machine.run([self.path, *words], venv=self.hooked.environment, binds=self.binds, **options)

    def ask(self, expression: str, *flags: str, **options: Any) -> Any:
        """Return the value of an expression in a fresh interpreter."""
        return answer(self.run(*flags, "-c", question(expression), **options))


@pytest.fixture
def base(each: Hooked) -> Base:
    """Return every interpreter without an environment around it."""
    return Base(each)


NO_HOME: dict[str, Any] = {"home": "/no/such/home"}


def test_the_users_own_packages_are_looked_for_below_the_repaired_home(base: Base) -> None:
    home, path, enabled, user_site, user_base = base.ask(SITES, **NO_HOME)
    assert home.startswith("/var/tmp/")
    assert (enabled, user_base) == (True, "~/.local")
    assert user_site in path
    # As in a process that has had this HOME from the beginning: a child of it, with and without us.
    off = {"SIF_WRITABLE": "off"}
    assert base.ask(SITES, home=home) == (home, path, enabled, user_site, user_base)
    assert base.ask(SITES, home=home, env=off) == (home, path, enabled, user_site, user_base)
    # What is installed there is found by who starts later, with all that .pth files name.
    outside = base.hooked.machine.places.var_tmp + user_site.replace("~", home)[len("/var/tmp") :]
    write(f"{outside}/own_module.py", "VALUE = 7\n")
    write(f"{outside}/own.pth", f"{WORK}\nimport sys; sys.own_line = 1\n")
    found = f"(sys.own_line, __import__('own_module').VALUE, [p for p in sys.path if p == {WORK!r}])"
    assert base.ask(found, **NO_HOME) == (1, 7, [WORK])
    assert base.ask(SITES, **NO_HOME) == base.ask(SITES, home=home)
    # A child for which all that is switched off has those of its HOME again.
    environment = "{**os.environ, 'SIF_WRITABLE': 'off'}"
    child = f"subprocess.run([sys.executable, '-c', {question('sys.path')!r}], env={environment})"
    result = base.run("-c", f"import os, subprocess, sys; {child}", **NO_HOME)
    assert answer(result) == base.ask("sys.path", env=off, **NO_HOME)


def test_whoever_does_not_want_the_users_own_packages_has_none(hooked: Hooked) -> None:
    base = Base(hooked)
    for flags, env in ((["-s"], {}), (["-I"], {}), ([], {"PYTHONNOUSERSITE": "1"})):
        _, path, enabled, user_site, _ = base.ask(SITES, *flags, env=env, **NO_HOME)
        assert (enabled, user_site in path) == (False, False)
    elsewhere = base.ask(SITES, env={"PYTHONUSERBASE": f"{WORK}/base"}, **NO_HOME)
    assert elsewhere[3].startswith(f"{WORK}/base/")
    assert elsewhere[3] not in elsewhere[1]
    in_environment = hooked.ask(SITES, **NO_HOME)
    assert (in_environment[2], in_environment[3] in in_environment[1]) == (False, False)
