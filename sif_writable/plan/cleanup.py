"""Which things in storage go, and why. Pure: from what is there and what is asked to a list."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from sif_writable.facts.storage_contents import HOME, LEFTOVER, LOCK, PACKAGES, Contents, Item
from sif_writable.plan import COMPILED, CONFIG, DATA, RUNTIME
from sif_writable.plan.catalog import OPT_IN, ROWS

if TYPE_CHECKING:
    from collections.abc import Sequence

DAY = 86400.0
LEFTOVER_DAYS = 1
"""Days after which something left aside, or a lock file, belongs to a process that is gone."""
DEAD_DAYS = 7
"""Days without use after which another image's caches are taken for dead."""
FRESH_DAYS = 1
"""Days within which use is not told more finely: ``relatime`` records reading once a day. What was used within them
is not taken away to make room."""
DURATIONS = "a number with min, h, d or w, such as 12h, 30d or 2w"

KNOWN = {
    kind: frozenset(row[6].replace("/", "-") for row in (*ROWS, *OPT_IN) if row[1] == kind and row[6])
    for kind in (DATA, COMPILED, CONFIG, RUNTIME)
}
"""Kind to the names of its folders: what is looked for in storage."""
NEEDED = frozenset(
    row[6].replace("/", "-")
    for row in (*ROWS, *OPT_IN)
    if row[5].partition(":")[0] in ("mkdir", "base", "path_list", "path_list_open")
) | {HOME}
"""Names of folders that a process in the midst of its work expects to exist."""
_ALL = frozenset().union(*KNOWN.values())

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(min|h|d|w)", re.IGNORECASE)
_SECONDS = {"min": 60.0, "h": 3600.0, "d": DAY, "w": 7 * DAY}
_PRUNED = (DATA, COMPILED, PACKAGES)
"""Kinds that can be made anew: settings, histories and homes are somebody's work, sockets somebody's process."""


class Removal(NamedTuple):
    """One thing to remove."""

    item: Item
    why: str
    dead: bool = False
    """Whether nobody is there who could miss it."""


class Plan(NamedTuple):
    """What to remove."""

    removals: list[Removal]
    notes: list[str]
    """Sentences on what was asked and cannot be had."""


def parse_duration(text: str) -> float | None:
    """Return the seconds that a text such as ``30d`` stands for, or None."""
    match = _DURATION.fullmatch(text.strip())
    return float(match[1]) * _SECONDS[match[2].lower()] if match else None


def prune(
    found: Sequence[Contents],
    *,
    this: str,
    now: float,
    older_than: float | None = None,
    max_size: int | None = None,
    dead: bool = False,
) -> Plan:
    """Choose what goes by age, by being dead, and then by size, least recently used first.

    :param this: identity of the image that this process runs in, or empty.
    :param older_than: seconds without use.
    :param max_size: bytes that everything together may take.
    :param dead: also caches of other images that nobody used, and what processes that are gone have left.
    """
    chosen: dict[str, Removal] = {}
    notes: list[str] = []
    for contents in found:
        for item in contents.items:
            why = ""
            if older_than is not None and item.kind in _PRUNED and now - item.used > older_than:
                why = f"not used for {span(now - item.used)}"
            elif dead:
                why = _dead(item, contents, this, now)
            if why and not item.problem:
                chosen[item.path] = Removal(item, why, dead and bool(_dead(item, contents, this, now)))
            elif why:
                notes.append(f"{item.path} stays: it {item.problem}")
    if max_size is not None:
        _make_room([item for contents in found for item in contents.items], max_size, now, chosen, notes)
    return Plan(list(chosen.values()), notes)


def _dead(item: Item, contents: Contents, this: str, now: float) -> str:
    if item.kind in (LEFTOVER, LOCK):
        if now - item.used <= LEFTOVER_DAYS * DAY:
            return ""
        return "left by a process that is gone" if item.kind == LEFTOVER else "a lock that nobody holds"
    if not item.image or item.image == this:
        return ""
    idle = now - contents.images[item.image].used
    if idle <= DEAD_DAYS * DAY:
        return ""
    # A private home may hold what somebody wrote there; its links lead to the image.
    return "" if item.kind == HOME and item.files else f"of another image, which was not used for {span(idle)}"


def _make_room(items: list[Item], max_size: int, now: float, chosen: dict[str, Removal], notes: list[str]) -> None:
    total = sum(item.size for item in items if item.path not in chosen)
    for item in sorted(items, key=lambda item: item.used):
        if total <= max_size:
            return
        if item.path in chosen or item.kind not in _PRUNED or item.problem or now - item.used < FRESH_DAYS * DAY:
            continue
        chosen[item.path] = Removal(item, f"the least recently used, {span(now - item.used)} ago")
        total -= item.size
    if total > max_size:
        notes.append(
            f"{total} bytes remain, more than --max-size allows: what was used within a day, settings, homes and "
            "temporary files stay. Remedy: sif-writable cache clear NAME."
        )


def clear(found: Sequence[Contents], asked: Sequence[str]) -> tuple[Plan, list[str]]:
    """Choose what bears one of these names, and return the names that nothing could ever bear.

    :param asked: ``numba``, ``data/pip``, ``image-ID``, or ``image-ID/config/ipython``.
    """
    chosen: dict[str, Removal] = {}
    notes: list[str] = []
    unknown = []
    for name in asked:
        wanted = name.strip("/")
        hits = [item for contents in found for item in contents.items if item.kind != LOCK and _bears(item, wanted)]
        if not hits and wanted in _ALL:
            notes.append(f"there is no {name} in storage")
        elif not hits:
            unknown.append(name)
        for item in hits:
            if item.problem:
                notes.append(f"{item.path} stays: it {item.problem}")
            else:
                chosen[item.path] = Removal(item, "asked for")
    return Plan(list(chosen.values()), notes), unknown


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
