"""Which filesystems may stop answering, and which did not answer this process. Each is waited for once."""

import os

from sif_writable import child, hanging, warm
from sif_writable.hanging import hangable_mount_on, timed_out
from sif_writable.signals import let_pass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

TIMED_OUT = f"has not answered for {hanging.TIMEOUT:.0f} seconds"
_answered: "set[str]" = set()
"""Mount points that answered this process."""
_may_hang: "Optional[dict[str, str]]" = None
"""Mount points of filesystems that may stop answering, with what answers for them."""
_overlays: "list[str]" = []


def may_hang() -> "dict[str, str]":
    """Return the mount points whose filesystem may stop answering, each with hanging.REMOTE or hanging.FUSE.

    Read once per process, from mountinfo: to look at the places themselves may be to wait.
    """
    global _may_hang
    if _may_hang is None:
        _may_hang = {}
        try:
            descriptor = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            let_pass(error)
            return _may_hang
        try:
            table = b""
            while more := os.read(descriptor, 1 << 16):
                table += more
        except OSError as error:
            let_pass(error)
            return _may_hang
        finally:
            os.close(descriptor)
        _may_hang.update(may_hang_in(table))
        if b" overlay sif-writable " in table:
            _overlays.extend([os.fsdecode(line) for line in table.split(b"\n") if b" overlay sif-writable " in line])
    return _may_hang


def may_hang_in(table: bytes) -> "dict[str, str]":
    """Return the same from the text of a mountinfo file (proc_pid_mountinfo(5)); the image's own root is left out."""
    mounted, kinds = [], []
    for line in table.splitlines():
        kind = line.partition(b" - ")[2].partition(b" ")[0]
        if kind:
            mounted.append(line.split(b" ", 5)[4])
            kinds.append(kind)
    return hanging.may_hang_in(mounted, kinds, warm.LOCAL)


def overlays() -> "list[str]":
    """Return the lines of mountinfo that show overlays of ours; read once per process, too."""
    may_hang()
    return _overlays


def responds(path: str) -> bool:
    """Whether the filesystems on the way to a path answer. Each that may not is waited for, once."""
    waiting = {point: kind for point, kind in may_hang().items() if point not in _answered}
    while not has_timed_out(path):
        point, kind = hangable_mount_on(path, waiting)
        if not point:
            return True
        if hanging.times_out(point, kind):
            timed_out.append(point)
            if not has_timed_out(path):  # a link leads there
                timed_out.append(path)
        else:
            _answered.add(point)
            del waiting[point]
    return False


def has_timed_out(path: str) -> bool:
    """Whether a path lies where there was no answer."""
    for place in timed_out:  # noqa: SIM110 - a generator costs a frame
        if path == place or path.startswith(place + "/"):
            return True
    return False


if child.timed_out:
    timed_out.append(hangable_mount_on(child.timed_out, may_hang())[0] or child.timed_out)
