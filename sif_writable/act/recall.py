"""Recall the plan of an earlier start, where every question that led to it would be answered the same now.

A decision is a pure function of what was seen, of the storage, of the environment, and of the default locations. So a
start keeps it together with all that it asked (:mod:`sif_writable.act.remember`), and the next one only asks again:
neither the table of locations is loaded then, nor its rows are gone through, however many there are.
"""

import marshal
import os

import sif_writable
from sif_writable.plan import COMPILED, Decision, Redirect
from sif_writable.signals import let_pass
from sif_writable.system.filesystem import is_unheard, unchanged, unheard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, Optional

    from sif_writable.plan import Storage
    from sif_writable.system import Facts

PLAN = "plan-"
"""How the name of the file begins, in the folder of the image; the interpreter tag follows."""
SECONDS = 60.0
"""How long a kept plan is not replaced: programs with different surroundings do not always overwrite each other's."""
USED = "used"
"""The file that says when an image was used in a place where it has no plan (:mod:`~.cleanup.housekeeping`)."""
DAY = 86400.0
"""Seconds. The time of a kept plan is not renewed more often."""
LARGEST = 1 << 20
"""Bytes that are read of a kept plan."""
_PASSING = (".lock", ".locks", ".nfs", ".new-", ".tmp", ".swp")
"""How names begin or end of what other programs make for a moment."""
_HASH_KEY = 0x5349465F504C414E
_DIGEST = 8
"""Bytes of the check sum that a kept plan begins with: marshal must not be given what was truncated or damaged."""


def path(facts: "Facts", storage: "Storage") -> str:
    """Return where the plan of this image and interpreter is kept, or an empty string."""
    image = storage.folders.get("image")
    return f"{image}/{PLAN}{facts.tag}" if image else ""


def is_due(path: str) -> bool:
    """Whether a plan may be kept there now: none is, or not since a moment ago."""
    import time

    try:
        return abs(time.time() - os.lstat(path).st_mtime) > SECONDS
    except OSError as error:
        let_pass(error)
        return True


def seal(body: bytes) -> bytes:
    """Return the check sum of a kept plan; another version's does not fit."""
    from _imp import source_hash

    return source_hash(_HASH_KEY, sif_writable.__version__.encode() + body)


def sum_of_names(names: "Iterable[str]") -> bytes:
    """Return a check sum of the names in a directory; locks and what is built aside come and go."""
    from _imp import source_hash

    kept = [name for name in names if not name.endswith(_PASSING) and not name.startswith(_PASSING)]
    kept.sort()
    return source_hash(_HASH_KEY, os.fsencode("\0".join(kept)))


def unchanged_since(noted: "list[tuple[str, int, bytes]]") -> bool:
    """Whether directories hold what they held, from :meth:`sif_writable.redirects.watch.Watch.noted`."""
    try:
        for directory, changed, names in noted:
            if unheard and is_unheard(directory):
                return False
            if os.stat(directory).st_ctime_ns != changed and sum_of_names(os.listdir(directory)) != names:
                return False
    except OSError as error:
        let_pass(error)
        return False
    return True


def seen(facts: "Facts") -> "list[Any]":
    """List the facts that decide. A device number differs in each run; what it says, ``home_small``, does not."""
    return [getattr(facts, name) for name in facts.__slots__ if name != "session_device"]


def settled(storage: "Storage") -> "list[Any]":
    """List what decides of the storage, but for the names that are there already."""
    given = [kind for kind, place in storage.places.items() if place.given]
    return [storage.roots, storage.folders, given, storage.small]


def _use(descriptor: int, storage: "Storage") -> None:
    """Let the time of a kept plan say that its image was used today: nothing else says so everywhere."""
    import time

    try:
        if abs(time.time() - os.fstat(descriptor).st_mtime) > DAY:
            os.utime(descriptor)
            compiled = os.path.dirname(storage.folders.get(COMPILED, ""))
            if compiled not in ("", storage.folders.get("image")):  # in another place, where no plan says so
                os.utime(f"{compiled}/{USED}")
    except OSError as error:  # a filesystem that gives files to somebody else; the plan is good nevertheless
        let_pass(error)


def decision(facts: "Facts", storage: "Storage", environ: "Mapping[str, str]") -> "Optional[Decision]":
    """Return the kept plan, or None where there is none or anything has changed."""
    try:
        # The folder is ours and private: it was looked at when storage was settled.
        descriptor = os.open(path(facts, storage), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        let_pass(error)
        return None
    try:
        content = os.read(descriptor, LARGEST)
        _use(descriptor, storage)
    except OSError as error:
        let_pass(error)
        return None
    finally:
        os.close(descriptor)
    body = content[_DIGEST:]
    if seal(body) != content[:_DIGEST]:
        return None
    facts_then, storage_then, present, values, absent, told, noted, fields, redirects = marshal.loads(body)  # noqa: S302
    if facts_then != seen(facts) or storage_then != settled(storage) or not absent.isdisjoint(environ):
        return None
    for name, value in values:
        if environ.get(name) != value:
            return None
    for kind, names in present:  # names may have been added, which changes nothing
        if not names <= storage.present.get(kind, names):
            return None
    if not unchanged(told) or not unchanged_since(noted):
        return None
    found = Decision()
    for name, value in fields:
        setattr(found, name, value)
    found.recalled = True
    for variable, value, kind, folder, why, subfolder, offers in redirects:
        redirect = Redirect(variable, value, kind, folder, why)
        redirect.subfolder = subfolder
        redirect.offers = offers
        found.redirects.append(redirect)
    return found
