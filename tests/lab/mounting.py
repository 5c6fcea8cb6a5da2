"""Mounts that no program makes for us: `python mounting.py idmap SOURCE POINT FROM TO`, `… automount POINT [HOME]`.

`idmap` shows a directory so that what is uid FROM's there is uid TO's here (mount_setattr(2)). `automount` is an
automounter with the home of one `user` (the kernel's Documentation/filesystems/autofs.rst); without HOME it has none.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import struct
import sys

_libc = ctypes.CDLL(None, use_errno=True)
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_CLONE, _EMPTY_PATH, _IDMAP, _NEW_USER_NAMESPACE = 1, 0x1000, 0x100000, 0x10000000
_READY, _FAIL = 0x9360, 0x9361
_PACKET = struct.Struct("@iiIIQIIIII256s4x")
_MS_BIND = 1 << 12


def idmap(source: str, point: str, outside: str, inside: str) -> None:
    """Mount it."""
    readable, writable = os.pipe()
    holder = os.fork()
    if holder == 0:
        _libc.unshare(_NEW_USER_NAMESPACE)
        os.write(writable, b"x")
        os.close(writable)
        os.close(readable)
        while True:
            signal.pause()
    os.read(readable, 1)
    for kind in ("uid", "gid"):
        with open(f"/proc/{holder}/{kind}_map", "w", encoding="utf-8") as file:
            file.write(f"{outside} {inside} 1")
    namespace = os.open(f"/proc/{holder}/ns/user", os.O_RDONLY)
    tree = _call(_OPEN_TREE, -100, source.encode(), _CLONE)
    attributes = struct.pack("@QQQQ", _IDMAP, 0, 0, namespace)
    _call(_MOUNT_SETATTR, tree, b"", _EMPTY_PATH, attributes, len(attributes))
    _call(_MOVE_MOUNT, tree, b"", -100, point.encode(), 4)
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)


def automount(point: str, home: str = "") -> None:
    """Mount it, and serve it until the process is killed."""
    readable, writable = os.pipe()
    if os.fork():
        return
    os.setsid()
    options = f"fd={writable},pgrp={os.getpgrp()},minproto=5,maxproto=5,indirect"
    _mount("automount", point, "autofs", 0, options)
    os.close(writable)
    root = os.open(point, os.O_RDONLY | os.O_DIRECTORY)
    print("ready", flush=True)
    os.close(1)
    while packet := os.read(readable, _PACKET.size):
        token, length, name = (_PACKET.unpack(packet)[field] for field in (2, 9, 10))
        path = f"{point}/{name[:length].decode()}"
        if home and path == f"{point}/user":
            os.mkdir(path)
            _mount(home, path, "", _MS_BIND, "")
            fcntl.ioctl(root, _READY, token)
        else:
            fcntl.ioctl(root, _FAIL, token)


def _mount(source: str, point: str, kind: str, flags: int, options: str) -> None:
    words = (source.encode(), point.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode())
    if _libc.mount(*words):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), point)


def _call(number: int, *arguments: object) -> int:
    done: int = _libc.syscall(ctypes.c_long(number), *arguments)
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), number)
    return done


if __name__ == "__main__":
    if sys.argv[1] == "idmap":
        idmap(*sys.argv[2:])
    else:
        automount(*sys.argv[2:])
