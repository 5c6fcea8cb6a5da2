"""What is said of a place that the user asked for and did not get. Pure."""

from __future__ import annotations

from sif_writable import DIR
from sif_writable.errors import Problem
from sif_writable.system.timeouts import TIMED_OUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sif_writable.storage.candidates import Candidate
    from sif_writable.storage.chosen import Storage

REMEDY = "bind a directory of yours that can be written there, or name another one"
LOOSE_REMEDY = "chmod g-w,o-w or chmod +t {!r}, or name another directory"


def unmet(storage: Storage, label: str = DIR) -> Problem | None:
    """Return what is wrong with a place that the user asked for and did not get, or None."""
    for place, problem in storage.refused:
        if place.label == label:
            taken = [slot for slot in storage.slots.values() if slot.place is place]
            instead = next((slot.root for slot in storage.slots.values() if slot not in taken), None)
            used = f"using {instead}" if instead else "no other place was found"
            used += " for those" if taken else "" if instead else ", nothing is redirected"
            what = f"{label}={short(place.base)}" if label == DIR else label
            return Problem("storage-refused", f"{what} {problem}; {used}.", f"{cure(storage, place)}.")
    return None


def cure(storage: Storage, place: Candidate) -> str:
    """Return what helps where a place that was given does not serve."""
    if place.base[:1] != "/":
        return f'write the whole path, such as {DIR}="$PWD/{short(place.base)}"'
    loose = [directory for other, directory in storage.loose if other is place]
    return LOOSE_REMEDY.format(loose[0]) if loose else REMEDY


def silence(path: str) -> str:
    """Return the line about a filesystem that hangs: or nobody would know what has been waited for."""
    return f"{path} {TIMED_OUT}, and is passed over"


def short(value: str) -> str:
    """Quote a value for one line of a terminal."""
    text = value if value.isprintable() else repr(value)
    return text if len(text) <= 200 else f"{text[:200]}... ({len(text)} characters)"
