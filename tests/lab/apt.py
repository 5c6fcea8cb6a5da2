"""What the machine's own package manager gives: programs for the lab, and where Debian is fetched from."""

from __future__ import annotations

import os
import shutil
import subprocess

from tests.lab.store import locked
from tests.lab.unavailable import LabUnavailable

PROGRAMS = {
    "bindfs": "bindfs",
    "bwrap": "bubblewrap",
    "ch-run": "charliecloud-runtime",
    "crun": "crun",
    "csh": "tcsh",
    "faketime": "faketime",
    "firejail": "firejail",
    "fish": "fish",
    "gcc": "gcc",
    "mkfs.ext3": "e2fsprogs",
    "mkfs.vfat": "dosfstools",
    "mksquashfs": "squashfs-tools",
    "mmdebstrap": "mmdebstrap",
    "mount": "mount",
    "newuidmap": "uidmap",
    "patchelf": "patchelf",
    "podman": "podman",
    "proot": "proot",
    "runc": "runc",
    "setfacl": "acl",
    "strace": "strace",
    "systemd-nspawn": "systemd-container",
    "tcsh": "tcsh",
}
"""Program → the Debian package that has it."""

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def find(program: str) -> str | None:
    """Return the path of a program, also where an ordinary user's PATH lacks the sbin folders."""
    return shutil.which(program) or shutil.which(program, path=SYSTEM_PATH)


def ensure(*programs: str) -> None:
    """Install what is missing of these programs (keys of PROGRAMS), or say what the person could install."""
    with locked("apt"):
        packages = sorted({PROGRAMS[program] for program in programs if find(program) is None})
        if not packages:
            return
        wanted = " ".join(packages)
        if os.getuid() != 0 or find("apt-get") is None:
            raise LabUnavailable(f"the packages {wanted} are missing, and only root on Debian can install them")
        _apt_get("update")
        _apt_get("install", "-y", "--no-install-recommends", *packages)


def debian_mirror() -> str:
    """Return the address of the Debian archive that this machine is set up to use."""
    if find("apt-get") is None:
        raise LabUnavailable("there is no apt-get to make a Debian root filesystem with")
    if mirrors := _debian_archives():
        return mirrors[0]
    raise LabUnavailable("the apt sources name no Debian archive")


def _debian_archives() -> list[str]:
    """List the main archives; apt reads every format of its sources for us.

    By path, not by origin: apt knows the origin only after an update.
    """
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return [address for address in listed if address.rstrip("/").endswith("/debian")]


def _apt_get(*arguments: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    result = subprocess.run(
        ["apt-get", "-qq", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        raise LabUnavailable(f"could not `apt-get {' '.join(arguments)}`: {result.stderr.strip()[-300:]}")
