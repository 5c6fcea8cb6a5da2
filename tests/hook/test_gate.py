"""When the hook acts, when it leaves a process alone, and that it then leaves no trace."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from sif_writable.session import was_set
from tests.lab.hooked import STATE, Hooked, contents, write
from tests.lab.plain_machine import WORK

if TYPE_CHECKING:
    from collections.abc import Mapping

SIGNS: list[dict[str, str]] = [
    {"APPTAINER_CONTAINER": "/images/x.sif"},
    {"SINGULARITY_CONTAINER": "/images/x.sif"},
    {"CH_RUNNING": "Weird Al Yankovic"},
    {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
    {"container": "podman"},
    {"container": "docker"},
    {"container": "oci"},
]
BUILDS = [
    {"APPTAINER_LABELS": "/.build.labels"},
    {"SINGULARITY_LABELS": "/.build.labels"},
    {"APPTAINER_ROOTFS": "/tmp/build/rootfs"},
    {"SINGULARITY_ROOTFS": "/tmp/build/rootfs"},
]
TRACES = "({name: os.environ[name] for name in sorted(os.environ)}, len(sys.meta_path), sys.path, sys.pycache_prefix)"


def _written(environment: Hooked) -> set[str]:
    """List what is in the writable places, the machine's own tree apart."""
    places = environment.machine.places
    folders = (places.home, places.tmp, places.var_tmp, places.shm, places.work)
    return {os.path.join(folder, name) for folder in folders for name in contents(folder)} - environment.machine.points


def _assert_nothing_happens(hooked: Hooked, bare: Hooked, state: str, **options: Any) -> None:
    assert hooked.state(**options) == state
    assert hooked.ask(TRACES, **options) == bare.ask(TRACES, **options)
    assert not _written(hooked)


# --- Whether it is a container.


@pytest.mark.parametrize("sign", SIGNS, ids=str)
def test_a_variable_of_the_engine_is_a_sign(hooked: Hooked, sign: Mapping[str, str]) -> None:
    assert hooked.state(image=False, env=sign) == "active"


@pytest.mark.parametrize("file", ["/.dockerenv", "/run/.containerenv"])
def test_a_file_of_the_engine_is_a_sign(hooked: Hooked, file: str) -> None:
    empty = write(os.path.join(hooked.machine.places.folder, "empty"), "")
    assert hooked.state(image=False, binds=[f"{empty}:{file}:ro"]) == "active"


def test_nothing_happens_on_a_host(hooked: Hooked, bare: Hooked) -> None:
    _assert_nothing_happens(hooked, bare, "host", image=False)
    _assert_nothing_happens(hooked, bare, "host", image=False, env={"container": "lxc"})
    _assert_nothing_happens(hooked, bare, "host", image=False, home=None)
    _assert_nothing_happens(hooked, bare, "host", image=False, env={"SIF_WRITABLE_DIR": WORK})


# --- Whether there is something to do.


def test_nothing_happens_where_prefix_and_home_are_writable(each: Hooked) -> None:
    _assert_nothing_happens(each, each.without(), "writable", writable=True)


@pytest.mark.parametrize(("with_base", "state"), [("true", "active"), ("false", "writable")])
def test_a_virtual_environment_has_its_bases_packages_to_serve(each: Hooked, with_base: str, state: str) -> None:
    """That of a user's own, in a writable place: it is known only when `site` has read pyvenv.cfg."""
    venv = each.copy()
    with open(f"{venv.environment}/pyvenv.cfg", encoding="utf-8") as file:
        settings = file.read()
    assert "include-system-site-packages = false" in settings
    with open(f"{venv.environment}/pyvenv.cfg", "w", encoding="utf-8") as file:
        file.write(settings.replace("packages = false", f"packages = {with_base}"))
    assert venv.state(writable=True) == state


@pytest.mark.parametrize("home", ["", "/", "/no/such/home", "/usr"])
def test_an_unusable_home_is_something_to_do(hooked: Hooked, home: str | None) -> None:
    assert hooked.state(writable=True, home=home) == "active"


def test_a_place_that_was_given_is_something_to_do(hooked: Hooked) -> None:
    assert hooked.state(writable=True, env={"SIF_WRITABLE_DIR": f"{WORK}/given"}) == "active"
    assert hooked.state(writable=True) == "writable"
    # On another filesystem than the root, as a bind into an image always is.
    assert hooked.state(writable=True, binds=[f"{hooked.machine.places.shm}:/sif-writable"]) == "active"


