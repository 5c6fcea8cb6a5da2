"""Is this folder fit for storage, and does it answer at all? Sentences say what is wrong, or nothing is.

Mount flags lie (a default Apptainer root says ``rw``), modes lie (``--writable-tmpfs`` under setuid gives EACCES on a
writable superblock), so the answer comes from the very folder: cheap calls first, then a real file (``attempt``).
"""

import os

from sif_writable import seldom, warm
from sif_writable.hanging import timed_out
from sif_writable.signals import let_pass
from sif_writable.system import world
from sif_writable.system.timeouts import has_timed_out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional


MIB = 1 << 20
MIN_BYTES, MIN_INODES, ROOM = warm.MIN_BYTES, warm.MIN_INODES, warm.ROOM
SOCKET_PATH = 40
"""Bytes. AF_UNIX paths end at 107 (unix(7)); multiprocessing, Ray and ZMQ append up to 67 (python/cpython#132124)."""
_S_IFMT, _S_IFDIR, _S_IFLNK = 0o170000, 0o040000, 0o120000
_S_ISVTX = 0o1000
_ST_RDONLY, _ST_NOEXEC = 1, 8
_MAX_LINKS = 40
_NOBODY = 65534
"""Owner of what belongs to somebody without a number in this user namespace; on most systems root of the host."""


def unfit(
    path: str,
    *,
    uid: int,
    room: int = MIN_BYTES,
    inodes: int = MIN_INODES,
    counted: bool = True,
    execute: bool = False,
    socket: bool = False,
    lock: bool = False,
    foreign_mode: int = 0o022,
    attempt: bool = False,
) -> "Optional[str]":
    """Say what is wrong with a folder as storage, or return None.

    :param uid: the user that must own it.
    :param room: bytes that must be free; :param inodes: inodes, where the filesystem counts them.
    :param counted: that none are free is believed where no file can be made, too; otherwise it says nothing.
    :param execute: object code will be loaded from it.
    :param socket: sockets will be made in it, so its path must be short.
    :param lock: file locks will be taken in it.
    :param foreign_mode: permission bits that it must not have; 0o077 in a place that others can write.
    :param attempt: create a file in it, rename and remove it; nothing else proves that it can be written.
    """
    try:
        status = world.lstat(path)
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
        space = world.statvfs(path)
    except OSError as error:
        return explain(error)
    if space.f_flag & _ST_RDONLY:
        return "is on a read-only filesystem"
    if execute and space.f_flag & _ST_NOEXEC:
        return "is on a filesystem mounted noexec, so object code cannot be loaded from it"
    free = space.f_bavail * space.f_frsize
    # Some do not count what is free, and say none (rclone, some of FUSE's, a tmpfs without a bound): a file is tried.
    if free < room and (space.f_blocks or (counted and _attempt_fails(path))):
        from sif_writable.sizes import human

        return f"has {human(free)} free, {human(room)} are needed"
    if space.f_files and space.f_favail < inodes and (space.f_favail or (counted and _attempt_fails(path))):
        return f"has {space.f_favail} inodes free, {inodes} are needed"
    if not world.access(path, os.W_OK | os.X_OK):
        return "gives this user no permission to write"
    if attempt:
        from sif_writable.system.probe import attempt_in

        problem = attempt_in(path, execute=execute, lock=lock)
        return problem and problem.text
    return None


def _attempt_fails(path: str) -> bool:
    """Whether no file can be made in a folder."""
    world.once()
    from sif_writable.system.probe import attempt_in

    return attempt_in(path) is not None


def foreign_component(path: str, uid: int, *, whole: bool = False) -> str:
    """Say which part of a path another user may have put there, or return an empty string.

    Where everybody may write, a name can be taken by anybody beforehand; who owns a directory can replace what is in
    it later. There only this user and root are believed. Root of the host has no number of its own in most user
    namespaces, so it cannot be distinguished from others: what has another owner than these two is not believed either.

    :param path: absolute; if it leads through links, both they and what they lead to count.
    :param whole: all of it has to be there. What nobody has put there yet, somebody can put there before it is used.
    """
    return way(path, uid, whole=whole)[0]


def way(path: str, uid: int, *, whole: bool = False) -> "tuple[str, str]":
    """Look at each part of a path once: return as :func:`foreign_component`, and the first loose directory.

    In a loose one others can write, and it has no sticky bit: they could rename what is in it, and put their own in its
    place after it was looked at. One that they cannot get to is none. The owner of a directory is believed, as who
    gives it vouches for him. Links are followed one by one: what holds the second of two counts as well.
    """
    loose, left = "", _MAX_LINKS
    passed: list[tuple[str, os.stat_result]] = []
    parts = path.split("/")[::-1]
    while parts:
        part = parts.pop()
        if part == "..":
            del passed[-1:]
        if part in ("", ".", ".."):
            continue
        here = f"{passed[-1][0] if passed else ''}/{part}"
        try:
            status = world.lstat(here)
            leads_to = world.readlink(here) if status.st_mode & _S_IFMT == _S_IFLNK else ""
        except OSError as error:  # not there: then nobody has put it there, and who makes it looks again
            let_pass(error)
            if whole and isinstance(error, FileNotFoundError):
                return f"leads to nothing: {here!r} {explain(error)}", loose
            break
        if passed and passed[-1][1].st_mode & 0o002 and status.st_uid not in (uid, 0):
            where = "is" if here == path else f"leads through {here}, which is"
            return f"{where} somebody else's, in a directory where everybody may make one", loose
        if leads_to:
            left -= 1
            if not left:
                break
            parts += leads_to.split("/")[::-1]
            if leads_to.startswith("/"):
                passed.clear()
            continue
        if status.st_mode & 0o022 and not status.st_mode & _S_ISVTX and not loose:
            loose = "" if is_private(here, status, uid) or _is_of_image(here, status, uid) else here
            if loose and passed:
                from sif_writable.system.access import is_shut_off

                loose = "" if is_shut_off(here, passed, uid) else here
        passed.append((here, status))
    return "", loose


