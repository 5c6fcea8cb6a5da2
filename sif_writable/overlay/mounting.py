"""Mount something writable over a directory of the image, in namespaces that this process has to itself.

What is written to a layer in memory is brought to storage at exit, and whenever somebody asks.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NamedTuple

from sif_writable.overlay import decide, obstacles
from sif_writable.overlay import layers as upper
from sif_writable.overlay.decide import GRAFT
from sif_writable.signals import let_pass, suppress

if TYPE_CHECKING:
    from sif_writable.overlay.decide import Target


class Entered(NamedTuple):
    """A directory that became writable."""

    point: str
    how: str
    """``graft`` or ``overlay``."""
    kept: str
    """Where in storage what is written there is, or is brought to at exit."""
    note: str
    """Why it is in memory while the program runs, or an empty string."""
    why: str
    """The evidence."""


class _Memory(NamedTuple):
    """An upper layer in memory, to be carried back."""

    upper: str
    kept: str
    before: upper.Snapshot
    replace: bool


_memories: list[_Memory] = []


def privileged() -> bool:
    """Whether this process has capabilities, which then are not taken from it."""
    from sif_writable.overlay.kernel import privileged as has_capabilities

    try:
        return has_capabilities()
    except OSError as error:
        let_pass(error)
        return True  # then nothing is taken away


def separate(*, strong: bool = False) -> str:
    """Enter namespaces of this process's own; return an empty string or why that is not possible.

    :param strong: the process may mount as it is, so only the mounts become its own.
    """
    try:
        from sif_writable.layer import kernel
    except (ImportError, OSError) as error:  # an interpreter without _ctypes
        let_pass(error)
        return f"this interpreter cannot make system calls of its own ({error})"
    try:
        if strong:
            with suppress(OSError):  # without the capability for it
                kernel.separate_mounts()
                return ""
        kernel.separate(os.geteuid(), os.getegid())
    except OSError as error:
        let_pass(error)
        return obstacles.unshare_words(error.errno)
    return ""


def mount(target: Target, folder: str, in_storage: str) -> Entered:
    """Make one directory writable as it was decided.

    :param folder: what storage keeps for the overlays of this image.
    :param in_storage: why that folder cannot carry an upper layer, or an empty string.
    :raises OSError: it could not be mounted.
    """
    return mount_graft(target, folder) if target.how == GRAFT else _overlay(target, folder, in_storage)


def mount_graft(target: Target, folder: str) -> Entered:
    """Mount what storage keeps of new things over a directory of the image.

    :raises OSError: it could not be mounted.
    """
    kept = f"{folder}/{decide.folder_name(target.point)}/graft"
    graft(target, kept)
    return Entered(target.point, target.how, kept, "", target.why)


def graft(target: Target, kept: str) -> None:
    """Mount a folder over a directory of the image, and back into it what the image has there.

    :raises OSError: it could not be mounted; then nothing is.
    """
    from sif_writable.layer import kernel

    back = upper.lay_out(kept, target.point, target.paths)
    covered = os.open(target.point, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        kernel.bind(kept, target.point)
        try:
            for name in back:
                kernel.bind(f"/proc/self/fd/{covered}/{name}", f"{target.point}/{name}")
        except OSError as error:
            let_pass(error)
            kernel.unmount(target.point)
            raise
    finally:
        os.close(covered)


def _overlay(target: Target, folder: str, in_storage: str) -> Entered:
    from sif_writable.overlay.kernel import overlay

    place = f"{folder}/{decide.folder_name(target.point)}"
    kept, work = f"{place}/upper", f"{place}/work"
    upper.make_folder(kept, target.point)
    note = in_storage
    if not in_storage:
        os.makedirs(work, 0o700, exist_ok=True)
        upper.mirror(target.point, kept, target.paths, f"{place}/mirrored")
        try:
            overlay(target.point, kept, work, target.point, shared=True)
        except OSError as error:
            let_pass(error)
            if error.errno == errno.EBUSY:  # a second layer, in memory, would be lost in part
                raise
            note = obstacles.mount_words(error.errno, target.point, [])
        else:
            return Entered(target.point, target.how, kept, "", target.why)
    _be_the_only_one(f"{place}/in-memory.lock")
    layer = f"{memory(folder)}/{os.getpid()}-{decide.folder_name(target.point)}"
    upper.make_folder(f"{layer}/upper", target.point)
    os.makedirs(f"{layer}/work", 0o700)
    upper.seed(kept, f"{layer}/upper")
    upper.mirror(target.point, f"{layer}/upper", target.paths)
    before = upper.snapshot(f"{layer}/upper")
    overlay(target.point, f"{layer}/upper", f"{layer}/work", target.point, shared=False)
    _memories.append(_Memory(f"{layer}/upper", kept, before, bool(in_storage)))
    return Entered(target.point, target.how, kept, f"in memory, brought to storage at exit: {note}", target.why)


def _be_the_only_one(path: str) -> None:
    """Take a lock that this process keeps to its end.

    :raises OSError: EBUSY: another process has it, which would replace at its end what this one brings to storage.
    """
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path) from error
    except OSError as error:  # no locks here
        let_pass(error)
        return


def memory(folder: str) -> str:
    """Return a folder on a tmpfs that only this namespace sees, and that goes with it."""
    from sif_writable.layer import kernel

    path = f"{folder}/memory"
    if not os.path.ismount(path):
        kernel.mount("tmpfs", path, "tmpfs", kernel.NOSUID | kernel.NODEV, "mode=0700")
    return path


def carry_at_exit() -> None:
    """See to it that what is written to memory is brought to storage when this process ends."""
    if not _memories:
        return
    import atexit

    owner = os.getpid()

    def carry() -> None:
        if os.getpid() == owner:
            carry_back()

    atexit.register(carry)


def carry_back() -> list[str]:
    """Bring what was written to memory so far to storage; return what could not be brought."""
    failed = []
    for at, memory in enumerate(_memories):
        failed += upper.carry(memory.upper, memory.kept, memory.before, replace=memory.replace)
        _memories[at] = memory._replace(before=upper.snapshot(memory.upper))
    return failed
