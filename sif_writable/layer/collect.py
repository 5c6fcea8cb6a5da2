"""What becomes of layers that are dead, and of all else that layers have left on this node: asked when one is made."""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING

from sif_writable.layer import alive, child, files, generations, make, publish, replicas
from sif_writable.layer.make import NEW
from sif_writable.layer.publish import IN_MEMORY, SECONDS, path_of, reason, say
from sif_writable.layer.seen import about
from sif_writable.signals import let_pass, suppress

if TYPE_CHECKING:
    from collections.abc import Collection

UNFINISHED_SECONDS = 3600.0
"""After that a layer that was never mounted belongs to a process that was killed."""
LINK_SECONDS = 60.0
"""After that a container whose layer is gone is not just making another one."""
STALE_SECONDS, LONG_AGO = 86400.0, 60 * 86400.0


def before_making(place: str, folder: str, origin: str, dying: Collection[str] = ()) -> str:
    """Publish what dead layers of this node hold, and copy the newest generation; return the folder to mount from.

    :param folder: the generations.
    :param origin: what distinguishes that folder from others.
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
    names = sorted(name for name in os.listdir(place) if name.startswith(("upper-", f"{NEW}-upper-")))
    state = alive.states(place, names, dying)
    for name in names:
        if state[name] == alive.DEAD:
            lines += _take_in(place, name, folder, origin)
    try:
        base, line = replicas.replicate(folder, place)
        lines.append(line)
    except (OSError, ValueError) as error:
        let_pass(error)
        base = replicas.newest_replica(place, origin)
        lines.append(f"what earlier runs wrote may be missing here: {reason(error)} ({path_of(error) or place})")
    generations.tidy(folder, time.time())
    _tidy(place, base, time.time())
    return "\n".join([base, *lines])


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
        lock = alive.lock(folder)
    except OSError as error:
        let_pass(error)
        return [] if error.errno == errno.ENOENT else [_kept(folder, error)]
    if lock < 0:
        return []
    try:
        boot, _, recorded, recorded_origin = about(folder)[:4]
        if recorded_origin != origin or (not origin and recorded != target):
            return []
        if boot == make.boot():
            lines = publish.publish(folder, lambda _, directory: directory, target)  # no layer is over it here
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
    where = f" ({path_of(error)})" if path_of(error) else ""
    return (
        f"what an earlier run wrote in the environment is not in storage yet: {reason(error)}{where}. "
        f"It is kept in {folder}, and the next start on this node tries again"
    )


def _tidy(place: str, base: str, now: float) -> None:
    """Remove from this node what nobody uses: replicas, what containers noted whose layer is gone, things aside."""
    for name in os.listdir(place):
        with suppress(OSError):  # another process removes it
            age = now - os.lstat(f"{place}/{name}").st_mtime
            if name.startswith(replicas.GONE):
                files.remove(f"{place}/{name}")
            elif name.startswith(NEW) and not name.startswith(f"{NEW}-upper-") and age > STALE_SECONDS:
                replicas.drop(place, name)
            elif name.startswith(IN_MEMORY) and (age > LONG_AGO or about(f"{place}/{name}")[0] != make.boot()):
                replicas.drop(place, name)  # nobody can be in it any more
            elif name.startswith("container-") and age > LINK_SECONDS:
                layer = os.readlink(f"{place}/{name}").partition(":")[0]
                if not os.path.isdir(f"{place}/{layer}"):
                    os.unlink(f"{place}/{name}")
    with suppress(OSError):  # what cannot be read may be in use
        replicas.drop_unused(place, base, now, _used(place))


def _used(place: str) -> set[str]:
    """Return the replicas that layers of this node were made from."""
    used = set()
    for name in os.listdir(place):
        if name.startswith(("upper-", f"{NEW}-upper-")):
            with suppress(FileNotFoundError):  # it was collected, or has not got so far as to choose
                used.add(about(f"{place}/{name}")[1])
    return used
