"""The writable places of one test (HOME, /tmp, …), and running commands that see them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import warnings
from typing import TYPE_CHECKING, NamedTuple

from tests.lab import entry, measured
from tests.lab.store import LAB, ORDINARY_UID, remove

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HOME = "/home/user"


class Scratch(NamedTuple):
    """Folders outside that stand for a machine's writable places; they live from one command to the next."""

    folder: str
    home: str
    """Bound at /home/user."""
    tmp: str
    var_tmp: str
    shm: str
    """On a real tmpfs, as /dev/shm is."""
    work: str
    """The working directory."""
    stage: str
    """Empty: `enter` mounts things on it."""

    def new_folder(self, name: str) -> str:
        """Make one more folder, the ordinary user's; return its path outside."""
        return _own(os.path.join(self.folder, name), 0o755)

    @property
    def world(self) -> list[str]:
        """The bind mounts of the folders that every user may write."""
        return [f"{self.tmp}:/tmp", f"{self.var_tmp}:/var/tmp", f"{self.shm}:/dev/shm"]


@contextlib.contextmanager
def fresh() -> Iterator[Scratch]:
    """Make empty writable places, and remove them afterwards."""
    os.makedirs(os.path.join(LAB, "scratch"), exist_ok=True)
    folder = tempfile.mkdtemp(prefix="", dir=os.path.join(LAB, "scratch"))
    memory = tempfile.mkdtemp(prefix="sif-writable-lab-", dir="/dev/shm")
    _own(folder, 0o755)
    try:
        yield Scratch(
            folder=folder,
            home=_own(os.path.join(folder, "home"), 0o755),
            tmp=_own(os.path.join(folder, "tmp"), 0o1777, os.getuid()),
            var_tmp=_own(os.path.join(folder, "var_tmp"), 0o1777, os.getuid()),
            shm=_own(memory, 0o1777, os.getuid()),
            work=_own(os.path.join(folder, "work"), 0o755),
            stage=_own(os.path.join(folder, "stage"), 0o755, os.getuid()),
        )
    finally:
        remove(folder)
        remove(memory)


def _own(folder: str, mode: int, uid: int = ORDINARY_UID) -> str:
    os.makedirs(folder, exist_ok=True)
    os.chmod(folder, mode)
    if os.getuid() == 0:
        os.chown(folder, uid, uid)
    return folder


def run(
    scratch: Scratch,
    argv: Sequence[str],
    *,
    tree: str = "",
    squashfs: str = "",
    layer: str = "",
    mirror: bool = False,
    layers: Sequence[str] = (),
    overlay: bool = False,
    binds: Sequence[str] = (),
    images: Sequence[str] = (),
    served: Sequence[str] = (),
    tmpfs: Sequence[str] = (),
    environment: Mapping[str, str],
    folder: str = "/",
    setuid: bool = False,
    user_namespaces: bool = True,
    fuse: bool = False,
    devices: Sequence[str] = (),
    timeout: float = 300,
) -> subprocess.CompletedProcess[str]:
    """Run a command in another root as the ordinary user; see `entry.Entry` for each word."""
    what = entry.Entry(
        argv=list(argv),
        environment=dict(environment),
        folder=folder,
        uid=ORDINARY_UID,
        stage=scratch.stage,
        tree=tree,
        squashfs=squashfs,
        layer=layer,
        mirror=mirror,
        layers=list(layers),
        overlay=overlay,
        binds=list(binds),
        images=list(images),
        served=list(served),
        tmpfs=list(tmpfs),
        setuid=setuid,
        user_namespaces=user_namespaces,
        fuse=fuse,
        devices=list(devices),
    )
    command = entry.command(what)
    try:
        result = call(command, timeout=timeout, environment=measured.unmeasured())
    except OSError as error:  # seen once on a machine of its own: this very interpreter could not be started
        warnings.warn(f"{sys.executable} was started again after {error!r}", stacklevel=2)
        result = call(command, timeout=timeout, environment=measured.unmeasured())
    result.args = what["argv"]  # what a failing test shows
    return result


def call(
    argv: Sequence[str], *, timeout: float, environment: Mapping[str, str] | None = None, folder: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program, catch what it says, and leave the judgement of its exit code to the caller."""
    return subprocess.run(
        argv,
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )
