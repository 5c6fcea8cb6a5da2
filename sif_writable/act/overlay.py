"""Make directories of the image writable in a namespace of this process's own, where nothing else can.

Everything is tried in a forked child first, which leaves nothing behind: a successful mount proves nothing where the
image's files are root's, and a process whose own namespace went wrong could not go back.

The callers are :func:`at_start`, :func:`serve` and :func:`enter`. Each returns an empty string, or a sentence why not;
none of them raises, and what is not possible leaves the process as it was.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import stat
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from sif_writable.act import directories, upper
from sif_writable.facts import ground as facts_ground
from sif_writable.facts import namespaces
from sif_writable.facts.mounts import mounts
from sif_writable.plan import overlay as plan
from sif_writable.plan.overlay import GRAFT, Plan, Target, Wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

SESSION = "SIF_WRITABLE_IN_OVERLAY"
"""Tells descendants what their namespace has: ``NAMESPACE;POINT:POINT``. It counts only in that very namespace."""
FOLDER = "overlay"
"""Below an image's folder in storage."""
TRIAL_SECONDS = 20.0
"""Seconds that the forked child may take; a filesystem that hangs shall not hang the program."""


class Entered(NamedTuple):
    """A directory that became writable."""

    point: str
    how: str
    """``graft`` or ``overlay``."""
    kept: str
    """Where in storage what is written there is, or is brought to at exit."""
    note: str
    """Why it is in memory while the program runs, or an empty string."""
    why: str
    """The evidence."""


entered: list[Entered] = []
"""What this process did; what it inherited is in :data:`SESSION`."""
refused: list[tuple[str, str]] = []
"""(path, sentence) of what was asked for and is not there."""


class _Memory(NamedTuple):
    """An upper layer in memory, to be carried back."""

    upper: str
    kept: str
    before: upper.Snapshot
    replace: bool


_memories: list[_Memory] = []


