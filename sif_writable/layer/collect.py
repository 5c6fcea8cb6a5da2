"""Which layers are dead, and what becomes of what was written to them.

Dead is what the kernel says: the trial mount of an upper directory gives EBUSY while any process has it, whoever made
it, in whatever namespace, and whether its maker lives or not.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import time
from typing import TYPE_CHECKING

from sif_writable.layer import child, decide, files, forget, full, generations, kernel, merge, mount, replicas
from sif_writable.layer.enter import directories, note_member, read
from sif_writable.layer.mount import NEW
from sif_writable.layer.seen import about, kept_of, look
from sif_writable.signals import suppress
from sif_writable.startup import let_pass

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from sif_writable.layer import enter

SECONDS = 10.0
"""How long a start and an exit wait for storage that is silent; what is not published by then is left to the next."""
DYING_SECONDS = 0.5
UNFINISHED_SECONDS = 3600.0
"""After that a layer that was never mounted belongs to a process that was killed."""
STALE_SECONDS, LONG_AGO = 86400.0, 60 * 86400.0
IN_MEMORY = "memory-"
"""How the folders of layers are called that are on a tmpfs of their own: see :mod:`.memory`."""
ALIVE, DEAD, UNKNOWN = "alive", "dead", "unknown"


def before_making(place: str, folder: str, origin: str, dying: Collection[str] = ()) -> str:
    """Publish what dead layers of this node hold, and copy the newest generation; return the folder to mount from.

    :param folder: the generations.
    :param origin: what tells that folder from others.
    :param dying: names of layers that this very container had, whose processes are gone.
    """
    answer = child.ask(lambda: _collect(place, folder, origin, dying), SECONDS)
    if answer is None:
        say(f"what earlier runs wrote may be missing here: storage has not answered for {SECONDS:.0f} seconds")
        return replicas.newest_replica(place, origin)
    base, _, lines = answer.partition("\n")
    say(lines)
    return base


def _collect(place: str, folder: str, origin: str, dying: Collection[str] = ()) -> str:
    lines = []
    names = sorted(name for name in os.listdir(place) if name.startswith(("upper-", f"{NEW}upper-")))
    state = _states(place, names, dying)
    for name in names:
        if state[name] == DEAD:
            lines += _take_in(place, name, folder, origin)
    try:
        base, line = replicas.replicate(folder, place)
        lines.append(line)
    except (OSError, ValueError) as error:
        let_pass(error)
        base = replicas.newest_replica(place, origin)
        lines.append(f"what earlier runs wrote may be missing here: {_words(error)} ({_path(error) or place})")
    generations.tidy(folder, time.time())
    _tidy(place, base, time.time())
    return "\n".join([base, *lines])


def _states(place: str, names: list[str], dying: Collection[str] = ()) -> dict[str, str]:
    """Ask the kernel which layers are dead; this process gets namespaces of its own for it.

    :param dying: those that are waited for: their mounts end some milliseconds after their last process.
    """
    if not names:
        return {}
    found = dict.fromkeys(names, UNKNOWN)
    try:
        kernel.separate(os.geteuid(), os.getegid())
    except OSError as error:
        let_pass(error)
        return found
    aside = f"{place}/{NEW}{os.urandom(8).hex()}"
    with suppress(OSError):
        os.mkdir(aside, 0o700)
        for name in names:
            child.progress()
            with suppress(OSError):  # another process has removed it
                found[name] = _state(f"{place}/{name}", aside)
                deadline = time.monotonic() + DYING_SECONDS
                while name in dying and found[name] == ALIVE and time.monotonic() < deadline:
                    time.sleep(0.01)
                    found[name] = _state(f"{place}/{name}", aside)
    kernel.drop_capabilities()
    files.remove(aside)
    return found


def _state(folder: str, aside: str) -> str:
    """Ask about one layer. Its own work is left alone: who asks from within it finds the image there.

    :param aside: an empty folder on the same filesystem.
    """
    numbers = [name for name in os.listdir(folder) if name.isdigit()]
    for number in numbers:
        lower, work = (f"{aside}/{os.urandom(8).hex()}" for _ in range(2))
        os.mkdir(lower, 0o700)
        os.mkdir(work, 0o700)
        try:
            kernel.overlay([lower], f"{folder}/{number}", work, lower, "userxattr,index=on")
        except OSError as error:
            let_pass(error)
            if error.errno == errno.EBUSY:
                return ALIVE
            if error.errno not in {errno.EINVAL, errno.ESTALE, errno.ENOENT}:
                return UNKNOWN
        else:
            kernel.unmount(lower)
    return DEAD


def _take_in(place: str, name: str, target: str, origin: str) -> list[str]:
    """Publish a dead layer and remove it; return what is to be said.

    What goes to another storage than this run has waits for one that has it.
    """
    folder = f"{place}/{name}"
    try:
        if name.startswith(NEW) and time.time() - os.lstat(folder).st_mtime < UNFINISHED_SECONDS:
            return []  # it is being made
        if files.status_of(f"{folder}/about") is None and not _is_written(folder):  # its maker was killed at once
            replicas.drop(place, name)
            return []
        lock = _lock(folder)
    except OSError as error:
        let_pass(error)
        return [] if error.errno == errno.ENOENT else [_kept(folder, error)]
    if lock < 0:
        return []
    try:
        boot, _, recorded, recorded_origin = about(folder)[:4]
        if recorded_origin != origin or (not origin and recorded != target):
            return []
        if boot == mount.boot():
            lines = publish(folder, lambda _, directory: directory, target)  # no layer is over it here
        else:  # the disk may hold half of it: nothing was flushed for it
            lost = "what was written here when this machine stopped is lost, since half of it may be missing"
            lines = [lost] if _is_written(folder) else []
        replicas.drop(place, name)
    except (OSError, ValueError) as error:
        let_pass(error)
        return [_kept(folder, error)]
    else:
        return lines
    finally:
        os.close(lock)


def _is_written(folder: str) -> bool:
    return any(os.listdir(f"{folder}/{name}") for name in os.listdir(folder) if name.isdigit())


def _kept(folder: str, error: BaseException) -> str:
    where = f" ({_path(error)})" if _path(error) else ""
    return (
        f"what an earlier run wrote in the environment is not in storage yet: {_words(error)}{where}. "
        f"It is kept in {folder}, and the next start on this node tries again"
    )


def at_exit(layer: enter.Layer) -> None:
    """Publish a layer if this process is the last one in it: another one does it, which storage cannot hold up."""
    with suppress(OSError):  # where there is no space for a line, others look at /proc all the same
        note_member(layer.folder, f"-{os.getpid()}\n")
    if line := full.line(layer.folder):  # where the program has swallowed that its writes failed
        say(line)
    if kept_of(layer.folder) == merge.NONE or not _is_last(layer.folder, {str(os.getpid())}):
        return
    lines = child.start(__name__, [layer.folder], SECONDS)
    say(_later(layer.folder, f"storage has not answered for {SECONDS:.0f} seconds") if lines is None else lines)


def main(words: Sequence[str]) -> None:
    """Publish a layer from within: what :func:`at_exit` starts.

    :param words: the folder of the layer.
    """
    child.alone()
    child.reports_to(1)
    child.answer("\n".join(_publish_from_within(words[0])))


def _publish_from_within(folder: str) -> list[str]:
    alone = {str(os.getpid()), str(os.getppid())}
    try:
        deadline = time.monotonic() + SECONDS
        while (lock := _lock(folder)) < 0:  # one that has ended just before publishes what was there then
            child.progress()
            time.sleep(0.01)
            if time.monotonic() > deadline:
                return []
    except OSError as error:
        let_pass(error)
        return [_later(folder, _words(error))]
    try:
        os.chmod(f"{folder}/hidden", 0o700)
        return publish(folder, lambda number, _: f"{folder}/hidden/{number}", alone=alone)
    except (OSError, ValueError) as error:
        let_pass(error)
        return [_later(folder, _words(error))]
    finally:
        with suppress(OSError):
            os.chmod(f"{folder}/hidden", 0o000)
        os.close(lock)


def _lock(folder: str) -> int:
    """Have a layer to this process alone; return a descriptor that is to be closed.

    The kernel's locks by process end where any descriptor of the file is closed; `about` is read, so this is no such.

    :returns: -1 where another process has it.
    :raises OSError: ENOENT where the layer is gone.
    """
    descriptor = os.open(f"{folder}/about", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.stat(f"{folder}/about")  # who had it may have removed the layer
    except BlockingIOError as error:
        let_pass(error)
        os.close(descriptor)
        return -1
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _words(error: BaseException) -> str:
    """Return what went wrong, without the name of a file that was being made."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _path(error: BaseException) -> str:
    return str(getattr(error, "filename", None) or "")


