"""Files and descriptors in a layer, in a real rootless SIF: what is as in a writable environment, and what is not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.lab.apptainer_root import Apptainer

PYTHON = "/opt/venv/bin/python"
SITE = "/opt/venv/lib/python3.11/site-packages"
PRELUDE = f"""
import ctypes, errno, fcntl, json, mmap, os, shutil, socket, sqlite3, stat, subprocess, sys
SITE = {SITE!r}
def report(name, *value):
    print(json.dumps([name, value]), flush=True)
def tries(act, *arguments):
    try:
        done = act(*arguments)
        return done if isinstance(done, (bool, int, str, list)) else ""
    except OSError as error:
        return errno.errorcode[error.errno]
def make(path, mode="w", text="x", **more):
    with open(path, mode, **more) as file:
        file.write(text)
def child(code, *arguments):
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True).stdout.strip()
"""
FILES = """
ONE, TWO = SITE + "/valuing/__init__.py", SITE + "/console/__init__.py"
os.chdir(SITE + "/valuing")
os.umask(0o027)
identity = os.getgroups(), os.getuid(), os.getgid(), os.geteuid()
file, folder, before = os.open(ONE, os.O_RDONLY), os.open(SITE, os.O_RDONLY), os.stat(ONE)
seen = mmap.mmap(file, 0, access=mmap.ACCESS_READ)
text = seen[:]
sys.path[:0] = ["", "../../../../share"]
import valuing, early
assert "sif_writable.layered" in sys.modules and "SIF_WRITABLE_LAYER" in os.environ
after = os.stat(ONE)

# What was there before: the process, and what it has open.
report("process", identity == (os.getgroups(), os.getuid(), os.getgid(), os.geteuid()), oct(os.umask(0o027)))
report("folder", os.getcwd() == SITE + "/valuing", "__init__.py" in os.listdir("."), valuing.__file__ == ONE)
report("path", sys.path[:2], valuing.__spec__.origin == ONE)
report("relative", tries(make, "relative"), oct(os.stat("relative").st_mode),
       os.path.exists(SITE + "/valuing/relative"))
kept = ("st_ino", "st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns", "st_nlink")
report("stat", all(getattr(before, name) == getattr(after, name) for name in kept), before.st_dev == after.st_dev)
report("one device", after.st_dev == os.stat(SITE).st_dev, os.path.ismount(SITE))
make(ONE, "a", "# changed")
report("opened before", os.pread(file, len(text), 0) == text, seen[:] == text, os.fstat(file).st_size == before.st_size)
report("opened folder", "valuing" in os.listdir(folder), tries(
    lambda: os.close(os.open("by-descriptor", os.O_CREAT | os.O_WRONLY, dir_fd=folder))))
os.chdir(SITE)
report("copied up", *[getattr(after, name) == getattr(os.stat(ONE), name) for name in ("st_ino", "st_mode", "st_uid")])

# Names and links.
reader, writer = os.open(TWO, os.O_RDONLY), os.open(TWO, os.O_WRONLY | os.O_APPEND)
os.write(writer, b"# more")
report("reader and writer", os.fstat(reader).st_size == os.fstat(writer).st_size, os.path.sameopenfile(reader, writer))
report("hard link", tries(os.link, TWO, SITE + "/linked"), tries(os.link, TWO, "/tmp/linked"))
report("rename", tries(os.rename, SITE + "/console/main.py", SITE + "/console/moved.py"))
report("rename folder", tries(os.rename, SITE + "/unlicensed", SITE + "/other"))
report("move folder", tries(shutil.move, SITE + "/unlicensed", SITE + "/other") != "", os.path.exists("unlicensed"))
os.mkdir("fresh"); make("fresh/a")
report("rename new folder", tries(os.rename, "fresh", "fresher"), os.listdir("fresher"))
report("rename out", tries(os.rename, "fresher/a", "/tmp/a"), tries(shutil.move, "fresher/a", "/tmp/a"))
report("remove tree", tries(shutil.rmtree, SITE + "/compiled"), os.path.exists(SITE + "/compiled"))
report("special", tries(os.symlink, "a", "link"), tries(os.mkfifo, "pipe"), tries(os.setxattr, ONE, "user.x", b"1"),
       tries(socket.socket(socket.AF_UNIX).bind, SITE + "/socket"))
