"""Generations: numbered, complete, immutable folders in storage, of all that earlier runs wrote and that is kept.

``gen-N/``: ``tree`` (paths of the image), ``removed`` and ``overridden`` (paths), ``forgotten`` (number, path),
``stamps`` (for each directory: the number of the generation that changed it last, and when), ``layers`` (what was
folded in: name, state, number of the generation), ``note`` (bytes, files, node). It is built aside and renamed:
whoever comes second finds the name taken, and folds again.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import time
from typing import TYPE_CHECKING, NamedTuple

from sif_writable.layer import files, merge, records
from sif_writable.layer.mount import newest_generation
from sif_writable.layer.records import Generation, read
from sif_writable.signals import suppress
from sif_writable.startup import let_pass

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Callable

    from sif_writable.layer.merge import Change

ATTEMPTS = 200
"""How often a publisher folds again because another one was faster."""
REPLICA_BYTES = 256 << 20
"""Up to here a generation is copied to each node."""
SUPERSEDED_SECONDS = 3600.0
"""After that nobody copies from a generation any more that is not the newest; whoever does, tries the newest again."""
ASIDE, ASIDE_REPLICA, SET_ASIDE = ".new-gen-", ".new-replica-", "set-aside"
STALE_SECONDS = 86400.0


class Published(NamedTuple):
    """What became of a layer."""

    number: int
    """Of the generation that holds it; 0 if there was nothing to keep."""
    conflicts: list[tuple[str, str]]
    """(directory, ``ours`` or ``theirs``: who was taken)."""
    set_aside: str
    """Where the others' files are, or an empty string."""


class Layer(NamedTuple):
    """A dead layer, or one whose last process is about to end, as its folders show it."""

    name: str
    changes: list[Change]
    source: Callable[[str], str]
    """Where the file of a path of the image is, in an upper directory."""
    base: int
    replica: str
    """The folder of the generation that it was made from, on this node; empty: none."""
    in_image: Callable[[str], bool]

    @property
    def state(self) -> str:
        """Return what differs when something was written since."""
        return f"{len(self.changes)}.{max([change.time for change in self.changes], default=0)}"


def publish(folder: str, layer: Layer) -> Published:
    """Fold what is kept of a layer into the newest generation, and give the result the next number.

    :raises OSError: storage does not take it; then nothing has changed there.
    """
    os.makedirs(folder, 0o700, exist_ok=True)
    if not layer.changes:
        return Published(0, [], "")
    conflicts: list[tuple[str, str]] = []

    def fold(newest: Generation, aside: str, beside: str) -> int:
        state, last = newest.layers.get(layer.name, ("", 0))
        if state == layer.state:  # a publisher was killed before it had removed what it had published
            conflicts.clear()
            return last
        conflicts[:] = _fold(layer, max(layer.base, last), newest, aside, beside)
        return 0

    number, kept = succeed(folder, fold)
    return Published(number, conflicts, kept)


def succeed(folder: str, build: Callable[[Generation, str, str], int]) -> tuple[int, str]:
    """Build the generation after the newest one; return its number, and where what it set aside is, if anything.

    :param build: is given the newest one, a folder for the next one and a folder for what is set aside. It returns 0,
        or the number of a generation that serves as well. It is called again where another process was faster.
    :raises OSError: storage does not take it; then nothing has changed there.
    """
    for attempt in range(ATTEMPTS):
        number = newest_generation(folder)
        aside = f"{folder}/{ASIDE}{os.urandom(8).hex()}"
        beside = f"{folder}/{ASIDE}{os.urandom(8).hex()}"
        os.mkdir(aside, 0o700)
        try:
            newest = read(folder, number)
            os.mkdir(beside, 0o700)
            if serves := build(newest, aside, beside):
                return serves, ""
            files.sync(aside)
            os.rename(aside, f"{folder}/gen-{number + 1}")
        except FileNotFoundError:  # the newest one was superseded and removed meanwhile
            if newest_generation(folder) == number:
                raise
        except OSError as error:
            let_pass(error)
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
        else:
            kept = ""
            if os.listdir(beside):
                os.makedirs(f"{folder}/{SET_ASIDE}", 0o700, exist_ok=True)
                kept = f"{folder}/{SET_ASIDE}/{number + 1}-{os.urandom(4).hex()}"
                os.rename(beside, kept)
            return number + 1, kept
        finally:
            files.remove(aside)
            files.remove(beside)
        time.sleep(min(0.5, 0.002 * (attempt + 1)) * os.urandom(1)[0] / 255)
    raise OSError(errno.EAGAIN, "others have published all the time", folder)


