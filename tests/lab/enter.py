"""Run one command in another root filesystem, as an ordinary user: `python3 enter.py ENTRY`; see `entry.Entry`.

Everything happens in mount and pid namespaces of its own: nothing is left mounted or running afterwards, however the
command or we end. Where we are not root, a user namespace gives the right to mount.
"""

from __future__ import annotations

import ctypes
import os
import signal
import stat
import sys
import warnings  # noqa: F401 - os.execvpe imports it, in a root that may have no Python where ours is

TYPE_CHECKING = False  # from typing, it takes longer than all that is done here, and this is started thousands of times
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from tests.lab.entry import Entry

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWPID = 0x00020000, 0x10000000, 0x20000000
_MS_RDONLY, _MS_NOEXEC, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 1 << 3, 1 << 5, 1 << 12, 1 << 14, 1 << 18
_MNT_DETACH = 2
_SYS_PIVOT_ROOT = 155 if os.uname().machine == "x86_64" else 41
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 24, 38


def main() -> int:
    """Make the namespaces, run the rest in a child that is the first process of them, and end as it ended."""
    entry: Entry = eval(sys.argv[1])  # noqa: S307 - ours; json would take as long as the rest
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
    _mount("none", "/", flags=_MS_REC | _MS_PRIVATE)
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
    _mount("none", stage, "tmpfs", "mode=755")
    root = os.path.join(stage, "root")
    parts = {name: os.path.join(stage, name) for name in ("root", "lower", "upper", "work")}
    for folder in parts.values():
        os.mkdir(folder)
    if entry["tree"] == "/":
        root = ""
    elif entry["tree"]:
        _mount(entry["tree"], root, flags=_MS_BIND)
        # The lab may lie on a filesystem where setuid helpers would not work.
        try:  # noqa: SIM105 - without a module for it
            _mount("none", root, flags=_MS_REMOUNT | _MS_BIND)
        except OSError:
            pass
    elif entry["squashfs"]:
        lower = parts["lower"] if entry["overlay"] or entry["layer"] else root
        # The program, not the system call: it finds a free loop device, which goes with the mount.
        file, _, offset = entry["squashfs"].partition(":")
        _run(["mount", "-t", "squashfs", "-o", f"loop,ro,nosuid,offset={offset or 0}", file, lower])
        options = f"lowerdir={entry['layer']}:{lower}" if entry["layer"] else f"lowerdir={lower}"
        if entry["overlay"]:
            options += ",upperdir={upper},workdir={work}".format(**parts)
        if lower != root:
            _mount("none", root, "overlay", options)
    elif entry["mirror"]:
        _mirror(entry, root, parts["lower"], parts["upper"])
    if root:
        for system in ("sys", "dev"):
            _mount(f"/{system}", f"{root}/{system}", flags=_MS_BIND | _MS_REC)
    try:
        _mount("proc", f"{root}/proc", "proc")
    except PermissionError:  # inside a container that hides parts of /proc
        _mount("/proc", f"{root}/proc", flags=_MS_BIND | _MS_REC)
    if entry["devices"]:
        _add_devices(stage, f"{root}/dev", entry["devices"])
    if entry["fuse"] and privileged:
        _open_fuse(stage, f"{root}/dev/fuse")
    for folder in entry["tmpfs"]:
        if ":" not in folder:
            _mount("none", root + folder, "tmpfs", "mode=1777")
    for bind in entry["binds"]:
        outside, inside, *options_given = bind.split(":")
        _mount(outside, root + inside, flags=_MS_BIND)
        if options_given:
            _restrict_bind(root + inside, {"ro": _MS_RDONLY, "noexec": _MS_NOEXEC}[options_given[0]])
    for image in entry["images"]:
        outside, inside = image.split(":")
        _run(["mount", "-o", "loop,nosuid,nodev", outside, root + inside])
    for served in entry["served"]:
        _serve(root, *served.split(":"))
    for folder, _, size in (folder.partition(":") for folder in entry["tmpfs"]):
        if size:
            _mount("none", root + folder, "tmpfs", f"mode=1777,size={size}")
    return root


def _mirror(entry: Entry, root: str, points: str, empty: str) -> None:
    """Show the present root again, folder by folder, because a user namespace may not copy `/` with all its mounts.

    An overlay without an upper layer has a read-only superblock. It wants two layers, and the other one is handy: it
    holds the mount points of whatever follows.
    """
    _mount("none", root, "tmpfs", "mode=755")
    for place in (*entry["layers"], *entry["binds"]):
        inside = place.split(":")[1]
        os.makedirs((points if os.path.isdir("/" + inside.split("/")[1]) else root) + inside, exist_ok=True)
    for name in os.listdir("/"):
        shown = f"{root}/{name}"
        if os.path.islink(f"/{name}"):
            os.symlink(os.readlink(f"/{name}"), shown)
        elif os.path.isdir(f"/{name}"):
            os.mkdir(shown)
            os.makedirs(f"{points}/{name}", exist_ok=True)
            if name not in ("dev", "proc", "sys", "run"):  # the last says that a machine is booted
                _show_read_only(f"{points}/{name}", f"/{name}", shown)
    for layer in entry["layers"]:
        outside, inside = layer.split(":")
        _show_read_only(empty, outside, root + inside)
    _mount("none", root, flags=_MS_REMOUNT | _MS_RDONLY)