@pytest.mark.parametrize("build", BUILDS, ids=str)
@pytest.mark.parametrize("writable", [False, True])
def test_nothing_happens_during_a_build(hooked: Hooked, bare: Hooked, build: dict[str, str], writable: bool) -> None:
    options: dict[str, Any] = {"writable": writable, "home": "/", "env": build}
    _assert_nothing_happens(hooked, bare, "build", **options)


# --- The switch.


@pytest.mark.parametrize("value", ["off", "OFF", "0", "no", "false", "never"])
def test_off(hooked: Hooked, bare: Hooked, value: str) -> None:
    _assert_nothing_happens(hooked, bare, "off", env={"SIF_WRITABLE": value})


@pytest.mark.parametrize("value", ["on", "On", "1", "yes", "true", "always"])
def test_on(hooked: Hooked, value: str) -> None:
    switch = {"SIF_WRITABLE": value}
    assert hooked.state(image=False, env=switch) == "active"
    assert hooked.state(image=False, writable=True, env=switch) == "active"


@pytest.mark.parametrize("value", ["auto", "AUTO", ""])
def test_auto(hooked: Hooked, value: str) -> None:
    switch = {"SIF_WRITABLE": value}
    assert hooked.state(env=switch) == "active"
    assert hooked.state(image=False, env=switch) == "host"
    assert hooked.state(writable=True, env=switch) == "writable"


@pytest.mark.parametrize("value", ["maybe", "of", "\u00e4\u00f6", "on\n", "x" * 9000])
def test_what_is_not_understood_counts_as_auto_and_is_named(hooked: Hooked, value: str) -> None:
    switch = {"SIF_WRITABLE": value}
    assert hooked.state(env=switch) == "active"
    assert hooked.state(image=False, env=switch) == "host"
    for options in ({}, {"image": False}):
        result = hooked.run("-m", "sif_writable", "status", "--json", env=switch, **options)
        notes = [note for note in json.loads(result.stdout)["notes"] if note.startswith("SIF_WRITABLE=")]
        assert len(notes) == 1
        assert "allowed: auto, on, off" in notes[0]
        assert len(notes[0]) < 250


# --- Children.

CHILD = "__import__('subprocess').check_output([sys.executable, '-c', {program!r}], env={env}, text=True).strip()"


def _child(of: str, env: str = "None") -> str:
    return CHILD.format(program=f"import sys, os; print({of})", env=env)


def test_children_inherit_and_pay_nothing(each: Hooked) -> None:
    cache = "os.environ.get('NUMBA_CACHE_DIR')"
    state, own, child, childs_own = each.ask(f"({STATE}, {cache}, {_child(STATE)}, {_child(cache)})")
    assert (state, child) == ("active", "inherited")
    assert own == childs_own
    assert each.ask(_child(_child(STATE))) == "inherited"


def test_children_with_a_cleaned_environment_act_by_themselves(hooked: Hooked) -> None:
    assert hooked.ask(_child(STATE, "{}")) == "active"
    assert hooked.ask(_child(STATE, "{**os.environ, 'SIF_WRITABLE': 'off'}")) == "off"


def test_a_session_of_another_container_is_not_believed(hooked: Hooked) -> None:
    storage = f"{WORK}/elsewhere"
    foreign = {
        "SIF_WRITABLE_SESSION": f"2;fe01.2.9f0.1000;{was_set('NUMBA_CACHE_DIR', f'{storage}/numba', None)};0;{storage}",
        "NUMBA_CACHE_DIR": f"{storage}/numba",
    }
    state, cache = hooked.ask(f"({STATE}, os.environ['NUMBA_CACHE_DIR'])", env=foreign)
    assert state == "active"
    assert not cache.startswith(storage)


_SESSIONS = ["", "1", "2;a;b;c", ";;;;", "2;;;;;;", "3;a;b;c;d", "x" * 100_000, "2;\udcff;\n;\udcff;", "9;" * 50]


@pytest.mark.parametrize("session", _SESSIONS, ids=lambda session: ascii(session)[:20])
def test_a_session_that_nobody_wrote_is_not_believed(hooked: Hooked, session: str) -> None:
    assert hooked.state(env={"SIF_WRITABLE_SESSION": session}) == "active"
