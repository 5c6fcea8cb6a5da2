"""Filesystems that may stop answering: which they are, how they are asked, and what follows from silence."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from sif_writable import child, hanging, session
from sif_writable.hanging import FUSE, LOCAL, REMOTE, hangable_mount_on
from sif_writable.redirects import decide, folders
from sif_writable.redirects import decision as decision_
from sif_writable.redirects.decision import Decision, Redirect
from sif_writable.redirects.locations import Locations
from sif_writable.storage import choose
from sif_writable.storage.candidates import Candidate
from sif_writable.storage.chosen import Storage
from sif_writable.system import filesystem, timeouts
from sif_writable.system.filesystem import access_state
from sif_writable.system.surroundings import home_problem
from sif_writable.system.timeouts import TIMED_OUT, may_hang_in, responds
from tests.lab import measured
from tests.lab.decisions import HOME_WORKS, make_facts, make_storage
from tests.lab.store import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


TABLE = rb"""
1 0 0:30 / / rw - fuse.squashfuse_ll image ro
2 1 8:1 / /tmp rw,relatime - ext4 /dev/sda1 rw
3 1 0:40 /u /home/u rw shared:7 master:2 - nfs4 server:/home rw,vers=4.2
4 1 0:41 / /data\040set rw - lustre 1@tcp:/fs rw
5 1 0:42 / /sif-writable rw - fuse.fuse2fs o.img rw
6 1 0:43 / /mnt rw - fuseblk /dev/sdb rw
7 1 0:44 / /net rw - autofs auto.net rw
8 1 0:45 / /dev/shm rw - tmpfs tmpfs rw
9 1 0:46 / /new rw - some_new_type x rw
half a line
"""


def test_what_may_stop_answering() -> None:
    assert may_hang_in(TABLE) == {
        "/home/u": REMOTE,
        "/data set": REMOTE,
        "/sif-writable": FUSE,
        "/mnt": FUSE,
        "/net": REMOTE,
        "/new": REMOTE,
    }
    assert may_hang_in(b"") == {}


def test_who_answers_for_a_path(tmp_path: Path) -> None:
    top = str(tmp_path)
    (tmp_path / "mount").mkdir()
    (tmp_path / "plain").mkdir()
    (tmp_path / "absolute").symlink_to(tmp_path / "mount" / "x")
    (tmp_path / "plain" / "relative").symlink_to("../mount")
    (tmp_path / "loop").symlink_to("loop")
    points = {f"{top}/mount": FUSE, f"{top}/other": REMOTE}
    mount = (f"{top}/mount", FUSE)
    expected = {
        "mount": mount,
        "mount/below/it": mount,
        "mounted": ("", LOCAL),
        "plain/file": ("", LOCAL),
        "absolute": mount,
        "absolute/deeper": mount,
        "plain/relative/x": mount,
        "plain/../mount/x": mount,
        "plain/./../other": (f"{top}/other", REMOTE),
        "loop/x": ("", LOCAL),
        "x" * 5000: ("", LOCAL),
    }
    assert {path: hangable_mount_on(f"{top}/{path}", points) for path in expected} == expected
    assert hangable_mount_on(f"{top}/mount", {}) == ("", LOCAL)


_ASK = """
    import os, sys, time, _thread
    from sif_writable import hanging
    def alone():
        try:
            os.waitpid(-1, os.WNOHANG)
            return False
        except ChildProcessError:
            return len(os.listdir("/proc/self/task")) == 1
"""


def _run(program: str) -> str:
    command = [sys.executable, *measured.NO_SITE, "-c", textwrap.dedent(_ASK) + textwrap.dedent(program)]
    environment = {**os.environ, "PYTHONPATH": REPOSITORY}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=50)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.strip()


@pytest.mark.parametrize("kind", [REMOTE, FUSE])
def test_who_asks_is_gone_when_there_is_an_answer(kind: str) -> None:
    program = f"""
    descriptors = os.listdir("/proc/self/fd")
    found = [(hanging.times_out(path, {kind!r}), alone()) for _ in range(50) for path in ("/", "/no/such", "/\\udcff")]
    print(set(found), os.listdir("/proc/self/fd") == descriptors)
    """
    assert _run(program) == "{(False, True)} True"


@pytest.mark.parametrize(("kind", "left"), [(REMOTE, False), (FUSE, True)])
def test_nobody_waits_for_longer_than_the_patience_lasts(kind: str, left: bool) -> None:
    """Who writes for others to read, and has ended, is not kept from it by the one who asks."""
    program = f"""
    hanging.ask = lambda path: time.sleep(100)
    hanging.TIMEOUT = 0.3
    begun = time.monotonic()
    print(hanging.times_out("/", {kind!r}), 0.3 <= time.monotonic() - begun < 30, alone())
    """
    assert _run(program) == f"True True {left}"


@pytest.mark.parametrize("kind", [REMOTE, FUSE])
def test_without_anybody_to_ask_the_filesystem_counts_as_one_that_answers(kind: str) -> None:
    program = f"""
    def refused(*arguments):
        raise RuntimeError
    _thread.start_new_thread = os.fork = refused
    print(hanging.times_out("/", {kind!r}), alone())
    """
    assert _run(program) == "False True"


def test_children_that_nobody_waits_for() -> None:
    program = """
    import signal
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print(hanging.times_out("/", hanging.FUSE), alone())
    """
    assert _run(program) == "False True"


def test_the_root_that_a_folder_lies_in() -> None:
    spaced = "2nf;token;A=0,B=0;inputs;/a b;c/x:/d"
    assert session.root_and_kind("2nf;token;A=0,B=0;inputs;/a:/d", "/d/image/x") == ("/d", FUSE)
    assert session.root_and_kind("2nf;token;A=0,B=0;inputs;/a:/d", "/a/image") == ("/a", REMOTE)
    assert session.root_and_kind("2nf;token;A=0,B=0;inputs;/a:/d", "/ab") == ("", LOCAL)
    assert session.root_and_kind("2;token;A=0,B=0;inputs;/a", "/a/image") == ("", LOCAL)
    assert session.root_and_kind(spaced, "/a b;c/x/y") == ("/a b;c/x", REMOTE)
    for broken in ("", "2", "2n", "x;y"):
        assert session.root_and_kind(broken, "/a") == ("", LOCAL)


@pytest.fixture
def silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Let nothing answer below tmp_path/mount, but below tmp_path/well; return who was asked, from tmp_path on."""
    asked: list[str] = []
    points = {str(tmp_path / "mount"): REMOTE, str(tmp_path / "well"): FUSE}

    def ask(path: str, kind: str) -> bool:
        assert kind == points[path]
        asked.append(os.path.relpath(path, tmp_path))
        return path == str(tmp_path / "mount")

    (tmp_path / "mount" / "home").mkdir(parents=True)
    (tmp_path / "well" / "home").mkdir(parents=True)
    monkeypatch.setattr(timeouts, "_may_hang", points)
    monkeypatch.setattr(hanging, "times_out", ask)
    yield asked
    hanging.timed_out.clear()
    timeouts._answered.clear()


