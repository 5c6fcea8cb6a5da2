"""Generations: numbered, complete, immutable folders in storage, of all that earlier runs wrote and that is kept.

``gen-N/``: ``tree`` (paths of the image), ``removed`` and ``overridden`` (paths), ``forgotten`` (number, path),
``stamps`` (for each directory: the number of the generation that changed it last, and when), ``layers`` (what was
folded in: name, state, number of the generation), ``note`` (bytes, files, node). It is built aside and renamed:
whoever comes second finds the name taken, and folds again.
"""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING, NamedTuple

from sif_writable.layer import child, files, fold, make
from sif_writable.layer.records import Generation, read
from sif_writable.signals import let_pass, suppress

if TYPE_CHECKING:
    from typing import Callable

    from sif_writable.layer.fold import Layer

ATTEMPTS = 200
"""How often a publisher folds again because another one was faster."""
REPLICA_BYTES = 256 << 20
"""Up to here a generation is copied to each node."""
SUPERSEDED_SECONDS = 3600.0
"""After that nobody copies from a generation any more that is not the newest; whoever does, tries the newest again."""
MOUNTED_SECONDS = 60 * 86400.0
"""After that nobody has one mounted either that is too large to be copied."""
ASIDE, ASIDE_REPLICA, SET_ASIDE = f"{make.NEW}-gen-", f"{make.NEW}-replica-", "set-aside"
STALE_SECONDS = 86400.0


class Published(NamedTuple):
    """What became of a layer."""

    number: int
    """Of the generation that holds it; 0 if there was nothing to keep."""
    conflicts: list[tuple[str, str]]
    """(directory, ``ours`` or ``theirs``: who was taken)."""
    set_aside: str
    """Where the others' files are, or an empty string."""


def publish(folder: str, layer: Layer, still: Callable[[], bool] | None = None) -> Published:
    """Fold what is kept of a layer into the newest generation, and give the result the next number.

    :param still: whether what was copied meanwhile is still all there is; None: nobody can change it. If it is not,
        the number is negative.
    :raises OSError: storage does not take it; then nothing has changed there.
    """
    conflicts: list[tuple[str, str]] = []

    def build(newest: Generation, aside: str, beside: str) -> int:
        if has(newest, layer):  # whoever published it has not removed it
            conflicts.clear()
            known = newest.layers.get(layer.name, ("", newest.number if layer.changes else 0))
            return known[1] or NOTHING
        conflicts[:] = fold.fold(layer, newest, aside, beside)
        return CHANGED if still is not None and not still() else 0

    if not layer.changes and not os.path.isdir(folder):
        return Published(0, [], "")
    number, kept = succeed(folder, build)
    return Published(0 if number == NOTHING else number, conflicts, kept)


def has(newest: Generation, layer: Layer) -> bool:
    """Whether a generation has all that is kept of a layer, which may be nothing."""
    state, _ = newest.layers.get(layer.name, ("", 0))
    return state == layer.state if state else not layer.changes or fold.is_there(layer, newest)


NOTHING, CHANGED = -1, -2
"""What stands for the number of a generation where none is needed, or none is made for now."""


def newest_of(folder: str) -> int:
    """Return the number of the newest generation, or 0.

    :raises OSError: they cannot be listed. That there are none must not be believed of storage that fails.
    """
    names = os.listdir(folder)
    return max([int(name[4:]) for name in names if name[:4] == "gen-" and name[4:].isdigit()], default=0)


def succeed(folder: str, build: Callable[[Generation, str, str], int]) -> tuple[int, str]:
    """Build the generation after the newest one; return its number, and where what it set aside is, if anything.

    :param build: is given the newest one, a folder for the next one and a folder for what is set aside. It returns 0,
        or the number of a generation that serves as well. It is called again where another process was faster.
    :raises OSError: storage does not take it; then nothing has changed there.
    """
    os.makedirs(folder, 0o700, exist_ok=True)
    for attempt in range(ATTEMPTS):
        child.progress()
        number = newest_of(folder)
        aside = f"{folder}/{ASIDE}{os.urandom(8).hex()}"
        beside = f"{folder}/{ASIDE}{os.urandom(8).hex()}"
        kept, done = "", False
        try:
            newest = read(folder, number)
            os.mkdir(aside, 0o700)
            os.mkdir(beside, 0o700)
            if serves := build(newest, aside, beside):
                return serves, ""
            if number:
                os.stat(newest.folder)  # or what was copied of it was half of it
            files.sync(aside)
            kept = _set_aside(folder, beside, number + 1)
            if newest_of(folder) == number:
                os.rename(aside, f"{folder}/gen-{number + 1}")
                done = True
        except FileNotFoundError:  # the newest one was superseded and removed meanwhile
            if newest_of(folder) == number:
                raise
        except OSError as error:
            let_pass(error)
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
        finally:
            if not done and kept:
                files.remove(kept)
            files.remove(aside)
            files.remove(beside)
        if done:
            files.flush(folder)
            return number + 1, kept
        time.sleep(min(0.5, 0.002 * (attempt + 1)) * os.urandom(1)[0] / 255)
    raise OSError(errno.EAGAIN, "others have published all the time", folder)


def _set_aside(folder: str, beside: str, number: int) -> str:
    """Keep what a generation is going to leave out, before there is that generation: a kill must not lose it."""
    if not os.listdir(beside):
        return ""
    files.sync(beside)
    os.makedirs(f"{folder}/{SET_ASIDE}", 0o700, exist_ok=True)
    kept = f"{folder}/{SET_ASIDE}/{number}-{os.urandom(4).hex()}"
    os.rename(beside, kept)
    return kept


def tidy(folder: str, now: float) -> None:
    """Remove generations that nobody copies from any more, and what killed publishers left aside."""
    with suppress(OSError):
        names = os.listdir(folder)
        for name in names:
            with suppress(OSError):  # another process removes it
                age = now - os.lstat(f"{folder}/{name}").st_mtime
                if name.startswith((ASIDE, ASIDE_REPLICA)) and age > STALE_SECONDS:
                    files.remove(f"{folder}/{name}")
        numbers = sorted(int(name[4:]) for name in names if name[:4] == "gen-" and name[4:].isdigit())
        for number, successor in zip(numbers, numbers[1:]):
            with suppress(OSError, ValueError):
                _drop(folder, number, now - os.lstat(f"{folder}/gen-{successor}").st_mtime)


def _drop(folder: str, number: int, age: float) -> None:
    """Remove a generation.

    :param age: for how many seconds there has been another one. One that is mounted from storage is left for longer.
    """
    if age < SUPERSEDED_SECONDS or (age < MOUNTED_SECONDS and read(folder, number).size > REPLICA_BYTES):
        return
    gone = f"{folder}/{ASIDE}{os.urandom(8).hex()}"
    os.rename(f"{folder}/gen-{number}", gone)  # at once, so that nobody finds half of it
    files.remove(gone)
