"""Does a program import from a folder of copies? To find out, its lease is locked exclusively for a moment."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from sif_writable import lease
from sif_writable.errors import Problem
from sif_writable.signals import let_pass, suppress
from sif_writable.system.mounts import NETWORK, mount_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sif_writable.system.mounts import Mount

IN_USE, NO_LOCKS = "in-use", "no-locks"
"""Codes: a program imports from it; it cannot be known whether one does."""
_NO_LOCKS = "may be in use on another node: locks on this filesystem may be seen on one node only"


@contextlib.contextmanager
def alone(folder: str) -> Iterator[Problem | None]:
    """Hold the lease of a folder of copies alone for as long as the block runs; never wait for it.

    :yields: why it cannot be had, as a sentence without subject, with :data:`IN_USE` or :data:`NO_LOCKS`.
    :raises OSError: the lease cannot be opened.
    """
    import fcntl

    own = lease.held(folder)  # by this very process, which is about to remove what it has imported
    try:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(f"{folder}/{lease.NAME}", flags) if own is None else own
    except FileNotFoundError:  # who makes a copy takes its lease first
        yield None
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        problem = None if locks_reach_all_nodes(mount_of(folder)) else Problem(NO_LOCKS, _NO_LOCKS)
    except BlockingIOError:
        problem = Problem(IN_USE, _used_by(descriptor))
    except OSError as error:
        let_pass(error)
        problem = Problem(NO_LOCKS, _NO_LOCKS)
    try:
        yield problem
    finally:
        if own is None:
            os.close(descriptor)
        else:
            with suppress(OSError):
                fcntl.flock(own, fcntl.LOCK_SH | fcntl.LOCK_NB)


def locks_reach_all_nodes(mount: Mount | None) -> bool:
    """Whether a lock by flock(2) is seen wherever the filesystem is mounted, as far as that is known.

    NFS passes it on unless it is told not to (nfs(5): ``nolock``, ``local_lock``), Lustre if it is told to
    (mount.lustre(8): ``flock``), Ceph always (fs/ceph/locks.c); BeeGFS only by a setting that is off by default
    (beegfs-client.conf: tuneUseGlobalFileLocks). Of the others nothing is known.
    """
    if mount is None or not (mount.type in NETWORK or mount.type.startswith("fuse")):
        return True
    options = mount.options.split(",")
    if mount.type in ("nfs", "nfs4"):
        return not {"nolock", "local_lock=all", "local_lock=flock"}.intersection(options)
    return mount.type == "ceph" or (mount.type == "lustre" and "flock" in options)


def in_use(folder: str) -> Problem | None:
    """Say why a folder of copies cannot be removed now, if so."""
    try:
        with alone(folder) as problem:
            return problem
    except OSError as error:
        let_pass(error)
        return None  # removing it will say why it fails


def _used_by(descriptor: int) -> str:
    """Say who holds the lease. The kernel lists the processes of this node; of others it knows nothing."""
    status = os.fstat(descriptor)
    key = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    found = []
    with suppress(OSError), open("/proc/locks", encoding="ascii", errors="replace") as file:
        for line in file:
            words = line.split()
            if len(words) >= 8 and words[-3] == key and words[1] == "FLOCK" and words[-4] not in ("0", "-1"):
                found.append(words[-4])
    if not found:
        return "is imported from by a program that runs, maybe on another node, and stays until that ends"
    who = ", ".join(sorted(set(found), key=int)[:5])
    return f"is imported from by {'processes' if len(set(found)) > 1 else 'process'} {who}, and stays until that ends"