def test_it_is_asked_once_and_not_looked_at_any_more(tmp_path: Path, silent: list[str]) -> None:
    mount = str(tmp_path / "mount")
    (tmp_path / "link").symlink_to(mount)
    (tmp_path / "mount" / "file").write_text("text")
    locations = Locations(mount)
    assert access_state(f"{mount}/home") == "writable"
    assert home_problem(f"{mount}/home") == TIMED_OUT
    assert silent == ["mount"]
    assert not responds(f"{mount}/another")
    assert responds(str(tmp_path))
    assert responds(f"{mount}s")
    assert silent == ["mount"]
    assert access_state(f"{mount}/home") == locations.state(f"{mount}/home") == "silent"
    assert not locations.works(f"{mount}/home")
    assert locations.answers()[0] == []  # nothing was listed
    assert not filesystem.holds(f"{mount}/file", "text")


def test_storage_that_a_child_has_waited_for_is_not_asked_by_its_own_decision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hanging, "times_out", lambda *_: True)
    monkeypatch.setattr(child, "timed_out", "")
    assert not child.is_current(f"2{REMOTE};{child.token()};;{child.inputs()};{tmp_path}")
    importlib.reload(timeouts)  # as it is loaded then
    assert timeouts.has_timed_out(f"{tmp_path}/x")
    hanging.timed_out.clear()


def test_each_filesystem_on_the_way_is_asked_once(tmp_path: Path, silent: list[str]) -> None:
    home = tmp_path / "well" / "home"
    (home / ".cache").symlink_to(tmp_path / "mount")
    for _ in range(2):
        assert responds(str(home))
        assert silent == ["well"]
    for _ in range(2):
        assert not responds(str(home / ".cache"))
        assert silent == ["well", "mount"]
    assert access_state(str(home / ".cache" / "x")) == "silent"
    assert access_state(str(home)) == "writable"


def test_the_next_place_is_taken(tmp_path: Path, silent: list[str]) -> None:
    (tmp_path / "good").mkdir(0o700)
    names = ("mount/home", "mount", "good")
    places = [Candidate(name, str(tmp_path / name), "node") for name in names]
    storage = choose.choose_storage(places, make_facts(uid=os.geteuid(), user=os.geteuid()), {})
    assert [(place.label, problem) for place, problem in storage.refused] == [
        ("mount/home", TIMED_OUT),
        ("mount", TIMED_OUT),
    ]
    assert set(storage.roots()) == {str(tmp_path / "good" / "sif-writable")}
    assert len(silent) == 1


def test_home_is_kept_since_its_links_cannot_be_made() -> None:
    decision = decide.decide(make_facts(home_problem=TIMED_OUT, home_timed_out=True), make_storage(), HOME_WORKS, {})
    assert decision.home == ""
    assert decision.home_why.startswith(TIMED_OUT)
    assert "MPLCONFIGDIR" in {redirect.variable for redirect in decision.redirects}


def test_no_folder_is_made_without_the_links_that_it_should_have(tmp_path: Path, silent: list[str]) -> None:
    home = str(tmp_path / "mount" / "home")
    assert not responds(home)
    decision = Decision()
    redirect = Redirect("MPLCONFIGDIR", "x", "config", str(tmp_path / "matplotlib"), "")
    decision.redirects = [redirect]
    outcome = decision_.Outcome(make_facts(home=home), Storage(), decision)
    folders.make_redirect(redirect, outcome, {})
    assert decision.redirects == []
    assert [str(problem) for problem in outcome.failed] == [
        f"MPLCONFIGDIR stays as it was: {home}/.config/matplotlib/stylelib {TIMED_OUT}"
    ]
    assert not os.path.exists(redirect.folder)
    assert silent
