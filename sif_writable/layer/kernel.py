"""Make namespaces, mount, lock: for the process that makes a layer, or mounts something else."""

import os

from sif_writable import let_pass
from sif_writable.layer.enter import read
from sif_writable.layer.join import NEWNS, NEWUSER, call, come_back, cwd, drop_capabilities, is_strong, join_namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Optional

    from sif_writable.layer.enter import Layer

RDONLY, NOSUID, NODEV, REMOUNT, BIND, REC, SLAVE = 1, 1 << 1, 1 << 2, 1 << 5, 1 << 12, 1 << 14, 1 << 19
_DETACH = 2
_PAGE = 4096
"""Bytes that the kernel reads of the options of a mount; it drops the rest without a word."""
WORDS = "userxattr,volatile,index=off"
"""Options of the layer: without ``volatile`` each exit flushes the whole filesystem, other people's pages included."""
REFUSED = (1, 13, 19, 22, 38, 95)
"""Errors that the kernel will give again: EPERM, EACCES, ENODEV, EINVAL, ENOSYS, EOPNOTSUPP."""


def separate(uid: int, gid: int) -> None:
    """Enter a user and a mount namespace of this process's own, in which it is the same user as before.

    :raises OSError: it is not permitted; then nothing has changed, unless the file name begins with /proc.
    """
    call("unshare", "unshare", NEWUSER | NEWNS)
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{uid} {uid} 1")
    _write("/proc/self/gid_map", f"{gid} {gid} 1")
    # Slaves, so that what the host mounts later still arrives; and Apptainer's root is unbindable, from which no
    # overlay can be made. The root of a chroot is no mount point, and needs neither.
    try:
        mount("", "/", "", REC | SLAVE)
    except OSError as error:
        let_pass(error)
        if error.errno != 22:  # EINVAL; errno is one more module
            raise


def separate_mounts() -> None:
    """Enter a mount namespace of this process's own, as one that may mount already.

    :raises OSError: it may not; whatever is mounted then would still be seen by others, so nothing must be.
    """
    call("unshare", "unshare", NEWNS)
    mount("", "/", "", REC | SLAVE)


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """Mount a filesystem, or change a mount.

    :raises OSError: its error; the file name is the target.
    """
    words = [os.fsencode(word) or None for word in (source, target, kind, options)]
    call("mount", target, *words[:3], flags, words[3])


def bind(source: str, target: str) -> None:
    """Show a file or directory at another path, with everything mounted below it."""
    mount(source, target, "", BIND | REC)


def unmount(target: str) -> None:
    """Take away what was mounted last at a path, with everything below it."""
    call("umount2", target, os.fsencode(target), _DETACH)


def overlay(lower: "Sequence[str]", upper: str, work: str, target: str, words: str) -> None:
    """Mount an overlay.

    :param lower: the first one covers the others.
    :param words: further options, separated by commas.
    :raises OSError: EBUSY where `words` have ``index=on`` and the upper directory is in use; EINVAL where it was used
        with ``volatile``, or is no filesystem for it; EPERM, EACCES, ENODEV.
    """
    opened: list[int] = []
    paths = [*lower, upper, work]
    options = _options([escaped(path) for path in paths], words)
    try:
        if len(os.fsencode(options)) >= _PAGE:
            opened += [os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in paths]
            options = _options([f"/proc/self/fd/{descriptor}" for descriptor in opened], words)
        mount("sif-writable", target, "overlay", NOSUID | NODEV, options)
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _options(paths: "Sequence[str]", words: str) -> str:
    return f"{words},lowerdir={':'.join(paths[:-2])},upperdir={paths[-2]},workdir={paths[-1]}"


def escaped(path: str) -> str:
    """Return a path as it stands in the options of an overlay."""
    return path.replace("\\", "\\\\").replace(",", "\\,").replace(":", "\\:")


def table(text: str) -> "list[tuple[str, str, str]]":
    """Return the mounts of this process: the root within the filesystem, the mount point, the type.

    :param text: of /proc/self/mountinfo.
    """
    found = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        _, _, _, root, point, _ = left.split(" ", 5)
        if "\\" in point:
            for code, letter in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
                point = point.replace(code, letter)
        found.append((root, point, right.partition(" ")[0]))
    return found


