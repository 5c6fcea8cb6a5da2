"""An image of packages that write wherever packages do, and a task that uses them all and reports what it wrote itself.

The task looks at itself by an audit hook, which the interpreter calls before it changes a file or takes a lock; the
image installs it before the hook of sif_writable. Files that object code writes do not show: `listing` does.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from tests.lab import built
from tests.lab.shapes import SHAPES
from tests.lab.ways import WAYS

if TYPE_CHECKING:
    from collections.abc import Iterable

STORAGE = "/sif-writable"
PYTHON = "/opt/venv/bin/python"

_OBSERVER = """
import os, sys
changes, locks = [], []
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGING = ("os.mkdir", "os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir", "os.chmod", "os.utime")

def _hook(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        if not isinstance(flags, int) or not flags & _WRITING:
            return
        event, arguments = "write", (path,)
    elif event in ("fcntl.flock", "fcntl.lockf"):
        locks.append(os.readlink("/proc/self/fd/%d" % arguments[0]))
        return
    elif event not in _CHANGING:
        return
    paths = [os.fsdecode(path) for path in arguments[:2] if isinstance(path, (str, bytes))]
    if any(path.startswith("STORAGE/") for path in paths):
        changes.append([event, *paths])

sys.addaudithook(_hook)
""".replace("STORAGE", STORAGE)
_KERNELS = """
import numba

@numba.njit(cache=True)
def area(side):
    return side * side
"""
# Each makes its file with one call that may be made twice: the races of packages with themselves are not ours.
_MODULES = ("large", "solo", "spacious", "open_import", "pathlib_import")
_LATE_MODULES = ("open_use", "native_silent_use", "swallowed_use")
IN_TREE = ("large", "solo.py", "spacious/portion", "open_import", "pathlib_import")
"""The packages that get a writable copy, as paths below site-packages."""

STARTED = """
import json, os, sys, sif_writable as hook, storage_observer as seen
import large, open_import, pathlib_import, solo, spacious.portion
settings = os.path.expanduser("~/.writer/settings")
if not os.path.exists(settings):
    os.makedirs(os.path.dirname(settings), exist_ok=True)
    with open(settings, "w") as file:
        file.write("yes")
files = [m.__file__ for m in (large, solo, spacious.portion, open_import, pathlib_import)]
"""
_REPORT = """
print(json.dumps({"hook": hook.state, "files": files, "area": area, "compiled": compiled, "home": settings,
                  "changes": seen.changes, "locks": seen.locks}))
"""
START = STARTED + "area, compiled = 0.0, 0\n" + _REPORT
"""What an interpreter does that needs little time: writes into HOME and into packages."""
TASK = (
    STARTED
    + """
os.environ["KIVY_NO_FILELOG"] = "1"  # every process would write one
import kivy
import compiled_kernels
area = compiled_kernels.area(3.0)
compiled = sum(compiled_kernels.area.stats.cache_misses.values())
"""
    + _REPORT
)
"""What a task does: that, and compiles a function unless a cache has it, and imports what has a seed in the image."""

LATE = """
import os, sys
try:
    import open_use, native_silent_use, swallowed_use
    for module in (open_use, native_silent_use, swallowed_use):
        module.use()
    own = os.path.join(open_use.HERE, "tasks", os.environ["SLURM_ARRAY_TASK_ID"])
    os.makedirs(own, exist_ok=True)
    with open(own + "/result", "w") as file:
        file.write("x")
except Exception:
    sys.exit(1)  # as programs do that say nothing of why
print("done")
"""
"""What a task does with packages that write at first use, one of them in object code, and whose errors it catches."""
LATE_MADE = ("open_use/log.txt", "native_silent_use/n.h5", "swallowed_use/sub/s.txt")
"""What that leaves, below site-packages."""


class Report(NamedTuple):
    """What an interpreter reported about itself."""

    hook: str
    files: list[str]
    """Where the packages came from."""
    area: float
    compiled: int
    """How many functions no cache had."""
    home: str
    changes: list[list[str]]
    """Each change of storage: the event and its paths."""
    locks: list[str]
    """The files that a lock was asked for, once for each time."""


def report(output: str) -> Report:
    """Read what an interpreter reported in its last line."""
    return Report(**json.loads(output.splitlines()[-1]))


def image() -> str:
    """Return the image."""
    everything = dict(SHAPES)
    for way in WAYS:
        everything.update(way.files)
    files = {"storage_observer.py": _OBSERVER, "compiled_kernels.py": _KERNELS}
    files["a_storage_observer.pth"] = "import storage_observer\n"
    files.update(
        (path, text)
        for path, text in everything.items()
        if re.split("[/.]", path)[0] in (*_MODULES, *_LATE_MODULES) and not path.startswith("large/part")
    )
    return built.built(_POST.format(files=json.dumps(files, indent=0))).path


_POST = """
cat > /writers.py <<'END'
import os, sysconfig
files = {files}
for number in range(300):  # so that it takes a moment to copy
    files["large/part%d.py" % number] = "value = %d\\n" % number + "# filler\\n" * 400
for path, text in files.items():
    path = os.path.join(sysconfig.get_path("purelib"), path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)
END
python /writers.py
rm /writers.py
python -m compileall -q /opt/venv/lib/python3.11/site-packages
sif-writable prestage -- python -c 'import kivy'
"""


def made(tasks: Iterable[Report]) -> Counter[str]:
    """Count how many things built aside were to appear at each path, whoever built them.

    A rename is recorded before it is tried, and one that finds a link in its place is tried again: what is counted is
    what was built.
    """
    renames = {
        tuple(paths)
        for task in tasks
        for event, *paths in task.changes
        if event == "os.rename" and os.path.basename(paths[0]).startswith(".new-")
    }
    return Counter(path for _, path in renames)


def begun(tasks: Iterable[Report]) -> Counter[str]:
    """Count how often something was begun aside, by the name that it was to have."""
    aside = {path for task in tasks for _, path, *_ in task.changes if os.path.basename(path).startswith(".new-")}
    return Counter(os.path.basename(path)[len(".new-") :].rsplit("-", 2)[0] for path in aside)


def listing(folder: str) -> dict[str, tuple[int, ...]]:
    """Return what shows every change in a folder."""
    found: dict[str, tuple[int, ...]] = {}
    for here, folders, files in os.walk(folder):
        for name in (".", *folders, *files):
            status = os.lstat(os.path.join(here, name))
            parts = (status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            found[os.path.normpath(os.path.join(here, name))] = parts
    return found


def held(folder: str) -> list[str]:
    """Return the files of a folder that somebody holds a lock of."""
    found = []
    for path, (_, mode, *_) in listing(folder).items():
        if stat.S_ISREG(mode):
            with open(path, "rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    found.append(path)
    return found


def leftovers(folder: str) -> list[str]:
    """Return what was built aside and never came to its place."""
    marks = (".new-", ".try-")
    return [path for path in listing(folder) if os.path.basename(path).startswith(marks)]