def _fold(layer: Layer, base: int, newest: Generation, aside: str, beside: str) -> list[tuple[str, str]]:
    """Fill the folder of the next generation; return the conflicts, of which one side's files are in `beside`.

    :param base: the number of the generation that the layer has all of.
    """
    tree = f"{aside}/tree"
    os.mkdir(tree, 0o700)
    if newest.number:
        _clone(f"{newest.folder}/tree", tree)
    stamps, removed, overridden = dict(newest.stamps), set(newest.removed), set(newest.overridden)
    conflicts: list[tuple[str, str]] = []
    late: list[Change] = []
    timely: list[Change] = []
    for change in layer.changes:
        (late if merge.is_forgotten(change.path, newest.forgotten, layer.base) else timely).append(change)
    if late:
        conflicts.append((late[0].path, merge.FORGOTTEN))
        _save([(change.path, layer.source(change.path)) for change in late], beside)
    for where, changes in sorted(merge.by_folder(timely).items()):
        who = merge.winner(changes, base, stamps.get(where, (0, 0)))
        if who == merge.THEIRS:
            conflicts.append((where, who))
            _save([(change.path, layer.source(change.path)) for change in changes], beside)
            continue
        if who == merge.OURS:
            conflicts.append((where, who))
            there = _entries(f"{tree}{where}")
            _save([(f"{where}/{name}", f"{tree}{where}/{name}") for name in there], beside)
            for name in there:
                os.unlink(f"{tree}{where}/{name}")
            removed = {path for path in removed if posixpath.dirname(path) != where}
            if layer.replica:
                removed.update(_clone_files(layer, newest.forgotten, tree, where))
        _apply(layer, base, changes, tree, removed, stamps)
        names = _entries(f"{tree}{where}")
        for name in merge.without_base(names, lambda name, where=where: layer.in_image(f"{where}/{name}")):  # type: ignore[misc]
            os.unlink(f"{tree}{where}/{name}")
        times = [change.time for change in changes if change.kind != merge.FOLDER]
        if times:
            stamps[where] = (newest.number + 1, max(times))
        overridden.update(f"{where}/{name}" for name in names if layer.in_image(f"{where}/{name}"))
    layers = {**newest.layers, layer.name: (layer.state, newest.number + 1)}
    records.write(aside, newest._replace(stamps=stamps, removed=removed, layers=layers, overridden=overridden))
    return conflicts


def _apply(
    layer: Layer, base: int, changes: Iterable[Change], tree: str, removed: set[str], stamps: dict[str, tuple[int, int]]
) -> None:
    for change in changes:
        target = f"{tree}{change.path}"
        source = layer.source(change.path)
        if change.kind == merge.GONE:
            if any(last > base and f"{path}/".startswith(f"{change.path}/") for path, (last, _) in stamps.items()):
                continue  # others have written into a directory that is removed here
            files.remove(target)
            if layer.in_image(change.path):
                removed.add(change.path)
            continue
        removed.discard(change.path)
        status = os.lstat(source)
        if change.kind == merge.FOLDER:
            files.make_folder(tree, change.path.lstrip("/"), status.st_mode)
        else:
            if not os.path.isdir(posixpath.dirname(target)):
                files.make_folder(tree, posixpath.dirname(change.path).lstrip("/"), 0o755)
            if os.path.isdir(target) and not os.path.islink(target):
                files.remove(target)
            files.copy(source, target, status)


def _entries(folder: str) -> list[str]:
    """Return the names in a directory of what is no directory."""
    with suppress(OSError), os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not entry.is_dir(follow_symlinks=False))
    return []


