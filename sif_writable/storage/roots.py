"""Make the one folder of ours in a place, try it, and mark it. The cold path of the hook.

Ours is what bears our mark, not what has a name like ours.
"""

from __future__ import annotations

import os

from sif_writable import aside
from sif_writable.seldom import MARKER
from sif_writable.signals import let_pass, suppress
from sif_writable.storage.candidates import FOLDER
from sif_writable.storage.layout import DATA, LOCKS, RUN, is_image
from sif_writable.storage.marker import FIRST_LINE, OURS, UNCOUNTED, UNTRIED, Marker, read_marker
from sif_writable.storage.marker import NO_LOCKS as UNLOCKED
from sif_writable.storage.publish import write_aside
from sif_writable.system.filesystem import explain, unfit
from sif_writable.system.probe import NO_CODE, NO_LOCKS, attempt_in, given_away, opened

LAYERS = "layers"


def is_for_us(base: str) -> bool:
    """Whether a place that was given is our folder itself: it has the name, and nothing of anybody else is in it."""
    if os.path.basename(base) != FOLDER:
        return False
    try:
        listed = os.listdir(base)
    except OSError as error:
        let_pass(error)
        return False
    # Another process may have marked it just now: it does that before it makes anything to stay.
    return not _others(listed) or bool(read_marker(base, ours=True))


def _others(listed: list[str]) -> list[str]:
    """Return the names in a storage root that may be somebody else's."""
    return [name for name in listed if name not in (MARKER, "lost+found") and not aside.is_ours(name)]


def _is_somebody_elses(root: str) -> bool:
    """Whether a folder with our name but without our mark is in use by others.

    A cleaner of old files takes the mark away and leaves the folders. Nobody else has one with the name of an image.
    """
    listed = os.listdir(root)
    # The folder of layers is made before anything else, and has a mark of its own.
    others = [name for name in _others(listed) if not (name == LAYERS and os.path.lexists(f"{root}/{name}/{MARKER}"))]
    if MARKER in listed or not others:
        return False
    ours = [name for name in others if is_image(name)]
    return not ours or any(name not in (DATA, RUN, LOCKS, *ours) for name in others)


def make_root(root: str, *, uid: int, foreign_mode: int) -> tuple[str, Marker]:
    """Make a storage root, try it, and mark it.

    :returns: what is wrong with it, or an empty string; and its marker.
    """
    made = True
    try:
        os.mkdir(root, 0o700)
    except FileExistsError:
        made = False
    except OSError as error:
        return explain(error, root), Marker()
    problem, words = _try_root(root, uid=uid, foreign_mode=foreign_mode, made=made)
    if problem and made:
        with suppress(OSError):
            os.rmdir(root)
    return problem, Marker(words)


def _try_root(root: str, *, uid: int, foreign_mode: int, made: bool) -> tuple[str, str]:
    try:
        status = os.lstat(root)
        if made and status.st_uid != uid:
            return given_away(status.st_uid).text, ""
        if made and status.st_mode & 0o077:
            return opened(status.st_mode).text, ""
        problem = unfit(root, uid=uid, foreign_mode=foreign_mode, attempt=True)
        if not problem and not made and _is_somebody_elses(root):
            problem = "is not empty and has no mark of ours"
        if problem:
            return problem, ""
        # Only what the place itself refuses is marked: a failure that passes would be held against it for ever.
        code, lock = attempt_in(root, execute=True), attempt_in(root, lock=True)
        if code and code.code != NO_CODE:
            return code.text, ""
        space = os.statvfs(root)
        uncounted = not space.f_blocks or (space.f_files and not space.f_favail)
        words = (
            ("noexec" if code else "exec") + (f" {UNLOCKED}" if lock else "") + (f" {UNCOUNTED}" if uncounted else "")
        )
        # Locks only save work; the next start tries again.
        first = UNTRIED if lock and lock.code != NO_LOCKS else words
        write_aside(os.path.join(root, MARKER), f"{first:<{FIRST_LINE - 1}}\n{OURS}\n".encode())
    except OSError as error:
        return explain(error, root), ""
    return "", words
