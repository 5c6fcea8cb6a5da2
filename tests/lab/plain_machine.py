"""A machine of its own: this one's system folders and interpreters, empty writable places, no sign of a container.

It needs no image, so it has every interpreter that this machine and the lab have, and it can show an environment that
a test has just made: at /venv, read-only as in an image or writable as on a workstation.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.lab import apt, debian, measured, pythons, scratch, store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.lab.scratch import Scratch

VENV = "/venv"
WORK = "/work-folder"
"""Where commands see the working directory; it is writable."""
IMAGE = ".singularity.d"
HOSTS = "/etc/hosts:/etc/hosts:ro"
"""What an engine mounts. In a namespace where its root seems to be root's, a container is known by that."""

_SYSTEM = ("bin", "lib", "lib32", "lib64", "libx32", "sbin", "usr")
_SETTINGS = ("ld.so.cache", "alternatives", "python3*", "ssl/certs/ca-certificates.crt")
"""Files and folders of /etc that its programs do not work without; the last is for Debian's pip."""


class PlainMachine:
    """Runs commands as the ordinary user on a plain machine, or in what looks like an image there."""

    def __init__(self, places: Scratch) -> None:
        """Take the writable places to show there."""
        self.places = places
        self.points: set[str] = set()
        """Folders that were made in the places only because something is mounted there."""
        self._system: list[str] = []
        self._tree = os.path.join(places.folder, "tree")
        self._own: list[str] = []
        """Folders of the root itself that are shown read-only, as an image's are."""
        self._linked: str = ""

    def run(
        self,
        argv: Sequence[str],
        *,
        venv: str = "",
        writable: bool = False,
        image: bool = True,
        home: str | None = scratch.HOME,
        env: Mapping[str, str] | None = None,
        binds: Sequence[str] = (),
        images: Sequence[str] = (),
        served: Sequence[str] = (),
        tmpfs: Sequence[str] = (),
        setuid: bool = False,
        userns: bool = True,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command.

        `venv` is a folder outside, shown at /venv; `binds` are `outside:inside[:ro]`, and `served` lies over them. With
        `image` the root has the folder that shows an image, and a read-only environment is a part of the root and no
        bind; the rest is shown by what is in `env`. With `setuid` programs may gain privileges; without `userns` they
        can make no user namespaces.
        """
        self._make_tree()
        self._sign(image)
        binds = [*_interpreters(), *measured.binds(), *binds]
        shown = [f"{venv}:{VENV}{'' if writable else ':ro'}"] if venv else []
        if image and not writable and os.path.dirname(venv) in (store.LAB, self.places.folder):
            shown = [f"{self._link(venv)}:{VENV}:ro"]
        shown += [f"{self._tree}{path}:{path}:ro" for path in self._own]
        everything = [*self._system, *self.places.world, f"{self.places.home}:{scratch.HOME}"]
        everything += [f"{self.places.work}:{WORK}", *shown, *binds]
        for bind in everything:
            self._make_mount_point(bind)
        for bind in binds:
            self._make_point_within(bind)
        environment = {"PATH": f"{VENV}/bin:{apt.SYSTEM_PATH}", "LANG": "C.UTF-8", "USER": debian.USER}
        if home is not None:
            environment["HOME"] = home
        return scratch.run(
            self.places,
            argv,
            tree=self._tree,
            binds=everything,
            images=images,
            served=served,
            tmpfs=tmpfs,
            environment={**environment, **(env or {})},
            folder=WORK,
            setuid=setuid,
            user_namespaces=userns,
            timeout=timeout,
        )

    def in_image(self, path: str) -> str:
        """Return the folder outside that is this one of the image, which can only be read there."""
        self._make_tree()
        os.makedirs(self._tree + path, exist_ok=True)
        if path not in self._own:
            self._own.append(path)
        return self._tree + path

    def _link(self, venv: str) -> str:
        """Make an environment a part of the root, without copying its files; return where it is outside."""
        shown = self._tree + VENV
        if self._linked != venv or os.path.dirname(venv) != store.LAB:  # a test may have changed its own
            store.remove(shown)
            subprocess.run(["cp", "-al", "-T", venv, shown], check=True)
            self._linked = venv
        return shown

    def _make_point_within(self, bind: str) -> None:
        """Make a mount point below a place, which is a mount itself: the lab may lie below any of them."""
        inside = bind.split(":")[1]
        for place in (*self.places.world, f"{self.places.home}:{scratch.HOME}"):
            outer, point = place.split(":")
            folder = outer + inside[len(point) :]
            if inside.startswith(point + "/") and not os.path.isdir(folder):
                os.makedirs(folder)
                while folder != outer:
                    self.points.add(folder)
                    folder = os.path.dirname(folder)

    def _make_tree(self) -> None:
        """Make the root: a folder of mount points, and the few settings that programs read."""
        if self._system:
            return
        os.makedirs(os.path.join(self._tree, "etc"))
        if os.getuid() == 0:  # whose engine's root is; that of a machine is root's
            os.chown(self._tree, store.ORDINARY_UID, store.ORDINARY_UID)
            os.chmod(self._tree, 0o555)  # nothing is made beside what is there, all the same
        for folder in ("proc", "sys", "dev"):
            os.mkdir(os.path.join(self._tree, folder))
        for name in _SYSTEM:
            path = "/" + name
            if os.path.islink(path):
                os.symlink(os.readlink(path), self._tree + path)
            elif os.path.isdir(path):
                self._system.append(f"{path}:{path}:ro")
        for pattern in _SETTINGS:
            for path in glob.glob(f"/etc/{pattern}"):
                target = self._tree + path
                os.makedirs(os.path.dirname(target), exist_ok=True)
                if os.path.isdir(path):
                    shutil.copytree(path, target, symlinks=True)
                else:
                    shutil.copy(path, target)
        with open(os.path.join(self._tree, "etc", "passwd"), "w", encoding="utf-8") as file:
            file.write("root:x:0:0:root:/root:/bin/sh\n" + debian.account(scratch.HOME)["/etc/passwd"])

    def _sign(self, image: bool) -> None:
        folder = os.path.join(self._tree, IMAGE)
        if image and not os.path.isdir(folder):
            os.mkdir(folder)
            with open(os.path.join(folder, "labels.json"), "w", encoding="utf-8") as file:
                file.write('{"org.label-schema.build-date": "Monday_1_September_2025_12:00:00_UTC"}')
        elif not image:
            shutil.rmtree(folder, ignore_errors=True)

    def _make_mount_point(self, bind: str) -> None:
        outside, inside = bind.split(":")[:2]
        if inside.startswith("/usr/"):  # it must be there: what is in /usr is the machine's own
            return
        point = self._tree + inside
        if os.path.isdir(outside):
            os.makedirs(point, exist_ok=True)
        elif not os.path.lexists(point):
            os.makedirs(os.path.dirname(point), exist_ok=True)
            with open(point, "w", encoding="utf-8"):
                pass


def _interpreters() -> list[str]:
    """List the binds that show the interpreters outside the system's folders: this machine's, and those made so far."""
    made = glob.glob(os.path.join(glob.escape(store.LAB), "python-*", "usr", "bin", "py*3*"))
    paths = [sys.executable, *(python.path for python in pythons.of_this_machine()), *made]
    prefixes = {os.path.dirname(os.path.dirname(os.path.realpath(path))) for path in paths}
    return [f"{prefix}:{prefix}:ro" for prefix in sorted(prefixes) if not prefix.startswith("/usr")]
