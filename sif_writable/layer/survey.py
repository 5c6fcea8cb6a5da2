"""What layers have left on this node and in storage: for people who look at it, and for those who clear it away."""

from __future__ import annotations

import errno
import os
import stat
import time
from typing import TYPE_CHECKING, NamedTuple

from sif_writable.layer import (
    alive,
    child,
    collect,
    enter,
    files,
    forget,
    generations,
    inherited,
    join,
    make,
    publish,
    records,
    replicas,
    seen,
    trial,
)  # fmt: skip
from sif_writable.layer.alive import ALIVE, DEAD, UNKNOWN
from sif_writable.layer.enter import read
from sif_writable.signals import let_pass, suppress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sif_writable.layer.forget import Unit

__all__ = ["ALIVE", "DEAD", "UNKNOWN"]

SECONDS = 10.0
"""How long the kernel is asked."""
UPPER, REPLICA, GENERATION, LEFTOVER = "upper", "replica", "generation", "leftover"


class About(NamedTuple):
    """What the folder of a layer says about it."""

    is_lost: bool
    """Whether the machine has been started since: half of what was written may be missing, so nothing is kept."""
    base: str
    """What it was made from: a generation on this node, or an empty string."""
    target: str
    """The folder of the generations that it goes into."""
    directories: list[str]


class Written(NamedTuple):
    """What is in the upper directories of a layer."""

    paths: list[str]
    """Of the image: what was made, changed or removed."""
    size: int
    """Bytes of the files."""


def about(folder: str) -> About:
    """Return what the folder of a layer says about it, or nothing where half of it is missing."""
    try:
        lines = seen.about(folder)
    except OSError as error:
        let_pass(error)
        lines = [""] * enter.ABOUT
    directories = [line for line in lines[enter.ABOUT :] if line[:1] == "/"]
    now = ""
    with suppress(OSError):  # without /proc the run is unknown, and must not count as another one
        now = make.boot()
    return About(bool(now and lines[0]) and lines[0] != now, lines[1], lines[2], directories)


def kind(name: str) -> str:
    """Return what a name in a place of layers stands for, or an empty string: notes of its own."""
    if name in uppers_of([name]):
        return UPPER
    if name.startswith(make.NEW):
        return LEFTOVER
    begin, _, rest = name.partition("-")
    number = rest.rpartition("-")[2]
    return {"replica": REPLICA, "gen": GENERATION}.get(begin, "") if number.isdigit() else ""


def uppers_of(names: Iterable[str]) -> list[str]:
    """Return those of some names that are layers, finished or not."""
    return sorted(name for name in names if name.startswith(("upper-", f"{make.NEW}-upper-")))


def on_this_node(uid: int) -> Iterator[tuple[str, list[str]]]:
    """Yield the folders beside storage that hold layers, with the names of the images that have some there."""
    for place in enter.places("", "image", uid):
        folder = os.path.dirname(place)
        with suppress(OSError):
            if os.path.lexists(f"{folder}/{trial.MARKER}"):
                yield folder, sorted(name for name in os.listdir(folder) if enter.is_private(f"{folder}/{name}"))


def states(place: str, names: Sequence[str]) -> dict[str, str]:
    """Ask the kernel which layers of a place somebody is in: ``alive``, ``dead`` or ``unknown``."""
    found = {name: DEAD for name in names if about(f"{place}/{name}").is_lost}
    asked = sorted(set(names) - set(found))
    if not asked:
        return found

    def ask() -> str:
        answers = alive.states(place, asked)
        return "\n".join([answers[name] for name in asked])

    with suppress(RuntimeError, OSError):
        answer = child.ask(ask, SECONDS)
        if answer is not None:
            return {**found, **dict(zip(asked, answer.split("\n")))}
    return {**found, **dict.fromkeys(asked, UNKNOWN)}


def uppers(place: str) -> list[str]:
    """Return the names of the layers of a place, finished or not."""
    with suppress(OSError):
        return uppers_of(os.listdir(place))
    return []


def in_memory(place: str) -> bool:
    """Whether somebody may be in a layer of this place that lies in memory: the kernel cannot be asked about those."""
    with suppress(OSError):
        names = [name for name in os.listdir(place) if name.startswith(publish.IN_MEMORY)]
        return any(not about(f"{place}/{name}").is_lost for name in names)
    return False


