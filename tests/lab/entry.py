"""What :mod:`tests.lab.enter` has to run, and in which root."""

from __future__ import annotations

import os
import sys
from typing import TypedDict

_PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "enter.py")


class Entry(TypedDict):
    """What to run, and in which world."""

    argv: list[str]
    environment: dict[str, str]
    folder: str
    """The working directory, as seen inside."""
    uid: int
    stage: str
    """An empty folder outside, to mount things on."""
    tree: str
    """The new root: a folder, mounted as it is; `/` keeps the present one. Empty where another root is given."""
    squashfs: str
    """The new root: a squashfs file, mounted by the kernel; `FILE:OFFSET` where something stands before it."""
    layer: str
    """With `squashfs`: a folder whose files are parts of the image too. Empty: there is none."""
    mirror: bool
    """The new root: the present one again, on superblocks that are read-only."""
    layers: list[str]
    """With `mirror`: `outside:inside`, folders shown in the same way."""
    overlay: bool
    """A writable tmpfs overlay on top of the squashfs; the files stay root's."""
    binds: list[str]
    """`outside:inside`, `outside:inside:ro` or `outside:inside:noexec`."""
    images: list[str]
    """`outside:inside`: files that hold an ext3 or ext4 filesystem, mounted by the kernel."""
    served: list[str]
    """`outside:inside:log:delay:valid`: folders shown by a server that counts each request; see `counted`."""
    tmpfs: list[str]
    """Folders inside that become an empty tmpfs; one of a size, `FOLDER:SIZE`, lies over the binds."""
    setuid: bool
    """Programs may gain privileges, as on an ordinary machine; otherwise never again."""
    user_namespaces: bool
    """The command can make user namespaces."""
    fuse: bool
    """Ordinary users may open /dev/fuse, as on an ordinary machine."""
    devices: list[str]
    """More files in /dev, each a copy of /dev/null: this machine's own /dev stays as it is."""


def command(entry: Entry) -> list[str]:
    """Return the command that enters there; it needs nothing that is installed."""
    return [sys.executable, "-I", "-S", _PROGRAM, repr(entry)]
