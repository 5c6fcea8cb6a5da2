"""What ``status`` says of overlays: what is writable in this namespace, what was refused, and why."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sif_writable.overlay import decide, enter, obstacles

if TYPE_CHECKING:
    from sif_writable.report.model import Overlay


def model() -> Overlay:
    """Return it as plain data."""
    return {
        "mode": decide.mode(os.environ),
        "possible": obstacles.obstacle(os.environ),
        "inside": enter.current(os.environ),
        "entered": [
            {"path": done.point, "how": done.how, "kept": done.kept, "note": done.note, "why": done.why}
            for done in enter.entered
        ],
        "refused": [{"path": path, "why": why} for path, why in enter.refused],
        "uids": obstacles.uid_map(),
    }


def lines(state: Overlay) -> list[str]:
    """Return it as sentences; none where there is nothing to say."""
    found = []
    for done in state["entered"]:
        how = "an overlay of it" if done["how"] == decide.OVERLAY else "what is new in it"
        note = f" ({done['note']})" if done["note"] else ""
        found.append(f"{done['path']} can be written: {how} is kept in {done['kept']}{note}; because: {done['why']}")
    entered = {done["path"] for done in state["entered"]}
    found += [
        f"{point} can be written, as this session has decided" for point in state["inside"] if point not in entered
    ]
    return found + refusals(state)


def refusals(state: Overlay) -> list[str]:
    """Return why paths that were asked for are not writable."""
    return [
        refused["why"] if refused["path"] in refused["why"] else f"{refused['path']} gets none: {refused['why']}"
        for refused in state["refused"]
    ]
