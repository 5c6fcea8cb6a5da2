"""A layer in memory, where no filesystem of this node can carry one: its folder is a tmpfs in the layer's namespace.

What is written to it takes the place of the program's own memory up to a limit, is published when the last process of
the container ends, and dies with that where it is killed: nobody else sees it, so nobody else can publish it.

In the place of layers, ``memory-NAME/`` holds `about` and `members` as they were when it was made, for those who join.
"""

from __future__ import annotations

import os

from sif_writable.layer import child, enter, join, kernel, make, publish, replicas

LIMIT = 1 << 30
"""Bytes."""
SECONDS = 10.0


def prepare(layer: enter.Layer, storage: str) -> None:
    """Make the folder of a new layer, and give it its name.

    :param storage: empty in a trial.
    :raises OSError: it cannot be made.
    """
    if storage:
        folder = make.generations(layer.place, storage)
        layer.origin = make.origin_of(make.listed(folder)) or replicas.mark(folder)
    name = f"{publish.IN_MEMORY}{os.urandom(8).hex()}"
    os.mkdir(f"{layer.place}/{name}", 0o700)
    enter.write(f"{layer.place}/{name}/about", make.about(layer.place, layer.directories, "", storage, layer))
    enter.write(f"{layer.place}/{name}/members", join.me())
    layer.name = name


def begin(layer: enter.Layer) -> str:
    """Mount the memory of a layer in this process's own namespace; return the folder of what earlier runs wrote.

    :raises OSError: it cannot be mounted.
    """
    about = enter.read(f"{layer.folder}/about").split("\n")
    folder = about[2] if layer.origin else ""
    kernel.mount("tmpfs", layer.folder, "tmpfs", kernel.NOSUID | kernel.NODEV, f"mode=0700,size={LIMIT}")
    try:
        answer = child.ask(lambda: "\n".join(replicas.replicate(folder, layer.folder)), SECONDS) if folder else ""
        base, _, line = (answer or "").partition("\n")
        if answer is None:
            line = f"what earlier runs wrote may be missing here: storage has not answered for {SECONDS:.0f} seconds"
        publish.say(line)
        about[1] = base
        enter.write(f"{layer.folder}/about", "\n".join(about))
        enter.write(f"{layer.folder}/members", join.me())
        make.make_uppers(layer.folder, layer.directories)
    except BaseException:
        kernel.unmount(layer.folder)
        raise
    return base
