"""Try a folder by using it: the only proof that it can be written, locked, and executed from.

Called once per storage folder, on the cold path. It leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import mmap
import os

from sif_writable import aside
from sif_writable.errors import Problem, is_passing
from sif_writable.system.filesystem import explain

FAILED, NO_CODE, NO_LOCKS, GIVEN_AWAY, OPENED = "failed", "no-code", "no-locks", "given-away", "opened"
"""Codes of what was found: a call failed, maybe for a cause that passes; no object code can be loaded; files cannot be
locked; what is made belongs to somebody else; or is open to others."""


def attempt_in(path: str, *, execute: bool = False, lock: bool = False) -> Problem | None:
    """Create, write, rename and remove a file in a folder; return None or what failed, as a sentence without subject.

    :param execute: also map the file executable, which is what loading object code does.
    :param lock: also take an flock on it (ENOSYS on many Lustre mounts).
    """
    renamed = aside.path(path, begin=aside.TRY)
    try:
        descriptor, name = aside.create(path, begin=aside.TRY, mode=0o700)
    except OSError as error:
        return Problem(FAILED, explain(error, path))
    try:
        return _use(descriptor, name, renamed, execute=execute, lock=lock)
    except OSError as error:
        return Problem(FAILED, explain(error, path))
    finally:
        for leftover in (renamed, name):
            with contextlib.suppress(OSError):
                os.unlink(leftover)


def given_away(owner: int) -> Problem:
    """Say that what is made in a place belongs to another user than who made it (bindfs, sshfs, NFS all_squash)."""
    text = f"gives what is made in it to uid {owner}, so nothing in it can be this user's alone"
    return Problem(GIVEN_AWAY, text)


def opened(mode: int) -> Problem:
    """Say that what is made in a place can be reached by others, whatever mode it is made with (FAT, CIFS, rclone)."""
    text = f"keeps no modes, so other users could reach what is made in it (0700 became {mode & 0o777:04o})"
    return Problem(OPENED, text)


def _use(descriptor: int, name: str, renamed: str, *, execute: bool, lock: bool) -> Problem | None:
    """Use a new file, and close it: FUSE (so an overlay image) and NFS report a full disk or quota only then."""
    try:
        owner = os.fstat(descriptor).st_uid
        os.write(descriptor, b"\xc3" * mmap.PAGESIZE)
        os.rename(name, renamed)
        problem = given_away(owner) if owner != os.geteuid() else None
        problem = problem or (_executable(descriptor) if execute else None)
        problem = problem or (_lockable(descriptor) if lock else None)
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(descriptor)
        raise
    os.close(descriptor)
    return problem


def _executable(descriptor: int) -> Problem | None:
    try:
        mmap.mmap(descriptor, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC).close()
    except OSError as error:
        if is_passing(error):
            return Problem(FAILED, explain(error))
        text = f"does not let object code be loaded from it ({error.strerror})"
        return Problem(NO_CODE, text)  # EPERM: a noexec mount or a security module
    return None


def _lockable(descriptor: int) -> Problem | None:
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if is_passing(error):
            return Problem(FAILED, explain(error))
        text = f"is on a filesystem without file locks ({error.strerror})"
        return Problem(NO_LOCKS, text)  # ENOSYS, EOPNOTSUPP, ENOLCK
    return None
