"""What the machine's own package manager gives: programs for the lab, and where Debian is fetched from."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from tests.lab.store import locked
from tests.lab.unavailable import LabUnavailable

HEADERS = "/usr/include/stdio.h"
SFTP = "/usr/lib/openssh/sftp-server"
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PROGRAMS = {
    HEADERS: "libc6-dev",
    SFTP: "openssh-sftp-server",
    "bindfs": "bindfs",
    "bwrap": "bubblewrap",
    "ch-run": "charliecloud-runtime",
    "crun": "crun",
    "csh": "tcsh",
    "faketime": "faketime",
    "firejail": "firejail",
    "fish": "fish",
    "gcc": "gcc",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.exfat": "exfatprogs",
    "mkfs.ext3": "e2fsprogs",
    "mkfs.vfat": "dosfstools",
    "mount.exfat-fuse": "exfat-fuse",
    "mksquashfs": "squashfs-tools",
    "mmdebstrap": "mmdebstrap",
    "mount": "mount",
    "newuidmap": "uidmap",
    "podman": "podman",
    "proot": "proot",
    "rclone": "rclone",
    "runc": "runc",
    "setcap": "libcap2-bin",
    "setfacl": "acl",
    "setquota": "quota",
    "sshfs": "sshfs",
    "strace": "strace",
    "systemd-nspawn": "systemd-container",
    "tcsh": "tcsh",
    "zsh": "zsh",
}
"""Program → the Debian package that has it. A compiler is of no use without headers, which apt only recommends."""

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def find(program: str) -> str | None:
    """Return the path of a program, also where an ordinary user's PATH lacks the sbin folders."""
    if program == HEADERS:  # which nobody can execute
        return program if os.path.exists(program) else None
    return shutil.which(program) or shutil.which(program, path=SYSTEM_PATH)


def ensure(*programs: str) -> None:
    """Install what is missing of these programs (keys of PROGRAMS), or say what the person could install."""
    with locked("apt"):
        packages = sorted({PROGRAMS[program] for program in programs if find(program) is None})
        if packages:
            _install(packages)


def install(*packages: str) -> None:
    """Install what is missing of these packages."""
    with locked("apt"):
        _install(packages)


def ensure_all() -> list[str]:
    """Install what is missing of all programs; return why some cannot be had, which is no reason against the others."""
    if not _why_not(PROGRAMS):
        return []
    return [why for program in PROGRAMS if (why := _why_not([program]))]


def _why_not(programs: Iterable[str]) -> str:
    try:
        ensure(*programs)
    except LabUnavailable as why:
        return str(why)
    return ""


def _install(packages: Sequence[str]) -> None:
    if os.getuid() != 0 or find("apt-get") is None:
        wanted = " ".join(packages)
        raise LabUnavailable(f"the packages {wanted} are missing, and only root on Debian can install them")
    _apt_get("update")
    _apt_get("install", "-y", "--no-install-recommends", *packages)


def debian_mirror() -> str:
    """Return the address of the Debian archive that this machine is set up to use."""
    if find("apt-get") is None:
        raise LabUnavailable("there is no apt-get to make a Debian root filesystem with")
    mirrors = _debian_archives()
    if not mirrors and os.getuid() == 0:
        with locked("apt"):
            _apt_get("update")  # apt lists nothing before the first one, as on a new machine
        mirrors = _debian_archives()
    if not mirrors:
        raise LabUnavailable("the apt sources name no Debian archive")
    return mirrors[0]


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
