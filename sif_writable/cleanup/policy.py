"""Which things in storage go, and why. Pure: from what is there and what is asked to a list."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from sif_writable import OFF
from sif_writable.cleanup.contents import HOME, LEFTOVER, LOCK, PACKAGES, RECENT_DAYS, WRITTEN, Contents, Item
from sif_writable.cleanup.layers import GENERATION, REPLICA, SET_ASIDE, UPPER
from sif_writable.redirects.beside import SHARED
from sif_writable.redirects.catalog import OPT_IN, ROWS
from sif_writable.sizes import count, human, parse_size
from sif_writable.storage.kinds import COMPILED, CONFIG, DATA, RUNTIME

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DAY = 86400.0
LEFTOVER_DAYS = 1
"""Days after which something left aside, or a lock file, belongs to a process that is gone."""
IDLE_DAYS = 60
"""Days without a start after which what can be made again of an image goes by itself."""
FRESH_DAYS = 1
"""Resolution of "last used", in days: ``relatime`` updates access times at most once a day. What was used within it is
never evicted to make room."""
MAX = "SIF_WRITABLE_MAX"
"""The variable that says how much all images together may keep in a storage root."""
MAX_BYTES, MAX_FILES = 10 << 30, 100_000
"""What they may keep by default."""
NEAR = 0.8
"""Share of the limit from which on ``doctor`` warns."""
LIMITS = "off, or a size and maybe a number of files, such as 20GiB or 20GiB,50000"
DURATIONS = "a number with min, h, d or w, such as 12h, 30d or 2w"

KNOWN = {
    kind: frozenset(row.leaf for row in (*ROWS, *OPT_IN) if row.kind == kind and row.folder)
    for kind in (DATA, COMPILED, CONFIG, RUNTIME)
}
KNOWN[DATA] |= {folder.partition("/")[0] for _, folder in SHARED}
"""Kind to the names of its folders: what is looked for in storage."""
NEEDED = frozenset(
    row.leaf for row in (*ROWS, *OPT_IN) if row.shape in ("mkdir", "base", "path_list", "path_list_open")
) | {HOME}
"""Names of folders that a process in the midst of its work expects to exist."""
_ALL = frozenset().union(*KNOWN.values())

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(min|h|d|w)", re.IGNORECASE)
_SECONDS = {"min": 60.0, "h": 3600.0, "d": DAY, "w": 7 * DAY}
_PRUNED = (DATA, COMPILED, PACKAGES, REPLICA)
"""Kinds that can be made anew: settings, histories and homes are somebody's work, sockets somebody's process."""


class Removal(NamedTuple):
    """One thing to remove."""

    item: Item
    why: str
    dead: bool = False
    """Whether nobody is there who could miss it."""
    keep_written: bool = True
    """Whether what programs wrote in copies stays; it goes only where it is asked for by name."""


class Plan(NamedTuple):
    """What to remove."""

    removals: list[Removal]
    notes: list[str]
    """Sentences on what was asked and cannot be had."""
    kept: bool = False
    """Whether something that was asked for stays."""


class Limit(NamedTuple):
    """How much all images together may keep in a storage root."""

    size: int
    """Bytes."""
    files: int


def limit(environ: Mapping[str, str]) -> tuple[Limit | None, str]:
    """Return the limit, None for ``off``; and a note where the user's value is not understood."""
    text = environ.get(MAX, "").strip()
    if not text:
        return Limit(MAX_BYTES, MAX_FILES), ""
    if text.lower() in OFF:
        return None, ""
    figures = text.split(",")
    size = parse_size(figures[0])
    files = figures[1].strip() if len(figures) == 2 else str(MAX_FILES)
    if size is None or len(figures) > 2 or not (files.isascii() and files.isdigit() and len(files) < 16):
        note = f"{MAX}={text[:80]!r} is not understood and counts as unset; allowed: {LIMITS}"
        return Limit(MAX_BYTES, MAX_FILES), note
    return Limit(size, int(files)), ""


class Reach(NamedTuple):
    """What a command may touch."""

    this: str
    """Identity of the image that this process runs in, or empty."""
    all_images: bool = False
    """Also what belongs to other images, and what images share."""
    in_use: bool = False
    """Also copies of which nobody can tell whether they are in use."""

    def holds(self, item: Item) -> bool:
        """Whether a thing is within reach."""
        return self.all_images or bool(self.this and item.image == self.this)


def parse_duration(text: str) -> float | None:
    """Return the seconds that a text such as ``30d`` stands for, or None."""
    match = _DURATION.fullmatch(text.strip())
    return float(match[1]) * _SECONDS[match[2].lower()] if match else None


def prune(
    found: Sequence[Contents],
    *,
    reach: Reach,
    now: float,
    older_than: float | None = None,
    max_size: int | None = None,
    dead: bool = False,
) -> Plan:
    """Choose what goes by age, by being dead, and then by size, least recently used first. What is empty stays.

    :param older_than: seconds without use.
    :param max_size: bytes that everything within reach together may take.
    :param dead: also caches of other images that nobody used, and what processes that are gone have left.
    """
    chosen: dict[str, Removal] = {}
    notes: list[str] = []
    kept = False
    for contents in found:
        for item in filter(reach.holds, contents.items):
            why = ""
            made_again = item.kind in _PRUNED or (item.kind == UPPER and not item.problem)
            if older_than is not None and made_again and now - item.used > older_than:
                why = f"not used for {span(now - item.used)}"
            elif dead:
                why = _dead(item, contents, reach.this, now)
            if not why or (is_empty(item) and not dead):
                continue
            if item.kind == UPPER and item.written:
                notes.append(_waits(item))
                continue
            if problem := _stays(item, contents, reach, now):
                notes.append(problem)
                kept = True
            else:
                chosen[item.path] = Removal(item, why, dead and bool(_dead(item, contents, reach.this, now)))
    if max_size is not None:
        _make_room(found, max_size, reach, now, chosen, notes)
    return Plan(list(chosen.values()), list(dict.fromkeys(notes)), kept)


