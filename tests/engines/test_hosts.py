"""No host is taken for a container: whatever has leaked there, however it is mounted, and whatever is left over."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

import sif_writable
from tests.conftest import NOT_RUN, or_skip
from tests.engines.starts import HOSTS_PYTHON
from tests.lab import apt, scratch
from tests.lab.store import ORDINARY_UID, REPOSITORY

if TYPE_CHECKING:
    from tests.lab.scratch import Scratch

LEAKED = [
    *({}, {"APPTAINER_CONTAINER": "/x.sif"}, {"SINGULARITY_CONTAINER": "/x.sif"}, {"CH_RUNNING": "1"}),
    *({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, {"container": "oci"}, {"container": "podman"}, {"container": "docker"}),
    *({"SHIFTER_IMAGE": "alpine"}, {"container": "firejail"}, {"container": "lxc"}, {"container": "systemd-nspawn"}),
]
ASK = f"""
import json, os, sys
sys.path.insert(0, {REPOSITORY!r})
import sif_writable
leaked = json.loads({json.dumps(json.dumps(LEAKED))})
words = []
for variables in leaked:
    words.append(sif_writable.gate({{os.fsencode(name): os.fsencode(value) for name, value in variables.items()}}))
print(json.dumps([words, "sif_writable.rootfs" in sys.modules]))
"""
_JOB = "unshare -m --propagation slave"
_STRICT = (  # as systemd does it
    "mount --rbind / {root} && cd {root} && mount -o remount,bind,ro {root} && mount --move . / && exec chroot ."
)
_DISKLESS = f"""{_JOB} sh -ec '
mount -t tmpfs none {{root}} && cd {{root}} && mkdir new up work
mount -t overlay none -o lowerdir=/,upperdir=up,workdir=work new && cd new
for name in proc sys dev; do mount --rbind /$name $name; done
mount -t tmpfs none run && mkdir -p run/systemd/system
for path in {REPOSITORY} {{places}}; do mkdir -p .$path && mount --bind $path .$path; done
pivot_root . mnt && umount -l /mnt
exec {{job}}'"""
_USER = f"setpriv --reuid {ORDINARY_UID} --regid {ORDINARY_UID} --clear-groups"
HOSTS = {
    "a machine": "{python}",
    "a job with a /tmp of its own": f"{_JOB} sh -c 'mount -t tmpfs none /mnt && exec {_USER} {{python}}'",
    "a job with processes of its own": f"unshare -mpf --mount-proc {_USER} {{python}}",
    "a user namespace of an ordinary user's": f"{_USER} unshare -Urm {{python}}",
    "a user namespace of root's": "unshare -Urm {python}",
    "a read-only interpreter (NixOS, NFS)": (
        f"{_JOB} sh -c 'mount --bind /usr /usr && mount -o remount,bind,ro /usr && exec {{python}}'"
    ),
    "a Python on a read-only filesystem of its own (CVMFS)": (
        f"{_JOB} sh -c 'mount -t squashfs -o loop,ro,offset={{offset}} {{file}} {{root}} && exec {{root}}{{python}}'"
    ),
    "a booted root that is read-only (ostree, a diskless node)": (
        f"{_JOB} sh -c 'mount -o remount,bind,ro / && mount --bind {{table}} /proc/1/mountinfo && exec {{python}}'"
    ),
    "a service with ProtectSystem=strict": f"{_JOB} sh -c '{_STRICT} {{python}}'",
    "a service of an ordinary user's with ProtectSystem=strict": f"{_JOB} sh -c '{_STRICT} {_USER} {{python}}'",
    "a booted root that is read-only, where other users' processes are hidden": (
        f"{_JOB} sh -c 'mount -o remount,bind,ro / && mount -t tmpfs none /proc/1 && exec {{python}}'"
    ),
    "a job with processes of its own on a diskless machine": _DISKLESS.replace(
        "{job}", f"unshare -mpf --mount-proc {_USER} {{python}}"
    ),
    "a user namespace of an ordinary user's there, with processes of its own": _DISKLESS.replace(
        "{job}", f"{_USER} unshare -Urmpf --mount-proc {{python}}"
    ),
    "a disk, where other users' processes are hidden": f"{_JOB} sh -c 'mount -t tmpfs none /proc/1 && exec {{python}}'",
}


@pytest.mark.parametrize("host", HOSTS)
def test_no_host_is_active(places: Scratch, squashfs_image: str, host: str) -> None:
    or_skip(apt.ensure, "mount")
    if os.getuid() != 0 or int(os.readlink("/proc/self/ns/mnt")[5:-1]) not in sif_writable._BOOTED:
        pytest.skip(f"{NOT_RUN}a host is root's, and no container")
    file, _, offset = squashfs_image.partition(":")
    table = f"{places.folder}/table"
    with open("/proc/1/mountinfo", encoding="utf-8") as mounts, open(table, "w", encoding="utf-8") as changed:
        for line in mounts:
            fields = line.split(" ")
            fields[5] = "ro" + fields[5][2:] if fields[4] == "/" else fields[5]
            changed.write(" ".join(fields))
    program = f"{places.folder}/program"
    with open(program, "w", encoding="utf-8") as script:
        script.write(ASK)
    python = f"{HOSTS_PYTHON} -B {program}"
    command = HOSTS[host].format(
        python=python,
        root=places.new_folder("root"),
        table=table,
        file=file,
        offset=offset or 0,
        places=places.folder,
    )
    result = scratch.call(["sh", "-c", command], timeout=60, environment={"PATH": apt.SYSTEM_PATH})
    assert result.returncode == 0, result
    words, looked_further = json.loads(result.stdout)
    assert words == ["host"] * len(LEAKED)
    if host == "a machine":
        assert not looked_further
