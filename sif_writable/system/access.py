"""Whether anybody but this user can get to a directory at all, whatever its own mode lets them do in it.

Asked only where others may write, as in ``~/.cache`` of mode 0775, which a umask of 002 makes, in a HOME of mode 0700.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sif_writable.signals import let_pass
from sif_writable.system import world
from sif_writable.system.filesystem import is_private
from sif_writable.system.mounts import mounts

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

_ALLOW, _EXECUTE = 0, 0x20
"""Of an entry in an access list of NFSv4 (RFC 7530, 6.2.1): its type, and the right to pass through a directory."""


def is_shut_off(path: str, above: Sequence[tuple[str, os.stat_result]], uid: int) -> bool:
    """Whether one of the directories above lets only this user and root through.

    Nobody can tell which groups have a member in common, so one that lets any group through lets those through who may
    write below it. What is above a mount point counts for nothing: what is mounted may have another way to it, outside
    this container.

    :param path: absolute, without links; :param above: the directories on the way to it, with what lstat said of them.
    """
    for place, status in reversed(above):
        if not _lets_others_through(place, status, uid):
            return bool(mounts()) and not world.mounted_between(path, place)
    return False


def _lets_others_through(path: str, status: os.stat_result, uid: int) -> bool:
    if status.st_uid not in (uid, 0) or status.st_mode & 0o001:
        return True
    if status.st_mode & 0o010 and not is_private(path, status, uid):  # also for whom a list of POSIX names
        return True
    try:
        return names_others(world.acl(path, "system.nfs4_acl"))
    except OSError as error:
        let_pass(error)
        return False


def names_others(access_list: bytes) -> bool:
    """Whether an access list of NFSv4 lets somebody through who is no part of the mode; what is not understood does.

    :param access_list: as the kernel's client gives it: the number of entries; for each its type, its flags, its
        rights, and who is meant, with length, filled up to four bytes.
    """

    def number(at: int) -> int:
        if at + 4 > len(access_list):
            raise ValueError
        return int.from_bytes(access_list[at : at + 4], "big")

    try:
        at = 4
        for _ in range(number(0)):
            kind, rights, length = number(at), number(at + 8), number(at + 12)
            who = access_list[at + 16 : at + 16 + length]
            if kind == _ALLOW and rights & _EXECUTE and who not in (b"OWNER@", b"GROUP@", b"EVERYONE@"):
                return True
            at += 16 + (length + 3) // 4 * 4
    except ValueError:
        return True
    return False
