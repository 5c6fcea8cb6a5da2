"""Is anybody in a layer? The kernel says which are dead; the last process that is seen in one publishes it.

The trial mount of an upper directory gives EBUSY while any process has it, whoever made it, in whatever namespace, and
whether its maker lives or not.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from typing import TYPE_CHECKING

from sif_writable.layer import child, files, join, kernel
from sif_writable.layer.enter import directories, read
from sif_writable.layer.make import NEW
from sif_writable.signals import let_pass, suppress

if TYPE_CHECKING:
    from collections.abc import Collection

DYING_SECONDS = 0.5
ALIVE, DEAD, UNKNOWN = "alive", "dead", "unknown"


def states(place: str, names: list[str], dying: Collection[str] = ()) -> dict[str, str]:
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
    aside = f"{place}/{NEW}-{os.urandom(8).hex()}"
    with suppress(OSError):
        os.mkdir(aside, 0o700)
        for name in names:
            child.progress()
            with suppress(OSError):  # another process has removed it
                found[name] = state_of(f"{place}/{name}", aside)
                deadline = time.monotonic() + DYING_SECONDS
                while name in dying and found[name] == ALIVE and time.monotonic() < deadline:
                    time.sleep(0.01)
                    found[name] = state_of(f"{place}/{name}", aside)
    join.drop_capabilities()
    files.remove(aside)
    return found


def state_of(folder: str, aside: str) -> str:
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


def is_last(folder: str, own: Collection[str]) -> bool:
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


def lock(folder: str) -> int:
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
