"""Which filesystems may stop answering, and which did not answer this process. Each is waited for once."""

import os

from sif_writable import hanging, warm
from sif_writable.hanging import keeper
from sif_writable.signals import let_pass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

SILENT = f"has not answered for {hanging.PATIENCE:.0f} seconds"
unheard: "list[str]" = []
"""Mount points and paths that did not answer this process; what lies below them is not looked at any more."""
_heard: "set[str]" = set()
"""Mount points that answered this process."""
_unsteady: "Optional[dict[str, str]]" = None
"""Mount points of filesystems that may stop answering, with what answers for them."""
_overlays: "list[str]" = []


def unsteady() -> "dict[str, str]":
    """Return the mount points whose filesystem may stop answering, each with hanging.NETWORK or hanging.FUSE.

    Read once per process, from mountinfo: to look at the places themselves may be to wait.
    """
    global _unsteady
    if _unsteady is None:
        _unsteady = {}
        try:
            descriptor = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            let_pass(error)
            return _unsteady
        try:
            table = b""
            while more := os.read(descriptor, 1 << 16):
                table += more
        except OSError as error:
            let_pass(error)
            return _unsteady
        finally:
            os.close(descriptor)
        _unsteady.update(unsteady_in(table))
        if b" overlay sif-writable " in table:
            _overlays.extend([os.fsdecode(line) for line in table.split(b"\n") if b" overlay sif-writable " in line])
    return _unsteady


def unsteady_in(table: bytes) -> "dict[str, str]":
    """Return the same from the text of a mountinfo file (proc_pid_mountinfo(5)); the image's own root is left out."""
    rows = []
    for line in table.splitlines():
        kind = line.partition(b" - ")[2].partition(b" ")[0]
        if kind:
            rows.append((b"", line.split(b" ", 5)[4], kind, b""))
    return warm.unsteady_in(rows)


def overlays() -> "list[str]":
    """Return the lines of mountinfo that show overlays of ours; read once per process, too."""
    unsteady()
    return _overlays


def reachable(path: str) -> bool:
    """Whether the filesystems on the way to a path answer. Each that may not is waited for, once."""
    waiting = {point: kind for point, kind in unsteady().items() if point not in _heard}
    while not is_unheard(path):
        point, kind = keeper(path, waiting)
        if not point:
            return True
        if hanging.silent(point, kind):
            unheard.append(point)
            if not is_unheard(path):  # a link leads there
                unheard.append(path)
        else:
            _heard.add(point)
            del waiting[point]
    return False


def pass_over(path: str) -> None:
    """Look no more at what did not answer: the first mount on the way to a path."""
    point, _ = keeper(path, unsteady())
    unheard.append(point or path)


def is_unheard(path: str) -> bool:
    """Whether a path lies where there was no answer."""
    for place in unheard:  # noqa: SIM110 - a generator costs a frame
        if path == place or path.startswith(place + "/"):
            return True
    return False