def _show_read_only(points: str, lower: str, target: str) -> None:
    """Show a folder at the target, and with it the folders in `points`, which others are mounted on later."""
    try:
        _mount("none", target, "overlay", f"lowerdir={points}:{lower}", _MS_RDONLY)
    except OSError:  # there are mounts below that we may not uncover
        if not os.listdir(points):
            _bind_read_only(lower, target)
            return
        _mount("none", target, "tmpfs", "mode=755")
        for name in {*os.listdir(lower), *os.listdir(points)}:
            theirs, ours, point = (f"{folder}/{name}" for folder in (lower, target, points))
            if os.path.islink(theirs):
                os.symlink(os.readlink(theirs), ours)
            elif os.path.isfile(theirs):
                os.mknod(ours)
                _bind_read_only(theirs, ours)
            else:
                os.mkdir(ours)
                if not os.path.isdir(theirs):
                    _bind_read_only(point, ours)
                elif os.path.isdir(point):
                    _show_read_only(point, theirs, ours)
                else:
                    _bind_read_only(theirs, ours)
        _mount("none", target, flags=_MS_REMOUNT | _MS_RDONLY)


def _bind_read_only(source: str, target: str) -> None:
    _mount(source, target, flags=_MS_BIND | _MS_REC)
    _restrict_bind(target, _MS_RDONLY)


def _restrict_bind(target: str, flag: int) -> None:
    # A remount may not allow what the mount already forbids, so it repeats that.
    kept = os.statvfs(target).f_flag & (os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC)
    _mount("none", target, flags=_MS_REMOUNT | _MS_BIND | flag | kept)


def _serve(root: str, outside: str, inside: str, *how: str) -> None:
    """Start the server that counts requests; it ends with the namespace."""
    import subprocess

    program = os.path.join(os.path.dirname(__file__), "counted.py")
    words = [sys.executable, "-I", program, outside, root + inside, *how]
    server = subprocess.Popen(words, stdout=subprocess.PIPE)
    if not server.stdout or server.stdout.readline() != b"ready\n":
        raise OSError(f"{inside} could not be served")


def _open_fuse(stage: str, device: str) -> None:
    """Put a /dev/fuse for everybody over one that only root may open."""
    if os.stat(device).st_mode & 0o006 != 0o006:
        node = os.path.join(stage, "fuse")
        os.mknod(node, stat.S_IFCHR, os.stat(device).st_rdev)
        os.chmod(node, 0o666)
        _mount(node, device, flags=_MS_BIND)


def _add_devices(stage: str, devices: str, names: list[str]) -> None:
    """Show /dev again with more files in it."""
    shown = os.path.join(stage, "dev")
    os.mkdir(shown)
    for name in os.listdir(devices):
        theirs, ours = os.path.join(devices, name), os.path.join(shown, name)
        if os.path.islink(theirs):
            os.symlink(os.readlink(theirs), ours)
        elif os.path.isdir(theirs):
            os.mkdir(ours)
            _mount(theirs, ours, flags=_MS_BIND | _MS_REC)
        else:
            with open(ours, "w", encoding="utf-8"):
                pass
            _mount(theirs, ours, flags=_MS_BIND)
    for name in names:
        os.mknod(os.path.join(shown, name), stat.S_IFCHR, os.makedev(1, 3))
        os.chmod(os.path.join(shown, name), 0o666)
    _mount(shown, devices, flags=_MS_BIND | _MS_REC)


def _become_root(root: str) -> None:
    """Make that mount the root: a chroot would not do, Apptainer looks its mount points up."""
    if not root:
        return
    os.chdir(root)
    _check(_libc.syscall(_SYS_PIVOT_ROOT, b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", _MNT_DETACH), "umount")
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
    # What a shell without job control runs in the background ignores it, and so would all that we start.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
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
    except BaseException as error:  # noqa: BLE001
        try:
            import traceback

            traceback.print_exc()
        except ImportError:  # in the other root
            sys.stderr.write(f"{error!r}\n")
    finally:
        sys.stderr.flush()
        os._exit(code)


def _run(argv: list[str]) -> None:
    import subprocess

    subprocess.run(argv, check=True)


def _mount(source: str, target: str, kind: str = "none", options: str = "", flags: int = 0) -> None:
    """Mount by the system call: the program refuses everybody whose uid is not 0, whatever his rights here."""
    result = _libc.mount(source.encode(), target.encode(), kind.encode(), flags, options.encode())
    _check(result, f"mount {kind} {source} {target}")


def _unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def _check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def _write(path: str, text: str) -> None:
    # Not by `open`: its codec is loaded from files, which are another Python's in the new root.
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _exit_code(status: int) -> int:
    """Return the exit code of a command, in the way that shells report a signal."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    sys.exit(main())
