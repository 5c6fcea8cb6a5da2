"""The few system calls that Python has no name for: namespaces, mounts, capabilities. Loaded on the cold path only."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os

NEWNS, NEWUSER = 0x00020000, 0x10000000
NOSUID, NODEV, BIND, REC, SLAVE = 1 << 1, 1 << 2, 1 << 12, 1 << 14, 1 << 19
_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Capabilities(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


_VERSION_3 = 0x20080522


def _check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), what)


def separate(uid: int, gid: int) -> None:
    """Enter a user and a mount namespace of this process's own, in which it is the same user as before.

    What is mounted from now on is seen by this process and its descendants alone: the kernel itself turns shared
    mounts into slaves where a mount namespace belongs to another user namespace. Slaves, so that what the host mounts
    later (autofs) still arrives.
    """
    _check(_libc.unshare(NEWUSER | NEWNS), "unshare")
    with contextlib.suppress(FileNotFoundError):  # kernels before 3.19
        _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{uid} {uid} 1")
    _write("/proc/self/gid_map", f"{gid} {gid} 1")
    with contextlib.suppress(OSError):  # the root of a chroot is no mount point
        # Apptainer's root is unbindable: neither an overlay nor a bind could be made from it.
        mount("", "/", "", REC | SLAVE)


def separate_mounts() -> None:
    """Enter a mount namespace of this process's own, as one that may mount already.

    :raises OSError: it may not; whatever is mounted then would still be seen by others, so nothing must be.
    """
    _check(_libc.unshare(NEWNS), "unshare")
    mount("", "/", "", REC | SLAVE)


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """Mount a filesystem, or change a mount: the system call of that name."""
    words = [os.fsencode(word) or None for word in (source, target, kind)]
    _check(_libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), os.fsencode(options) or None), target)


def bind(source: str, target: str) -> None:
    """Show a file or directory at another path, with everything mounted below it."""
    mount(source, target, "", BIND | REC)


def unmount(target: str) -> None:
    """Take away what was mounted last at a path, with everything below it."""
    _check(_libc.umount2(os.fsencode(target), _DETACH), target)


def overlay(lower: str, upper: str, work: str, target: str, *, shared: bool) -> None:
    """Mount an overlay.

    :param shared: another process may want the same upper layer: one of the two gets EBUSY.
    """
    layers = f"lowerdir={_escaped(lower)},upperdir={_escaped(upper)},workdir={_escaped(work)}"
    # `index=on` is what makes a second use of the upper layer an error rather than a line in the kernel's log.
    layers += ",index=on" if shared else ",index=off"
    try:
        mount("sif-writable", target, "overlay", NOSUID | NODEV, layers + ",userxattr")
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # Ubuntu's and Debian's kernels before 5.11 allow it without that word, which they do not know.
        mount("sif-writable", target, "overlay", NOSUID | NODEV, layers)


def _escaped(path: str) -> str:
    for character in "\\,:":
        path = path.replace(character, "\\" + character)
    return path


def privileged() -> bool:
    """Whether this process has any capability."""
    header, data = _Header(_VERSION_3, 0), (_Capabilities * 2)()
    _check(_libc.capget(ctypes.byref(header), data), "capget")
    return any(part.effective or part.permitted for part in data)


def give_up_privileges() -> None:
    """Take from this process the capabilities that the new namespace gave it: files deny again what they denied."""
    header, data = _Header(_VERSION_3, 0), (_Capabilities * 2)()
    _check(_libc.capset(ctypes.byref(header), data), "capset")


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
