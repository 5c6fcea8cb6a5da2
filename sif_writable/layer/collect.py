"""Which layers are dead, and what becomes of what was written to them.

Dead is what the kernel says: the trial mount of an upper directory gives EBUSY while any process has it, whoever made
it, in whatever namespace, and whether its maker lives or not.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import time
from typing import TYPE_CHECKING

from sif_writable.layer import child, decide, files, forget, generations, kernel, merge, mount
from sif_writable.layer.enter import note_member, read
from sif_writable.layer.merge import FILE, FOLDER, GONE, LINK, Change
from sif_writable.layer.mount import NEW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sif_writable.layer import enter

START_SECONDS, EXIT_SECONDS = 10.0, 30.0
"""How long a start and an exit wait for storage at most; what is not published by then is left to the next start."""
UNFINISHED_SECONDS = 3600.0
"""After that a layer that was never mounted belongs to a process that was killed."""
ALIVE, DEAD, UNKNOWN = "alive", "dead", "unknown"


def before_making(place: str, folder: str) -> str:
    """Publish what dead layers of this node hold, and copy the newest generation; return the folder to mount from.

    :param folder: the generations.
    """
    answer = child.ask(lambda: _collect(place, folder), START_SECONDS)
    base, _, lines = (answer or "").partition("\n")
    _say(lines)
    if answer is None:  # then with what is here already
        kept = [int(name[8:]) for name in os.listdir(place) if name[:8] == "replica-" and name[8:].isdigit()]
        return f"{place}/replica-{max(kept)}" if kept else ""
    return base


def _collect(place: str, folder: str) -> str:
    lines = []
    names = sorted(name for name in os.listdir(place) if name.startswith(("upper-", f"{NEW}upper-")))
    state = _states(place, names)
    for name in names:
        old = time.time() - os.lstat(f"{place}/{name}").st_mtime > UNFINISHED_SECONDS
        if state[name] == DEAD and (not name.startswith(NEW) or old):
            lines += _take_in(place, name)
    base = ""
    with contextlib.suppress(OSError):
        base = generations.replicate(folder, place)
    generations.tidy(folder, time.time())
    _drop_replicas(place, base)
    _drop_containers(place)
    return "\n".join([base, *lines])


def _states(place: str, names: list[str]) -> dict[str, str]:
    """Ask the kernel which layers are dead; this process gets namespaces of its own for it."""
    if not names:
        return {}
    found = dict.fromkeys(names, UNKNOWN)
    try:
        kernel.separate(os.geteuid(), os.getegid())
    except OSError:
        return found
    for name in names:
        found[name] = _state(f"{place}/{name}")
    kernel.drop_capabilities()
    return found


def _state(folder: str) -> str:
    numbers = [name for name in os.listdir(folder) if name.isdigit()]
    for number in numbers:
        here = f"{folder}/{number}"
        try:
            kernel.overlay([f"{here}/hidden"], f"{here}/upper", f"{here}/work", f"{here}/hidden", "userxattr,index=on")
        except OSError as error:
            if error.errno == errno.EBUSY:
                return ALIVE
            if error.errno not in {errno.EINVAL, errno.ESTALE, errno.ENOENT}:
                return UNKNOWN
        else:
            kernel.unmount(f"{here}/hidden")
    return DEAD


def _take_in(place: str, name: str) -> list[str]:
    """Publish a dead layer and remove it; return what is to be said."""
    folder = f"{place}/{name}"
    try:
        descriptor = os.open(f"{folder}/about", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        files.remove(folder)
        return []
    try:
        os.lockf(descriptor, os.F_TLOCK, 0)
        if not os.path.exists(f"{folder}/about"):
            return []
        if read(f"{folder}/about").partition("\n")[0] == mount.boot():
            lines = publish(folder, lambda _, directory: directory)  # no layer is over it here
        else:  # the disk may hold half of it: nothing was flushed for it
            lines = ["what was written here when this machine stopped is lost, since half of it may be missing"]
        files.remove(folder)
    except OSError as error:
        if error.errno in {errno.EACCES, errno.EAGAIN}:  # another process takes it in
            return []
        return [f"what was written in {folder} is kept there: {error.filename or ''} {error.strerror}".strip()]
    else:
        return lines
    finally:
        os.close(descriptor)


def at_exit(layer: enter.Layer) -> None:
    """Publish a layer if this process is the last one in it."""
    note_member(layer.folder, f"-{os.getpid()}\n")
    if kept_of(layer.folder) == merge.NONE or not _is_last(layer):
        return
    if os.stat("/proc/self/task").st_nlink <= mount.ALONE:  # a child inherits what other threads have locked
        with contextlib.suppress(RuntimeError):  # CPython 3.12 forks no more when it ends
            _say(child.ask(lambda: "\n".join(_publish_from_within(layer)), EXIT_SECONDS) or "")
            return
    _say("\n".join(_publish_from_within(layer)))


def _publish_from_within(layer: enter.Layer) -> list[str]:
    descriptor = os.open(f"{layer.folder}/about", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    hidden = [f"{upper[:-5]}hidden" for upper in layer.uppers()]
    try:
        os.lockf(descriptor, os.F_TLOCK, 0)
        for folder in hidden:
            os.chmod(folder, 0o700)
        try:
            return publish(layer.folder, lambda number, _: f"{hidden[number]}/image")
        finally:
            for folder in hidden:
                os.chmod(folder, 0o000)
    except OSError:  # another one that ends at this moment does it, or the next start does
        return []
    finally:
        os.close(descriptor)


def _is_last(layer: enter.Layer) -> bool:
    """Whether no other process is seen in this layer, but such as are about to end.

    One that cannot be looked into is missed; what it writes later is folded in when it has ended.
    """
    place = os.readlink("/proc/self/ns/pid")
    leaving = {str(os.getpid())}
    for line in read(f"{layer.folder}/members").splitlines():
        pid, _, where = line.partition(" ")
        if pid.startswith("-"):
            leaving.add(pid[1:])
        elif where != place:
            return False  # not all that there are can be seen from here
        elif pid != str(os.getpid()):
            leaving.discard(pid)
    here = os.readlink("/proc/self/ns/mnt")
    for name in os.listdir("/proc"):
        if name.isdigit() and name not in leaving:
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{name}/ns/mnt") == here:
                    return False
    return True


def publish(folder: str, original: Callable[[int, str], str]) -> list[str]:
    """Publish what was written to one layer; return what is to be said.

    :param original: tells where the directory with a number is seen as it is in the image.
    :raises OSError: storage does not take it.
    """
    _, base, target, *directories = read(f"{folder}/about").splitlines()
    seen = Seen(folder, base, directories, [original(n, directory) for n, directory in enumerate(directories)])
    changes = list(seen.changes())
    how = kept_of(folder)
    installed = seen.installed(changes)
    kept = merge.keep(changes, how, in_image=seen.in_image, installed=installed)
    number = int(base.rpartition("-")[2] or 0)
    name = os.path.basename(folder)
    layer = generations.Layer(name, kept.changes, seen.source, number, base, seen.in_image)
    done = generations.publish(target, layer)
    lines = []
    usual = kept if how == merge.NEW else merge.keep(changes, merge.NEW, in_image=seen.in_image, installed=installed)
    special = [path for path in usual.dropped if "/__pycache__/" not in path]
    told = f"{len(changes)}.{len(special)}"
    if special and how != merge.NONE and read(f"{folder}/told") != told:  # said once, though it may be seen twice
        with contextlib.suppress(OSError), open(f"{folder}/told", "w", encoding="ascii") as file:
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
        lines.append(f"{_first(both)} was changed by two containers at once; the {side} published files are in {where}")
    elif done.conflicts:
        words = f"; it is in {done.set_aside}" if done.set_aside else ""
        lines.append(
            f"{done.conflicts[0][0]} was forgotten while a program used it, so what that wrote is not kept{words}"
        )
    return lines


def kept_of(folder: str) -> str:
    """Return what of a layer is to be kept: what a process in it had in its environment when it entered."""
    return merge.mode({decide.KEEP: read(f"{folder}/keep")})


def _first(paths: list[str]) -> str:
    return f"{paths[0]} and {len(paths) - 1} more" if len(paths) > 1 else paths[0]


class Seen:
    """What a layer changed, as its upper directories show it."""

    def __init__(self, folder: str, base: str, directories: list[str], originals: list[str]) -> None:
        """:param originals: where each directory is seen as it is in the image."""
        self.folder = folder
        self.base = base
        self.directories = directories
        self.originals = originals

    def _number(self, path: str) -> int:
        for number, directory in enumerate(self.directories):
            if path == directory or path.startswith(f"{directory}/"):
                return number
        raise ValueError(path)

    def source(self, path: str) -> str:
        """Return where a path is in its upper directory."""
        number = self._number(path)
        return f"{self.folder}/{number}/upper{path[len(self.directories[number]) :]}"

    def original(self, path: str) -> str:
        """Return where a path is as it is in the image."""
        number = self._number(path)
        return f"{self.originals[number]}{path[len(self.directories[number]) :]}"

    def in_image(self, path: str) -> bool:
        """Whether the image has a path."""
        try:
            return os.path.lexists(self.original(path))
        except ValueError:
            return False

    def changes(self) -> Iterator[Change]:
        """Yield what was changed; what holds it first."""
        for number, directory in enumerate(self.directories):
            top = f"{self.folder}/{number}/upper"
            for name, status in files.walk(top):
                here, path = f"{top}/{name}", f"{directory}/{name}"
                if files.is_whiteout(here, status):
                    when = os.lstat(os.path.dirname(here)).st_mtime_ns  # the kernel uses one inode for all of them
                    yield from self._gone(path, when)
                elif stat.S_ISDIR(status.st_mode):
                    if not self.in_image(path):
                        yield Change(path, FOLDER, status.st_ctime_ns)
                    if files.is_opaque(here):
                        yield from self._hidden(here, path, status.st_mtime_ns)
                elif stat.S_ISREG(status.st_mode):
                    yield Change(path, FILE, status.st_ctime_ns)
                elif stat.S_ISLNK(status.st_mode):
                    yield Change(path, LINK, status.st_ctime_ns)

    def _gone(self, path: str, when: int) -> Iterator[Change]:
        """Yield what of a removed path is to be removed: file by file where a directory holds code."""
        original = self.original(path)
        below = [name for name, _ in files.walk(original)] if os.path.isdir(original) else []
        if any(merge.is_code(f"{path}/{name}") for name in below):
            for name in below:
                if not os.path.isdir(f"{original}/{name}"):
                    yield Change(f"{path}/{name}", GONE, when)
        else:
            yield Change(path, GONE, when)

    def _hidden(self, here: str, path: str, when: int) -> Iterator[Change]:
        """Yield what a directory hides that was removed and made again."""
        names: set[str] = set()
        for lower in (self.original(path), f"{self.base}/tree{path}" if self.base else ""):
            with contextlib.suppress(OSError):
                names.update(os.listdir(lower) if lower else ())
        for name in sorted(names):
            if not os.path.lexists(f"{here}/{name}"):
                yield from self._gone(f"{path}/{name}", when)

    def installed(self, changes: list[Change]) -> set[str]:
        """Return the paths of distributions that were installed, changed or removed in the layer."""
        records: dict[str, list[str]] = {}
        for change in changes:
            where, metadata, name = change.path.partition(".dist-info")
            if metadata and (name in {"", "/RECORD"}):
                record = f"{where}.dist-info/RECORD"
                for path in (self.source(record), self.original(record)):
                    records.setdefault(record, []).extend(read(path).splitlines())
        return merge.installed(records)


def _drop_replicas(place: str, base: str) -> None:
    """Remove replicas that no layer of this node was made from; one that is mounted would take the image along."""
    used = {base}
    names = os.listdir(place)
    for name in names:
        if name.startswith(("upper-", f"{NEW}upper-")):
            used.update(read(f"{place}/{name}/about").splitlines()[1:2])
    for name in names:
        if name.startswith("replica-") and f"{place}/{name}" not in used:
            gone = f"{place}/{generations.ASIDE_REPLICA}{os.urandom(8).hex()}"
            with contextlib.suppress(OSError):
                os.rename(f"{place}/{name}", gone)
            files.remove(gone)


def _drop_containers(place: str) -> None:
    """Remove what containers noted whose layer is gone."""
    for name in os.listdir(place):
        if name.startswith("container-"):
            with contextlib.suppress(OSError):
                old = time.time() - os.lstat(f"{place}/{name}").st_mtime > UNFINISHED_SECONDS
                layer = os.readlink(f"{place}/{name}/current").partition(":")[0]
                if old and not os.path.isdir(f"{place}/{layer}"):
                    files.remove(f"{place}/{name}")


def _say(lines: str) -> None:
    """Write lines to stderr, if there is one."""
    if lines.strip() and sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write("".join(f"sif_writable: {line}\n" for line in lines.splitlines() if line))
