"""The list of a layer's members without those that have ended: each process that joins adds a line."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from sif_writable.layer import enter, join
from sif_writable.layer.join import MEMBERS, note_member
from sif_writable.layer.make import NEW
from sif_writable.signals import suppress

if TYPE_CHECKING:
    from collections.abc import Iterable


def drop_ended(folder: str) -> None:
    """Write the list anew, one process at a time; what others add meanwhile is in the new one.

    After their write they check whether the list still has its name (:func:`.join.note_member`). What they wrote before
    that is found in the old list when the new one has taken its name.

    :raises OSError: it cannot be written; then it is as it was.
    """
    path = f"{folder}/members"
    old = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    aside = f"{folder}/{NEW}-{os.urandom(8).hex()}"
    try:
        fcntl.flock(old, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.fstat(old).st_nlink:
            return
        lines = _rest(old)
        new = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            text = "".join(f"{line}\n" for line in living(lines, os.readlink("/proc/self/ns/pid"))).encode()
            while text:
                text = text[os.write(new, text) :]
        finally:
            os.close(new)
        os.rename(aside, path)
        if more := _rest(old):
            note_member(folder, "".join(f"{line}\n" for line in more))
    except BlockingIOError:  # another process does it
        return
    finally:
        os.close(old)
        with suppress(FileNotFoundError):
            os.unlink(aside)


def living(lines: Iterable[str], place: str) -> list[str]:
    """Return the lines that still say something, in their order.

    :param place: the namespace of processes that this one is in. Of another one's only the latest are kept, as nobody
        knows from here whether they have ended.
    """
    found: list[str] = []
    foreign: list[str] = []
    for line in lines:
        pid, *where = line.lstrip("-").split(" ")
        if where and where[0] != place:
            foreign.append(line)
        elif os.path.exists(f"/proc/{pid}") or (len(where) > 1 and where[1] in _namespaces()):
            found.append(line)
    return [*foreign[-MEMBERS:], *found]


def _namespaces() -> set[str]:
    """Return the numbers of the mount namespaces that processes of this user are in."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):  # it has ended, or is another user's
                found.add(str(os.stat(f"/proc/{name}/ns/mnt").st_ino))
    return found


def _rest(descriptor: int) -> list[str]:
    """Return the lines of a list from where it was read to."""
    parts = []
    while part := os.read(descriptor, 1 << 16):
        parts.append(part)
    return b"".join(parts).decode("ascii", "replace").splitlines()


def moved() -> None:
    """Have others find this process where it is now: in a namespace of its own, below that of the layer.

    It may have been the last one in that of the layer, which nobody could join then.

    :raises OSError: it cannot be noted.
    """
    if enter.current is not None:
        note_member(enter.current.folder, f"{join.me()[:-1]} {os.stat('/proc/self/ns/mnt').st_ino}\n")
