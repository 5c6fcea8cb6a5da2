"""Run one command in another root filesystem, as an ordinary user: `python3 enter.py ENTRY`, which is JSON (`Entry`).

Everything happens in mount and pid namespaces of its own: nothing is left mounted or running afterwards, however the
command or we end. Where we are not root, a user namespace gives the right to mount.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import stat
import subprocess
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable


class Entry(TypedDict):
    """What to run, and in which world."""

    argv: list[str]
    environment: dict[str, str]
    folder: str
    """The working directory, as seen inside."""
    uid: int
    stage: str
    """An empty folder outside, to mount things on."""
    tree: str
    """The new root: a folder, mounted as it is; `/` keeps the present one. Empty where another root is given."""
    squashfs: str
    """The new root: a squashfs file, mounted by the kernel."""
    mirror: bool
    """The new root: the present root filesystem, shown on a superblock that is read-only."""
    layers: list[str]
    """With `mirror`: `outside:inside`, folders shown in the same way."""
    overlay: bool
    """A writable tmpfs overlay on top of the squashfs; the files stay root's."""
    binds: list[str]
    """`outside:inside` or `outside:inside:ro`."""
    tmpfs: list[str]
    """Folders inside that become an empty tmpfs."""
    setuid: bool
    """Programs may gain privileges, as on an ordinary machine; otherwise never again."""
    user_namespaces: bool
    """The command can make user namespaces."""
    fuse: bool
    """Ordinary users may open /dev/fuse, as on an ordinary machine."""


_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWPID = 0x00020000, 0x10000000, 0x20000000
_MNT_DETACH = 2
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 24, 38


def main() -> int:
    """Make the namespaces, run the rest in a child that is the first process of them, and end as it ended."""
    entry: Entry = json.loads(sys.argv[1])
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    os.umask(0o022)
    uid, gid = os.getuid(), os.getgid()
    _unshare(_CLONE_NEWNS | _CLONE_NEWPID | (_CLONE_NEWUSER if uid else 0))
    if uid:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")
    first = os.fork()
    if first == 0:
        # Its end takes every process of the namespace along, so ours has to be its end.
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        _in_child(lambda: _be_init(entry, privileged=uid == 0))
    return _exit_code(os.waitpid(first, 0)[1])


def _be_init(entry: Entry, *, privileged: bool) -> int:
    _mount("--make-rprivate", "/")
    _become_root(_assemble(entry, privileged=privileged))
    if entry["user_namespaces"]:
        command = os.fork()
        if command == 0:
            _in_child(lambda: _execute(entry, privileged=privileged))
    else:
        command = _fork_without_user_namespaces(entry, privileged=privileged)
    while True:  # orphans are ours to reap, as for any first process
        pid, status = os.wait()
        if pid == command:
            return _exit_code(status)


def _fork_without_user_namespaces(entry: Entry, *, privileged: bool) -> int:
    """Start the command where the limit of user namespaces is zero.

    The limit belongs to the user namespace that it is written in. Root enters a new one for it, so that the machine's
    own stays as it is; anybody else is in a new one already.
    """
    asked, done = os.pipe(), os.pipe()

    def work() -> int:
        if privileged:
            _unshare(_CLONE_NEWUSER)
            os.write(asked[1], b"x")
            os.read(done[0], 1)
        _write("/proc/sys/user/max_user_namespaces", "0")
        return _execute(entry, privileged=privileged)

    command = os.fork()
    if command == 0:
        _in_child(work)
    os.close(asked[1])
    if privileged and os.read(asked[0], 1):  # nothing is read where the child has died
        _write(f"/proc/{command}/uid_map", "0 0 65536")
        _write(f"/proc/{command}/gid_map", "0 0 65536")
        os.write(done[1], b"x")
    return command


