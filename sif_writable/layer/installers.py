"""Installers go where they went without a layer: the process gets one more namespace, in which it cannot be written."""

from __future__ import annotations

import os

from sif_writable import LAYER
from sif_writable.layer import enter, join, kernel, neighbours
from sif_writable.mounted import covering


def cover(image: str, prefix: str) -> None:
    """Show the directories of the layers in this process's namespace read-only, to it and its descendants.

    :param image: and `prefix`: see :data:`sif_writable.LAYER`.
    :raises OSError: they cannot be; then an installer writes into the layer, and that is gone with it.
    """
    here = os.open(".", os.O_PATH | os.O_CLOEXEC)
    path, strong = join.cwd(), join.is_strong()
    try:
        kernel.separate(os.geteuid(), os.getegid())
        try:
            for directory in neighbours.covered("self"):
                kernel.bind(directory, directory)
                flags = kernel.REMOUNT | kernel.BIND | kernel.RDONLY | kernel.NOSUID | kernel.NODEV
                kernel.mount("", directory, "", flags)
        finally:
            join.drop_capabilities(strong=strong)
        join.come_back(path, here)
    finally:
        os.close(here)
    # Nobody makes a layer inside a layer.
    os.environ[LAYER] = enter.inside(os.readlink("/proc/self/ns/mnt"), covering(prefix), image, prefix, [])
