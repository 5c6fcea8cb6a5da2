"""Run a command, and record what it writes below the image.

Where possible, each directory of the image gets an overlay in memory, in namespaces that end with the command.
Whichever program writes, the result is found there afterwards, and the image is unchanged. Besides,
interpreters report what they try.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import stat
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from sif_writable import LAYER, MODE
from sif_writable.mounted import covering
from sif_writable.overlay import decide, mounting, obstacles, path_queries
from sif_writable.overlay import layers as upper
from sif_writable.overlay.decide import GRAFT, NEVER, OVERLAY, Target
from sif_writable.settings import IN_OVERLAY
from sif_writable.stderr import say
from sif_writable.system.mounts import mounts
from sif_writable.system.program import not_started
from sif_writable.trace import places
from sif_writable.trace.findings import CHANGED, CREATED, REMOVED, Change, Record, is_bytecode, records

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LOG = f"{MODE}_TRACE"
_PREFIX = "sif-writable-trace-"
_YOUNG = 60.0
"""Seconds after its creation in which a folder may not have its lock yet."""
HOOK = f"{os.path.dirname(os.path.dirname(os.path.abspath(__file__)))}/hook/trace"
_PROGRAM_FILES = (".py", ".pyi", ".so", ".a", ".h", ".hpp", ".cuh", ".pxd", ".pyx")
"""Suffixes of files that are not copied beforehand where root owns them: no program rewrites these in place."""


class Traced(NamedTuple):
    """How a traced command ended, and what it wrote."""

    code: int
    """Exit code of the command; 128 and the signal's number where a signal ended it, 127 where there is none."""
    pid: int
    problem: str
    """Why the directories could not be covered, so that only what interpreters report is known; or empty."""
    unwatched: list[str]
    """Directories of the image that could not be watched."""
    changes: list[Change]
    reported: list[Record]


class _Watched(path_queries.PathQueries):
    """The image as it is covered: also what can be written in it, as while it is built."""

    def writable(self, path: str) -> bool:  # noqa: ARG002
        """Count nothing as writable; what is mounted into the image is excluded elsewhere."""
        return False


class _Layer(NamedTuple):
    """What catches the writes to one directory of the image."""

    point: str
    path: str
    original: int
    """A descriptor of the directory as the image has it."""
    before: upper.Snapshot
    times: dict[str, int]
    """Times of directories in it, before the command."""


def run(argv: Sequence[str], *, quiet: bool, image: str = "") -> Traced:
    """Run a command and watch it.

    :param quiet: send its stdout to stderr.
    :param image: the name of this image's folder in storage.
    """
    _collect_killed(tempfile.gettempdir())
    folder = tempfile.mkdtemp(prefix=_PREFIX)
    held = _hold(folder)
    readable, writable = os.pipe()
    try:
        holder = os.fork()
        if holder == 0:
            os.close(readable)
            _be_holder(argv, folder, writable, quiet=quiet, image=image)
        os.close(writable)
        handlers = _pass_signals_to(holder)
        try:
            with open(readable, "rb") as answers:
                answer = json.loads(answers.read() or "{}")
            os.waitpid(holder, 0)
        finally:
            for number, handler in handlers:
                signal.signal(number, handler)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)
    changes = [Change(*change) for change in answer.get("changes", ())]
    return Traced(
        answer.get("code", 125),
        answer.get("pid", 0),
        answer.get("problem", "the process that watched has ended"),
        answer.get("unwatched", []),
        changes,
        records(answer.get("reported", "")),
    )


