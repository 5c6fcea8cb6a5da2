"""Installers go where they went without a layer: the process gets one more namespace, in which it cannot be written."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sif_writable import LAYER
from sif_writable.layer import enter
from sif_writable.mounted import covering, in_layer

if TYPE_CHECKING:
    from collections.abc import Mapping


def without(environ: Mapping[str, str]) -> None:
    """Have an installer that was started in a layer see the environment read-only, as without us.

    :raises OSError: that is not possible; what it installs is gone with the layer then, and said so.
    """
    inside = in_layer(environ.get(LAYER))
    if not inside:
        text = enter.read("/proc/self/mountinfo")
        if enter.MOUNTED in text:  # the variable was lost, or a sandbox has made a namespace below
            from sif_writable.layer import inherited

            here = inherited.folder(text.splitlines())
            if here and inherited.is_ours(here):
                inherited.export(here)
                inside = in_layer(os.environ[LAYER])
    if inside[2:]:
        cover(inside[0], inside[1])


def cover(image: str, prefix: str) -> None:
    """Show the directories of the layers in this process's namespace read-only, to it and its descendants.

    :param image: and `prefix`: see :data:`sif_writable.LAYER`.
    :raises OSError: they cannot be; then an installer writes into the layer, and that is gone with it.
    """
    from sif_writable.layer import join, kernel, neighbours

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
