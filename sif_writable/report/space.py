"""Room on the filesystems that are written to: storage, a root that is writable, HOME. What runs short is named."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sif_writable.sizes import human
from sif_writable.storage import space
from sif_writable.storage.kinds import RUNTIME
from sif_writable.storage.shortage import INODES, lacking, remedy
from sif_writable.system.container import engine
from sif_writable.system.probe import attempt_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sif_writable.redirects.decision import Outcome
    from sif_writable.report.model import Space
    from sif_writable.system.mounts import Mount
    from sif_writable.system.surroundings import Facts

STORAGE = "storage"


def watched(outcome: Outcome | None, seen: Facts, table: list[Mount]) -> list[Space]:
    """Look at each filesystem once, under the first of its uses."""
    found: list[Space] = []
    devices: set[int] = set()
    for path, what in _used(outcome, seen):
        room = space.room_at(path, os.environ, table)
        if room is None or os.stat(path).st_dev in devices:
            continue
        devices.add(os.stat(path).st_dev)
        found.append(
            {
                "path": path,
                "what": what,
                "kind": room.kind,
                "filesystem": room.filesystem,
                "total_bytes": room.total,
                "free_bytes": room.free,
                "total_inodes": room.inodes,
                "free_inodes": room.free_inodes,
                "warnings": [
                    {"lack": lack, "text": f"{path} has {_left(room, lack)}", "remedy": remedy(room, lack)}
                    for lack in lacking(room, downloads=what == STORAGE)
                    if not _is_uncounted(room, lack)
                ],
            }
        )
    return found


def _is_uncounted(room: space.Space, lack: str) -> bool:
    """Whether a filesystem reports that nothing is free, though a file can be made."""
    nothing = room.free_inodes == 0 if lack == INODES else room.total == 0
    return nothing and attempt_in(room.path) is None


def _used(outcome: Outcome | None, seen: Facts) -> Iterator[tuple[str, str]]:
    if outcome is not None:
        for kind, slot in sorted(outcome.storage.slots.items()):
            if kind != RUNTIME:
                yield slot.folder, STORAGE
        if outcome.storage.shared:
            yield outcome.storage.shared.folder, STORAGE
    if not seen.home_problem:
        yield seen.home, "HOME"
    if seen.prefix_writable and engine(os.environ).name != "none":
        yield seen.prefix, "the image, writable here"


def _left(room: space.Space, lack: str) -> str:
    if lack == INODES:
        return f"{room.free_inodes} of {room.inodes} inodes free"
    return f"{human(room.free)} of {human(room.total)} free"
