"""The image as a setuid installation presents it: the kernel mounts it, its files are root's."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.lab import debian, scratch
from tests.lab.measured import binds as binds_of_measuring

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence

    from tests.lab.scratch import Scratch

WRITABLE = ("/tmp", "/var/tmp", "/dev/shm")
PATH = "/opt/venv/bin:/usr/local/bin:/usr/bin:/bin"


class SquashfsRoot:
    """Runs commands in a squashfs file as the ordinary user, without any privilege and without a way to get one."""

    def __init__(self, image: str, places: Scratch) -> None:
        """Take what to enter, and the writable places to show there."""
        self.image = image
        self.places = places

    def run(
        self,
        argv: Sequence[str],
        *,
        home: str | None = scratch.HOME,
        env: Mapping[str, str] | None = None,
        binds: Sequence[str] = (),
        writable: Sequence[str] = WRITABLE,
        tmpfs: Sequence[str] = (),
        userns: bool = True,
        overlay_tmpfs: bool = False,
        layer: str = "",
        passwd: bool = True,
        folder: str = "/",
        timeout: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the image.

        `home` is the value of HOME, and the image has no such folder: bind one to /data and say so for a writable HOME.
        `binds` are `outside:inside[:ro]`; inside must exist (/data and /sif-writable do). `writable` says which of the
        usual places can be written; they keep their contents between commands. With `overlay_tmpfs` the root can be
        written, but its files are root's: EACCES in place of EROFS. A `layer` is a folder with further files of the
        image. Without `passwd` the uid has no name.
        """
        places = {"/tmp": self.places.tmp, "/var/tmp": self.places.var_tmp, "/dev/shm": self.places.shm}
        usual = [f"{places[name]}:{name}" for name in writable]
        if "/dev/shm" not in writable:  # the machine's own would show
            usual.append(f"{self.places.shm}:/dev/shm:ro")
        if overlay_tmpfs:  # by this it differs from the root of a diskless node
            hosts = os.path.join(self.places.folder, "hosts")
            with open(hosts, "w", encoding="utf-8"):
                pass
            usual.append(f"{hosts}:/etc/hosts")
        environment = {"PATH": PATH, "LANG": "C.UTF-8"}
        if home is not None:
            environment["HOME"] = home
        if passwd:
            usual.append(f"{self._passwd(home or '/')}:/etc/passwd")
            environment.update(USER=debian.USER, LOGNAME=debian.USER)
        measured = binds_of_measuring() if os.path.basename(self.image).startswith("test-") else ()
        return scratch.run(
            self.places,
            argv,
            squashfs=self.image,
            overlay=overlay_tmpfs,
            layer=layer,
            binds=[*usual, *measured, *binds],
            tmpfs=tmpfs,
            environment={**environment, **(env or {})},
            folder=folder,
            user_namespaces=userns,
            timeout=timeout,
        )

    def _passwd(self, home: str) -> str:
        path = os.path.join(self.places.folder, "passwd")
        with open(path, "w", encoding="utf-8") as file:
            file.write("root:x:0:0:root:/root:/bin/sh\n" + debian.account(home)["/etc/passwd"])
        return path