def in_use(path: str) -> str:
    """Say why a layer, or what layers were made from, stays where it is, as a sentence without subject.

    :param path: of a layer's folder, a replica or a generation.
    """
    place, name = os.path.split(path)
    real = os.path.realpath(path)
    found: set[str] = set()
    if name.startswith(make.NEW) and _is_young(path):
        return "is being made"
    if kind(name) == UPPER:
        found.update(states(place, [name]).values() if name in uppers(place) else ())
    else:
        image = os.path.basename(os.path.dirname(place))  # of a generation, which may be mounted from storage
        beside = [f"{top}/{image}" for top, images in on_this_node(os.geteuid()) if image in images]
        for where in (place, *beside):
            bases = {upper: about(f"{where}/{upper}").base for upper in uppers(where)}
            # One that is too large for a copy is mounted itself, by a link that has the place of the copy.
            of_it = [
                upper for upper, base in bases.items() if base == path or (base and os.path.realpath(base) == real)
            ]
            answers = states(where, of_it)
            found.update(answers.values())
            if any(answers[upper] == DEAD and _waits(f"{where}/{upper}") for upper in of_it):
                return "is what a container was made from that has ended, and goes after that one's files"
    if ALIVE in found:
        return "is used by programs that run, and stays until they end"
    if UNKNOWN in found:
        return "may be used by programs that run: the kernel cannot be asked here"
    return ""


def _is_young(path: str) -> bool:
    """Whether who makes it may still be at it."""
    with suppress(OSError):
        return time.time() - os.lstat(path).st_mtime < collect.UNFINISHED_SECONDS
    return False


def _waits(folder: str) -> bool:
    return not about(folder).is_lost and bool(written(folder).paths) and not is_kept(folder)


def remove(path: str) -> str:
    """Remove a layer, a replica, a generation that is not the newest, or what was set aside; else say why not.

    :returns: an empty string, or a sentence without subject.
    :raises OSError: it cannot be renamed; then it is still there.
    """
    place, name = os.path.split(path)
    if problem := in_use(path):
        return problem
    lock = -1
    try:
        if kind(name) == UPPER:
            with suppress(FileNotFoundError):  # it is half of a layer
                lock = alive.lock(path)
                if lock < 0:
                    return "is being read by another process, which keeps what is in it"
        gone = f"{place}/{replicas.GONE}{os.urandom(8).hex()}"
        os.rename(path, gone)
        if problem := in_use(path):  # a layer was made from it just now: it says so before it looks whether it is there
            os.rename(gone, path)
            return problem
        files.remove(gone)
    finally:
        if lock >= 0:
            os.close(lock)
    return ""


def is_kept(folder: str, *, in_it: bool = False, of_this_image: bool = False) -> bool:
    """Whether all that is kept of a layer is in the newest generation, which may be nothing.

    :param in_it: this process is in that layer.
    :param of_this_image: the layer is over directories as this process sees them, or is in itself. Else another image's
        may be in their place, and it is believed only where the very same was seen when it was published.
    """
    try:
        target = about(folder).target
        newest = records.read(target, make.newest_generation(target))
        if in_it:
            with inherited.image(folder) as original:
                return generations.has(newest, seen.read_changes(folder, lambda _, directory: original(directory))[0])
        layer = seen.read_changes(folder, lambda _, directory: directory)[0]
        state, _ = newest.layers.get(layer.name, ("", 0))
        return generations.has(newest, layer) if of_this_image else state == layer.state
    except (OSError, ValueError) as error:
        let_pass(error)
        return False


def written(folder: str) -> Written:
    """Return what was written to a layer, as its upper directories show it."""
    found: list[str] = []
    size = 0
    for number, directory in enumerate(about(folder).directories):
        for name, status in _files(f"{folder}/{number}"):
            found.append(f"{directory}/{name}")
            size += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return Written(sorted(found), size)


def _files(top: str) -> Iterator[tuple[str, os.stat_result]]:
    try:
        for name, status in files.walk(top):
            if not stat.S_ISDIR(status.st_mode):
                yield name, status
    except OSError as error:
        let_pass(error)
        if error.errno not in {errno.EACCES, errno.ENOENT, errno.ENOTDIR}:
            raise


def units(folder: str, paths: Iterable[str], prefix: str) -> list[Unit]:
    """Return the units that files written to a layer belong to."""
    listed = about(folder).directories

    def text(path: str) -> str:
        for number, directory in enumerate(listed):
            if path.startswith(f"{directory}/"):
                return read(f"{folder}/{number}{path[len(directory) :]}")
        return ""

    return forget.units(paths, text, prefix)


def here(places: Iterable[str], namespace: str) -> tuple[str, bool]:
    """Return the folder of the layer of this container, and whether a process with this mount namespace is in it.

    :param places: where layers of this image are.
    :param namespace: of /proc/self/ns/mnt.
    """
    for place in places:
        layer = enter.Layer(place, enter._token())  # noqa: SLF001 - of this very container run
        record = enter.current_record(layer) if enter.is_private(place) else ""
        layer.name = record.partition(":")[0]
        if layer.name and os.path.isdir(layer.folder):
            return layer.folder, join.is_here(layer, record, namespace)
    return "", False