def _waits(item: Item) -> str:
    are = "is" if item.written == 1 else "are"
    return (
        f"{item.path} stays: it has {count(item.written)} that a container wrote and that {are} not kept yet. Remedy: "
        f"start Python in that image on this node, which keeps what is there; or sif-writable cache clear {item.name}."
    )


def is_empty(item: Item) -> bool:
    """Whether a thing is only a folder, or a home of nothing but links."""
    return not (item.files or item.size or item.problem) and item.kind != LOCK


def _stays(item: Item, contents: Contents, reach: Reach, now: float) -> str:
    """Say why a thing cannot be removed, with the remedy, or return an empty string."""
    if item.problem and not item.unlocked:
        return f"{item.path} stays: it {item.problem}. Remedy: try again when that has ended."
    if not item.unlocked or reach.in_use:
        return ""
    idle = now - contents.images[item.image].used
    if idle > RECENT_DAYS * DAY:
        return ""
    return (
        f"{item.path} stays: it {item.problem}, and its image was started {span(idle)} ago. "
        "Remedy: see that no program of that image runs, then add --in-use."
    )


def _dead(item: Item, contents: Contents, this: str, now: float) -> str:
    if item.kind in (LEFTOVER, LOCK):
        if now - item.used <= LEFTOVER_DAYS * DAY:
            return ""
        return "left by a process that is gone" if item.kind == LEFTOVER else "a lock that nobody holds"
    if item.kind in (GENERATION, SET_ASIDE):
        return ""
    if item.kind == UPPER:
        return "" if item.problem else "of a container that has ended"
    if not item.image or item.image == this:
        return ""
    idle = now - contents.images[item.image].used
    if idle <= RECENT_DAYS * DAY:
        return ""
    # A private home may hold what somebody wrote there; its links lead to the image.
    return (
        "" if item.kind in (HOME, WRITTEN) and item.files else f"of another image, which was not used for {span(idle)}"
    )


def _make_room(
    found: Sequence[Contents],
    max_size: int,
    reach: Reach,
    now: float,
    chosen: dict[str, Removal],
    notes: list[str],
) -> None:
    items = [(item, contents) for contents in found for item in contents.items if reach.holds(item)]
    total = sum(item.size for item, _ in items if item.path not in chosen)
    for item, contents in sorted(items, key=lambda pair: pair[0].used):
        if total <= max_size:
            return
        if item.path in chosen or item.kind not in _PRUNED or now - item.used < FRESH_DAYS * DAY or is_empty(item):
            continue
        if problem := _stays(item, contents, reach, now):
            notes.append(problem)
            continue
        chosen[item.path] = Removal(item, f"the least recently used, {span(now - item.used)} ago")
        total -= item.size - item.written_size if item.kind == PACKAGES else item.size
    if total > max_size:
        notes.append(
            f"{human(total)} remain, more than --max-size allows: what was used within a day, settings, homes, "
            "what programs wrote and temporary files stay. Remedy: sif-writable cache clear NAME."
        )


def clear(found: Sequence[Contents], asked: Sequence[str], *, reach: Reach, now: float) -> tuple[Plan, list[str]]:
    """Choose what bears one of these names, and return sentences on the names that nothing within reach bears.

    :param asked: ``numba``, ``data/pip``, ``image-ID``, or ``image-ID/config/ipython``.
    """
    chosen: dict[str, Removal] = {}
    notes: list[str] = []
    wrong = []
    kept = False
    for name in asked:
        wanted = name.strip("/")
        pairs = [(item, each) for each in found for item in each.items if item.kind != LOCK and _bears(item, wanted)]
        hits = [pair for pair in pairs if reach.holds(pair[0])]
        beyond = [item for item, _ in pairs if not reach.holds(item)]
        if beyond and not hits:
            wrong.append(f"{_beyond(name, beyond)}. Remedy: add --all-images")
        elif beyond := [item for item in beyond if not is_empty(item)]:
            notes.append(f"{_beyond(name, beyond)}, and stays. Remedy: add --all-images.")
        elif not hits and wanted in _ALL:
            notes.append(f"there is no {name or repr('')} in storage")
        elif not hits:
            wrong.append(f"there is no {name or repr('')} in storage")
        for item, contents in hits:
            if problem := _stays(item, contents, reach, now):
                notes.append(problem)
                kept = True
            else:
                chosen[item.path] = Removal(item, "asked for", keep_written=False)
    return Plan(list(chosen.values()), notes, kept), wrong


def _beyond(name: str, items: list[Item]) -> str:
    """Say who owns the things that bear a name but are beyond reach."""
    others = len({item.image for item in items if item.image})
    whose = [count(others, "other image")] if others else []
    whose += ["all images"] if any(not item.image for item in items) else []
    places = f"{items[0].path}" + (f" and {len(items) - 1} more" if len(items) > 1 else "")
    return f"{name} is of {' and of '.join(whose)} ({places}, {human(sum(item.size for item in items))})"


def _bears(item: Item, name: str) -> bool:
    whole = f"{item.folder}/{item.name}".lstrip("/")
    return name in (item.name, whole, item.path.strip("/")) or whole.startswith(name + "/")


def span(seconds: float) -> str:
    """Return a time span in the unit that reads best, such as ``3 days``."""
    for unit, length in (("day", DAY), ("hour", 3600.0), ("minute", 60.0)):
        count = int(seconds // length)
        if count:
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "less than a minute"