def _later(folder: str, why: str) -> str:
    if os.path.basename(folder).startswith(IN_MEMORY):
        return f"what was written in the environment is lost: it was in memory, and is not in storage: {why}"
    return (
        f"what was written in the environment is not in storage yet: {why}. "
        f"It is kept in {folder}, and the next start on this node publishes it"
    )


def _is_last(folder: str, own: Collection[str]) -> bool:
    """Whether no other process is seen in a layer, but such as are about to end.

    One that cannot be looked into, since it has a namespace of its own, counts where it has made or joined the layer;
    what another one writes later is folded in when it has ended.

    :param own: the numbers of processes that do not count.
    """
    place = os.readlink("/proc/self/ns/pid")
    leaving, members = set(own), set()
    for line in read(f"{folder}/members").splitlines():
        pid, where = [*line.split(" ")[:2], ""][:2]
        if pid.startswith("-"):
            leaving.add(pid[1:])
        elif where != place:
            return False  # not all that there are can be seen from here
        elif pid not in own:
            leaving.discard(pid)
            members.add(pid)
    top = directories(folder)[0]
    device = os.stat(top).st_dev
    for name in os.listdir("/proc"):
        if name.isdigit() and name not in leaving:
            try:
                same = os.stat(f"/proc/{name}/root{top}").st_dev == device  # also in a namespace below the layer's
                if same and not child.is_ours(name):
                    return False
            except OSError as error:  # it has just ended, or may not be looked into
                let_pass(error)
                if isinstance(error, PermissionError) and name in members:
                    return False
    return True


