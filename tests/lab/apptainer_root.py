"""Apptainer for an ordinary user: the machine's own where there is one, otherwise one in a private root filesystem."""

from __future__ import annotations

import functools
import os
import shutil
from typing import TYPE_CHECKING, NamedTuple

from tests.lab import apt, debian, measured, scratch
from tests.lab.store import LAB
from tests.lab.unavailable import LabUnavailable

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence

    from tests.lab.scratch import Scratch


class Runtime(NamedTuple):
    """Where Apptainer is, and where the lab is as it sees it."""

    program: str
    tree: str
    """The root filesystem to enter for it; `/` for this machine's own, with other places for the ordinary user."""
    lab: str
    """The path of the lab folder for commands."""

    def inside(self, path: str) -> str:
        """Return how the commands see a path of the lab."""
        return os.path.normpath(os.path.join(self.lab, os.path.relpath(path, LAB)))


@functools.cache
def find() -> Runtime:
    """Return the Apptainer that tests use."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise LabUnavailable("this user may not open /dev/fuse, which Apptainer mounts images with")
    own = shutil.which("apptainer") or shutil.which("singularity")
    try:
        # An ordinary user may not reach the lab by its own path; /mnt is on every machine and is covered for us only.
        runtime = Runtime(own, "/", "/mnt") if own else Runtime("/usr/bin/apptainer", debian.apptainer_tree(), "/lab")
    except LabUnavailable as why:
        raise LabUnavailable(f"no apptainer or singularity is installed, and {why}") from why
    with scratch.fresh() as places:
        probe = Apptainer(runtime, places).beside(["unshare", "--user", "--map-root-user", "true"])
    if probe.returncode != 0:
        raise LabUnavailable(f"no ordinary user can make a user namespace: {probe.stderr.strip()}")
    return runtime


class Apptainer:
    """Runs Apptainer as the ordinary user whose writable places these are."""

    def __init__(self, runtime: Runtime, places: Scratch) -> None:
        """Take what to enter, and the writable places to show there."""
        self.runtime = runtime
        self.places = places

    def exec(
        self,
        image: str,
        argv: Sequence[str],
        *,
        options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        home: str | None = None,
        devices: Sequence[str] = (),
        timeout: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in an image (a path outside). `env` is Apptainer's own, which it passes on."""
        shown = [f"--bind={bind}" for bind in measured.binds(self.inside)]
        command = ["--silent", "exec", *shown, *options, self.inside(image), *argv]
        return self.run(command, env=env, home=home, devices=devices, timeout=timeout)

    def run(
        self,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        home: str | None = None,
        devices: Sequence[str] = (),
        timeout: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        """Run Apptainer with these arguments."""
        return self.beside([self.runtime.program, *arguments], env=env, home=home, devices=devices, timeout=timeout)

    def beside(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        home: str | None = None,
        devices: Sequence[str] = (),
        timeout: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        """Run any program where Apptainer would be started: outside the image, as the same user, in the same places.

        `home` is a folder outside that becomes the user's home instead of the usual one. `devices` are names of files
        that the machine shall have in /dev for this command; that needs root.
        """
        folder = self.inside(self.places.work)
        environment = {"PATH": apt.SYSTEM_PATH, "LANG": "C.UTF-8", **(env or {})}
        if os.getuid() != 0:
            if devices:
                raise LabUnavailable("only root can show a machine with other devices")
            # Where an ordinary user has places of his own, a set-user-id installation has no rights.
            environment = {"APPTAINER_USERNS": "1", "SINGULARITY_USERNS": "1", **environment}
        home = home or self.places.home
        if self.runtime.tree == "/":
            user_home, account = self.inside(home), self._account(self.inside(home))
        else:
            user_home, account = scratch.HOME, [f"{home}:{scratch.HOME}"]
        return scratch.run(
            self.places,
            argv,
            tree=self.runtime.tree,
            binds=[f"{LAB}:{self.runtime.lab}", *self.places.world, *account],
            environment={"HOME": user_home, "USER": debian.USER, "LOGNAME": debian.USER, **environment},
            folder=folder,
            setuid=True,
            fuse=True,
            devices=devices,
            timeout=timeout,
        )

    def _account(self, home: str) -> list[str]:
        """Give this machine our ordinary user, for the command only: binds over the files that name users."""
        binds = []
        for path, line in debian.account(home).items():
            ours = os.path.join(self.places.folder, os.path.basename(path))
            if os.path.exists(path):
                with open(path, encoding="utf-8") as theirs, open(ours, "w", encoding="utf-8") as file:
                    # Ours first: of two lines for one uid, the first one counts. More ids are not to be had for an
                    # ordinary user in a namespace of his own: newuidmap is nobody's there.
                    file.write("" if os.getuid() and path.startswith("/etc/sub") else line + theirs.read())
                binds.append(f"{ours}:{path}")
        return binds

    @property
    def home(self) -> str:
        """The user's home, as the commands see it."""
        return self.inside(self.places.home) if self.runtime.tree == "/" else scratch.HOME

    def inside(self, path: str) -> str:
        """Return how the commands see a path of the lab."""
        return self.runtime.inside(path)
