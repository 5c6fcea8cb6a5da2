"""What is over the image here, or beside it? A mount at the bind target, a layer, packages of another environment.

It imports only what is loaded already.
"""

import os
import sys

from sif_writable import let_pass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional


def mounted_at(path: str) -> bool:
    """Whether something is mounted at a path of the image, where images have an empty directory for it."""
    if not os.access(path, os.F_OK):
        return False
    try:
        device = os.stat(path).st_dev
        if device not in (os.stat("/").st_dev, os.stat(sys.base_prefix).st_dev):
            return True
        # A bind from the root's own filesystem: a sandbox, or a Charliecloud image that is a directory.
        table = [line.split(b" ", 5) for line in _mount_table().splitlines()]
        wanted = os.fsencode(path)
        here = [fields[2:4] for fields in table if fields[4] == wanted]
        if not here or not here[-1][1].endswith(wanted):
            return bool(here)
        # Or a piece of the image, where an engine puts the root together from those (Apptainer's underlay).
        number, shown = here[-1]
        base = shown[: -len(wanted)]
        return [number, base + b"/usr", b"/usr"] not in [fields[2:5] for fields in table]
    except (OSError, IndexError) as error:
        let_pass(error)
        return False


def _mount_table() -> bytes:
    """Return the text of mountinfo (proc_pid_mountinfo(5))."""
    with open("/proc/self/mountinfo", "rb", buffering=0) as file:
        return file.read()


def in_layer(value: "Optional[str]") -> "list[str]":
    """Return the fields of :data:`sif_writable.LAYER` from the image on, if this process is in that layer.

    It can write in the environment and all the same is a process in a read-only image.

    :param value: of the variable; nothing where it is not set.
    """
    fields = (value or "").split(":")
    if len(fields) < 5:
        return []
    try:
        if os.readlink("/proc/self/ns/mnt") == ":".join(fields[:2]) and covering(*fields[4:6]) == fields[2]:
            return fields[3:]
    except OSError as error:
        let_pass(error)
    return []


def covering(prefix: str, directory: str = "") -> str:
    """Distinguish a layer from another container's mounts, by what is at ``/`` and what is over its first directory.

    :param directory: by default the layer is over `prefix`.
    :raises OSError: one of them is not there.
    """
    root = os.stat("/")
    return f"{root.st_dev:x}.{root.st_ino:x}.{root.st_mtime_ns:x}.{os.stat(directory or prefix).st_dev:x}"


def is_layer_over_prefix(value: "Optional[str]") -> bool:
    """Whether the environment can be written since a layer is over it.

    That is so as well where a child has lost the variable, and in a namespace below, which a sandbox makes.

    :param value: as of :func:`in_layer`.
    """
    if in_layer(value):
        return True
    try:
        return os.stat(sys.prefix).st_dev != os.stat("/").st_dev and b" - overlay sif-writable " in _mount_table()
    except OSError as error:
        let_pass(error)
        return False


def packages_of_image(access: "Any") -> str:
    """Return a read-only directory of the image's packages that a virtual environment has besides, or nothing.

    A virtual environment above another one, as images have it, gets at that one's packages by a ``.pth`` file or
    PYTHONPATH: ``--system-site-packages`` means those of the base. The image's are on the filesystem of its Python.

    :param access: as of :func:`sif_writable.environment_writable`.
    """
    own = f"{sys.prefix}/"
    for entry in sys.path:
        if not entry.endswith("-packages") or entry.startswith(own) or access(entry, os.W_OK):
            continue
        if access(entry, os.F_OK) and os.stat(entry).st_dev == os.stat(sys.base_prefix).st_dev:
            return entry
    return ""