def _clone(source: str, target: str) -> None:
    for path, status in files.walk(source):
        if stat.S_ISDIR(status.st_mode):
            files.make_folder(target, path, status.st_mode)
        else:
            files.copy(f"{source}/{path}", f"{target}/{path}", status, link=True)


def _clone_files(layer: Layer, forgotten: dict[str, int], tree: str, where: str) -> list[str]:
    """Copy what lies directly in a directory of a layer's replica; return the paths that are removed there."""
    source = f"{layer.replica}/tree"
    removed = []
    for name in _entries(f"{source}{where}"):
        path = f"{where}/{name}"
        if merge.is_forgotten(path, forgotten, layer.base):
            continue
        status = os.lstat(f"{source}{path}")
        if files.is_whiteout(f"{source}{path}", status):
            removed.append(path)
        else:
            files.make_folder(tree, where.lstrip("/"), os.lstat(f"{source}{where}").st_mode)
            files.copy(f"{source}{path}", f"{tree}{path}", status)
    return removed


def _save(pairs: Iterable[tuple[str, str]], beside: str) -> None:
    """Keep the files of the side that was not taken."""
    for path, source in pairs:
        with suppress(FileNotFoundError):
            status = os.lstat(source)
            if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                files.make_folder(beside, posixpath.dirname(path).lstrip("/"), 0o700)
                files.copy(source, f"{beside}{path}", status)


# --- Replicas ---


def replicate(folder: str, place: str) -> str:
    """Copy the newest generation to this node; return the folder to mount from, or an empty string if there is none.

    :param place: the folder of the replicas. What is too large for it is used from storage.
    :raises OSError: it cannot be read, or there is no space for it.
    """
    for _ in range(5):
        number = newest_generation(folder)
        target = f"{place}/replica-{number}"
        if not number or os.path.isdir(target):
            return target if number else ""
        aside = f"{place}/{ASIDE_REPLICA}{os.urandom(8).hex()}"
        try:
            newest = read(folder, number)
            if newest.size > REPLICA_BYTES and os.lstat(folder).st_dev != os.lstat(place).st_dev:
                return newest.folder
            os.mkdir(aside, 0o700)
            os.mkdir(f"{aside}/tree", 0o700)
            _clone(f"{newest.folder}/tree", f"{aside}/tree")
            _replay(newest.removed, f"{aside}/tree")
            os.rename(aside, target)
        except FileNotFoundError:  # superseded and removed meanwhile
            continue
        except OSError as error:
            let_pass(error)
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
        finally:
            files.remove(aside)
        return target
    return ""


def newest_replica(place: str) -> str:
    """Return the folder of the newest generation that this node has a copy of, or an empty string."""
    numbers = [int(name[8:]) for name in os.listdir(place) if name[:8] == "replica-" and name[8:].isdigit()]
    return f"{place}/replica-{max(numbers)}" if numbers else ""


def _replay(removed: Iterable[str], tree: str) -> None:
    """Have a replica hide what was removed; where it cannot, that is there again."""
    for path in removed:
        where = posixpath.dirname(path)
        with suppress(OSError):
            if not os.path.isdir(f"{tree}{where}"):
                files.make_folder(tree, where.lstrip("/"), os.stat(where).st_mode)
            os.mknod(f"{tree}{path}", stat.S_IFCHR | 0o000, 0)


def tidy(folder: str, now: float) -> None:
    """Remove generations that nobody copies from any more, and what killed publishers left aside."""
    newest = newest_generation(folder)
    with suppress(OSError):
        for name in os.listdir(folder):
            path = f"{folder}/{name}"
            age = now - os.lstat(path).st_mtime
            if name.startswith((ASIDE, ASIDE_REPLICA)) and age > STALE_SECONDS:
                files.remove(path)
            elif name[:4] == "gen-" and name[4:].isdigit() and int(name[4:]) < newest and age > SUPERSEDED_SECONDS:
                _drop(folder, int(name[4:]))


def _drop(folder: str, number: int) -> None:
    if read(folder, number).size > REPLICA_BYTES:  # it may be mounted from storage
        return
    gone = f"{folder}/{ASIDE}{os.urandom(8).hex()}"
    os.rename(f"{folder}/gen-{number}", gone)  # at once, so that nobody finds half of it
    files.remove(gone)
