"""What lies under an overlay or a graft: its folders in storage, filled beforehand, carried back afterwards.

The folder of a directory of the image is ``IMAGE/overlay/NAME`` in storage, with ``upper`` and ``work`` for an overlay,
or ``graft``. Whatever appears in ``upper`` or ``graft`` while others may look appears by one rename.
"""

from __future__ import annotations

import os
import shutil
import stat
from typing import TYPE_CHECKING

from sif_writable import aside
from sif_writable.errors import is_passing
from sif_writable.overlay.decide import MAX_COPY
from sif_writable.signals import let_pass, suppress
from sif_writable.storage import publish

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Snapshot = dict[str, tuple[int, ...]]

SMALL = 1 << 20
"""Bytes up to which a file of another owner is copied beforehand; the kernel cannot copy it up for us."""
MIRROR_BYTES, MIRROR_ENTRIES = 256 << 20, 100_000
"""What is copied beforehand at most, so that a start stays a start."""


def own_mode(status: os.stat_result) -> int:
    """Return the mode that our copy of a file or directory has: the image's, and its owner may write."""
    more = stat.S_IRWXU if stat.S_ISDIR(status.st_mode) else stat.S_IWUSR
    return stat.S_IMODE(status.st_mode) & 0o1777 | more


def make_folder(path: str, like: str) -> None:
    """Make a folder that stands for a directory of the image: it has its mode, also for others."""
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)
        os.chmod(path, own_mode(os.stat(like)))


def copy_file(source: str, target: str, status: os.stat_result) -> None:
    """Copy a file, whole or not at all, with the image's times."""
    folder, name = os.path.split(target)
    new = aside.path(folder, name)
    try:
        shutil.copyfile(source, new, follow_symlinks=False)
        os.chmod(new, own_mode(status))
        os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.rename(new, target)
    finally:
        with suppress(OSError):
            os.unlink(new)


# --- Grafts ---


def lay_out(graft: str, point: str, wanted: Iterable[str]) -> list[str]:
    """Prepare a graft; return the names of what the image has in there and what has to be mounted back.

    :param wanted: paths; those of small files of the image are copied, once.
    """
    make_folder(graft, point)
    mine = set(wanted)
    back = []
    for entry in os.scandir(point):
        new = f"{graft}/{entry.name}"
        status = entry.stat(follow_symlinks=False)
        if entry.is_symlink():
            with suppress(FileExistsError):
                os.symlink(os.readlink(entry.path), new)
        elif entry.path in mine and entry.is_file(follow_symlinks=False) and status.st_size <= MAX_COPY:
            if not os.path.lexists(new):
                with suppress(PermissionError):  # what we may not read, we may not copy
                    copy_file(entry.path, new, status)
        else:
            back.append(entry.name)
            with suppress(FileExistsError):
                if entry.is_dir(follow_symlinks=False):
                    os.mkdir(new, 0o700)
                else:
                    os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    return back


# --- Upper layers ---


def mirror(
    point: str,
    upper: str,
    wanted: Iterable[str],
    done: str = "",
    *,
    deep: bool = True,
    leave: tuple[str, ...] = (),
) -> None:
    """Make what belongs to others our own in an upper layer: directories, and small files.

    overlayfs keeps the owner when it copies up. A uid that is not mapped in this user namespace cannot be kept, so the
    copy-up fails; therefore these entries are made beforehand, owned by this user.

    :param wanted: the paths that have to be writable; the way to each is mirrored, too.
    :param done: a file that names the paths which are not looked at again.
    :param deep: also what lies in those paths.
    :param leave: endings of files there that need no copy.
    """
    known: set[str] = set()
    with suppress(OSError), open(done, encoding="utf-8", errors="surrogateescape") as file:
        known = set(file.read().splitlines())
    new = [path for path in dict.fromkeys(wanted) if path not in known]
    budget = [MIRROR_BYTES, MIRROR_ENTRIES]
    whole = []
    for path in new:
        good = True
        below = os.path.relpath(path, point)
        here, there = point, upper
        for part in below.split("/") if below != "." else ():
            here, there = f"{here}/{part}", f"{there}/{part}"
            if not os.path.lexists(here) or os.path.islink(here):
                break
            good = _mirror_one(here, there, budget) and good
        try:
            if deep and stat.S_ISDIR(os.lstat(path).st_mode):
                good = _mirror_tree(path, f"{upper}/{below}", budget, leave) and good
        except OSError as error:
            good = good and not is_passing(error)
        if good and "\n" not in path:
            whole.append(f"{path}\n")
    if done and whole:
        with suppress(OSError), open(done, "a", encoding="utf-8", errors="surrogateescape") as file:
            file.write("".join(whole))


def _mirror_tree(source: str, target: str, budget: list[int], leave: tuple[str, ...]) -> bool:
    """Mirror what lies in a directory; return whether all of it was, which is not looked at again."""
    stack = [(source, target)]
    good = True
    while stack:
        here, there = stack.pop()
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    if not entry.is_symlink() and not entry.name.endswith(leave):
                        good = _mirror_one(entry.path, f"{there}/{entry.name}", budget) and good
                        if entry.is_dir(follow_symlinks=False):
                            stack.append((entry.path, f"{there}/{entry.name}"))
        except PermissionError:
            pass
        except OSError as error:
            let_pass(error)
            good = False
    return good


