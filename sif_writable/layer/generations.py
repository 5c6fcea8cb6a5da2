"""Generations: numbered, complete, immutable folders in storage, of all that earlier runs wrote and that is kept.

``gen-N/``: ``tree`` (paths of the image), ``removed`` (paths), ``stamps`` (for each directory: the number of the
generation that changed it last, and when), ``layers`` (what was folded in: name, state, number of the generation),
``note`` (bytes, files, node). It is built aside and renamed: whoever comes second finds the name taken, and folds
again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
import time
from typing import TYPE_CHECKING, NamedTuple

from sif_writable.layer import files, merge
from sif_writable.layer.mount import newest_generation

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
LAYERS = 1000
"""How many layers a generation remembers to be made of."""
ASIDE, ASIDE_REPLICA, SET_ASIDE = ".new-gen-", ".new-replica-", "set-aside"
STALE_SECONDS = 86400.0


class Generation(NamedTuple):
    """What a generation says about itself."""

    number: int
    folder: str
    stamps: dict[str, tuple[int, int]]
    removed: set[str]
    layers: dict[str, tuple[str, int]]
    size: int


class Published(NamedTuple):
    """What became of a layer."""

    number: int
    """Of the generation that holds it; 0 if there was nothing to keep."""
    conflicts: list[tuple[str, str]]
    """(directory, ``ours`` or ``theirs``: who was taken)."""
    set_aside: str
    """Where the others' files are, or an empty string."""


def read(folder: str, number: int) -> Generation:
    """Read what a generation says about itself; number 0 is the empty one.

    :raises OSError: it is not there, or no longer.
    """
    where = f"{folder}/gen-{number}"
    stamps: dict[str, tuple[int, int]] = {}
    layers: dict[str, tuple[str, int]] = {}
    if not number:
        return Generation(0, "", stamps, set(), layers, 0)
    for line in _lines(f"{where}/stamps"):
        last, when, path = line.split(" ", 2)
        stamps[path] = (int(last), int(when))
    for line in _lines(f"{where}/layers"):
        name, state, last = line.split(" ")
        layers[name] = (state, int(last))
    size = int((_lines(f"{where}/note") or ["0"])[0].split()[0])
    return Generation(number, where, stamps, set(_lines(f"{where}/removed")), layers, size)


def _lines(path: str) -> list[str]:
    with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        return file.read().split("\n")[:-1]


def _write(path: str, lines: Iterable[str]) -> None:
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)


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
    for attempt in range(ATTEMPTS):
        number = newest_generation(folder)
        aside = f"{folder}/{ASIDE}{os.urandom(8).hex()}"
        beside = f"{folder}/{ASIDE}{os.urandom(8).hex()}"
        os.mkdir(aside, 0o700)
        try:
            newest = read(folder, number)
            state, last = newest.layers.get(layer.name, ("", 0))
            if state == layer.state:  # a publisher was killed before it had removed what it had published
                return Published(last, [], "")
            os.mkdir(beside, 0o700)
            conflicts = _fold(layer._replace(base=max(layer.base, last)), newest, aside, beside)
            files.sync(aside)
            os.rename(aside, f"{folder}/gen-{number + 1}")
        except FileNotFoundError:  # the newest one was superseded and removed meanwhile
            if newest_generation(folder) == number:
                raise
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
        else:
            kept = ""
            if conflicts:
                os.makedirs(f"{folder}/{SET_ASIDE}", 0o700, exist_ok=True)
                kept = f"{folder}/{SET_ASIDE}/{number + 1}-{os.urandom(4).hex()}"
                os.rename(beside, kept)
            return Published(number + 1, conflicts, kept)
        finally:
            files.remove(aside)
            files.remove(beside)
        time.sleep(min(0.5, 0.002 * (attempt + 1)) * os.urandom(1)[0] / 255)
    raise OSError(errno.EAGAIN, "others have published all the time", folder)


def _fold(layer: Layer, newest: Generation, aside: str, beside: str) -> list[tuple[str, str]]:
    """Fill the folder of the next generation; return the conflicts, of which one side's files are in `beside`."""
    tree = f"{aside}/tree"
    os.mkdir(tree, 0o700)
    if newest.number:
        _clone(f"{newest.folder}/tree", tree)
    stamps, removed = dict(newest.stamps), set(newest.removed)
    conflicts: list[tuple[str, str]] = []
    for where, changes in sorted(merge.by_folder(layer.changes).items()):
        who = merge.winner(changes, layer.base, stamps.get(where, (0, 0)))
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
                removed.update(_clone_files(f"{layer.replica}/tree", tree, where))
        _apply(layer, changes, tree, removed, stamps)
        names = _entries(f"{tree}{where}")
        for name in merge.without_base(names, lambda name, where=where: layer.in_image(f"{where}/{name}")):  # type: ignore[misc]
            os.unlink(f"{tree}{where}/{name}")
        times = [change.time for change in changes if change.kind != merge.FOLDER]
        if times:
            stamps[where] = (newest.number + 1, max(times))
    _write(f"{aside}/stamps", [f"{last} {when} {path}" for path, (last, when) in sorted(stamps.items())])
    _write(f"{aside}/removed", sorted(removed))
    layers = {**newest.layers, layer.name: (layer.state, newest.number + 1)}
    _write(f"{aside}/layers", [f"{n} {state} {last}" for n, (state, last) in list(layers.items())[-LAYERS:]])
    regular = [status for _, status in files.walk(tree) if stat.S_ISREG(status.st_mode)]
    _write(f"{aside}/note", [f"{sum(s.st_size for s in regular)} {len(regular)} {os.uname().nodename}"])
    return conflicts


def _apply(
    layer: Layer, changes: Iterable[Change], tree: str, removed: set[str], stamps: dict[str, tuple[int, int]]
) -> None:
    for change in changes:
        target = f"{tree}{change.path}"
        source = layer.source(change.path)
        if change.kind == merge.GONE:
            if any(
                last > layer.base and f"{path}/".startswith(f"{change.path}/") for path, (last, _) in stamps.items()
            ):
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
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not entry.is_dir(follow_symlinks=False))
    return []


def _clone(source: str, target: str) -> None:
    for path, status in files.walk(source):
        if stat.S_ISDIR(status.st_mode):
            files.make_folder(target, path, status.st_mode)
        else:
            files.copy(f"{source}/{path}", f"{target}/{path}", status, link=True)


def _clone_files(source: str, tree: str, where: str) -> list[str]:
    """Copy what lies directly in a directory of a replica; return the paths that are removed there."""
    removed = []
    for name in _entries(f"{source}{where}"):
        path = f"{where}/{name}"
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
        with contextlib.suppress(FileNotFoundError):
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
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
        finally:
            files.remove(aside)
        return target
    return ""


def _replay(removed: Iterable[str], tree: str) -> None:
    """Have a replica hide what was removed; where it cannot, that is there again."""
    for path in removed:
        where = posixpath.dirname(path)
        with contextlib.suppress(OSError):
            if not os.path.isdir(f"{tree}{where}"):
                files.make_folder(tree, where.lstrip("/"), os.stat(where).st_mode)
            os.mknod(f"{tree}{path}", stat.S_IFCHR | 0o000, 0)


def tidy(folder: str, now: float) -> None:
    """Remove generations that nobody copies from any more, and what killed publishers left aside."""
    newest = newest_generation(folder)
    with contextlib.suppress(OSError):
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
