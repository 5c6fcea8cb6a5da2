"""Is ``/`` a container's? What takes longer to find out, for :func:`sif_writable.in_container`.

A booted system's root may be read-only, too (a diskless node, ostree), a job may have a mount namespace of its own on
it (Slurm's job_container/tmpfs, PrivateTmp of systemd), and a service may see it read-only (ProtectSystem=strict). So
it is compared with the root of the first process, whose table of mounts everybody may read; where that is hidden, or
another one's, what is known decides, and in doubt it is a host. It imports only what is loaded already.
"""

import os
import sys

from sif_writable import FIREJAIL, let_pass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Optional

FIRST_PIDS = "pid:[4026531836]"
"""The pid namespace that the kernel boots with (PROC_PID_INIT_INO)."""
_FIRST_USERS = "user:[4026531837]"
"""The user namespace that the kernel boots with (PROC_USER_INIT_INO)."""
_BOOTED_BY = ("/run/systemd/system", "/run/openrc/softlevel")
"""What the first process of a machine leaves (sd_booted(3), openrc's rc.c)."""


def is_containers(data: "Mapping[bytes, bytes]", *, signed: bool) -> bool:
    """Whether ``/`` is a container's, in a mount namespace that is not the booted system's.

    :param signed: an engine has left its sign, which may have leaked. Without one, the root or the interpreter has to
        be on a read-only mount.
    """
    try:
        return _is_containers(data, signed=signed)
    except OSError as error:
        let_pass(error)
        return signed


def _is_containers(data: "Mapping[bytes, bytes]", *, signed: bool) -> bool:
    if not (signed or _is_read_only("/") or _is_read_only(sys.base_prefix)):
        return False
    if below_proot():
        return True
    own_pids = os.readlink("/proc/self/ns/pid") != FIRST_PIDS
    table = _lines("self")
    if data.get(b"container") == FIREJAIL and not signed:  # the host's root, with a mount over each part of it
        return own_pids and any(fields[4:5] == [b"/run/firejail/mnt"] for fields in table)
    here = root_in(table)
    if here is None:  # a directory that somebody has changed his root to
        return signed
    device, directory, read_only = here
    try:
        first = root_in(_lines("1"))
    except OSError as error:  # hidepid in proc(5)
        let_pass(error)
        first = None
    sandboxed = os.statvfs("/").f_flag & 6 == 6  # os.ST_NOSUID and os.ST_NODEV
    if first is not None and here[:2] == first[:2] and read_only and not first[2]:
        return sandboxed  # by bubblewrap; a service with ProtectSystem=strict lacks the latter, and is the host's
    if first is not None and not own_pids:
        return here[:2] != first[:2]
    devtmpfs = _kind_of_dev(table) == b"devtmpfs"
    is_disk = directory == b"/" and device.partition(b":")[0] not in (b"0", b"7")  # all of it, and no image in a file
    if is_disk and devtmpfs:  # which is the kernel's own /dev: as a system is booted
        return read_only and own_pids and sandboxed
    if any(fields[4:5] == [b"/etc/hosts"] for fields in table):
        return True  # engines bring their own; of a machine it is a file
    if is_disk and not read_only:
        return False  # a sandbox that shows a machine's root as it is
    if own_pids or os.readlink("/proc/self/ns/user") != _FIRST_USERS:
        if sandboxed and read_only:
            return True
        # A job may have such namespaces on a diskless node, and a whole machine, such as LXC's, has them.
        return (sandboxed or read_only or not devtmpfs) and not any(os.access(path, 0) for path in _BOOTED_BY)
    return b"SHIFTER_IMAGE" in data  # an engine with rights of root, which copies its files of /etc


def below_proot() -> bool:
    """Whether PRoot runs this process: it traces it, and gives it another root without any mount or namespace.

    :raises OSError: /proc cannot be read.
    """
    tracer = read("/proc/self/status").partition(b"\nTracerPid:\t")[2].partition(b"\n")[0]
    return tracer not in (b"", b"0") and read(f"/proc/{tracer.decode()}/comm").startswith(b"proot")


def read(path: str) -> bytes:
    """Return the text of a file of the kernel's.

    :raises OSError: it cannot be read.
    """
    with open(path, "rb", buffering=0) as file:
        return file.read()


def _is_read_only(path: str) -> bool:
    return bool(os.statvfs(path).f_flag & 1)  # os.ST_RDONLY, which PyPy has not


def _lines(process: str) -> "list[list[bytes]]":
    """Return the mounts of a process: the fields of mountinfo (proc_pid_mountinfo(5))."""
    return [line.split(b" ") for line in read(f"/proc/{process}/mountinfo").splitlines()]


def root_in(table: "list[list[bytes]]") -> "Optional[tuple[bytes, bytes, bool]]":
    """Return the device of what is mounted at ``/``, the directory in its filesystem, and whether it is read-only."""
    found = None
    for fields in table:
        if len(fields) > 9 and fields[4] == b"/":  # a later one hides an earlier one
            read_only = b"ro" in fields[5].split(b",") or b"ro" in fields[-1].split(b",")
            found = fields[2], fields[3], read_only
    return found


def _kind_of_dev(table: "list[list[bytes]]") -> bytes:
    """Return what /dev is: the kernel's own ``devtmpfs`` of a booted system, which a container of OCI has not."""
    kinds = [fields[fields.index(b"-") + 1] for fields in table if len(fields) > 9 and fields[4] == b"/dev"]
    return kinds[-1] if kinds else b""