def mounts_below(directories: "Sequence[str]", mounts: "Iterable[tuple[str, str, str]]") -> "list[str]":
    """Return the mount points below some directories, but not those below others of them."""
    found: list[str] = []
    starts = tuple([f"{directory}/" for directory in directories])
    for _, point, _ in mounts:
        if point.startswith(starts) and not any(point == other or point.startswith(f"{other}/") for other in found):
            found = [*[other for other in found if not other.startswith(f"{point}/")], point]
    return found


def locked(descriptor: int, seconds: float) -> bool:
    """Lock the byte where a file stands, or return False: who holds it has been stopped, or its disk has."""
    pause, passed = 0.0005, 0.0
    while not _is_free(descriptor):
        if passed > seconds:
            return False
        import time

        time.sleep(pause)
        passed += pause
        pause = min(2 * pause, 0.02)
    return True


def _is_free(descriptor: int) -> bool:
    try:
        os.lockf(descriptor, os.F_TLOCK, 1)
    except OSError as error:
        let_pass(error)
        return error.errno not in (11, 13)  # EAGAIN, EACCES; where there are no locks, there are two layers at worst
    return True


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def mount_layer(
    layer: "Layer",
    base: str,
    mounts: "Optional[Sequence[tuple[str, str, str]]]" = None,
    neighbour: "Optional[tuple[int, int]]" = None,
) -> str:
    """Enter namespaces of this process's own and mount a layer; return an empty string or what failed.

    :param mounts: what :func:`table` returned.
    :param neighbour: what :func:`~sif_writable.layer.neighbours.member` returned: its namespaces are taken instead.
    """
    below = mounts_below(layer.directories, table(read("/proc/self/mountinfo")) if mounts is None else mounts)
    here = os.open(".", os.O_PATH | os.O_CLOEXEC)
    opened = [here]
    mounted: list[str] = []
    step = "a user namespace cannot be made here"
    try:
        path, strong = cwd(), is_strong()
        if neighbour is None:
            separate(os.geteuid(), os.getegid())
        else:
            join_namespaces(neighbour[1], strong=strong)
        try:
            # Opened in this namespace: what is of another one cannot be shown.
            held = [os.open(point, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW) for point in below]
            opened += held
            if layer.in_memory:
                from sif_writable.layer import memory

                base = memory.begin(layer)
                mounted.append(layer.folder)
            for number, directory in enumerate(layer.directories):
                step = f"an overlay over {directory} cannot be mounted here"
                earlier = f"{base}/tree{directory}"
                lower = [earlier, directory] if base and os.path.isdir(earlier) else [directory]
                hidden = f"{layer.folder}/hidden/{number}"
                opened.append(os.open(hidden, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
                bind(directory, hidden)
                mounted.append(hidden)
                overlay(lower, layer.uppers()[number], f"/proc/self/fd/{opened[-1]}", directory, WORDS)
                mounted.append(directory)
            for point, descriptor in zip(below, held):
                step = f"what is mounted at {point} cannot be shown there again"
                bind(f"/proc/self/fd/{descriptor}", point)
        except BaseException:  # also what a handler of the program raises: there is no half layer
            for point in reversed(mounted):
                unmount(point)
            raise
        finally:
            drop_capabilities(strong=strong)
        _leave_tidy(layer, path, here)
    except OSError as error:
        let_pass(error)
        layer.refused = error.errno in REFUSED or _is_forbidden(error)
        return f"{step}: {error.strerror}"
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return ""


def _leave_tidy(layer: "Layer", path: str, here: int) -> None:
    """Do what is good to have, but no reason to say that there is no layer: it stands."""
    try:
        os.chmod(f"{layer.folder}/hidden", 0o000)  # who walks through storage shall not find the image there
        come_back(path, here)
    except OSError as error:
        let_pass(error)


def _is_forbidden(error: OSError) -> bool:
    """Whether user namespaces are switched off: unshare says ENOSPC then, as it does where they are used up."""
    return error.filename == "unshare" and read("/proc/sys/user/max_user_namespaces").strip() == "0"