def at_start(environ: Mapping[str, str], image: str) -> str:
    """Enter what is known to be needed at interpreter start: what the user named, and the learned list.

    :param image: the folder of this image in storage; the learned list of this interpreter is below it.
    """
    listed = f"{image}/packages-{sys.implementation.cache_tag}/learned"
    wanted = list(plan.named(environ, sys.prefix, _purelib()))
    with contextlib.suppress(OSError), open(listed, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields = line.rstrip("\n").split("\t")
            if fields[:2] == ["path", "-"] and len(fields) == 5:
                # The image's own word is as good as the user's.
                wanted.append(Wanted(fields[2], fields[4] or "learned", declared=fields[3] == "manifest"))
            elif fields[0] == "package" and len(fields) == 5 and plan.mode(environ) == plan.ON and fields[2] != "*":
                wanted.append(Wanted(f"{fields[2]}/{fields[1].rpartition('.')[2]}", "learned", declared=True))
    if plan.mode(environ) == plan.ON:
        names = environ.get("SIF_WRITABLE_PACKAGES", "").replace(",", ":")
        wanted += plan.named({plan.PATHS: names}, sys.prefix, _purelib())
    problem = serve(wanted, environ, image) if wanted else ""
    if problem and not current(environ):
        os.environ[SESSION] = f"{namespaces.namespace()};"  # descendants need not ask again
    return problem


def cures(paths: Iterable[str], environ: Mapping[str, str], image: str, *, declared: bool = False) -> bool:
    """Whether something has become writable just now that an import has failed for, so that it may be tried again.

    :param declared: also in packages, as ``SIF_WRITABLE_OVERLAY=on`` asks for.
    """
    before = len(entered)
    serve([Wanted(path, "import", declared) for path in paths], environ, image)
    return len(entered) > before


def before_import(name: str, environ: Mapping[str, str], image: str) -> str:
    """Enter what a package is known to write outside its directory, before it is imported."""
    for package, paths, why in plan.PLACES:
        if package == name:
            problem = serve([Wanted(path, f"catalogue: {why}", declared=False) for path in paths], environ, image)
            if problem and not (namespaces.parallel(environ) or namespaces.threads()):
                _remember(package, paths, problem)
            return problem
    return ""


def _remember(package: str, paths: Iterable[str], problem: str) -> None:
    """Keep for ``status`` what stays impossible here: the package alone knows how to say it, and says it badly."""
    from sif_writable.act import copyup
    from sif_writable.plan.packages import PATH, Line, outside_words

    copyup.learn(
        Line(PATH, package, path, f"{outside_words(path, '')} An overlay is not possible: {problem}.", "")
        for path in paths
    )


def serve(wanted: Iterable[Wanted], environ: Mapping[str, str], image: str) -> str:
    """Make paths writable, if that is allowed and possible.

    :returns: an empty string where all of them can be written now, or why the first one can not.
    """
    try:
        looked = facts_ground.Ground()
        asked = [one._replace(path=facts_ground.resolved(one.path)) for one in wanted]
        decided = plan.decide(asked, looked, plan.mode(environ))
        refused.extend(pair for pair in decided.refused if pair not in refused)
        problem = enter(decided, environ, image)
    except Exception as error:  # noqa: BLE001 - an overlay is never worth a program
        problem = f"the overlay failed: {type(error).__name__}: {error}"
        decided = Plan((), ())
    if problem:
        for target in decided.targets:
            refused.extend((path, problem) for path in target.paths if (path, problem) not in refused)
        return problem
    return decided.refused[0][1] if decided.refused else ""


def enter(decided: Plan, environ: Mapping[str, str], image: str) -> str:
    """Mount what was decided, in namespaces of this process's own; return an empty string or why not."""
    if not decided.targets:
        return ""
    problem = namespaces.obstacle(environ)
    if problem:
        return problem
    if not image or not os.path.isdir(image):
        return "there is no storage that could hold what is written"
    folder = f"{image}/{FOLDER}"
    try:
        os.makedirs(f"{folder}/memory", 0o700, exist_ok=True)
    except OSError as error:
        return directories.complaint(error, folder, image)
    table = mounts()
    in_storage = namespaces.upper_problem(folder, table)
    circumstances = namespaces.circumstances(table)
    proven = _proven(folder, circumstances)
    unproven = {f"{target.how} {target.point!r} {target.paths!r}" for target in decided.targets} - proven
    if unproven:
        trial = f"{folder}/{directories.ASIDE}trial-{os.getpid()}"
        try:
            problem = _try_in_child(lambda: _trial(decided.targets, folder, trial, in_storage))
        finally:
            upper.remove(trial)
        if problem:
            return problem
        _note_proof(folder, [circumstances, *proven, *unproven])
    return _enter(decided.targets, folder, in_storage)


def _enter(targets: tuple[Target, ...], folder: str, in_storage: str) -> str:
    strong = privileged()
    already = current(os.environ)
    problem = separate()
    if problem:
        return problem
    problems = []
    for target in targets:
        try:
            done = _graft(target, folder) if target.how == GRAFT else _overlay(target, folder, in_storage)
        except OSError as error:
            words = namespaces.mount_words(error.errno, target.point, mounts())
            problems.append(words)
            refused.extend((path, words) for path in target.paths)
            continue
        entered.append(done)
    with contextlib.suppress(OSError):  # the working directory may be what was covered
        os.chdir(os.getcwd())
    if not strong:
        from sif_writable.act import kernel

        kernel.give_up_privileges()
    points = [*already, *(done.point for done in entered)]
    os.environ[SESSION] = f"{namespaces.namespace()};{':'.join(dict.fromkeys(points))}"
    _carry_at_exit()
    import importlib

    importlib.invalidate_caches()
    return problems[0] if problems else ""


def current(environ: Mapping[str, str]) -> list[str]:
    """Return the directories that are writable in this namespace thanks to us, by whichever process."""
    name, _, points = environ.get(SESSION, "").partition(";")
    return points.split(":") if points and name == namespaces.namespace() else []


def _purelib() -> str:
    return __file__.rsplit("/", 3)[0]


def privileged() -> bool:
    """Whether this process has capabilities, which then are not taken from it."""
    from sif_writable.act import kernel

    try:
        return kernel.privileged()
    except OSError:
        return True  # then nothing is taken away


def separate(*, strong: bool = False) -> str:
    """Enter namespaces of this process's own; return an empty string or why that is not possible.

    :param strong: the process may mount as it is, so only the mounts become its own.
    """
    try:
        from sif_writable.act import kernel
    except (ImportError, OSError) as error:  # an interpreter without ctypes
        return f"this interpreter cannot make system calls of its own ({error})"
    try:
        if strong:
            with contextlib.suppress(OSError):  # without the capability for it
                kernel.separate_mounts()
                return ""
        kernel.separate(os.geteuid(), os.getegid())
    except OSError as error:
        return namespaces.unshare_words(error.errno)
    return ""


# --- Mounting ---


def _graft(target: Target, folder: str) -> Entered:
    kept = f"{folder}/{plan.folder_name(target.point)}/graft"
    graft(target, kept)
    return Entered(target.point, target.how, kept, "", target.why)


def graft(target: Target, kept: str) -> None:
    """Mount a folder over a directory of the image, and back into it what the image has there.

    :raises OSError: it could not be mounted; then nothing is.
    """
    from sif_writable.act import kernel

    back = upper.lay_out(kept, target.point, target.paths)
    covered = os.open(target.point, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        kernel.bind(kept, target.point)
        try:
            for name in back:
                kernel.bind(f"/proc/self/fd/{covered}/{name}", f"{target.point}/{name}")
        except OSError:
            kernel.unmount(target.point)
            raise
    finally:
        os.close(covered)


def _overlay(target: Target, folder: str, in_storage: str) -> Entered:
    from sif_writable.act import kernel

    place = f"{folder}/{plan.folder_name(target.point)}"
    kept, work = f"{place}/upper", f"{place}/work"
    upper.make_folder(kept, target.point)
    note = in_storage
    if not in_storage:
        os.makedirs(work, 0o700, exist_ok=True)
        upper.mirror(target.point, kept, target.paths, f"{place}/mirrored")
        try:
            kernel.overlay(target.point, kept, work, target.point, shared=True)
        except OSError as error:
            note = namespaces.mount_words(error.errno, target.point, [])
        else:
            return Entered(target.point, target.how, kept, "", target.why)
    memory = f"{_memory(folder)}/{os.getpid()}-{plan.folder_name(target.point)}"
    upper.make_folder(f"{memory}/upper", target.point)
    os.makedirs(f"{memory}/work", 0o700)
    upper.seed(kept, f"{memory}/upper")
    upper.mirror(target.point, f"{memory}/upper", target.paths)
    before = upper.snapshot(f"{memory}/upper")
    kernel.overlay(target.point, f"{memory}/upper", f"{memory}/work", target.point, shared=False)
    _memories.append(_Memory(f"{memory}/upper", kept, before, bool(in_storage)))
    return Entered(target.point, target.how, kept, f"in memory, brought to storage at exit: {note}", target.why)


def _memory(folder: str) -> str:
    """Return a folder on a tmpfs that only this namespace sees, and that goes with it."""
    from sif_writable.act import kernel

    path = f"{folder}/memory"
    if not os.path.ismount(path):
        kernel.mount("tmpfs", path, "tmpfs", kernel.NOSUID | kernel.NODEV, "mode=0700")
    return path


def _carry_at_exit() -> None:
    if not _memories:
        return
    import atexit

    owner = os.getpid()

    def carry() -> None:
        if os.getpid() == owner:
            carry_back()

    atexit.register(carry)


def carry_back() -> list[str]:
    """Bring what was written to memory so far to storage; return what could not be brought."""
    failed = []
    for at, memory in enumerate(_memories):
        failed += upper.carry(memory.upper, memory.kept, memory.before, replace=memory.replace)
        _memories[at] = memory._replace(before=upper.snapshot(memory.upper))
    return failed


# --- The trial ---


def _proven(folder: str, circumstances: str) -> set[str]:
    """Return what a trial has shown to work here; it takes longer than all the rest together."""
    with contextlib.suppress(OSError), open(f"{folder}/proven", encoding="utf-8", errors="surrogateescape") as file:
        first, *others = file.read().split("\n")
        if first == circumstances:
            return set(others)
    return set()


def _note_proof(folder: str, lines: Iterable[str]) -> None:
    aside = f"{folder}/{directories.ASIDE}proven-{os.getpid()}-{os.urandom(4).hex()}"
    with contextlib.suppress(OSError):
        with open(aside, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write("\n".join(lines))
        os.rename(aside, f"{folder}/proven")


def _try_in_child(work: Callable[[], str]) -> str:
    """Run something in a forked child that ends with it; return what it returns, or what became of it."""
    readable, writable = os.pipe()
    try:
        child = os.fork()
    except OSError as error:
        os.close(readable)
        os.close(writable)
        return f"no child process can be made to try it in: {error.strerror}"
    if child == 0:
        _be_child(work, writable)
    os.close(writable)
    try:
        return _hear(child, readable)
    finally:
        os.close(readable)
        with contextlib.suppress(ChildProcessError):  # the program ignores SIGCHLD
            os.waitpid(child, 0)


def _be_child(work: Callable[[], str], writable: int) -> None:
    try:
        try:
            text = work() or "."
        except BaseException as error:  # noqa: BLE001 - nothing of this child may reach the program
            text = f"trying it failed: {type(error).__name__}: {error}"
        os.write(writable, text.encode("utf-8", "surrogateescape")[:4000])
    finally:
        os._exit(0)


def _hear(child: int, readable: int) -> str:
    deadline = time.monotonic() + TRIAL_SECONDS
    text = b""
    poll = select.poll()
    poll.register(readable, select.POLLIN)
    while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        part = os.read(readable, 4096)
        if not part:
            break
        text += part
    else:
        os.kill(child, signal.SIGKILL)
        return f"trying it took more than {TRIAL_SECONDS:.0f} seconds"
    words = text.decode("utf-8", "surrogateescape")
    return "" if words == "." else words or "trying it ended the child that did"


def _trial(targets: tuple[Target, ...], folder: str, trial: str, in_storage: str) -> str:
    """Do for each directory what a program may do there; return an empty string or what failed."""
    from sif_writable.act import kernel

    problem = separate()
    if problem:
        return problem
    for number, target in enumerate(targets):
        step = ""
        samples = [sample for path in target.paths for sample in _samples(path)]
        try:
            if target.how == GRAFT:
                _graft(target, folder)
                samples = []  # what is kept in storage is ours, and not to be tried with
            else:
                place = f"{_memory(folder) if in_storage else trial}/{number}"
                upper.make_folder(f"{place}/upper", target.point)
                os.makedirs(f"{place}/work", 0o700)
                upper.mirror(target.point, f"{place}/upper", samples, deep=False)
                kernel.overlay(target.point, f"{place}/upper", f"{place}/work", target.point, shared=False)
            step = "making a file"
            _exercise(target.point)
            for sample in samples:
                step = f"changing {sample}"
                (_exercise if os.path.isdir(sample) else _rewrite)(sample)
        except OSError as error:
            if not step:
                return namespaces.mount_words(error.errno, target.point, mounts())
            return f"{target.point} can be made writable, but {step} in it fails: {error.strerror}"
    return ""


def _samples(path: str) -> list[str]:
    """Return one directory and one small file of a tree, to be changed in the trial."""
    found: dict[str, str] = {}
    if os.path.isdir(path):
        with contextlib.suppress(OSError), os.scandir(path) as entries:
            for number, entry in enumerate(entries):
                if number > 200 or len(found) == 2 or entry.is_symlink():
                    continue
                kind = "directory" if entry.is_dir(follow_symlinks=False) else "file"
                size = entry.stat(follow_symlinks=False).st_size
                if kind == "directory" or (size <= upper.SMALL and os.access(entry.path, os.R_OK)):
                    found.setdefault(kind, entry.path)
    elif os.path.isfile(path) and os.path.getsize(path) <= upper.SMALL:
        found["file"] = path
    return list(found.values())


def _exercise(directory: str) -> None:
    """Make, rename and remove a file and a directory.

    :raises OSError: what a program would get.
    """
    name = f"{directory}/.try-{os.getpid()}-{os.urandom(4).hex()}"
    descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, b"x")
    finally:
        os.close(descriptor)
    os.rename(name, name + "-renamed")
    os.unlink(name + "-renamed")
    os.mkdir(name)
    os.rmdir(name)


def _rewrite(path: str) -> None:
    """Rewrite a file in place, then replace it.

    :raises OSError: what a program would get.
    """
    if not stat.S_ISREG(os.lstat(path).st_mode):
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.write(descriptor, os.pread(descriptor, 1, 0))
    finally:
        os.close(descriptor)
    aside = f"{os.path.dirname(path)}/.try-{os.getpid()}"
    os.close(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    os.rename(aside, path)