report("nameless", tries(lambda: os.close(os.open(SITE, os.O_TMPFILE | os.O_RDWR))), tries(os.access, SITE, os.W_OK))

# Rights.
os.chmod(TWO, 0o444)
report("read-only file", tries(make, TWO, "a"), tries(os.chown, TWO, 0, 0), tries(os.utime, TWO, (1, 1)))
program = "/opt/venv/bin/pip"
mode = os.stat(program).st_mode
make(program, "a", "")
report("program", os.stat(program).st_mode == mode, os.access(program, os.X_OK))
make("run.sh", text="#!/bin/sh\\necho ran\\n"); os.chmod("run.sh", 0o755)
report("runs", subprocess.run([SITE + "/run.sh"], capture_output=True, text=True).stdout)

# Watching, locks, shared memory, a database.
libc = ctypes.CDLL(None, use_errno=True)
watch = libc.inotify_init1(os.O_NONBLOCK)
def notified(path, mask):
    libc.inotify_add_watch(watch, os.fsencode(path), mask)
    make(path + "/watched" if os.path.isdir(path) else path, "a", "#")
    return len(os.read(watch, 4096)) > 0
report("inotify", tries(notified, SITE + "/early", 0x100), tries(notified, SITE + "/registry/__init__.py", 2))
lock = '''import fcntl, sys
file = open(sys.argv[1], "r+")
try: getattr(fcntl, sys.argv[2])(file, fcntl.LOCK_EX | fcntl.LOCK_NB); print("free")
except OSError: print("taken")'''
for kind in ("flock", "lockf"):
    with open("locked", "w") as held:
        getattr(fcntl, kind)(held, fcntl.LOCK_EX)
        report(kind, child(lock, SITE + "/locked", kind))
    report(kind + " after", child(lock, SITE + "/locked", kind))
make("memory", text="-" * 4096)
with open("memory", "r+b") as held, mmap.mmap(held.fileno(), 4096) as memory:
    memory[:2] = b"hi"
    report("mmap", child("print(open('memory').read(2))"))
    child("import mmap; f = open('memory', 'r+b'); m = mmap.mmap(f.fileno(), 4096); m[:2] = b'ok'")
    report("mmap shared", memory[:2].decode())
database = sqlite3.connect("t.db")
report("wal", *database.execute("pragma journal_mode=wal").fetchone())
database.execute("create table t (x)"); database.execute("insert into t values (1)"); database.commit()
more = "import sqlite3; c = sqlite3.connect('t.db'); c.execute('insert into t values (2)'); c.commit(); print('ok')"
report("wal shared", child(more), database.execute("select sum(x) from t").fetchone(), os.path.exists("t.db-wal"))
"""
EXPECTED = {
    "process": [True, "0o27"],
    "folder": [True, True, True],
    "path": [["", "../../../../share"], True],
    "relative": ["", "0o100640", True],
    "stat": [True, False],  # different: the device
    "one device": [False, False],  # different: a file of the image, and its directory
    "opened before": [True, True, True],
    "opened folder": [True, "EROFS"],  # different: a descriptor stays one of the image
    "copied up": [True, True, True],
    "reader and writer": [True, True],
    "hard link": ["", "EXDEV"],
    "rename": [""],
    "rename folder": ["EXDEV"],  # different: one of the image
    "move folder": [True, False],
    "rename new folder": ["", ["a"]],
    "rename out": ["EXDEV", "/tmp/a"],
    "remove tree": ["", False],
    "special": ["", "", "", ""],
    "nameless": ["", True],
    "read-only file": ["EACCES", "EINVAL", ""],
    "program": [True, True],
    "runs": ["ran\n"],
    "inotify": [True, True],
    "flock": ["taken"],
    "flock after": ["free"],
    "lockf": ["taken"],
    "lockf after": ["free"],
    "mmap": ["hi"],
    "mmap shared": ["ok"],
    "wal": ["wal"],
    "wal shared": ["ok", [3], True],
}


def test_files_and_descriptors_are_those_of_a_writable_environment(apptainer: Apptainer, sif: str) -> None:
    done = apptainer.exec(sif, [PYTHON, "-c", PRELUDE + FILES])
    reported = dict(json.loads(line) for line in done.stdout.splitlines() if line[:1] == "[")
    assert done.returncode == 0, done
    assert reported == EXPECTED
