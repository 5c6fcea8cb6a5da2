"""Keep copies of packages in storage while a program imports from them.

A process that imports from a copy holds a shared lock on the file ``lease`` beside the copies until it ends. Whoever
removes copies needs that lock alone, and does not wait for it. The kernel gives the lock back however a process ends,
and a forked child shares it: it may import from the copies as well. An executed program does not get it
(close-on-exec), it takes its own when it needs one.

The lock is one open descriptor. No other mark goes with each crash, reaches other nodes where the filesystem passes
flock(2) on, and costs nothing after the first import. Where it does not, the time of the last use decides
(:func:`sif_writable.storage.leases.locks_reach_all_nodes`).

A daemon that closes all its descriptors gives its lease up.

On the path of every process that uses a copy: it imports only ``os``, and ``fcntl`` and ``time`` when it locks.
"""

import os

from sif_writable.signals import let_pass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

NAME = "lease"
"""The file's name, in the folder of an image's copies for one interpreter. Its time is that of their last use."""
DAY = 86400.0
"""Seconds. The time of last use is not renewed more often."""
_TRIES = 200
_PAUSE = 0.01
"""Seconds between tries: who removes something holds the lock only while it is renamed."""

_FLAGS = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_held: "dict[str, Optional[int]]" = {}
"""Folders that this process, or one that it was forked from, asked for, with the descriptor that holds the lock."""


def hold(folder: str) -> None:
    """Hold the lease on a folder of copies until this process ends, once; without it where there can be none.

    To be called before one looks whether a copy is there.
    """
    if folder in _held:
        return
    try:
        descriptor = _lock(folder)
    except OSError as error:
        let_pass(error)
        return
    _held[folder] = descriptor
    if descriptor is not None:
        _touch(descriptor)


def held(folder: str) -> "Optional[int]":
    """Return the descriptor by which this process holds the lease on a folder, or None."""
    return _held.get(folder)


def _lock(folder: str) -> "Optional[int]":
    """Return the descriptor that holds the shared lock, or None where files cannot be locked.

    :raises OSError: the file cannot be made; who asks next tries again.
    """
    import fcntl
    import time

    for _ in range(_TRIES):
        descriptor = os.open(f"{folder}/{NAME}", _FLAGS, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if is_there(folder, descriptor):
                return descriptor
        except BaseException as error:
            os.close(descriptor)
            let_pass(error)
            if not isinstance(error, OSError):
                raise
            if not isinstance(error, BlockingIOError):
                return None
            time.sleep(_PAUSE)
        else:
            os.close(descriptor)
    return None


def is_there(folder: str, descriptor: int) -> bool:
    """Whether an open file is still the lease of the folder, and not one that was removed with it."""
    try:
        named, own = os.lstat(f"{folder}/{NAME}"), os.fstat(descriptor)
    except OSError as error:
        let_pass(error)
        return False
    return (named.st_dev, named.st_ino) == (own.st_dev, own.st_ino)


def _touch(descriptor: int) -> None:
    """Let the file say that the copies were used today. Children of a long session keep no plan that would say so."""
    import time

    try:
        if abs(time.time() - os.fstat(descriptor).st_mtime) > DAY:
            os.utime(descriptor)
    except OSError as error:  # it has been read-only since
        let_pass(error)
