"""Is this folder fit for storage? One function answers with nothing or a sentence.

Mount flags lie (a default Apptainer root says ``rw``), modes lie (``--writable-tmpfs`` under setuid gives EACCES on a
writable superblock), so the answer comes from the very folder: cheap calls first, then a real file (``attempt``).
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

    Told = tuple[list[tuple[str, frozenset[str], frozenset[str]]], list[tuple[str, str]], list[tuple[str, str, bool]]]
    """Directories with the names that were asked for and those that are there; paths with their state; files, a text,
    and whether it is in there."""

MIB = 1 << 20
MIN_BYTES = 16 << 20
"""Bytes that a storage folder must have free."""
MIN_INODES = 64
"""Inodes that a storage folder must have free, where the filesystem counts them."""
ROOM = 256 << 20
"""Bytes that downloads want free; below it another place is preferred (users fill 64 MiB within one import)."""
SOCKET_PATH = 40
"""Bytes. AF_UNIX paths end at 107; multiprocessing, Ray and ZMQ append up to 67 (cache-locations.md, trap 9)."""

_S_IFMT, _S_IFDIR, _S_IFLNK = 0o170000, 0o040000, 0o120000
_S_ISVTX = 0o1000
_ST_RDONLY, _ST_NOEXEC = 1, 8
_NOBODY = 65534
"""Owner of what belongs to somebody without a number in this user namespace; on most systems root of the host."""


def unfit(
    path: str,
    *,
    uid: int,
    room: int = MIN_BYTES,
    inodes: int = MIN_INODES,
    execute: bool = False,
    socket: bool = False,
    lock: bool = False,
    foreign_mode: int = 0o022,
    attempt: bool = False,
) -> "Optional[str]":
    """Say what is wrong with a folder as storage, or return None.

    :param uid: the user that must own it.
    :param room: bytes that must be free; :param inodes: inodes, where the filesystem counts them.
    :param execute: object code will be loaded from it.
    :param socket: sockets will be made in it, so its path must be short.
    :param lock: file locks will be taken in it.
    :param foreign_mode: permission bits that it must not have; 0o077 in a place that others can write.
    :param attempt: create a file in it, rename and remove it; nothing else proves that it can be written.
    """
    try:
        status = os.lstat(path)
    except OSError as error:
        return explain(error)
    kind = status.st_mode & _S_IFMT
    if kind == _S_IFLNK:
        return "is a symbolic link, which another user may have planted"
    if kind != _S_IFDIR:
        return "is not a directory"
    if status.st_uid != uid:
        return f"belongs to uid {status.st_uid}, not to uid {uid}"
    if status.st_mode & foreign_mode:
        return f"is open to other users (mode {status.st_mode & 0o7777:04o}, safe is {0o777 & ~foreign_mode:04o})"
    if socket and len(os.fsencode(path)) > SOCKET_PATH:
        return f"has a path of {len(os.fsencode(path))} bytes, too long for sockets (at most {SOCKET_PATH})"
    try:
        space = os.statvfs(path)
    except OSError as error:
        return explain(error)
    if space.f_flag & _ST_RDONLY:
        return "is on a read-only filesystem"
    if execute and space.f_flag & _ST_NOEXEC:
        return "is on a filesystem mounted noexec, so object code cannot be loaded from it"
    free = space.f_bavail * space.f_frsize
    if free < room:
        return f"has {free >> 20} MiB free, {room >> 20} MiB are needed"
    if space.f_files and space.f_favail < inodes:
        return f"has {space.f_favail} inodes free, {inodes} are needed"
    if not os.access(path, os.W_OK | os.X_OK):
        return "gives this user no permission to write"
    if attempt:
        from sif_writable.facts.attempt import attempt_in

        return attempt_in(path, execute=execute, lock=lock)
    return None


def planted(path: str, uid: int) -> str:
    """Say which part of a path another user may have put there, or return an empty string.

    Where everybody may write, a name can be taken by anybody beforehand; who owns a directory can replace what is in
    it later. There only this user and root are believed. Root of the host has no number of its own in most user
    namespaces, so nobody can be told from it: what has another owner than these two is not believed either.

    :param path: absolute; if it leads through links, both they and what they lead to count.
    """
    here, open_to_all, linked = "", False, False
    for part in path.strip("/").split("/"):
        here += "/" + part
        try:
            status = os.lstat(here)
        except OSError:  # not there: then nobody has put it there, and who makes it looks again
            break
        if open_to_all and status.st_uid not in (uid, 0):
            where = "is" if here == path else f"leads through {here}, which is"
            return f"{where} somebody else's, in a directory where everybody may make one"
        is_link = status.st_mode & _S_IFMT == _S_IFLNK
        linked = linked or is_link
        open_to_all = not is_link and bool(status.st_mode & 0o002)
    real = os.path.realpath(path) if linked else path
    return planted(real, uid) if real != path else ""


def replaceable(base: "os.stat_result", uid: int) -> str:
    """Say who could replace a folder that is made in a directory, or return an empty string.

    :param base: what :func:`os.stat` says of the directory.
    """
    if base.st_uid not in (uid, 0, _NOBODY):
        return f"belongs to uid {base.st_uid}, who could replace what we make in it"
    if base.st_mode & _S_ISVTX:
        return ""
    if base.st_mode & 0o002:
        return "can be written by everybody and has no sticky bit, so others could replace what we make in it"
    if base.st_mode & 0o020 and base.st_uid != uid:
        return "can be written by its group and has no sticky bit, so others could replace what we make in it"
    return ""


def unmakable(path: str) -> str:
    """Say why a directory that does not exist cannot be made, or return an empty string."""
    parent = os.path.dirname(path)
    while parent and not os.path.lexists(parent):  # empty: a relative path, and the working directory is gone
        parent = os.path.dirname(parent)
    try:
        problem = unfit(parent + "/.", uid=os.stat(parent).st_uid, foreign_mode=0)
    except OSError as error:
        problem = explain(error)
    return f"does not exist and cannot be made: {parent!r} {problem}" if problem else ""


def explain(error: OSError, path: str = "") -> str:
    """Put an errno into words that name its cause; EROFS, EACCES, ENOSPC and EDQUOT are different things.

    :param path: where it happened, so that no space and no inodes are told apart; by default what the error names.
    """
    import errno

    if error.errno == errno.ENOSPC:
        return _full(path or error.filename)
    words = {
        errno.ENOENT: "does not exist",
        errno.ENOTDIR: "has a part that is not a directory",
        errno.EROFS: "is on a read-only filesystem",
        errno.EACCES: "gives this user no permission to write",
        errno.EPERM: "may not be written (operation not permitted)",
        errno.EDQUOT: "is over this user's disk quota",
        errno.ENAMETOOLONG: "has a name that is too long",
        errno.ELOOP: "has a symbolic link where none is allowed",
        errno.EEXIST: "is not a directory",
        errno.ESTALE: "is on a network filesystem that lost it (stale file handle)",
        errno.EIO: "is on a filesystem that reports input/output errors",
        errno.EMFILE: "could not be tried: this process has too many open files",
    }
    return words.get(error.errno or 0) or f"fails with: {error.strerror or error}"


def is_passing(error: OSError) -> bool:
    """Whether an error says nothing about the file itself, which may well be readable the next moment.

    What such an error hides must not be taken for absent where that would be kept.
    """
    import errno

    passing = (errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.ENOTCONN)
    return error.errno in (*passing, errno.ETIMEDOUT, errno.EHOSTDOWN)


def look(path: str) -> str:
    """Return ``absent``, ``writable`` or ``read-only`` (a dangling link counts as read-only: mkdir fails)."""
    if os.access(path, os.W_OK | os.X_OK):
        return "writable"
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return "absent"
    except (OSError, ValueError):  # it may well be there; it is of no use as it is
        return "read-only"
    return "read-only"


def _full(path: "object") -> str:
    """Say what is used up. Whoever was stopped halfway may have cleaned up by now, so the scarcer of the two counts."""
    while isinstance(path, str) and path:
        try:
            space = os.statvfs(path)
        except FileNotFoundError:  # what could not be made
            path = os.path.dirname(path)
            continue
        except OSError:
            break
        free, total = space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize
        if space.f_files and free > MIB and space.f_favail * total < free * space.f_files:
            return f"has no inodes left ({space.f_favail} of {space.f_files} free, beside {free >> 20} MiB)"
        return f"has no space left ({free >> 20} of {total >> 20} MiB free)"
    return "has no space or no inodes left"


def holds(path: str, text: str) -> bool:
    """Whether there is a file at this path that contains a text."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a named pipe shall not block
        with open(descriptor, "rb", buffering=0) as file:
            return text.encode() in (file.read(1 << 20) or b"")
    except OSError:
        return False


def unchanged(told: "Told") -> bool:
    """Whether all that :meth:`sif_writable.facts.locations.Locations.told` told would be answered the same now."""
    listings, looked, held = told
    try:
        for directory, asked, there in listings:
            if asked.intersection(os.listdir(directory)) != there:
                return False
    except OSError:
        return False
    for path, state in looked:
        if look(path) != state:
            return False
    for path, text, found in held:  # noqa: SIM110 - like the loops above
        if holds(path, text) != found:
            return False
    return True
