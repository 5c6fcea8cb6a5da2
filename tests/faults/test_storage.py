"""Storage that is full, fills up, disappears, or turns read-only: programs get the kernel's own errors."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import BY_COPY, NOT_RUN, or_skip
from tests.faults import image
from tests.lab import apt, store
from tests.lab.environments import PYTHON
from tests.lab.plain_machine import HOSTS

if TYPE_CHECKING:
    from tests.faults.conftest import Faulty

# --- Real filesystems without room, from the start.

_OFF = {"SIF_WRITABLE": "off"}
_USE = """
import os
print(os.environ.get("MPLCONFIGDIR", "").startswith("/var/tmp/"), end=" ")
try:
    import failing
    said = "cured"
except OSError as error:
    said = "its own error"
print(said)
"""
# What is kept per image; downloads go where there is more room than on a small disk.
# Where no plan could be kept, an empty file says when the image was used.
_LIST = "cd /var/tmp/sif-writable*/image-* && find . ! -path './data-*' ! -path '*/.new-*' ! -path ./used | sort"


_FILL_UP = """
import os
space = os.statvfs("/var/tmp")
assert space.f_blocks * space.f_frsize < 200 << 20, "this is not the small disk"
os.mkdir("/var/tmp/filler")
def fill(name, size):
    with open(f"/var/tmp/filler/{name}", "wb") as file:
        file.write(b"x" * size)
space = os.statvfs("/var/tmp")
for number in range(space.f_favail - 80 if LACKING == "inodes" else 0):
    fill(number, 0)
if LACKING == "bytes":
    fill("all", space.f_bavail * space.f_frsize - (20 << 20))
"""


@pytest.mark.parametrize(("kind", "lacking"), [("ext4", "inodes"), ("ext4", "bytes"), ("ext3", "bytes")])
def test_a_filesystem_that_runs_out_halfway(faulty: Faulty, kind: str, lacking: str) -> None:
    """A first start passes the check of what is free, and then needs more; when there is more, all is made."""
    if os.getuid():
        pytest.skip(f"{NOT_RUN}only root can mount a disk image")
    or_skip(apt.ensure, "mkfs.ext3", "mount")
    # What the old cache holds is worth 27 MiB: there is room for the seeds of some locations, and not for this one.
    old = f"{faulty.places.home}/.cache/matplotlib"
    image.write({f"{old}/{number}.cache": "x" * 900_000 for number in range(30)})
    disk, owner = f"{faulty.places.folder}/disk", f"root_owner={store.ORDINARY_UID}:{store.ORDINARY_UID}"
    words = [apt.find(f"mkfs.{kind}") or kind, "-q", "-F", "-m", "0", "-b", "1024", "-N", "1000", "-E", owner]
    subprocess.run([*words, disk, "100M"], check=True, stdout=subprocess.DEVNULL)
    kept: dict[str, Any] = {"images": [f"{disk}:/var/tmp"], "tmpfs": ()}
    mounted = faulty.run(["true"], **kept)
    if "loop" in mounted.stderr:
        pytest.skip(f"{NOT_RUN}this machine has no loop devices")
    assert faulty.run([PYTHON, "-c", f"LACKING = {lacking!r}{_FILL_UP}"], env=_OFF, **kept).returncode == 0

    status = faulty.run([PYTHON, "-m", "sif_writable", "status", "--no-gpu"], **kept)
    left = "inodes" if lacking == "inodes" else "space"
    assert f"has no {left} left" in " ".join(status.stdout.split()), status
    for _ in range(2):
        result = faulty.run([PYTHON, "-c", _USE], **kept)
        assert (result.returncode, result.stderr) == (0, ""), result
        assert result.stdout.split(" ", 1)[1] in ("cured\n", "its own error\n")
    assert faulty.run(["rm", "-r", "/var/tmp/filler"], **kept).returncode == 0
    again = faulty.run([PYTHON, "-c", _USE], **kept)
    assert (again.stdout, again.stderr) == ("True cured\n", "")
    listed = faulty.run(["sh", "-c", _LIST], **kept).stdout.splitlines()
    fresh = faulty.run(["sh", "-c", f'"$0" -c "$1" && {_LIST}', PYTHON, _USE]).stdout.splitlines()
    assert fresh[:1] == ["True cured"]
    assert listed == fresh[1:]


def test_a_copy_that_ends_halfway(faulty: Faulty) -> None:
    """A limit on the size of files cuts a write short, as a quota does: half a bytecode file would stop its import."""
    program = "import declared; declared.use(); print(declared.__file__.startswith('/var/tmp/'))"
    limit = "from resource import *; setrlimit(RLIMIT_FSIZE, (2048, getrlimit(RLIMIT_FSIZE)[1])); "
    # Without -B, older CPythons put half a bytecode file into place themselves (python/cpython#126606).
    words = ["sh", "-c", '"$0" -B -c "$1$2"; exec "$0" -c "$2"', PYTHON, limit, program]
    result = faulty.run(words)
    assert (result.returncode, result.stdout, result.stderr) == (0, "True\nTrue\n", "")


# --- While programs run, in a mount namespace where the program itself may change the mounts.

_RUNNING = """
import errno, os, subprocess, sys
def child(*words, **env):
    done = subprocess.run([sys.executable, *words], env={**os.environ, **env}, capture_output=True, text=True)
    return done.returncode, done.stdout.strip(), done.stderr.strip()
