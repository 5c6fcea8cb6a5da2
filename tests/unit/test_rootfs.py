"""Whose root it is, by what the kernel reports: tables of mounts as they were seen, and as sites have them."""

from __future__ import annotations

import os
from typing import NamedTuple

import pytest

import sif_writable
from sif_writable import rootfs

HOST_NS, OWN_NS = "mnt:[4026531841]", "mnt:[4026532555]"
OWN_PIDS, OWN_USERS = "pid:[4026532556]", "user:[4026532557]"
FIRST_USERS = "user:[4026531837]"
DEV = "24 27 0:6 / /dev rw - devtmpfs devtmpfs rw"
DISK = f"{DEV}\n27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw"
DISK_READ_ONLY = f"{DEV}\n27 1 254:0 / / ro,relatime shared:1 - ext4 /dev/vda ro"
DISKLESS = f"{DEV}\n27 1 0:21 / / ro,relatime shared:1 - nfs host:/root ro,vers=3"
OSTREE = f"{DEV}\n27 1 0:30 / / ro,relatime shared:1 - overlay composefs ro,lowerdir=/x"
SUBVOLUME = "24 27 0:6 / /dev rw - tmpfs none rw\n27 1 0:30 /@ / rw - btrfs /dev/vda rw"
SUBVOLUME_READ_ONLY = SUBVOLUME.replace("/ rw", "/ ro", 1)
SANDBOX = os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV
HOSTS = "90 68 254:0 /etc/hosts /etc/hosts rw - ext4 /dev/vda rw"
SETUID = f"{DEV}\n{HOSTS}\n68 116 0:40 / / rw,nodev - overlay overlay ro,lowerdir=/var/lib/apptainer/mnt/session/l"
CHARLIECLOUD = f"{DEV}\n{HOSTS}\n68 116 253:1 /home/me/image / ro,nosuid - xfs /dev/dm-1 rw"
WAREWULF = f"{DEV}\n27 1 0:2 / / rw - tmpfs rootfs rw"
OWN_DEV = "24 27 0:6 / /dev rw,nosuid - tmpfs tmpfs rw"
LXC = f"{OWN_DEV}\n27 1 0:31 /lxc/a/rootfs / rw - zfs pool/a rw"
PRIVATE_DEVICES = DISK_READ_ONLY.replace(DEV, OWN_DEV)
OVER_DISK = DISK.replace(DEV, OWN_DEV)
DOCKER_DEV = f"{DEV}\n{HOSTS}\n30 1 0:50 / / rw - overlay overlay rw,lowerdir=/a"
RUNC = "30 1 0:50 / / ro - overlay overlay rw,lowerdir=/a\n31 30 0:51 / /dev rw - tmpfs tmpfs rw"
CHANGED = "31 27 0:51 / /proc rw - proc proc rw"
JAIL = "50 27 0:60 / /run/firejail/mnt rw,nosuid - tmpfs tmpfs rw"
FIREJAIL = {"container": "firejail"}
BOOTED = ("/run/systemd/system",)
APPTAINER = {"APPTAINER_CONTAINER": "/x.sif"}


class Row(NamedTuple):
    """One process."""

    contained: bool
    table: str
    booted: str
    """What the table of the first process says; empty where it is hidden."""
    data: dict[str, str]
    ns: str = OWN_NS
    pids: str = rootfs.FIRST_PIDS
    users: str = FIRST_USERS
    files: tuple[str, ...] = ()
    status: str = "Name:\tpython\nTracerPid:\t0\n"
    owner: int = 0
    flags: int = 0
    """Of the root, where the table does not say it."""


