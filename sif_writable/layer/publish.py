"""What was written to one layer becomes the next generation: when its last process ends, or once it is dead."""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING

from sif_writable.child import KEEP
from sif_writable.layer import alive, child, forget, full, generations, merge
from sif_writable.layer.enter import read
from sif_writable.layer.join import note_member
from sif_writable.layer.seen import about, kept_of, read_changes
from sif_writable.signals import let_pass, suppress

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from sif_writable.layer import enter

SECONDS = 10.0
"""How long a start and an exit wait for storage that is silent; what is not published by then is left to the next."""
IN_MEMORY = "memory-"
"""What the folders of layers on a tmpfs of their own are called: see :mod:`.memory`."""


def at_exit(layer: enter.Layer) -> None:
    """Publish a layer if this process is the last one in it: another one does it, which storage cannot hold up."""
    with suppress(OSError):  # where there is no space for a line, others look at /proc all the same
        note_member(layer.folder, f"-{os.getpid()}\n")
    if line := full.line(layer.folder):  # where the program has swallowed that its writes failed
        say(line)
    if kept_of(layer.folder) == merge.NONE or not alive.is_last(layer.folder, {str(os.getpid())}):
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
        while (lock := alive.lock(folder)) < 0:  # one that has ended just before publishes what was there then
            child.progress()
            time.sleep(0.01)
            if time.monotonic() > deadline:
                return []
    except OSError as error:
        let_pass(error)
        return [_later(folder, reason(error))]
    try:
        os.chmod(f"{folder}/hidden", 0o700)
        return publish(folder, lambda number, _: f"{folder}/hidden/{number}", alone=alone)
    except (OSError, ValueError) as error:
        let_pass(error)
        return [_later(folder, reason(error))]
    finally:
        with suppress(OSError):
            os.chmod(f"{folder}/hidden", 0o000)
        os.close(lock)


def publish(
    folder: str, original: Callable[[int, str], str], target: str = "", alone: Collection[str] = ()
) -> list[str]:
    """Publish what was written to one layer; return what is to be said.

    :param original: gives the path where the directory with a number is seen as it is in the image.
    :param target: the generations; by default where they were when the layer was made.
    :param alone: numbers of processes that may be in the layer; where others have come, nothing is published, since
        they may be writing: the last of them publishes it. Without any, the layer is dead.
    :raises OSError: storage does not take it.
    """
    recorded, origin = about(folder)[2:4]
    target = target or recorded
    if origin and origin not in os.listdir(target):
        raise FileNotFoundError(errno.ENOENT, "the storage of that run is not there", target)
    layer, seen, changes, kept = read_changes(folder, original)

    def still() -> bool:
        again = read_changes(folder, original)[0]
        return again.state == layer.state and alive.is_last(folder, alone)

    done = generations.publish(target, layer, still if alone else None)
    if done.number < 0:
        return []
    lines = []
    how = kept_of(folder)
    usual = kept if how == merge.NEW else seen.keep(changes, merge.NEW)
    special = [path for path in usual.dropped if "/__pycache__/" not in path]
    dropped = f"{len(special)} {special[0]}" if special else ""  # other files may have changed since
    # It is said once, though it may be seen twice.
    if special and how != merge.NONE and read(f"{folder}/reported") != dropped:
        with suppress(OSError), open(f"{folder}/reported", "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(dropped)
        words = f"{_first(special)}: code in the place of the image's, or installed; "
        if how == merge.NEW:
            words += f"gone with this container's last process. {KEEP}=all keeps such changes"
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


def _later(folder: str, why: str) -> str:
    if os.path.basename(folder).startswith(IN_MEMORY):
        return f"what was written in the environment is lost: it was in memory, and is not in storage: {why}"
    return (
        f"what was written in the environment is not in storage yet: {why}. "
        f"It is kept in {folder}, and the next start on this node publishes it"
    )


def reason(error: BaseException) -> str:
    """Return what went wrong, without the name of a file that was being made."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def path_of(error: BaseException) -> str:
    """Return the path that an error names, or an empty string."""
    return str(getattr(error, "filename", None) or "")


def say(lines: str) -> None:
    """Write lines to stderr, if there is one."""
    from sif_writable import stderr

    stderr.say([line for line in lines.splitlines() if line])
