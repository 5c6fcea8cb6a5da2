"""Locks only save work: where they fail, are held for ever, or are somebody else's too, the work is done again."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from sif_writable.storage.publish import bounded_lock, publish
from tests.lab.environments import PYTHON
from tests.lab.hooked import STATE, Hooked, question, write
from tests.lab.plain_machine import WORK

if TYPE_CHECKING:
    from pathlib import Path

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
GIVEN = {"SIF_WRITABLE_DIR": f"{WORK}/given"}


# --- Locks that fail.


@pytest.mark.parametrize("number", ["ENOSYS", "EOPNOTSUPP", "ENOLCK", "EIO", "EINTR:when=1..3"])
@pytest.mark.parametrize("strict", [(), ("-W", "error")], ids=["", "-W error"])
def test_a_start_where_flock_fails(hooked: Hooked, strace: str, number: str, strict: tuple[str, ...]) -> None:
    """Cold, with a home to make under the lock; nothing is said, and no soft lock stays that would hold up others."""
    words = [strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace=flock", "-e", f"inject=flock:error={number}"]
    program = question(f"({STATE}, os.path.isdir(os.environ['HOME']))")
    result = hooked.machine.run(
        [*words, PYTHON, *strict, "-c", program], venv=hooked.environment, env=GIVEN, home="/no/such/home"
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "('active', True)\n", "")
    locks = os.path.join(hooked.machine.places.work, "given", "sif-writable", "locks")
    sizes = {name: os.path.getsize(os.path.join(locks, name)) for name in os.listdir(locks) if name.endswith(".lock")}
    assert sizes == {"home.lock": 0}
    assert hooked.state(env=GIVEN, home="/no/such/home") == "active"


def _python(code: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *flags, "-c", textwrap.dedent(code)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": ROOT, "SIF_WRITABLE": "off"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_soft_lock_that_another_host_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "x.lock").write_text("4711\nanother-host\n")
    code = f"""
        import fcntl, os
        from sif_writable.storage.publish import bounded_lock
        with bounded_lock({str(tmp_path)!r}, "x", 60.0):
            descriptor = os.open({str(tmp_path / "x.lock")!r}, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("held")
    """
    done = _python(code, "-W", "error")
    assert (done.returncode, done.stdout, done.stderr) == (0, "held\n", "")


@pytest.mark.parametrize("kind", ["directory", "fifo", "link", "unreadable"])
def test_what_is_in_the_place_of_a_lock_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.lock"
    (tmp_path / "elsewhere").write_text("untouched")
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.write_text("")
        path.chmod(0)
    with bounded_lock(str(tmp_path), "x", 1.0):
        pass
    assert (tmp_path / "elsewhere").read_text() == "untouched"


# --- Locks that are held for ever.

_STOPPED = """
import fcntl, os, signal, subprocess, sys, time
os.umask(0o077)
os.makedirs("given/sif-writable/locks")
with open("given/sif-writable/.sif-writable", "w") as mark:
    mark.write("exec")
ready, writable = os.pipe()
holder = os.fork()
if holder == 0:
    fcntl.flock(os.open("given/sif-writable/locks/home.lock", os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX)
    os.write(writable, b"x")
    signal.pause()
    os._exit(0)
os.read(ready, 1)
os.kill(holder, signal.SIGSTOP)
os.waitpid(holder, os.WUNTRACED)
done = subprocess.run([sys.executable, "-c", sys.argv[1]], stdout=-1, stderr=-2, text=True)
print(done.stdout, end="")
with open(f"/proc/{holder}/stat") as file:
    print(file.read().split()[2])
os.kill(holder, signal.SIGKILL)
"""


def test_a_stopped_process_that_holds_a_lock_stops_nobody(hooked: Hooked) -> None:
    program = question(f"({STATE}, os.path.isdir(os.environ['HOME']))")
    result = hooked.run("-S", "-c", _STOPPED, program, env=GIVEN, home="/no/such/home")
    assert (result.returncode, result.stdout, result.stderr) == (0, "('active', True)\nT\n", "")


# --- The program's own locks, threads and forks.


def test_a_program_that_holds_the_same_lock_itself_is_not_deadlocked(tmp_path: Path) -> None:
    code = f"""
        import os
        from filelock import FileLock
        from sif_writable.storage.publish import publish
        root = {str(tmp_path)!r}
        os.makedirs(root + "/locks")
        def fill(aside):
            open(aside + "/made", "w").close()
        with FileLock(root + "/locks/x.lock"):
            publish(root + "/x", fill, lock_below=root, seconds=1.0)
            pid = os.fork()
            if pid == 0:
                publish(root + "/y", fill, lock_below=root, seconds=1.0)
                with FileLock(root + "/locks/z.lock"):
                    publish(root + "/z", fill, lock_below=root, seconds=1.0)
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        with FileLock(root + "/locks/x.lock", timeout=0):  # ours is released
            print(sorted(name for name in os.listdir(root) if os.path.exists(f"{{root}}/{{name}}/made")))
    """
    done = _python(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "['x', 'y', 'z']\n", "")


def test_a_fork_while_a_thread_holds_our_lock(tmp_path: Path) -> None:
    """The child has no thread that could ever release it; it takes the lock when the parent has done, or does without.

    After the parent's release nothing is held: neither by the child nor by what it inherited.
    """
    code = f"""
        import fcntl, os, threading
        from sif_writable.storage.publish import publish
        root = {str(tmp_path)!r}
        inside, go = threading.Event(), threading.Event()
        def slow(aside):
            open(aside + "/parent", "w").close()
            inside.set()
            go.wait()
        def fill(aside):
            open(aside + "/child", "w").close()
        thread = threading.Thread(target=publish, args=(root + "/x", slow), kwargs={{"lock_below": root}})
        thread.start()
        inside.wait()
        pid = os.fork()
        if pid == 0:
            publish(root + "/x", fill, lock_below=root, seconds=1.0)  # the holder does not get on: done again
            assert os.listdir(root + "/x") == ["child"]
            publish(root + "/y", fill, lock_below=root, seconds=1.0)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        living = os.fork()
        if living == 0:  # lives on, with whatever it inherited
            threading.Event().wait()
        go.set()
        thread.join()
        descriptor = os.open(root + "/locks/x.lock", os.O_RDWR)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.kill(living, 9)
        os.waitpid(living, 0)
        print(os.listdir(root + "/x"), os.listdir(root + "/y"), [n for n in os.listdir(root) if n.startswith(".")])
    """
    done = _python(code, "-W", "ignore::DeprecationWarning")
    assert (done.returncode, done.stdout, done.stderr) == (0, "['child'] ['child'] []\n", "")


@pytest.mark.parametrize("text", ["", "raise RuntimeError('mine')", "FileLock = None", "class FileLock: pass"])
def test_a_module_of_the_users_own_that_is_called_filelock(hooked: Hooked, text: str) -> None:
    write(os.path.join(hooked.machine.places.work, "mine", "filelock.py"), text + "\n")
    env = {**GIVEN, "PYTHONPATH": f"{WORK}/mine"}
    assert hooked.state(env=env, home="/no/such/home") == "active"
    assert hooked.ask("os.environ['HOME']", env=env, home="/no/such/home").startswith(f"{WORK}/given/")


def test_a_second_process_that_publishes_the_same_is_no_failure(tmp_path: Path) -> None:
    """Without any lock at all: one of the two is thrown away."""

    def fill(aside: str) -> None:
        with open(f"{aside}/first", "w", encoding="utf-8"):
            pass
        os.makedirs(f"{tmp_path}/x")
        with open(f"{tmp_path}/x/other", "w", encoding="utf-8"):
            pass

    publish(f"{tmp_path}/x", fill, lock_below=str(tmp_path))
    assert os.listdir(tmp_path / "x") == ["other"]
    assert sorted(os.listdir(tmp_path)) == ["locks", "x"]