ROWS = {
    "a machine": Row(False, DISK, DISK, {}, ns=HOST_NS),
    "a machine of Linux 6.18, where a variable leaked": Row(False, DISK, DISK, APPTAINER, ns="mnt:[4026531832]"),
    "a diskless machine": Row(False, DISKLESS, DISKLESS, {}, ns=HOST_NS),
    "a machine made of an image": Row(False, DISK, DISK, {}, ns=HOST_NS, files=("/.dockerenv", "/.singularity.d")),
    "a job there": Row(False, DISK, DISK, APPTAINER, files=("/.dockerenv",)),
    "a job on a diskless machine": Row(False, DISKLESS, DISKLESS, APPTAINER),
    "a job on ostree": Row(False, OSTREE, OSTREE, {}),
    "a job where processes are hidden": Row(False, DISKLESS, "", APPTAINER),
    "a job where processes are hidden, of a leftover file": Row(False, OSTREE, "", {}, files=("/.dockerenv",)),
    "a job on a disk, where processes are hidden": Row(
        False, DISK_READ_ONLY, "", APPTAINER, files=("/.singularity.d",)
    ),
    "a job with processes of its own": Row(False, DISK, "", {"CH_RUNNING": "1"}, pids=OWN_PIDS),
    "such a job on a diskless machine": Row(False, DISKLESS, "", {}, pids=OWN_PIDS, files=BOOTED),
    "such a job there, where a variable leaked": Row(False, DISKLESS, "", APPTAINER, pids=OWN_PIDS, files=BOOTED),
    "such a job on a machine in memory": Row(False, WAREWULF, WAREWULF, {"CH_RUNNING": "1"}, pids=OWN_PIDS),
    "such a job on a machine made of an image": Row(
        False, WAREWULF, WAREWULF, {}, pids=OWN_PIDS, files=("/.singularity.d",)
    ),
    "such a job on ostree": Row(False, OSTREE, OSTREE, {}, pids=OWN_PIDS, files=BOOTED),
    "such a job on btrfs": Row(False, SUBVOLUME.replace("tmpfs", "devtmpfs"), "", {"container": "oci"}, pids=OWN_PIDS),
    "a job with users of its own there, where processes are hidden": Row(
        False, SUBVOLUME.replace("tmpfs", "devtmpfs"), "", {"CH_RUNNING": "1"}, users=OWN_USERS
    ),
    "a machine made of an image, where processes are hidden": Row(False, WAREWULF, "", {}, files=("/.singularity.d",)),
    "a machine of LXC, where a variable leaked": Row(
        False, LXC, LXC, {"KUBERNETES_SERVICE_HOST": "x"}, pids=OWN_PIDS, users=OWN_USERS, files=BOOTED
    ),
    "a service with ProtectSystem=strict, PrivateDevices and PrivatePIDs": Row(
        False, PRIVATE_DEVICES, PRIVATE_DEVICES, {}, pids=OWN_PIDS, files=BOOTED
    ),
    "bubblewrap that shows all of a machine as it is, where a variable leaked": Row(
        False, OVER_DISK, OVER_DISK, APPTAINER, pids=OWN_PIDS, flags=SANDBOX & ~os.ST_RDONLY, files=BOOTED
    ),
    "the same, where systemd does not run": Row(
        False, OVER_DISK, OVER_DISK, APPTAINER, pids=OWN_PIDS, flags=SANDBOX & ~os.ST_RDONLY
    ),
    "a job started from Firejail, on a diskless machine": Row(False, DISKLESS, "", FIREJAIL, pids=OWN_PIDS),
    "a changed root on a machine": Row(False, CHANGED, DISK, {}),
    "Apptainer with setuid": Row(True, SETUID, DISK, APPTAINER, files=("/.singularity.d",)),
    "the same, where processes are hidden": Row(True, SETUID, "", APPTAINER, files=("/.singularity.d",)),
    "the same, on a diskless machine": Row(True, SETUID, DISKLESS, APPTAINER, files=("/.singularity.d",)),
    "Apptainer without privileges": Row(True, SETUID, "", APPTAINER, users=OWN_USERS, owner=1000),
    "Shifter, where processes are hidden": Row(True, RUNC, "", {"SHIFTER_IMAGE": "a"}),
    "runc": Row(True, RUNC, "", {}, pids=OWN_PIDS),
    "Docker with the devices and /run of the machine": Row(
        True, DOCKER_DEV, DOCKER_DEV, {}, pids=OWN_PIDS, files=("/.dockerenv", *BOOTED)
    ),
    "Charliecloud in a job with processes of its own": Row(
        True, CHARLIECLOUD, CHARLIECLOUD, {"CH_RUNNING": "1"}, pids=OWN_PIDS, users=OWN_USERS, files=BOOTED
    ),
    "Apptainer with setuid and --pid": Row(True, SETUID, SETUID, APPTAINER, pids=OWN_PIDS),
    "Enroot": Row(True, RUNC, DISK, {}, users=OWN_USERS),
    "a service with ProtectSystem=strict": Row(False, DISK_READ_ONLY, DISK, {}),
    "the same, where a variable leaked": Row(False, DISK_READ_ONLY, DISK, APPTAINER),
    "the same, with processes of its own": Row(False, DISK_READ_ONLY, "", {}, pids=OWN_PIDS),
    "the same, in a system container": Row(False, SUBVOLUME_READ_ONLY, SUBVOLUME, {}, pids=OWN_PIDS),
    "bubblewrap over a host's root": Row(True, DISK_READ_ONLY, DISK, {}, flags=SANDBOX),
    "bubblewrap, with processes of its own": Row(
        True, DISK_READ_ONLY, DISK_READ_ONLY, {}, pids=OWN_PIDS, flags=SANDBOX
    ),
    "a container in a changed root": Row(True, CHANGED, DISK, {"CH_RUNNING": "1"}),
    "gVisor, whose namespaces have other numbers": Row(
        True, RUNC, "", {"KUBERNETES_SERVICE_HOST": "x"}, ns="mnt:[3]", pids="pid:[1]"
    ),
    "Firejail on a diskless machine": Row(True, f"{JAIL}\n{DISKLESS}", "", FIREJAIL, pids=OWN_PIDS),
    "PRoot": Row(True, DISKLESS, DISK, {}, ns=HOST_NS, status="Name:\tpython\nTracerPid:\t7\n"),
}


@pytest.mark.parametrize("name", ROWS)
def test_whose_a_root_is(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    row = ROWS[name]
    texts = {"self/mountinfo": row.table, "1/mountinfo": row.booted, "self/status": row.status, "7/comm": "proot\n"}

    def read(path: str) -> bytes:
        text = texts[path.removeprefix("/proc/")]
        if not text:
            raise PermissionError(1, path)
        return text.encode()

    links = {"mnt": row.ns, "pid": row.pids, "user": row.users}
    flags = row.flags or (0 if row.table in (DISK, SETUID) else os.ST_RDONLY)
    device = os.makedev(*map(int, row.table.splitlines()[-1].split(" ")[2].split(":")))
    status = os.stat_result((0o40755, 2, device, 2, row.owner, 0, 0, 0, 0, 0))
    with monkeypatch.context() as patch:
        patch.setattr(rootfs, "read", read)
        patch.setattr(os, "readlink", lambda path: links[path.rpartition("/")[2]])
        patch.setattr(os, "access", lambda path, _: path in row.files)
        patch.setattr(os, "stat", lambda _: status)
        patch.setattr(os, "statvfs", lambda _: os.statvfs_result((0, 0, 0, 0, 0, 0, 0, 0, flags, 255)))
        data = {os.fsencode(key): os.fsencode(value) for key, value in row.data.items()}
        contained = sif_writable.in_container(data)
    assert contained is row.contained
