"""The start-up budget: modules and system calls, never milliseconds."""

from __future__ import annotations

import glob
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import NOT_RUN
from tests.lab import counted, scratch
from tests.lab.environments import PYTHON
from tests.lab.hooked import system_calls

if TYPE_CHECKING:
    from tests.lab.hooked import Hooked

pytestmark = pytest.mark.exact

PACKAGE = frozenset(("sif_writable",))
CHILD = PACKAGE | {"sif_writable.child"}
ACTIVE = CHILD | {"sif_writable.warm"}
# How many system calls more than with SIF_WRITABLE=off, memory apart.
CALLS = {"writable": 8, "host": 4, "inherited": 17, "active": 85}
STORAGE_CALLS = 6
"""How many system calls of a warm start name anything in storage."""

REQUESTS = {"warm": 23, "follower": 53}
"""How many requests a node's first start makes that a server of storage has to answer: where all is there; where all is
but the kept plan, which it makes."""

_CHANGING = (
    *("mkdir", "rename", "unlink", "rmdir", "symlink", "link", "mknod", "chmod", "fchmod", "chown", "fchown", "lchown"),
    *("truncate", "ftruncate", "utime", "creat", "setxattr", "fsetxattr", "lsetxattr", "mount", "flock", "fsync"),
)
_OPENED_TO_WRITE = ("O_CREAT", "O_WRONLY", "O_RDWR", "O_TRUNC", "O_TMPFILE")
_STARTING = ("fork", "vfork", "clone", "clone3", "execve")

_MODULES = "sorted(sys.modules)"
_OFF = {"SIF_WRITABLE": "off"}


def _options(hooked: Hooked, state: str) -> dict[str, Any]:
    """Return how to start an interpreter in that state, with warm storage where it has any."""
    if state == "writable":
        return {"writable": True}
    if state == "host":
        return {"image": False}
    options: dict[str, Any] = {"home": "/no/such/home"} if state == "no home" else {}
    assert hooked.state(**options) == "active"
    if state != "inherited":
        return options
    environment = hooked.ask("dict(os.environ)", **options)
    return {"env": environment, "home": environment["HOME"]}


def _modules(hooked: Hooked, options: dict[str, Any]) -> tuple[set[str], set[str]]:
    """Return the package's own modules, and the others that only an interpreter with the hook on has loaded."""
    loaded = set(hooked.ask(_MODULES, **options))
    without = set(hooked.ask(_MODULES, **{**options, "env": {**options.get("env", {}), **_OFF}}))
    ours = {name for name in loaded if name.partition(".")[0] == "sif_writable"}
    return ours, loaded - ours - without


@pytest.mark.parametrize(
    ("state", "ours"),
    [("writable", PACKAGE), ("host", PACKAGE), ("inherited", CHILD), ("active", ACTIVE), ("no home", ACTIVE)],
)
def test_modules(each: Hooked, state: str, ours: frozenset[str]) -> None:
    loaded, foreign = _modules(each, _options(each, state))
    # 3.15 reads import lines after it has looked for the user's own packages, which then have to follow HOME.
    late = {"sif_writable.usersite"} if each.python.version == "3.15" and state == "no home" else set()
    assert loaded == ours | late
    assert not foreign  # nor, in particular, platformdirs, filelock, pynvml, json, re, pathlib, typing and their like
    assert (len(PACKAGE), len(CHILD)) == (1, 2)


def test_where_storage_may_hang_one_module_asks_first(hooked: Hooked) -> None:
    """A local disk stands in for a network filesystem: types of filesystems are what distinguishes them."""
    changed = hooked.copy()
    with open(f"{changed.packages}/sif_writable/warm.py", encoding="utf-8") as file:
        text = file.read()
    for kind in ("ext4", "xfs", "btrfs", "overlay", "tmpfs", "zfs"):
        text = text.replace(f" {kind} ", " ")
    changed.write("sif_writable/warm.py", text)
    asked = (
        "(os.environ['SIF_WRITABLE_SESSION'].partition(';')[0], [n for n in sys.modules if n[:12] == 'sif_writable'])"
    )
    for start in ("cold", "warm"):
        kinds, loaded = changed.ask(asked)
        assert kinds == "2n"
        assert (set(loaded) == ACTIVE | {"sif_writable.hanging"}) == (start == "warm"), loaded


def test_off_loads_no_more_than_the_package(each: Hooked) -> None:
    loaded = set(each.ask(_MODULES, env=_OFF))
    assert {name for name in loaded if name.startswith("sif_writable")} == PACKAGE
    another = each.without().copy()
    another.write("another.pth", "# Reading any such file makes some interpreters load an encoding.\n")
    assert loaded - PACKAGE == set(another.ask(_MODULES))


@pytest.mark.parametrize("state", sorted(CALLS))
def test_system_calls(each: Hooked, strace: str, state: str) -> None:
    options = _options(each, state)
    off = {**options, "env": {**options.get("env", {}), **_OFF}}
    calls = system_calls(each, strace, options)
    more = len(calls) - len(system_calls(each, strace, off))
    assert more <= CALLS[state], f"{state}: {more} system calls more"
    if state == "active":  # whose it is, what was kept, how much is free, and what is there of each kind
        place = f"{scratch.HOME}/.cache/sif-writable"
        on_storage = [call for call in calls if place in call and not call.startswith(("execve", "read"))]
        assert len(on_storage) <= STORAGE_CALLS, on_storage


