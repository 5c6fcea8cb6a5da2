"""Trees of files: walked, copied, linked and removed. What an overlay leaves in an upper directory is understood."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

from sif_writable.layer import child
from sif_writable.signals import let_pass, suppress

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 1 << 20
_FLUSHED = 64 << 20
"""After so many bytes of a file its disk is asked to hold them: at the end, it would be silent for long."""
_HEAD, _LINES = 4096, 10
"""Within these a file says what it is."""
_OPAQUE, _WHITEOUT = "user.overlay.opaque", "user.overlay.whiteout"


def walk(top: str, *, strict: bool = False) -> Iterator[tuple[str, os.stat_result]]:
    """Yield (path below the top, status) of everything in a folder, sorted; what holds it comes first.

    :param strict: nothing may vanish meanwhile.
    :raises OSError: something cannot be read. It must not count as empty.
    """
    stack = [""]
    while stack:
        where = stack.pop()
        child.progress()
        try:
            names = _names(f"{top}/{where}" if where else top)
        except FileNotFoundError:
            if strict:
                raise
            continue
        folders = []
        for name in reversed(names):
            path = f"{where}/{name}" if where else name
            try:
                status = _status(f"{top}/{path}")
            except FileNotFoundError:
                if strict:
                    raise
                continue
            yield path, status
            if stat.S_ISDIR(status.st_mode):
                folders.append(path)
        stack += reversed(folders)


def _status(path: str) -> os.stat_result:
    try:
        return os.lstat(path)
    except PermissionError as error:
        let_pass(error)
        with _readable(os.path.dirname(path)):
            return os.lstat(path)


def _names(folder: str) -> list[str]:
    try:
        found = os.listdir(folder)
    except PermissionError as error:
        let_pass(error)
        with _readable(folder):
            found = os.listdir(folder)
    return sorted(found, reverse=True)


def status_of(path: str) -> os.stat_result | None:
    """Return the status of what has a path, or None: there is nothing.

    :raises OSError: that cannot be found out. ``os.path.exists`` and its like take it for nothing.
    """
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def is_whiteout(path: str, status: os.stat_result) -> bool:
    """Whether an entry of an upper directory stands for something that was removed."""
    if stat.S_ISCHR(status.st_mode):
        return status.st_rdev == 0
    return stat.S_ISREG(status.st_mode) and status.st_size == 0 and _has(path, _WHITEOUT)


def is_opaque(path: str) -> bool:
    """Whether a directory of an upper directory hides what lies below it in the image."""
    return _has(path, _OPAQUE)


def _has(path: str, attribute: str) -> bool:
    try:
        try:
            os.getxattr(path, attribute, follow_symlinks=False)
        except PermissionError as error:
            let_pass(error)
            with _readable(path):
                os.getxattr(path, attribute, follow_symlinks=False)
    except OSError as error:
        let_pass(error)
        if error.errno not in {errno.ENODATA, errno.EOPNOTSUPP, errno.ENOENT}:
            raise
        return False
    return True


def copy(source: str, target: str, status: os.stat_result, *, link: bool = False) -> int:
    """Copy a file or a link, with mode and times; what is there already is replaced. Return the bytes copied.

    :param link: the source never changes, so that a second name for it does as well.
    :raises OSError: it cannot be copied.
    """
    with suppress(FileNotFoundError):
        os.unlink(target)
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), target)
        return 0
    if link:
        try:
            os.link(source, target, follow_symlinks=False)
        except OSError as error:  # another filesystem, or one without links
            let_pass(error)
        else:
            return 0
    incoming = _open(source)
    try:
        outgoing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            size = _copy_data(incoming, outgoing)
            try:
                os.utime(outgoing, ns=(status.st_atime_ns, status.st_mtime_ns))
                os.fchmod(outgoing, status.st_mode & 0o777)
            except OSError as error:  # a filesystem that keeps no modes
                let_pass(error)
                if error.errno not in _NOT_KEPT:
                    raise
        finally:
            os.close(outgoing)
    finally:
        os.close(incoming)
    return size


_NOT_KEPT = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


def _open(path: str) -> int:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags)
    except PermissionError as error:
        let_pass(error)
        with _readable(path):
            return os.open(path, flags)


@contextlib.contextmanager
def _readable(path: str) -> Iterator[None]:
    """Have the right to read what a program took that right from; a directory keeps it, as what is in it is read next.

    :raises PermissionError: it is somebody else's, or that was not the reason.
    """
    status = os.lstat(path)
    needed = 0o700 if stat.S_ISDIR(status.st_mode) else 0o400
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != os.geteuid() or mode & needed == needed:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    os.chmod(path, mode | needed)
    try:
        yield
    finally:
        if not stat.S_ISDIR(status.st_mode):
            os.chmod(path, mode)


def _copy_data(incoming: int, outgoing: int) -> int:
    """Copy what is in a file, and leave its holes: sparse ones may be larger than any disk. Return the bytes copied."""
    copied = at = 0
    end = os.fstat(incoming).st_size
    while at < end:
        try:
            at = os.lseek(incoming, at, os.SEEK_DATA)
            hole = os.lseek(incoming, at, os.SEEK_HOLE)
        except OSError as error:
            let_pass(error)
            if error.errno == errno.ENXIO:  # a hole up to its end
                break
            hole = end  # no such question here
        os.lseek(incoming, at, os.SEEK_SET)
        os.lseek(outgoing, at, os.SEEK_SET)
        while at < hole:
            part = os.read(incoming, min(_CHUNK, hole - at))
            if not part:
                return copied
            view = memoryview(part)
            while view:
                view = view[os.write(outgoing, view) :]
            at += len(part)
            copied += len(part)
            if copied % _FLUSHED == 0:
                os.fdatasync(outgoing)
            child.progress()
    os.ftruncate(outgoing, end)
    return copied


def sync(top: str) -> None:
    """Have the disk hold what is in a tree, before its name says that it is whole: a crash leaves no empty files."""
    for path, status in walk(top):
        child.progress()
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            descriptor = _open(f"{top}/{path}")
            try:
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)


def are_same(one: str, other: str) -> bool:
    """Whether two files, or two links, hold the same.

    :raises OSError: one of them cannot be read.
    """
    first, second = status_of(one), status_of(other)
    if first is None or second is None or stat.S_IFMT(first.st_mode) != stat.S_IFMT(second.st_mode):
        return False
    if stat.S_ISLNK(first.st_mode):
        return os.readlink(one) == os.readlink(other)
    if not stat.S_ISREG(first.st_mode) or first.st_size != second.st_size:
        return False
    have_holes = all(status.st_blocks * 512 < status.st_size for status in (first, second))
    with os.fdopen(_open(one), "rb", 0) as left, os.fdopen(_open(other), "rb", 0) as right:
        at = 0
        while at < first.st_size:
            if have_holes:  # what both leave out is the same, and may be larger than any disk
                at = min(_data_after(file.fileno(), at, first.st_size) for file in (left, right))
            part, counterpart = (os.pread(file.fileno(), _CHUNK, at) for file in (left, right))
            child.progress()
            both = min(len(part), len(counterpart)) or first.st_size
            if part[:both] != counterpart[:both]:
                return False
            at += both
    return True


def _data_after(descriptor: int, at: int, end: int) -> int:
    """Return where the next data of a file begin, or its end; without an answer they begin here."""
    try:
        return os.lseek(descriptor, at, os.SEEK_DATA)
    except OSError as error:
        let_pass(error)
        return end if error.errno == errno.ENXIO else at


def first_lines(path: str) -> str:
    """Return how a file begins: what it says of itself; nothing where it is none.

    :raises OSError: it cannot be read.
    """
    status = status_of(path)
    if status is None or not stat.S_ISREG(status.st_mode):
        return ""
    with os.fdopen(_open(path), "rb") as file:
        return "\n".join(file.read(_HEAD).decode("utf-8", "replace").splitlines()[:_LINES])


def flush(folder: str) -> None:
    """Have the disk hold the names in a folder: what they stand for elsewhere is going to be removed."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:  # filesystems that flush no folders
        let_pass(error)
        if error.errno not in _NOT_KEPT:
            raise
    finally:
        os.close(descriptor)


def make_folder(top: str, path: str, mode: int) -> None:
    """Make a directory below another one, with those that lead to it.

    :raises OSError: it cannot be made; a file that stands in its way is removed.
    """
    where = top
    for part in path.split("/"):
        where = f"{where}/{part}"
        try:
            os.mkdir(where, 0o700)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(where).st_mode):
                os.unlink(where)
                os.mkdir(where, 0o700)
    os.chmod(where, mode & 0o1777 | 0o700)


def remove(path: str, device: int = 0) -> None:
    """Remove a tree as far as possible, also an overlay's work folder, which the kernel leaves with mode 000.

    :param device: of the filesystem that is not left: what is mounted in the tree is nobody's to remove.
    """
    with suppress(OSError):
        status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(path)
            return
        if device and status.st_dev != device:
            return
        if status.st_mode & 0o700 != 0o700:
            os.chmod(path, 0o700)
        with os.scandir(path) as entries:
            names = [entry.name for entry in entries]
        child.progress()
        for name in names:
            remove(f"{path}/{name}", status.st_dev)
        os.rmdir(path)