def _assemble(entry: Entry, *, privileged: bool) -> str:
    """Mount the new root and everything in it; return where."""
    stage = entry["stage"]
    _mount("-t", "tmpfs", "-o", "mode=755", "none", stage)
    root = os.path.join(stage, "root")
    parts = {name: os.path.join(stage, name) for name in ("root", "lower", "upper", "work")}
    for folder in parts.values():
        os.mkdir(folder)
    if entry["tree"] == "/":
        root = ""
    elif entry["tree"]:
        _mount("--bind", entry["tree"], root)
        # The lab may lie on a filesystem where setuid helpers would not work.
        with contextlib.suppress(subprocess.CalledProcessError):
            _mount("-o", "remount,bind,suid,dev,exec", root)
    elif entry["squashfs"]:
        lower = parts["lower"] if entry["overlay"] else root
        _mount("-t", "squashfs", "-o", "loop,ro,nosuid", entry["squashfs"], lower)
        if entry["overlay"]:
            options = "lowerdir={lower},upperdir={upper},workdir={work}".format(**parts)
            _mount("-t", "overlay", "-o", options, "none", root)
    elif entry["mirror"]:
        # Mount points for whatever follows; two layers, because overlayfs wants two where there is no upper one.
        for place in (*entry["layers"], *entry["binds"]):
            os.makedirs(parts["lower"] + place.split(":")[1], exist_ok=True)
        _mount("-t", "overlay", "-o", f"ro,lowerdir={parts['lower']}:/", "none", root)
        for layer in entry["layers"]:
            outside, inside = layer.split(":")
            _mount("-t", "overlay", "-o", f"ro,lowerdir={parts['upper']}:{outside}", "none", root + inside)
    if root:
        for system in ("sys", "dev"):
            _mount("--rbind", f"/{system}", f"{root}/{system}")
    try:
        _mount("-t", "proc", "proc", f"{root}/proc")
    except subprocess.CalledProcessError:  # inside a container that hides parts of /proc
        _mount("--rbind", "/proc", f"{root}/proc")
    if entry["fuse"] and privileged:
        _open_fuse(stage, f"{root}/dev/fuse")
    for folder in entry["tmpfs"]:
        _mount("-t", "tmpfs", "-o", "mode=1777", "none", root + folder)
    for bind in entry["binds"]:
        outside, inside, *options_given = bind.split(":")
        _mount("--bind", outside, root + inside)
        if options_given == ["ro"]:
            _mount("-o", "remount,bind,ro", root + inside)
    return root


def _open_fuse(stage: str, device: str) -> None:
    """Put a /dev/fuse for everybody over one that only root may open."""
    if os.stat(device).st_mode & 0o006 != 0o006:
        node = os.path.join(stage, "fuse")
        os.mknod(node, stat.S_IFCHR, os.stat(device).st_rdev)
        os.chmod(node, 0o666)  # noqa: S103
        _mount("--bind", node, device)


def _become_root(root: str) -> None:
    """Make that mount the root: a chroot would not do, Apptainer looks its mount points up."""
    if not root:
        return
    os.chdir(root)
    subprocess.run(["pivot_root", ".", "."], check=True)
    _libc.umount2(b".", _MNT_DETACH)
    os.chdir("/")


def _execute(entry: Entry, *, privileged: bool) -> int:
    """Give up every privilege and become the command."""
    if not entry["setuid"]:
        capability = 0
        while _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
            capability += 1
    if privileged:
        os.setgroups([])
        os.setgid(entry["uid"])
        os.setuid(entry["uid"])
    if not entry["setuid"]:
        _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    os.chdir(entry["folder"])
    try:
        os.execvpe(entry["argv"][0], entry["argv"], entry["environment"])  # noqa: S606
    except FileNotFoundError as error:
        sys.stderr.write(f"{entry['argv'][0]}: {error.strerror}\n")
        return 127


def _in_child(work: Callable[[], int]) -> NoReturn:
    """End this forked child with what the work returns; its parent's code is never run here."""
    code = 125
    try:
        code = work()
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def _unshare(flags: int) -> None:
    if _libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "unshare: " + os.strerror(ctypes.get_errno()))


def _write(path: str, text: str) -> None:
    # Not by `open`: its codec is loaded from files, which are another Python's in the new root.
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _exit_code(status: int) -> int:
    """Return the exit code of a command, in the way that shells tell a signal."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    sys.exit(main())
