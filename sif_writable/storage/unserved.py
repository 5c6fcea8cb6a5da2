"""The sentences about a place that the user asked for and did not get, or that is damaged."""

from __future__ import annotations

import os

from sif_writable import DIR
from sif_writable.errors import Problem
from sif_writable.seldom import MARKER
from sif_writable.signals import let_pass
from sif_writable.system.timeouts import TIMED_OUT
from sif_writable.warm import FOLDER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sif_writable.storage.candidates import Candidate
    from sif_writable.storage.chosen import Storage

REMEDY = "bind a directory of yours that can be written there, or name another one"
RENAME = "rename it, or name another directory"
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
    """Return what helps where a place that the user gave cannot be used."""
    if not place.base.strip():
        return f"unset {DIR}, or write the whole path of a directory"
    if place.base[:1] != "/":
        return f'write the whole path, such as {DIR}="$PWD/{short(place.base)}"'
    loose = [directory for other, directory in storage.loose if other is place]
    if loose:
        return LOOSE_REMEDY.format(loose[0])
    top = "/".join(place.base.split("/")[:2])
    if not os.path.lexists(top) and ":" not in top:  # a directory of the host's that is not bound
        return f"bind it (apptainer exec --bind {short(top)}), or name another directory"
    return next((_repair(folder) for other, folder in storage.folders if other is place), REMEDY)


def remedy(storage: Storage, place: Candidate) -> str:
    """Return what helps where a place cannot be used; nothing for an undamaged one that nobody gave."""
    own = any(other is place for other, _ in (*storage.loose, *storage.folders))
    return cure(storage, place) if place.given or own else ""


def _repair(folder: str) -> str:
    """Return what helps where a folder of ours exists and cannot be used."""
    try:
        status = os.lstat(folder)
        if status.st_mode & 0o170000 != 0o040000 or status.st_uid != os.geteuid():
            return RENAME
        if status.st_mode & 0o777 != 0o700:
            return f"chmod 0700 {folder!r}, or name another directory"
        is_root = os.path.basename(folder).startswith(FOLDER)
        somebody_elses = is_root and os.listdir(folder) and not os.path.lexists(f"{folder}/{MARKER}")
    except OSError as error:
        let_pass(error)
        return REMEDY
    return RENAME if somebody_elses else REMEDY


def named(label: str, base: str) -> str:
    """Return how a sentence names a candidate: by its variable where it has one."""
    return f"{label}={short(base)}" if label.replace("_", "").isupper() else base


def hanging(path: str) -> str:
    """Return the line about a filesystem that hangs: it names what the start has waited for."""
    return f"{path} {TIMED_OUT}, and is passed over"


def short(value: str) -> str:
    """Quote a value for one line of a terminal."""
    text = value if value.isprintable() and value.strip() == value else repr(value)
    return text if len(text) <= 200 else f"{text[:200]}... ({len(text)} characters)"
