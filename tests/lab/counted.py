"""Storage on a server that counts and delays each request: ``python counted.py SOURCE POINT LOG DELAY VALID [plus]``.

It mounts ``SOURCE`` at ``POINT`` through FUSE, says "ready", and appends a line to ``LOG`` for each request: its kind,
whose it is (a process), and the name or the path that it is about. ``DELAY`` is in milliseconds; ``VALID`` are the
seconds for which the kernel may answer from earlier replies, as with a network filesystem (0: each question is a
request, which is what the first start on a node costs). What the kernel never waits for is counted and not delayed.
With ``plus``, names are listed with what each one is, as NFS does (READDIRPLUS): it is asked no more of one by one.

It needs the right to mount and no package: it speaks the protocol itself (linux/fuse.h, 7.31). Locks are the kernel's.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

LOOKUP, FORGET, RELEASE, INIT, RELEASEDIR, INTERRUPT, BATCH_FORGET = 1, 2, 18, 26, 29, 36, 42
UNANSWERED = frozenset((FORGET, INTERRUPT, BATCH_FORGET))
NOT_WAITED_FOR = frozenset(("release", "releasedir"))
"""Kinds of requests that no process waits for."""
NAMES = {
    number: name
    for number, name in enumerate(
        (
            *("", "lookup", "", "getattr", "setattr", "readlink", "symlink", "", "", "mkdir", "unlink", "rmdir"),
            *("rename", "link", "open", "read", "write", "statfs", "release", "", "fsync", "", "getxattr", "", ""),
            *("flush", "", "opendir", "readdir", "releasedir", "fsyncdir", "", "", "", "", "create"),
            *(*[""] * 8, "readdirplus", "rename"),
        )
    )
    if name
}
"""What each kind is called; the others are called by their number."""

_THREADS = 32
_BUFFER = (1 << 17) + 4096
_IN, _OUT = struct.Struct("<IIQQIIII"), struct.Struct("<IiQ")
_ATTRIBUTES, _ENTRY, _VALID = struct.Struct("<6Q10I"), struct.Struct("<4QII"), struct.Struct("<QII")
_SETATTR = struct.Struct("<II6Q3I5I")
_SET_MODE, _SET_UID, _SET_GID, _SET_SIZE, _SET_ATIME, _SET_MTIME = 1, 2, 4, 8, 16, 32
_SET_ATIME_NOW, _SET_MTIME_NOW = 128, 256
_ASYNC_READ, _ATOMIC_TRUNC, _BIG_WRITES, _AUTO_INVALIDATE, _PARALLEL = 1, 1 << 3, 1 << 5, 1 << 12, 1 << 18
_LISTS_ATTRIBUTES = 1 << 13  # FUSE_DO_READDIRPLUS
_KEEP_CACHE = 1 << 1
_MS_NOSUID, _MS_NODEV = 2, 4


class Request(NamedTuple):
    """What the kernel asks."""

    kind: int
    unique: int
    node: int
    uid: int
    gid: int
    pid: int
    body: bytes


class Server:
    """Answers from a folder, in which it stands."""

    def __init__(self, device: int, log: int, delay: float, valid: float, *, plus: bool) -> None:
        """Take the open device and log; delay and time for which answers are valid, in seconds; how it lists names."""
        self.device, self.log, self.delay, self.plus = device, log, delay, plus
        self.valid = divmod(int(valid * 1e9), 10**9)
        self.paths = {1: "."}
        self.numbers: dict[int, int] = {}
        self.last = 1
        self.lock = threading.Lock()
        self.listings: dict[int, list[tuple[str, os.stat_result]]] = {}
        self.ways: dict[str, Callable[[Request], bytes]] = {
            name: getattr(self, f"do_{name}") for name in NAMES.values() if hasattr(self, f"do_{name}")
        }

    def serve(self) -> None:
        """Answer until the filesystem is unmounted."""
        while True:
            try:
                data = os.read(self.device, _BUFFER)
            except OSError as error:
                if error.errno in {errno.ENODEV, errno.EBADF}:
                    return
                continue  # interrupted before it was taken
            _, kind, unique, node, uid, gid, pid, _ = _IN.unpack_from(data)
            self.answer(Request(kind, unique, node, uid, gid, pid, data[_IN.size :]))

    def answer(self, request: Request) -> None:
        """Count one, wait, and answer it."""
        if request.kind in UNANSWERED:
            return
        body, error = b"", 0
        name = NAMES.get(request.kind, "")
        if request.kind == INIT:
            body = self.agree(request)
        else:
            self.count(request, name or str(request.kind))
            if self.delay and name not in NOT_WAITED_FOR:
                time.sleep(self.delay)
            try:
                body = self.ways[name](request) if name in self.ways else b""
                error = 0 if name in self.ways else errno.ENOSYS
            except OSError as problem:
                error = problem.errno or errno.EIO
            except Exception:  # noqa: BLE001 - who asks would wait for ever
                traceback.print_exc()
                error = errno.EIO
        try:
            os.write(self.device, _OUT.pack(_OUT.size + len(body), -error, request.unique) + body)
        except FileNotFoundError:  # who asked has gone
            return

    def count(self, request: Request, name: str) -> None:
        """Write down a request."""
        path = self.paths.get(request.node, "?")[1:]
        if name == "lookup":
            path += f"/{_text(request.body)}"
        os.write(self.log, f"{name} {request.pid} {path or '/'}\n".encode())

    def agree(self, request: Request) -> bytes:
        """Agree on what the kernel may do by itself."""
        flags = struct.unpack_from("<4I", request.body)[3]
        flags &= _ASYNC_READ | _ATOMIC_TRUNC | _BIG_WRITES | _PARALLEL | _AUTO_INVALIDATE
        flags |= _LISTS_ATTRIBUTES if self.plus else 0
        return struct.pack("<4IHHIIHHI28x", 7, 31, 1 << 17, flags, 64, 48, 1 << 17, 1, 0, 0, 0)

    # --- Names and numbers

    def path(self, node: int, name: bytes = b"") -> str:
        """Return the path of a node, or of a name in it."""
        path = self.paths[node]
        return f"{path}/{_text(name)}" if name else path

    def entry(self, path: str) -> bytes:
        """Return the reply about a name."""
        status = os.lstat(path)
        with self.lock:
            number = self.numbers.get(status.st_ino)
            if number is None:
                self.last += 1
                number = self.numbers[status.st_ino] = self.last
            self.paths[number] = path
        whole, part = self.valid
        return _ENTRY.pack(number, 0, whole, whole, part, part) + self.attributes(status, number)

    def attributes(self, status: os.stat_result, number: int) -> bytes:
        """Return the attributes of a file as replies have them."""
        times = [divmod(t, 10**9) for t in (status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns)]
        return _ATTRIBUTES.pack(
            *(number, status.st_size, status.st_blocks, *(whole for whole, _ in times), *(part for _, part in times)),
            *(status.st_mode, status.st_nlink, status.st_uid, status.st_gid, 0, 4096, 0),
        )

    def attribute_reply(self, status: os.stat_result, number: int) -> bytes:
        """Return the attributes of a file, and how long they are valid."""
        whole, part = self.valid
        return _VALID.pack(whole, part, 0) + self.attributes(status, number)

    def made(self, path: str, request: Request) -> bytes:
        """Give what was made to who asked for it."""
        if os.getuid() == 0:
            os.lchown(path, request.uid, request.gid)
        return self.entry(path)

    def gone(self, path: str) -> None:
        """Have a number that may be used again stand for something else then."""
        try:
            number = os.lstat(path).st_ino
        except OSError:
            return
        with self.lock:
            self.numbers.pop(number, None)

    # --- Requests

    def do_lookup(self, request: Request) -> bytes:
        """Look a name up; where it is not there, that is valid as long."""
        try:
            return self.entry(self.path(request.node, request.body))
        except (FileNotFoundError, NotADirectoryError):
            if not any(self.valid):
                raise
            whole, part = self.valid
            return _ENTRY.pack(0, 0, whole, 0, part, 0) + bytes(_ATTRIBUTES.size)

    def do_getattr(self, request: Request) -> bytes:
        """Describe a file."""
        flags, _, handle = struct.unpack_from("<IIQ", request.body)
        status = os.fstat(handle) if flags & 1 else os.lstat(self.path(request.node))
        return self.attribute_reply(status, request.node)

    def do_setattr(self, request: Request) -> bytes:
        """Change what a file is."""
        fields = _SETATTR.unpack_from(request.body)
        valid, _, _, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, _, uid, gid, _ = fields
        path = self.path(request.node)
        if valid & _SET_MODE:
            os.chmod(path, stat.S_IMODE(mode))
        if valid & (_SET_UID | _SET_GID):
            os.lchown(path, uid if valid & _SET_UID else -1, gid if valid & _SET_GID else -1)
        if valid & _SET_SIZE:
            os.truncate(path, size)
        if valid & (_SET_ATIME | _SET_MTIME):
            now, status = time.time_ns(), os.lstat(path)
            times = [status.st_atime_ns, status.st_mtime_ns]
            if valid & _SET_ATIME:
                times[0] = now if valid & _SET_ATIME_NOW else atime * 10**9 + atime_ns
            if valid & _SET_MTIME:
                times[1] = now if valid & _SET_MTIME_NOW else mtime * 10**9 + mtime_ns
            os.utime(path, ns=(times[0], times[1]), follow_symlinks=False)
        return self.attribute_reply(os.lstat(path), request.node)

    def do_readlink(self, request: Request) -> bytes:
        """Read a link."""
        return os.fsencode(os.readlink(self.path(request.node)))

    def do_symlink(self, request: Request) -> bytes:
        """Make a link."""
        name, target = request.body.split(b"\0")[:2]
        path = self.path(request.node, name)
        os.symlink(target, path)
        return self.made(path, request)

    def do_mkdir(self, request: Request) -> bytes:
        """Make a directory."""
        path = self.path(request.node, request.body[8:])
        os.mkdir(path, struct.unpack_from("<I", request.body)[0])
        return self.made(path, request)

    def do_unlink(self, request: Request) -> bytes:
        """Remove a file."""
        path = self.path(request.node, request.body)
        if os.lstat(path).st_nlink == 1:
            self.gone(path)
        os.unlink(path)
        return b""

    def do_rmdir(self, request: Request) -> bytes:
        """Remove a directory."""
        path = self.path(request.node, request.body)
        self.gone(path)
        os.rmdir(path)
        return b""

    def do_rename(self, request: Request) -> bytes:
        """Rename what there is over what there may be."""
        more = request.kind == 45
        if more and struct.unpack_from("<QI", request.body)[1]:
            raise OSError(errno.EINVAL, "not without replacing")
        source, target = request.body[16 if more else 8 :].split(b"\0")[:2]
        old = self.path(request.node, source)
        new = self.path(struct.unpack_from("<Q", request.body)[0], target)
        if not (os.path.lexists(new) and os.path.samestat(os.lstat(old), os.lstat(new))):
            self.gone(new)
        os.rename(old, new)
        with self.lock:
            for number, path in self.paths.items():
                if path == old or path.startswith(f"{old}/"):
                    self.paths[number] = new + path[len(old) :]
        return b""

    def do_link(self, request: Request) -> bytes:
        """Give a file one more name."""
        path = self.path(request.node, request.body[8:])
        os.link(self.path(struct.unpack_from("<Q", request.body)[0]), path, follow_symlinks=False)
        return self.entry(path)

    def opened(self, handle: int) -> bytes:
        """Return the reply about an open file."""
        return struct.pack("<QII", handle, _KEEP_CACHE if any(self.valid) else 0, 0)

    def do_open(self, request: Request) -> bytes:
        """Open a file."""
        flags = struct.unpack_from("<I", request.body)[0] & ~(os.O_NOFOLLOW | os.O_APPEND)
        return self.opened(os.open(self.path(request.node), flags))

    def do_create(self, request: Request) -> bytes:
        """Make a file and open it."""
        flags, mode = struct.unpack_from("<II", request.body)
        path = self.path(request.node, request.body[16:])
        handle = os.open(path, flags & ~os.O_APPEND | os.O_CREAT, stat.S_IMODE(mode))
        return self.made(path, request) + self.opened(handle)

    def do_read(self, request: Request) -> bytes:
        """Read from a file."""
        handle, offset, size = struct.unpack_from("<QQI", request.body)
        return os.pread(handle, size, offset)

    def do_write(self, request: Request) -> bytes:
        """Write to a file."""
        handle, offset, size = struct.unpack_from("<QQI", request.body)
        return struct.pack("<II", os.pwrite(handle, request.body[40 : 40 + size], offset), 0)

    def do_statfs(self, _: Request) -> bytes:
        """Report how much space there is."""
        found = os.statvfs(".")
        figures = found.f_blocks, found.f_bfree, found.f_bavail, found.f_files, found.f_ffree
        return struct.pack("<5Q4I24x", *figures, found.f_bsize, 255, found.f_frsize, 0)

    def do_release(self, request: Request) -> bytes:
        """Close a file."""
        os.close(struct.unpack_from("<Q", request.body)[0])
        return b""

    def do_flush(self, _: Request) -> bytes:
        """Have nothing to do when somebody closes a file."""
        return b""

    def do_fsync(self, _: Request) -> bytes:
        """Promise that what was written stays."""
        return b""

    do_fsyncdir = do_fsync

    def do_opendir(self, request: Request) -> bytes:
        """Begin to list a directory."""
        path = self.path(request.node)
        found = [(name, os.lstat(f"{path}/{name}")) for name in os.listdir(path)]
        with self.lock:
            self.last += 1
            self.listings[self.last] = found
            return struct.pack("<QII", self.last, 0, 0)

    def do_readdirplus(self, request: Request) -> bytes:
        """List more of a directory, with what is there."""
        folder = self.path(request.node)

        def about(name: str) -> bytes:
            try:
                return self.entry(f"{folder}/{name}")
            except FileNotFoundError:  # removed since: 0 stands for no answer
                return bytes(_ENTRY.size + _ATTRIBUTES.size)

        return self.do_readdir(request, about)

    def do_readdir(self, request: Request, about: Callable[[str], bytes] = lambda _: b"") -> bytes:
        """List more of a directory."""
        handle, offset, size = struct.unpack_from("<QQI", request.body)
        listed = b""
        for number, (name, status) in enumerate(self.listings[handle][offset:], offset + 1):
            raw = os.fsencode(name)
            entry = about(name)
            entry += struct.pack("<QQII", status.st_ino, number, len(raw), stat.S_IFMT(status.st_mode) >> 12) + raw
            entry += bytes(-len(entry) % 8)
            if len(listed) + len(entry) > size:
                break
            listed += entry
        return listed

    def do_releasedir(self, request: Request) -> bytes:
        """End listing a directory."""
        self.listings.pop(struct.unpack_from("<Q", request.body)[0], None)
        return b""


def _text(name: bytes) -> str:
    return os.fsdecode(name.split(b"\0")[0])


def requests(log: str) -> list[tuple[str, int, str]]:
    """Return what a server has written down: kind, process, and path below the mount point."""
    with open(log, encoding="utf-8", errors="surrogateescape") as file:
        lines = [line.rstrip("\n").split(" ", 2) for line in file]
    return [(kind, int(pid), path) for kind, pid, path in lines]


def main() -> None:
    """Mount, and serve until the process is killed."""
    source, point, log, delay, valid, *plus = sys.argv[1:]
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40755,user_id={os.getuid()},group_id={os.getgid()},allow_other,default_permissions"
    flags = ctypes.c_ulong(2 | 4)  # MS_NOSUID, MS_NODEV
    if ctypes.CDLL(None, use_errno=True).mount(
        b"counted", os.fsencode(point), b"fuse.counted", flags, options.encode()
    ):
        sys.exit(f"{point} could not be mounted: {os.strerror(ctypes.get_errno())}")
    os.chdir(source)
    os.umask(0)
    server = Server(device, written, float(delay) / 1e3, float(valid), plus=plus == ["plus"])
    for _ in range(_THREADS):
        threading.Thread(target=server.serve).start()
    print("ready", flush=True)
    os.close(1)


if __name__ == "__main__":
    main()
