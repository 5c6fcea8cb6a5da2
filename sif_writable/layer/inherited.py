"""The layer that a process is in without having made or joined it: what the table of mounts and `about` say about it.

A child may have lost the variable that says so, and one of another environment of the container needs the identity that
its own image has without the layer.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import sys
import time
from typing import TYPE_CHECKING

from sif_writable import LAYER
from sif_writable.layer import enter, join
from sif_writable.mounted import covering
from sif_writable.signals import suppress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_NEW = ".new"
_SECONDS = 2.0


def folder(lines: Iterable[str]) -> str:
    """Return the folder of the layer that some lines of a mountinfo file show, or an empty string; nothing is asked.

    Of several, which environments of one container have in one namespace, it is this interpreter's.
    """
    found = ""
    last = wanted = [f"{path}/" for path in (sys.prefix, *sys.path)]
    for line in lines:
        left, ours, rest = line.partition(enter.MOUNTED)
        upper = _plain(rest.partition("upperdir=")[2].partition(",")[0])
        place, _, name = upper.rpartition("/")[0].rpartition("/")
        name = name.removeprefix(f"{_NEW}-")  # which it had when it was mounted
        if ours and name.startswith(("upper-", "memory-")):
            point = f"{_plain(left.split(' ', 5)[4])}/"
            before = [path for path in last if path.startswith(point)]
            if before or not found:
                found = f"{place}/{name}"
                last = wanted[: wanted.index(before[0])] if before else last
    return found


def _plain(path: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\054", ","), ("\\134", "\\")):
        path = path.replace(code, character)
    return path


def is_ours(here: str) -> bool:
    """Whether a folder is that of a layer, and of this user's."""
    return enter.is_private(here.rpartition("/")[0]) and os.path.isfile(f"{here}/about")


def export(here: str) -> None:
    """Say in the environment which layer this process is in, for it and its descendants.

    :param here: the folder of the layer.
    """
    known = identities(here)
    prefix = next(iter(known), "")
    namespace = os.readlink("/proc/self/ns/mnt")
    directories = enter.directories(here)
    os.environ[LAYER] = enter.inside(
        namespace, covering(prefix, *directories[:1]), known.get(prefix, ""), prefix, directories
    )


def note_wish(lines: Iterable[str]) -> None:
    """Note what a descendant of whoever made or joined the layer wants to be kept, which may be something else.

    :param lines: of its mountinfo file.
    """
    here = folder(lines)
    if here and is_ours(here):
        join.note_wish(here)


def identities(here: str) -> dict[str, str]:
    """Return the name of the image for each environment that is known: sys.prefix to ``image-IDENTITY``."""
    found: dict[str, str] = {}
    for line in enter.read(f"{here}/about").splitlines():
        if line.startswith("="):
            image, _, prefix = line[1:].partition(":")
            found[prefix] = image
    return found


def identity(here: str, prefix: str, find: Callable[[Callable[[str], str]], str]) -> str:
    """Return the identity of the image for one environment, as it is without the layer.

    :param here: the folder of the layer.
    :param find: makes it, given where a path is seen as it is in the image.
    :raises OSError: it could not be asked.
    """
    known = identities(here).get(prefix, "")
    if known:
        return known.partition("-")[2]
    with image(here) as original:
        found = find(original)
    with suppress(OSError):  # then the next one makes it again
        descriptor = os.open(f"{here}/about", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.write(descriptor, os.fsencode(f"\n{enter.known(f'image-{found}', prefix)}"))
        finally:
            os.close(descriptor)
    return found


@contextlib.contextmanager
def image(here: str) -> Iterator[Callable[[str], str]]:
    """Make the directories of the image reachable as they are without a layer, and return where.

    Nobody else does so meanwhile: whoever is done closes them again.

    :raises OSError: EAGAIN where another process takes too long, or what the way to them says.
    """
    directories = enter.directories(here)
    hidden = f"{here}/hidden"

    def original(path: str) -> str:
        for number, directory in enumerate(directories):
            if path == directory or path.startswith(f"{directory}/"):
                return f"{hidden}/{number}{path[len(directory) :]}"
        return path

    descriptor = os.open(f"{here}/about", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        _lock(descriptor)
        mode = stat.S_IMODE(os.lstat(hidden).st_mode)
        os.chmod(hidden, 0o700)
        try:
            yield original
        finally:
            os.chmod(hidden, mode)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Have a layer to this process alone, as whoever publishes it does: :func:`sif_writable.layer.publish.publish`."""
    deadline = time.monotonic() + _SECONDS
    while not _is_free(descriptor):
        if time.monotonic() > deadline:
            raise BlockingIOError(errno.EAGAIN, "another process has it")
        time.sleep(0.01)


def _is_free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