def _hold(folder: str) -> int:
    """Lock a folder for this process and the holder of the namespaces; the kernel unlocks it when both have ended."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def _collect_killed(directory: str) -> None:
    """Remove the folders of traces that were killed, which nobody holds."""
    for name in os.listdir(directory):
        if not name.startswith(_PREFIX):
            continue
        path = f"{directory}/{name}"
        with contextlib.suppress(OSError):
            status = os.lstat(path)
            if status.st_uid != os.geteuid() or time.time() - status.st_mtime < _YOUNG:
                continue
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(descriptor)


def _pass_signals_to(process: int) -> list[tuple[int, Any]]:
    """Leave Ctrl-C to the command, which gets it from the terminal too, and pass on what is sent to us alone."""
    before: list[tuple[int, Any]] = [
        (number, signal.signal(number, signal.SIG_IGN)) for number in (signal.SIGINT, signal.SIGQUIT)
    ]

    def forward(number: int, _frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)

    return before + [(number, signal.signal(number, forward)) for number in (signal.SIGTERM, signal.SIGHUP)]


def _be_holder(argv: Sequence[str], folder: str, writable: int, *, quiet: bool, image: str) -> None:
    """Hold the namespaces while the command runs in them, then report what it has changed."""
    answer: dict[str, object] = {}
    try:
        log = f"{folder}/log"
        with open(log, "w", encoding="utf-8"):
            pass
        layers: list[_Layer] = []
        unwatched: list[str] = []
        problem = ""
        try:
            problem = _watch(folder, layers, unwatched)
        except OSError as error:
            problem = f"the image could not be covered: {error}"
        pid = os.fork()
        if pid == 0:
            _be_command(argv, log, layers, quiet=quiet, image=image)
        _pass_signals_to(pid)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with open(log, encoding="utf-8", errors="backslashreplace") as file:
            reported = file.read()
        changes = [change for layer in layers for change in _changes(layer)]
        answer = {
            "code": 128 - code if code < 0 else code,
            "pid": pid,
            "problem": problem,
            "unwatched": unwatched,
            "changes": changes,
            "reported": reported,
        }
    except BaseException as error:  # noqa: BLE001 - the parent reports it
        answer["problem"] = f"{type(error).__name__}: {error}"
    finally:
        with contextlib.suppress(OSError), open(writable, "wb") as answers:
            answers.write(json.dumps(answer).encode())
        os._exit(0)


def _be_command(argv: Sequence[str], log: str, layers: list[_Layer], *, quiet: bool, image: str) -> None:
    code = 127
    try:
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        if quiet:
            os.dup2(2, 1)
        os.environ[LOG] = log
        path = os.environ.get("PYTHONPATH", "")
        os.environ["PYTHONPATH"] = f"{HOOK}:{path}" if path else HOOK
        if layers:
            points = ":".join(layer.point for layer in layers)
            os.environ[IN_OVERLAY] = f"{obstacles.namespace()};{points}"
            # It counts as the command's layer: it is never published, and no process makes another one inside.
            os.environ[LAYER] = f"{obstacles.namespace()}:{covering(sys.prefix)}:{image}:{sys.prefix}"
        with contextlib.suppress(OSError):  # the working directory may be what was covered
            os.chdir(os.getcwd())
        os.execvp(argv[0], list(argv))  # noqa: S606 - the user's own command, no shell between
    except OSError as error:
        code, words = not_started(argv[0], error)
        say([words])
    finally:
        sys.stderr.flush()
        os._exit(code)


# --- Watching ---


def _watch(folder: str, layers: list[_Layer], unwatched: list[str]) -> str:
    """Cover every directory of the image; return why none could be."""
    problem = obstacles.threads() or obstacles.switched_off()
    if problem:
        return problem
    targets = list(_targets())
    strong = mounting.privileged()
    problem = mounting.separate(strong=strong)
    if problem:
        return problem
    from sif_writable.layer import join, kernel
    from sif_writable.overlay.kernel import overlay

    memory = f"{folder}/layers"
    os.mkdir(memory)
    kernel.mount("tmpfs", memory, "tmpfs", kernel.NOSUID | kernel.NODEV, "mode=0700")
    # By its descriptor, since what is covered next may be what it lies in.
    memory = f"/proc/self/fd/{os.open(memory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)}"
    for number, target in enumerate(targets):
        path = f"{memory}/{number}/upper"
        original = os.open(target.point, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if target.how == GRAFT:
                mounting.graft(target, path)
            else:
                upper.make_folder(path, target.point)
                os.mkdir(f"{memory}/{number}/work", 0o700)
                upper.mirror(target.point, path, [target.point], leave=_PROGRAM_FILES)
                overlay(target.point, path, f"{memory}/{number}/work", target.point, shared=False)
        except OSError as error:
            unwatched.append(f"{target.point} ({obstacles.mount_words(error.errno, target.point, mounts())})")
            os.close(original)
            continue
        times = {n: status.st_mtime_ns for _, n, status in upper.walk(path) if stat.S_ISDIR(status.st_mode)}
        layers.append(_Layer(target.point, path, original, upper.snapshot(path), times))
    if not strong:
        join.drop_capabilities()
    if not layers:
        return unwatched[0] if unwatched else "there is no directory of the image to watch"
    return ""


def _targets() -> Iterator[Target]:
    """Yield what covers the image: its top-level directories, as far as the kernel lets them be covered as a whole.

    On a host, what covers the environment's directories.
    """
    looked = _Watched()
    directories = places.of_environment()
    if directories is not None:
        for path in directories:
            yield from decide.whole(path, OVERLAY, looked)
        return
    points = {mount.point for mount in looked.table}
    for name in looked.entries("/") or ():
        path = f"/{name}"
        if path in NEVER or not looked.is_directory(path) or (path in points and os.access(path, os.W_OK)):
            continue
        if path in points and places.is_of_host(path):
            continue
        if not os.access(path, os.R_OK | os.X_OK):
            continue
        if any(mount.point == path and mount.type.startswith(("proc", "sysfs", "cgroup")) for mount in looked.table):
            continue
        yield from decide.whole(path, OVERLAY, looked)


def _changes(layer: _Layer) -> Iterator[Change]:
    found: list[tuple[str, str, int]] = []
    for _, name, status in upper.walk(layer.path):
        state = upper.state(status)
        try:
            old = os.stat(name, dir_fd=layer.original, follow_symlinks=False)
        except OSError:
            old = None
        if stat.S_ISDIR(status.st_mode):
            if old is None:
                found.append((name, CREATED, 0))
            elif status.st_mtime_ns not in (layer.times.get(name), old.st_mtime_ns):
                found.append((name, CHANGED, 0))
        elif layer.before.get(name) == state:
            continue
        elif stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            found.append((name, REMOVED, 0))
        else:
            found.append((name, CREATED if old is None else CHANGED, status.st_size))
    found = [one for one in found if not is_bytecode(f"/{one[0]}")]
    for name, what, size in found:
        # A directory changes with its entries; it is listed itself only where none of these is listed.
        if what == CHANGED and any(other.startswith(f"{name}/") for other, _, _ in found):
            continue
        yield Change(f"{layer.point}/{name}", what, size)
