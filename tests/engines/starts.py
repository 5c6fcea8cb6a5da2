"""How each engine is started on the test image, which the kernel mounts read-only."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import stat
import subprocess
from typing import TYPE_CHECKING

from tests.lab import apt, attached, scratch
from tests.lab.store import ORDINARY_UID, REPOSITORY
from tests.lab.unavailable import LabUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab.scratch import Scratch

PYTHON = "/opt/venv/bin/python"
HOSTS_PYTHON = "/usr/bin/python3"
"""An interpreter outside every image, for what shows the host's own root."""
_DROP = f"setpriv --reuid {ORDINARY_UID} --regid {ORDINARY_UID} --clear-groups"
_CGROUPS = "mount -t cgroup2 none /sys/fs/cgroup 2>/dev/null || true"  # crun wants no hybrid of two versions


def run(places: Scratch, image: str, engine: str, code: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program in a container of an engine (a key of `_ENGINES`).

    :param image: the filesystem of the test image, `FILE:OFFSET`.
    :raises LabUnavailable: the engine is not to be had here.
    """
    programs, make = _ENGINES[engine]
    with contextlib.suppress(LabUnavailable):  # all at once, where a release has them all
        apt.ensure(*(program for names, _ in _ENGINES.values() for program in names))
    apt.ensure(*programs, "mount")
    file, _, offset = image.partition(":")
    lower, root = places.new_folder("lower"), places.new_folder("root")
    os.chmod(places.new_folder("state"), 0o777)
    lines = [
        "set -e",
        "mount --make-rprivate /",
        f"mount -t squashfs -o loop,ro,offset={offset or 0} {file} {lower}",
        f"mount -t overlay none -o ro,lowerdir={without_sign(places)}:{lower} {root}",
        *make(places, root, code),
    ]
    environment = {"PATH": apt.SYSTEM_PATH, "LANG": "C.UTF-8", "USER": "user"}
    return scratch.call(["unshare", "-m", "sh", "-c", "\n".join(lines)], timeout=120, environment=environment)


def without_sign(places: Scratch) -> str:
    """Return a layer over the test image that takes away the signs of Apptainer, which built it.

    It has the folder that `attach` has made, too: not each of the engines can bind it here.
    """
    layer = places.new_folder("layer")
    os.chown(layer, 0, 0)
    folder = os.path.realpath(f"{attached.folder()}/current")
    subprocess.run(["cp", "-al", folder, layer + attached.POINT], check=True)
    os.mknod(f"{layer}/.singularity.d", stat.S_IFCHR)  # how an overlay keeps that a name is gone
    return layer


def _python(code: str, python: str = PYTHON) -> str:
    return shlex.join([python, "-c", code])


def _proot(places: Scratch, root: str, code: str) -> list[str]:
    binds = f"-b /proc -b /dev -b {places.tmp}:/tmp"
    return [f"{_DROP} env HOME=/nowhere proot -r {root} -w / {binds} {_python(code)}"]


def _charliecloud(_: Scratch, root: str, code: str) -> list[str]:
    return [f"{_DROP} ch-run --private-tmp --set-env=HOME=/nowhere {root} -- {_python(code)}"]


def _bubblewrap(_: Scratch, root: str, code: str) -> list[str]:
    world = "--dev /dev --proc /proc --tmpfs /tmp --setenv HOME /nowhere"
    return [f"{_DROP} bwrap --ro-bind {root} / {world} {_python(code)}"]


def _bubblewrap_binds(_: Scratch, root: str, code: str) -> list[str]:
    shown = " ".join(f"--ro-bind {root}/{name} /{name}" for name in ("usr", "opt", "etc"))
    shown += f" --ro-bind {root}{attached.POINT} {attached.POINT}"
    links = " ".join(f"--symlink usr/{name} /{name}" for name in ("bin", "lib", "lib64"))
    world = "--dev /dev --proc /proc --tmpfs /tmp --setenv HOME /nowhere"
    return [f"{_DROP} bwrap --unshare-all {shown} {links} {world} /usr/bin/python3 -c {shlex.quote(_AT_BASE + code)}"]


_AT_BASE = """import sys
sys.path += [f"/opt/venv/lib/python3.{sys.version_info[1]}/site-packages"]
import sif_writable
sif_writable.run()
"""
"""In a root of binds the image mount is that of the base interpreter; this one has the package from the environment."""


def _nspawn(_: Scratch, root: str, code: str) -> list[str]:
    quiet = "--quiet --register=no --keep-unit --link-journal=no --resolv-conf=off --timezone=off"
    return [f"systemd-nspawn {quiet} --read-only --setenv=HOME=/nowhere -D {root} {_python(code)}"]


def _firejail(places: Scratch, __: str, code: str) -> list[str]:
    code = f"import sys; sys.path.insert(0, {REPOSITORY!r}); import sif_writable; sif_writable.run()\n{code}"
    # Its own /tmp would hide a clone that lies there.
    start = f"firejail --quiet --noprofile {HOSTS_PYTHON} -B -c {shlex.quote(code)}"
    place = f"{places.new_folder('state')}/place"
    return [
        # Within a container it starts what it is given as it is.
        "if firejail --noprofile true 2>&1 | grep 'existing sandbox' >&2; then exit 1; fi",
        f"HOME=/nowhere SIF_WRITABLE_DIR={place} ATTACHED={attached.folder()}/current {start}",
    ]


def _podman(places: Scratch, root: str, code: str) -> list[str]:
    upper, state = places.new_folder("upper"), places.new_folder("state")
    kept = f"--storage-driver vfs --root {state}/a --runroot {state}/b"
    podman = f"unshare -pf --kill-child podman --cgroup-manager cgroupfs {kept} --runtime crun"
    options = "--rm --network none --cgroups disabled --ulimit host --read-only --env HOME=/nowhere"
    return [
        _CGROUPS,
        f"mount -t tmpfs none {state}",  # it makes files such as /etc/mtab in the root itself
        f"mkdir {state}/up {state}/work",
        f"mount -t overlay none -o lowerdir={root},upperdir={state}/up,workdir={state}/work {upper}",
        f"{podman} run {options} --rootfs {upper} {_python(code)}",
    ]


def _oci(runtime: str, *, rootless: bool = False) -> Callable[[Scratch, str, str], list[str]]:
    def make(places: Scratch, root: str, code: str) -> list[str]:
        state = f"{places.folder}/state"
        with open(f"{state}/config.json", "w", encoding="utf-8") as file:
            json.dump(_bundle(root, code, rootless=rootless), file)
        user = f"{_DROP} env XDG_RUNTIME_DIR={state}" if rootless else ""
        options = "--cgroup-manager=disabled " if runtime == "crun" else ""
        start = f"{user} {runtime} {options}--root {state}/run run one"
        return [_CGROUPS if runtime == "crun" else "", f"cd {state}", start]

    return make


def _bundle(root: str, code: str, *, rootless: bool) -> dict[str, object]:
    """Return a configuration of the OCI runtime specification, as `runc spec [--rootless]` begins it."""
    mounts: list[dict[str, object]] = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=1777"]},
    ]
    kinds = ["pid", "ipc", "uts", "mount", *(["user"] if rootless else [])]
    uid = 0 if rootless else ORDINARY_UID  # which is the ordinary one outside: runc wants it so
    linux: dict[str, object] = {"namespaces": [{"type": kind} for kind in kinds]}
    if rootless:
        mapping = [{"containerID": 0, "hostID": ORDINARY_UID, "size": 1}]
        linux.update(uidMappings=mapping, gidMappings=mapping)
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": uid, "gid": uid},
            "args": [PYTHON, "-c", code],
            "env": ["PATH=/usr/bin:/bin", "HOME=/nowhere"],
            "cwd": "/",
            "noNewPrivileges": True,
        },
        "root": {"path": root, "readonly": True},
        "hostname": "container",
        "mounts": mounts,
        "linux": linux,
    }


_ENGINES: dict[str, tuple[tuple[str, ...], Callable[[Scratch, str, str], list[str]]]] = {
    "charliecloud": (("ch-run",), _charliecloud),
    "podman": (("podman", "crun"), _podman),
    "runc": (("runc",), _oci("runc")),
    "runc-rootless": (("runc",), _oci("runc", rootless=True)),
    "crun": (("crun",), _oci("crun")),
    "crun-rootless": (("crun",), _oci("crun", rootless=True)),
    "nspawn": (("systemd-nspawn",), _nspawn),
    "bubblewrap": (("bwrap",), _bubblewrap),
    "bubblewrap-binds": (("bwrap",), _bubblewrap_binds),
    "firejail": (("firejail",), _firejail),
    "proot": (("proot",), _proot),
}
