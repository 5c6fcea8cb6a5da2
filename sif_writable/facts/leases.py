"""Does a program import from a folder of copies? That is asked by trying to have its lease alone."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from sif_writable import lease

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_LOCKS = "may be in use: files cannot be locked on this filesystem, so nobody can tell"


@contextlib.contextmanager
def alone(folder: str) -> Iterator[str]:
    """Hold the lease of a folder of copies alone for as long as the block runs; never wait for it.

    :yields: why it cannot be had, as a sentence without subject, or an empty string. :data:`NO_LOCKS` is one.
    :raises OSError: the lease cannot be opened.
    """
    import fcntl

    own = lease.held(folder)  # by this very process, which is about to remove what it has imported
    try:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(f"{folder}/{lease.NAME}", flags) if own is None else own
    except FileNotFoundError:  # who makes a copy takes its lease first
        yield ""
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        problem = ""
    except BlockingIOError:
        problem = _used_by(descriptor)
    except OSError:
        problem = NO_LOCKS
    try:
        yield problem
    finally:
        if own is None:
            os.close(descriptor)
        else:
            with contextlib.suppress(OSError):
                fcntl.flock(own, fcntl.LOCK_SH | fcntl.LOCK_NB)


def in_use(folder: str) -> str:
    """Say why a folder of copies cannot be removed now, or return an empty string."""
    try:
        with alone(folder) as problem:
            return problem
    except OSError:
        return ""  # removing it will say why it fails


def _used_by(descriptor: int) -> str:
    """Say who holds the lease. The kernel lists the processes of this node; of others it knows nothing."""
    status = os.fstat(descriptor)
    key = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    found = []
    with contextlib.suppress(OSError), open("/proc/locks", encoding="ascii", errors="replace") as file:
        for line in file:
            words = line.split()
            if len(words) >= 8 and words[-3] == key and words[1] == "FLOCK" and words[-4] not in ("0", "-1"):
                found.append(words[-4])
    if not found:
        return "is imported from by a program that runs, maybe on another node, and stays until that ends"
    who = ", ".join(sorted(set(found), key=int)[:5])
    return f"is imported from by {'processes' if len(set(found)) > 1 else 'process'} {who}, and stays until that ends"
