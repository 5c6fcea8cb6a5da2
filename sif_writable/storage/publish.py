"""Put things into storage whole: built aside, and renamed into place.

A process that is killed at any moment leaves either nothing or a whole thing. Leftovers have a name of
:mod:`sif_writable.aside`, and a later start collects them (:func:`sif_writable.storage.make.collect_leftovers`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from typing import TYPE_CHECKING

from sif_writable import aside
from sif_writable.signals import let_pass, suppress
from sif_writable.storage.layout import LOCKS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


LOCK_SECONDS = 10.0
"""Seconds that a process waits for another one that makes the same thing; after that it makes it as well."""
MAX_RELINKED = 1000
"""Times that a link is removed which other processes put back."""


def write_aside(path: str, content: bytes) -> None:
    """Write a file aside and rename it into place.

    :raises OSError: it could not be written; nothing is left behind.
    """
    directory, name = os.path.split(path)
    descriptor, new = aside.create(directory, name)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        os.rename(new, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(new)
        raise


def publish(
    folder: str,
    fill: Callable[[str], None],
    *,
    lock_below: str,
    aside_in: str = "",
    seconds: float = LOCK_SECONDS,
    over_link: bool = False,
) -> None:
    """Build a folder aside, and rename it into place unless another process was first.

    The lock only saves work: without it two processes build the same, and one of the two is thrown away.

    :param fill: is given the path of an empty directory to fill.
    :param aside_in: where it is built, on the same filesystem; by default beside its place.
    :param seconds: how long another process may take that builds the same.
    :param over_link: a link that stands in its place is replaced; by default it counts as the folder.
    :raises OSError: the folder could not be built; nothing is left behind.
    """
    parent, name = os.path.split(folder)
    with bounded_lock(os.path.join(lock_below, LOCKS), name, seconds):
        if not _is_there(folder, over_link=over_link):
            put(folder, fill, aside_in=aside_in or parent, over_link=over_link)


def put(folder: str, fill: Callable[[str], None], *, aside_in: str, over_link: bool = False) -> None:
    """Build a folder aside, and rename it into place; what another process has put there meanwhile is as good.

    The parameters are those of :func:`publish`, and so is what is raised.
    """
    new = aside.path(aside_in, os.path.basename(folder))
    os.mkdir(new, 0o700)
    try:
        fill(new)
        if over_link:
            _rename_over_link(new, folder)
        else:
            os.rename(new, folder)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        let_pass(error)
        if not _is_there(folder, over_link=over_link):
            raise
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def _is_there(folder: str, *, over_link: bool) -> bool:
    # islink would take an error of storage for "no link", and so the link to the image for what is to be made.
    return os.path.isdir(folder) and not (over_link and stat.S_ISLNK(os.lstat(folder).st_mode))


def _rename_over_link(new: str, folder: str) -> None:
    """Rename a folder to where a link may stand.

    No call does that at once, and another process may put the link back in between. Each process does so once for
    each folder that it is about to make, so trying again comes to an end.
    """
    for _ in range(MAX_RELINKED):
        with suppress(FileNotFoundError, IsADirectoryError):  # no link, or another process was faster
            os.unlink(folder)
        with suppress(NotADirectoryError):  # the link is back
            os.rename(new, folder)
            return
    os.rename(new, folder)


@contextlib.contextmanager
def bounded_lock(directory: str, name: str, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold a file lock for as long as the block runs, or go on without one when it cannot be had in time."""
    lock = None
    path = os.path.join(directory, name + ".lock")
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
        _try_lock(path)
        from filelock import FileLock

        # No argument that a version does not know: it would leave an object half made, whose end prints a traceback on
        # the program's stderr. One that has soft locks makes them where a call fails that was just tried.
        if "fallback_to_soft" in FileLock.__init__.__code__.co_varnames:
            lock = FileLock(path, timeout=seconds, fallback_to_soft=False)
        else:
            lock = FileLock(path, timeout=seconds)
        lock.acquire()
    except Exception as error:  # noqa: BLE001 - not in time, no locks here, or another module has the name filelock
        let_pass(error)
        lock = None
    try:
        yield
    finally:
        if lock is not None:
            with suppress(Exception):
                lock.release()


def _try_lock(path: str) -> None:
    """Check that files can be locked here; otherwise filelock would make a soft lock.

    A soft lock outlives a killed process, and filelock warns of it on the program's stderr.

    :raises OSError: they cannot.
    """
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # not by closing: a thread that forks just now hands the descriptor on
    except BlockingIOError:  # somebody holds it, so they can
        pass
    finally:
        os.close(descriptor)