def publish(
    folder: str, original: Callable[[int, str], str], target: str = "", alone: Collection[str] = ()
) -> list[str]:
    """Publish what was written to one layer; return what is to be said.

    :param original: tells where the directory with a number is seen as it is in the image.
    :param target: the generations; by default where they were when the layer was made.
    :param alone: numbers of processes that may be in the layer; where others have come, nothing is published, since
        they may be writing: the last of them publishes it. Without any, the layer is dead.
    :raises OSError: storage does not take it.
    """
    recorded, origin = about(folder)[2:4]
    target = target or recorded
    if origin and origin not in os.listdir(target):
        raise FileNotFoundError(errno.ENOENT, "the storage of that run is not there", target)
    layer, seen, changes, kept = look(folder, original)

    def still() -> bool:
        again = look(folder, original)[0]
        return again.state == layer.state and _is_last(folder, alone)

    done = generations.publish(target, layer, still if alone else None)
    if done.number < 0:
        return []
    lines = []
    how, installed = kept_of(folder), seen.installed(changes)
    usual = kept if how == merge.NEW else merge.keep(changes, merge.NEW, replaces=seen.replaces, installed=installed)
    special = [path for path in usual.dropped if "/__pycache__/" not in path]
    told = f"{len(special)} {special[0]}" if special else ""  # other files may have changed since
    if special and how != merge.NONE and read(f"{folder}/told") != told:  # said once, though it may be seen twice
        with suppress(OSError), open(f"{folder}/told", "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(told)
        words = f"{_first(special)}: code of the image, or installed into it; "
        if how == merge.NEW:
            words += f"gone with this container's last process. {decide.KEEP}=all keeps such changes"
        else:
            names = [unit.names[0] for unit in forget.units(special, lambda path: read(seen.source(path)))]
            words += f"later runs have it, too. To undo this: sif-writable cache forget {' '.join(names)}"
        lines.append(words)
    both = [where for where, who in done.conflicts if who != merge.FORGOTTEN]
    if both:
        side = "earlier" if (both[0], merge.OURS) in done.conflicts else "later"
        where = done.set_aside or "lost: it had only removed something"
        lines.append(
            f"{_first(both)} {'was' if len(both) == 1 else 'were'} changed by two containers at once; "
            f"the {side} published files are in {where}"
        )
    elif done.conflicts:
        words = f"; it is in {done.set_aside}" if done.set_aside else ""
        lines.append(
            f"{done.conflicts[0][0]} was forgotten while a program used it, so what that wrote is not kept{words}"
        )
    return lines


def _first(paths: list[str]) -> str:
    return f"{paths[0]} and {len(paths) - 1} more" if len(paths) > 1 else paths[0]


def _tidy(place: str, base: str, now: float) -> None:
    """Remove from this node what nobody uses: replicas, what containers noted whose layer is gone, things aside."""
    for name in os.listdir(place):
        with suppress(OSError):  # another process removes it
            age = now - os.lstat(f"{place}/{name}").st_mtime
            if name.startswith(replicas.GONE):
                files.remove(f"{place}/{name}")
            elif name.startswith(NEW) and not name.startswith(f"{NEW}upper-") and age > STALE_SECONDS:
                replicas.drop(place, name)
            elif name.startswith(IN_MEMORY) and (age > LONG_AGO or about(f"{place}/{name}")[0] != mount.boot()):
                replicas.drop(place, name)  # nobody can be in it any more
            elif name.startswith("container-") and age > UNFINISHED_SECONDS:
                layer = os.readlink(f"{place}/{name}").partition(":")[0]
                if not os.path.isdir(f"{place}/{layer}"):
                    os.unlink(f"{place}/{name}")
    with suppress(OSError):  # what cannot be read may be in use
        replicas.drop_unused(place, base, now, _used(place))


def _used(place: str) -> set[str]:
    """Return the replicas that layers of this node were made from."""
    used = set()
    for name in os.listdir(place):
        if name.startswith(("upper-", f"{NEW}upper-")):
            with suppress(FileNotFoundError):  # it was collected, or has not got so far as to choose
                used.add(about(f"{place}/{name}")[1])
    return used


def say(lines: str) -> None:
    """Write lines to stderr, if there is one."""
    if lines.strip() and sys.stderr is not None:
        with suppress(OSError, ValueError):
            sys.stderr.write("".join(f"sif_writable: {line}\n" for line in lines.splitlines() if line))