def test_requests_to_a_server(hooked: Hooked) -> None:
    """Each thing is asked once, and a warm start asks nothing that changes anything; each start is a node's first."""
    log, home = f"{hooked.machine.places.folder}/requests", hooked.machine.places.home

    def asked(way: str) -> list[tuple[str, str]]:
        result = hooked.run("-c", "pass", served=[f"{home}:{scratch.HOME}:{log}-{way}:0:30"])
        if "could not be served" in result.stderr:
            pytest.skip(f"{NOT_RUN}this machine lets nobody mount with FUSE")
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
        found = [(kind, path) for kind, _, path in counted.requests(f"{log}-{way}")]
        return [(kind, path) for kind, path in found if kind not in counted.NOT_WAITED_FOR]

    asked("cold")
    asked("settled")
    warm = asked("warm")
    assert {kind for kind, _ in warm} <= {"lookup", "getattr", "statfs", "open", "read", "flush", "opendir", "readdir"}
    more_than_once = {"readdir"}  # until there is no more
    once = [each for each in warm if each[0] not in more_than_once]
    assert len(once) == len(set(once)), warm
    (plan,) = glob.glob(f"{glob.escape(home)}/.cache/sif-writable/image-*/plan-*")
    os.unlink(plan)
    for way, found in (("warm", warm), ("follower", asked("follower"))):
        assert len(found) <= REQUESTS[way], "\n".join(map(str, found))
    assert os.path.exists(plan)


@pytest.mark.parametrize("state", ["writable", "host", "inherited", "active", "no home"])
def test_a_warm_start_writes_nothing(each: Hooked, strace: str, state: str) -> None:
    for call in system_calls(each, strace, _options(each, state)):
        name = call.partition("(")[0]
        assert not name.removesuffix("at2").removesuffix("at").startswith(_CHANGING), call
        if name.startswith("open") and "ENXIO" not in call:  # Python tries /dev/tty
            assert not any(flag in call for flag in _OPENED_TO_WRITE), call
        assert name not in _STARTING or call.startswith(f'execve("{PYTHON}"'), call


def test_once_a_day_a_warm_start_says_that_its_image_is_used(each: Hooked, strace: str) -> None:
    """By the time of the kept plan: nothing else shows that everywhere. That of the mark is renewed with it."""
    options = _options(each, "active")
    (plan,) = glob.glob(f"{each.machine.places.home}/.cache/sif-writable/image-*/plan-*")
    usual = system_calls(each, strace, options)
    for age, more in ((0.9, 0), (1.1, 1)):
        then = time.time() - age * 86400
        os.utime(plan, (then, then))
        calls = system_calls(each, strace, options)
        assert (len(calls) > len(usual)) == bool(more)  # what does it is a module of its own
        assert len([call for call in calls if call.startswith("utimensat")]) == 2 * more
        assert (time.time() - os.lstat(plan).st_mtime < 3600) == bool(more)


# --- Nothing is left behind.

_LEFT = """{
    "descriptors": sorted(os.listdir("/proc/self/fd")),
    "threads": len(os.listdir("/proc/self/task")),
    "children": open("/proc/self/task/%d/children" % os.getpid()).read(),
    "umask": (os.umask(0o22), os.umask(0o22)),
    "cwd": os.getcwd(),
    "path": sys.path,
    "path_hooks": len(sys.path_hooks),
    "signals": [__import__("_signal").getsignal(number) is None for number in range(1, 32)],
    "filters": [str(entry) for entry in __import__("_warnings").filters],
    "trace": (sys.gettrace(), sys.getprofile(), sys.displayhook is sys.__displayhook__),
    "recursion": sys.getrecursionlimit(),
    "limits": __import__("resource").getrlimit(7),
    "gc": (__import__("gc").isenabled(), __import__("gc").get_threshold()),
    "stdout": (sys.stdout.encoding, sys.stdout.line_buffering),
}"""


@pytest.mark.parametrize("state", ["cold", "active", "inherited"])
def test_nothing_is_left_in_the_process(each: Hooked, state: str) -> None:
    options: dict[str, Any] = {} if state == "cold" else _options(each, state)
    off = {**options, "env": {**options.get("env", {}), **_OFF}}
    without = each.ask(_LEFT, **off)
    assert each.ask(_LEFT, **options) == without
    if state == "cold":
        assert os.listdir(each.machine.places.home)  # so there was something to do


@pytest.mark.parametrize("env", [{}, {"SIF_WRITABLE_DEBUG": "1"}, {"SIF_WRITABLE_DIR": "/proc/no/place"}], ids=str)
@pytest.mark.parametrize("home", ["/home/user", "/no/such/home"])
def test_nothing_on_stdout(each: Hooked, env: dict[str, str], home: str) -> None:
    for _ in range(2):
        result = each.run("-c", "pass", env=env, home=home)
        assert (result.returncode, result.stdout) == (0, "")
        assert bool(result.stderr) == bool(env)


def test_one_finder_and_a_second_call_does_nothing(each: Hooked) -> None:
    again = "[__import__('sif_writable').run() for _ in range(3)]"
    changed = f"[dict(os.environ), len(sys.meta_path), {_MODULES}]"
    first, _, second = each.ask(f"({changed}, {again}, {changed})")
    assert first == second
    assert first[1] == each.without().ask("len(sys.meta_path)") + 1