names = iter("abcdefgh")
def write():
    try:
        with open(os.path.join(os.environ["MPLCONFIGDIR"], next(names)), "w") as file:
            file.write("x" * 100000)
        return "written"
    except OSError as error:
        return errno.errorcode[error.errno]
def use():
    try:
        import failing
        return "cured"
    except OSError as error:
        return errno.errorcode[error.errno]
NEW = {name: "" for name in os.environ if name.startswith("SIF_WRITABLE_")}
STATE = "import sys; print(sys.modules['sif_writable'].state)"
USE = "import failing; print('cured')"
assert os.environ["MPLCONFIGDIR"].startswith("/var/tmp/")
print(write())
"""


def _run(faulty: Faulty, program: str, cause: str) -> list[str]:
    """Run it, and return what it prints.

    :param cause: why the import in it is not cured, as the one sentence on stderr says.
    """
    mount = "mount -t tmpfs -o size=64m,nr_inodes=5000,mode=1777 none /var/tmp"
    script = f'{mount} && exec "$0" -c "$1"'
    words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, PYTHON, _RUNNING + program]
    result = faulty.run(words, tmpfs=(), env=BY_COPY, binds=[HOSTS])
    if "Operation not permitted" in result.stderr or "unshare failed" in result.stderr:
        pytest.skip(f"{NOT_RUN}an ordinary user cannot make namespaces of his own here")
    assert result.returncode == 0, result
    assert result.stderr.startswith("sif_writable: failing gets no writable copy: "), result
    assert result.stderr.count("\n") == 1, result
    assert cause in result.stderr, result
    assert " Remedy: " in result.stderr, result
    return result.stdout.splitlines()


_FILL = {
    "bytes": """
with open("/var/tmp/filler", "wb", buffering=0) as file:
    try:
        while True:
            file.write(b"x" * 4096)
    except OSError:
        pass
def free():
    os.unlink("/var/tmp/filler")
""",
    "inodes": """
os.mkdir("/var/tmp/filler")
try:
    for number in range(10000):
        open(f"/var/tmp/filler/{number}", "w").close()
except OSError:
    pass
def free():
    import shutil
    shutil.rmtree("/var/tmp/filler")
""",
}


@pytest.mark.parametrize(("what", "cause"), [("bytes", "has 0 B free"), ("inodes", "no inodes left")])
def test_it_fills_up_while_a_program_runs(faulty: Faulty, what: str, cause: str) -> None:
    program = _FILL[what] + (
        "print(write(), use())\n"
        "print(child('-c', STATE))\n"
        "print(child('-c', STATE, **NEW))\n"
        "free(); print(write(), child('-c', USE))\n"
    )
    assert _run(faulty, program, cause) == [
        "written",
        "ENOSPC EROFS",
        "(0, 'inherited', '')",
        "(0, 'active', '')",
        "written (0, 'cured', '')",
    ]


def test_it_turns_read_only_while_a_program_runs(faulty: Faulty) -> None:
    program = (
        "subprocess.run(['mount', '-t', 'tmpfs', '-o', 'remount,ro', 'none', '/var/tmp'], check=True)\n"
        "print(write(), use())\n"
        "print(child('-c', STATE))\n"
        "subprocess.run(['mount', '-t', 'tmpfs', '-o', 'remount,rw', 'none', '/var/tmp'], check=True)\n"
        "print(write(), child('-c', STATE), child('-c', USE))\n"
    )
    assert _run(faulty, program, "read-only filesystem") == [
        "written",
        "EROFS EROFS",
        "(0, 'active', '')",
        "written (0, 'inherited', '') (0, 'cured', '')",
    ]


def test_it_disappears_while_a_program_runs(faulty: Faulty) -> None:
    program = (
        "subprocess.run(['umount', '-l', '/var/tmp'], check=True)\n"
        "print(write(), use(), os.listdir('/var/tmp'))\n"
        "print(child('-c', STATE), child('-c', USE), os.listdir('/var/tmp'))\n"
    )
    assert _run(faulty, program, "does not exist") == [
        "written",
        "ENOENT EROFS []",
        "(0, 'active', '') (0, 'cured', '') ['sif-writable-1000']".replace("1000", str(store.ORDINARY_UID)),
    ]
