"""Root filesystem trees made of Debian packages: the base of our images, and the root that Apptainer runs in."""

from __future__ import annotations

import os
import subprocess

from tests.lab import apt
from tests.lab.store import ORDINARY_UID, provide, remove
from tests.lab.unavailable import LabUnavailable

USER = "user"
"""Name of the ordinary user in the Apptainer root."""

_BASE_PACKAGES = ("python3", "python3-venv", "python3-pip", "ca-certificates", "fontconfig")
_APPTAINER_PACKAGES = (
    *("apptainer/sid", "fuse-overlayfs", "squashfuse", "fuse2fs", "e2fsprogs", "squashfs-tools", "uidmap"),
    *("ca-certificates", "procps", "python3", "strace", "tzdata"),
)
_SLURM_PACKAGES = ("slurm-wlm", "munge")
# Apptainer is in sid only; the pin keeps everything else at the stable release.
_PIN = r"Package: *\nPin: release n=sid\nPin-Priority: 100\n"


def base_tree(*more: str) -> str:
    """Return the tree that images are built from: Debian 12 and its Python 3.11, owned by the ordinary uid.

    :param more: Debian packages that it has besides.
    """
    require_root()
    packages = (*_BASE_PACKAGES, *more)

    def make(path: str) -> None:
        _debootstrap(path, "bookworm", packages)
        # Device nodes cannot be copied by an ordinary user; Apptainer brings its own.
        remove(os.path.join(path, "dev"))
        os.mkdir(os.path.join(path, "dev"))
        subprocess.run(["chown", "-R", "-h", f"{ORDINARY_UID}:{ORDINARY_UID}", path], check=True)

    return provide("-".join(("base", *more)), ("bookworm", packages, 1), make)


def apptainer_tree() -> str:
    """Return the tree of a small Debian with Apptainer and a user who may use it without privileges."""
    return _tree_with_user("apptainer-root", _APPTAINER_PACKAGES)


def slurm_tree() -> str:
    """Return such a tree with Slurm besides: one of its own, since few tests need it."""
    return _tree_with_user("slurm-root", (*_APPTAINER_PACKAGES, *_SLURM_PACKAGES))


def _tree_with_user(name: str, packages: tuple[str, ...]) -> str:
    require_root()

    def make(path: str) -> None:
        _debootstrap(path, "trixie", packages, sid=True)
        for file_name, line in account(f"/home/{USER}").items():
            with open(path + file_name, "a", encoding="utf-8") as file:
                file.write(line)
        for folder in ("lab", f"home/{USER}"):
            os.makedirs(os.path.join(path, folder))

    return provide(name, ("trixie", packages, 1), make)


def account(home: str) -> dict[str, str]:
    """Return what the files that name users have to say of the ordinary user."""
    return {
        "/etc/passwd": f"{USER}:x:{ORDINARY_UID}:{ORDINARY_UID}::{home}:/bin/sh\n",
        "/etc/group": f"{USER}:x:{ORDINARY_UID}:\n",
        "/etc/subuid": f"{USER}:100000:65536\n",
        "/etc/subgid": f"{USER}:100000:65536\n",
    }


def require_root() -> None:
    """Say so where nothing of this can be made."""
    if os.getuid() != 0:
        raise LabUnavailable("only root can make a Debian root filesystem here")


def unpack(path: str, release: str, packages: tuple[str, ...]) -> None:
    """Unpack these packages and what they depend on: none of them is set up, nothing of them runs.

    All of it comes to lie below usr, also of a release that has libraries outside.
    """
    merge = '--setup-hook=mkdir -p "$1"/usr/lib; ln -s usr/lib "$1"/lib'
    _mmdebstrap(path, release, packages, "--variant=extract", merge)


def _debootstrap(path: str, release: str, packages: tuple[str, ...], *, sid: bool = False) -> None:
    folder = '"$1"/etc/apt/preferences.d'
    pin = f"--setup-hook=mkdir -p {folder}; printf '{_PIN}' > {folder}/sid"
    options = ["--variant=minbase", "--dpkgopt=path-exclude=/usr/share/doc/*", *([pin] if sid else [])]
    _mmdebstrap(path, release, packages, *options, more=("sid",) if sid else ())


def _mmdebstrap(path: str, release: str, packages: tuple[str, ...], *options: str, more: tuple[str, ...] = ()) -> None:
    mirror = apt.debian_mirror()
    apt.ensure("mmdebstrap")
    command = ["mmdebstrap", "--quiet", f"--include={','.join(packages)}", *options]
    # A mirror may lag behind the date until which its index counts as valid.
    command += ['--aptopt=Acquire::Check-Valid-Until "false"', release, path]
    command += [f"deb {mirror} {name} main" for name in (release, *more)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise LabUnavailable(f"could not fetch Debian {release}: {result.stderr.strip()[-500:]}")