def _is_of_image(path: str, status: "os.stat_result", uid: int) -> bool:
    """Whether a directory that its mode lets this user write cannot be written, as what lies in a read-only root."""
    grants = status.st_mode & (0o202 if status.st_uid == uid else 0o002)
    return bool(grants) and status.st_dev == world.stat("/").st_dev and not world.access(path, os.W_OK)


def is_private(path: str, status: "os.stat_result", uid: int) -> bool:
    """Whether the group that may write a directory is this user's alone, as with a umask of 002 on many systems.

    Its number is the user's then, and no access control list lets anybody else write, which shows in the group's bits.
    """
    if status.st_mode & 0o002 or status.st_uid not in (uid, 0) or status.st_gid != uid:
        return False
    if uid == 0:  # of this namespace: its group 0 may be any group outside
        try:
            if world.text("/proc/self/uid_map").split()[:2] != world.text("/proc/self/gid_map").split()[:2]:
                return False
        except OSError as error:
            let_pass(error)
            return False
    try:
        world.acl(path, "system.posix_acl_access")
    except OSError as error:
        let_pass(error)
        return True
    return False


def replaceable(base: "os.stat_result", uid: int, *, loose: bool = True) -> str:
    """Say who could replace a folder that is made in a directory, or return an empty string.

    :param base: what :func:`os.stat` says of the directory; :param loose: whether :func:`way` calls any part of it so.
    """
    if base.st_uid not in (uid, 0, _NOBODY):
        return f"belongs to uid {base.st_uid}, who could replace what we make in it"
    if base.st_mode & _S_ISVTX:
        return ""
    if base.st_mode & 0o002 and loose:
        return "can be written by everybody and has no sticky bit, so others could replace what we make in it"
    if base.st_mode & 0o020 and base.st_uid != uid:
        return "can be written by its group and has no sticky bit, so others could replace what we make in it"
    return ""


def why_not_creatable(path: str) -> str:
    """Say why a directory that does not exist cannot be made, or return an empty string."""
    parent = os.path.dirname(path)
    while parent and not world.exists(parent):  # empty: a relative path, and the working directory is gone
        parent = os.path.dirname(parent)
    try:
        problem = unfit(parent + "/.", uid=world.stat(parent).st_uid, foreign_mode=0)
    except OSError as error:
        problem = explain(error)
    return f"does not exist and cannot be made: {parent!r} {problem}" if problem else ""


def explain(error: OSError, path: str = "") -> str:
    """Put an errno into words that name its cause; EROFS, EACCES, ENOSPC and EDQUOT are different things.

    :param path: where it happened, to distinguish no space from no inodes; by default what the error names.
    :raises OSError: the error itself, where a signal handler of the program has raised it.
    """
    import errno

    let_pass(error)
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
        errno.EOVERFLOW: "has no number for this user, so nothing can be made in it (idmapped mount, user namespace)",
        errno.EMFILE: "could not be tried: this process has too many open files",
    }
    return words.get(error.errno or 0) or f"fails with: {error.strerror or error}"


def access_state(path: str) -> str:
    """Return ``absent``, ``writable``, ``read-only``, or ``silent``: below what has not answered this process.

    A dangling link counts as read-only, since mkdir fails.
    """
    if timed_out and has_timed_out(path):
        return "silent"
    try:  # first, since most of those that are asked about are not there
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return "absent"
    except (OSError, ValueError) as error:  # it may well be there; it is of no use as it is
        let_pass(error)
        return "read-only"
    return "writable" if os.access(path, os.W_OK | os.X_OK) else "read-only"


def _full(path: "object") -> str:
    """Say what is used up. Whoever was stopped halfway may have cleaned up by now, so the scarcer of the two counts."""
    while isinstance(path, str) and path:
        try:
            space = os.statvfs(path)
        except FileNotFoundError:  # what could not be made
            path = os.path.dirname(path)
            continue
        except OSError as error:
            let_pass(error)
            break
        from sif_writable.sizes import human

        free, total = space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize
        if space.f_files and free > MIB and space.f_favail * total < free * space.f_files:
            return f"has no inodes left ({space.f_favail} of {space.f_files} free, beside {human(free)})"
        return f"has no space left ({human(free)} of {human(total)} free)"
    return "has no space or no inodes left"


def holds(path: str, text: str) -> bool:
    """Whether there is a file at this path that contains a text."""
    return not (timed_out and has_timed_out(path)) and seldom.holds(path, text)