def _mirror_one(path: str, new: str, budget: list[int]) -> bool:
    status = os.lstat(path)
    if status.st_uid == os.geteuid() or budget[1] <= 0 or os.path.lexists(new):
        return True
    try:
        if stat.S_ISDIR(status.st_mode):
            budget[1] -= 1
            os.makedirs(new, 0o700, exist_ok=True)
            os.chmod(new, own_mode(status))
            os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
        elif stat.S_ISREG(status.st_mode) and status.st_size <= min(SMALL, budget[0]):
            os.makedirs(os.path.dirname(new), 0o700, exist_ok=True)
            budget[0] -= status.st_size
            budget[1] -= 1
            copy_file(path, new, status)
    except PermissionError:  # what cannot be read stays as it is
        pass
    except OSError as error:
        let_pass(error)
        return False
    return True


def seed(kept: str, upper: str) -> None:
    """Fill an upper layer in memory with what earlier sessions left in storage: large files as links to it."""
    for path, name, status in walk(kept):
        new = f"{upper}/{name}"
        with suppress(OSError):
            if stat.S_ISDIR(status.st_mode):
                os.makedirs(new, 0o700, exist_ok=True)
                os.chmod(new, own_mode(status))
                for attribute in os.listxattr(path):
                    if attribute.startswith("user.overlay."):
                        os.setxattr(new, attribute, os.getxattr(path, attribute))
            elif stat.S_ISLNK(status.st_mode):
                os.symlink(os.readlink(path), new)
            elif stat.S_ISCHR(status.st_mode):  # stands for something that was removed
                os.mknod(new, status.st_mode, status.st_rdev)
            elif stat.S_ISREG(status.st_mode):
                if status.st_size > SMALL:
                    os.symlink(path, new)
                else:
                    copy_file(path, new, status)


def snapshot(upper: str) -> Snapshot:
    """Return what is in an upper layer now, to distinguish it later from what is new."""
    return {name: state(status) for _, name, status in walk(upper)}


def state(status: os.stat_result) -> tuple[int, ...]:
    """Return what shows whether a file was changed; a directory is changed by what is in it."""
    if stat.S_ISDIR(status.st_mode):
        return (status.st_ino,)
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode)


def changes(upper: str, before: Snapshot) -> list[tuple[str, os.stat_result]]:
    """Return (name, status) of what is new or changed in an upper layer, what holds it first."""
    return [(name, status) for _, name, status in walk(upper) if before.get(name) != state(status)]


def walk(top: str) -> Iterator[tuple[str, str, os.stat_result]]:
    """Yield (path, path below the top, status) of everything in a folder; what holds it comes first."""
    stack = [top]
    while stack:
        with suppress(OSError), os.scandir(stack.pop()) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                status = entry.stat(follow_symlinks=False)
                yield entry.path, os.path.relpath(entry.path, top), status
                if stat.S_ISDIR(status.st_mode):
                    stack.append(entry.path)


def carry(upper: str, kept: str, before: Snapshot, *, replace: bool) -> list[str]:
    """Bring what is new in an upper layer in memory back to storage; return what could not be brought.

    A new directory appears as a whole, a file by one rename.

    :param replace: a file that is in storage already is replaced; not where another session may have it mounted.
    """
    failed = []
    whole: list[str] = []
    for name, status in changes(upper, before):
        if name.startswith(tuple(f"{folder}/" for folder in whole)) or name.rpartition("/")[2].startswith("#"):
            continue
        source, target = f"{upper}/{name}", f"{kept}/{name}"
        try:
            if stat.S_ISDIR(status.st_mode):
                if not os.path.isdir(target):
                    whole.append(name)
                    os.makedirs(os.path.dirname(target), 0o700, exist_ok=True)
                    publish.publish(target, _Filled(source), lock_below=os.path.dirname(kept), over_link=True)
            elif replace or not os.path.lexists(target):
                _bring(source, target, status)
        except OSError as error:
            let_pass(error)
            failed.append(f"{name}: {error.strerror}")
    return failed


class _Filled:
    """Fills a folder with the contents of another one."""

    def __init__(self, source: str) -> None:
        self.source = source

    def __call__(self, folder: str) -> None:
        for path, name, status in walk(self.source):
            if stat.S_ISDIR(status.st_mode):
                os.mkdir(f"{folder}/{name}", 0o700)
                os.chmod(f"{folder}/{name}", own_mode(status))
            else:
                _bring(path, f"{folder}/{name}", status)
        os.chmod(folder, own_mode(os.stat(self.source)))


def _bring(source: str, target: str, status: os.stat_result) -> None:
    os.makedirs(os.path.dirname(target), 0o700, exist_ok=True)
    if stat.S_ISREG(status.st_mode):
        copy_file(source, target, status)
    elif stat.S_ISLNK(status.st_mode):
        new = aside.path(os.path.dirname(target))
        os.symlink(os.readlink(source), new)
        os.rename(new, target)
    elif stat.S_ISCHR(status.st_mode) and not os.path.lexists(target):
        with suppress(OSError):  # network filesystems have no device nodes; then it is there again
            os.mknod(target, status.st_mode, status.st_rdev)
