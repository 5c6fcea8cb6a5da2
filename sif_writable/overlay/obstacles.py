"""What prevents an overlay here? Each answer is a sentence, or nothing.

A private user namespace changes what a process is to its neighbours (ranks of one job can no longer read each other's
memory), and the kernel allows one only to a process with a single thread. A trial in a forked child has the last word
(:mod:`sif_writable.overlay.trial`); what is asked here needs no trial, or must not be tried.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from sif_writable.layer.enter import parallel
from sif_writable.layer.trial import UPPER_TYPES
from sif_writable.signals import let_pass
from sif_writable.storage.layout import OVERLAY
from sif_writable.system.mounts import mount_of, mounts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sif_writable.system.mounts import Mount

_LIMIT = "/proc/sys/user/max_user_namespaces"
_DEBIAN = "/proc/sys/kernel/unprivileged_userns_clone"


def obstacle(environ: Mapping[str, str]) -> str:
    """Say why this process must not, or cannot, get namespaces of its own; an empty string: it may try."""
    return parallel(environ) or threads() or switched_off()


def threads(path: str = "/proc/self/task") -> str:
    """Say how many threads run, which forbids a new user namespace, or return an empty string."""
    try:
        count = len(os.listdir(path))
    except OSError as error:
        let_pass(error)
        return "/proc is not mounted here, so threads cannot be counted"
    return "" if count == 1 else f"{count} threads run in this process, and the kernel asks for a single one"


def switched_off(limit: str = _LIMIT, debian: str = _DEBIAN) -> str:
    """Say by which setting user namespaces are switched off, or why this Python cannot ask for one, or nothing."""
    if not hasattr(os, "posix_spawn"):
        return "this Python has no os.posix_spawn, and cannot mount either (PyPy)"
    for path in (limit, debian):
        # Not every kernel has each of the settings.
        with contextlib.suppress(OSError), open(path, encoding="ascii", errors="replace") as file:
            if file.read().strip() == "0":
                return f"user namespaces are switched off here ({path} is 0)"
    return ""


def unshare_words(number: int | None) -> str:
    """Put an errno of unshare(2) into words; ENOSPC is no matter of disks."""
    words = {
        errno.ENOSPC: "no further user namespace is allowed here (user.max_user_namespaces is 0 or used up)",
        errno.EUSERS: "user namespaces are nested too deep here",
        errno.EPERM: "making user namespaces is not permitted here (a seccomp filter, as of Docker, or a setting)",
        errno.EACCES: "a security module (AppArmor, SELinux) denies user namespaces here",
        errno.EINVAL: "the kernel has no user namespaces, or more than one thread runs",
        errno.ENOSYS: "the kernel has no user namespaces",
    }
    return words.get(number or 0) or f"a user namespace cannot be made: {os.strerror(number or 0)}"


def mount_words(number: int | None, point: str, table: list[Mount]) -> str:
    """Put an errno of mounting an overlay over a directory into words."""
    below = mount_of(point, table)
    if number == errno.EINVAL and below is not None and below.type == "overlay":
        return f"overlays are stacked too deep: {point} is on one already, and the kernel takes no further one"
    words = {
        errno.ENODEV: "the kernel has no overlayfs",
        errno.EPERM: "mounting an overlay is not permitted here (kernels before 5.11, or a security setting)",
        errno.EACCES: "a security module (AppArmor, SELinux) denies mounting an overlay here",
        errno.EINVAL: f"the kernel takes no overlay over {point} (its filesystem, or too many layers)",
        errno.EBUSY: f"another process uses what is kept for {point}",
        errno.ENOENT: f"{point} or what is kept for it is gone",
    }
    return words.get(number or 0) or f"an overlay over {point} cannot be mounted: {os.strerror(number or 0)}"


def upper_problem(path: str, table: list[Mount] | None = None) -> str:
    """Say why the filesystem of a directory is not used for an upper layer, or return an empty string."""
    mount = mount_of(path, table)
    if mount is None:
        return f"the filesystem of {path} is not known"
    if mount.type in UPPER_TYPES:
        return ""
    return f"{path} is on {mount.type}, which is not known to carry the upper layer of an overlay"


def below(point: str, table: list[Mount] | None = None) -> list[str]:
    """Return the mount points below a directory, but not those below others of them."""
    found: list[str] = []
    for mount in mounts() if table is None else table:
        path = mount.point
        if path.startswith(point.rstrip("/") + "/") and not any(path == f or path.startswith(f + "/") for f in found):
            found = [other for other in found if not other.startswith(path + "/")] + [path]
    return found


def namespace() -> str:
    """Return the name of this process's mount namespace, such as ``mnt:[4026531841]``; empty without /proc."""
    try:
        return os.readlink("/proc/self/ns/mnt")
    except OSError as error:
        let_pass(error)
        return ""


def users(image: str, processes: str = "/proc") -> list[int]:
    """Return the processes of this node that have an overlay or graft of an image's folder mounted, as far as seen.

    Whoever removes that folder takes from them what is mounted in it, also what was only mounted back.

    :param image: the name of the image's folder in storage, which is the same in every namespace.
    """
    found = []
    for name in os.listdir(processes):
        if name.isdigit():
            # Another user's process, or one that has just ended, is none of ours.
            with contextlib.suppress(OSError), open(f"{processes}/{name}/mountinfo", "rb") as file:
                if f"/{image}/{OVERLAY}/".encode() in file.read():
                    found.append(int(name))
    return found


def used_by(image: str) -> str:
    """Say which processes have something of an image's folder mounted, or return an empty string."""
    found = users(image)
    if not found:
        return ""
    listed = ", ".join(map(str, found[:5])) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
    return (
        f"is mounted by process {listed}, and stays until that ends"
        if len(found) == 1
        else (f"is mounted by processes {listed}, and stays until they end")
    )


def circumstances(table: list[Mount] | None = None) -> str:
    """Return what a trial of namespaces and overlays depends on: what worked once works while this stays the same."""
    root = mount_of("/", mounts() if table is None else table)
    words = [root.type if root else "", uid_map()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/attr/current"):
        with contextlib.suppress(OSError), open(path, "rb", buffering=0) as file:
            words.append((file.read(4096) or b"").decode("ascii", "replace").strip("\n\0"))
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii", errors="replace") as lines:
        words += [line.split()[1] for line in lines if line.startswith(("Seccomp", "NoNewPrivs", "CapEff"))]
    return " ".join(words)


def uid_map(path: str = "/proc/self/uid_map") -> str:
    """Say which uids there are in this process's user namespace, for the report."""
    try:
        with open(path, encoding="ascii") as file:
            lines = [line.split() for line in file]
    except OSError as error:
        let_pass(error)
        return "unknown"
    if lines == [["0", "0", "4294967295"]]:
        return "all, as on the host"
    return ", ".join(
        f"{inside}-{int(inside) + int(count) - 1}" if count != "1" else inside for inside, _, count in lines
    )
