"""What ``status`` says of the writable layer: whether programs of this environment get one, and what they wrote."""

from __future__ import annotations

import os
from typing import Any

from sif_writable.layer import decide, enter, files, merge, mount, records
from sif_writable.sizes import human

_NAMED = 5


def model(image: str) -> dict[str, Any]:
    """Return it as plain data.

    ===========  ==========================================================================================
    key          value
    ===========  ==========================================================================================
    inside       whether this process is in one
    over         directories that can be written in a layer
    why          why a program that begins now would get none; empty: it may, or it is tried when one begins
    folder       where generations are
    number       of the newest generation; 0: nothing was kept yet
    bytes        that are in it
    written      packages and files of the environment that have something in it
    overridden   files of the image in whose place it has others
    keep         ``new``, ``all`` or ``none``
    ===========  ==========================================================================================

    :param image: the folder of this image in storage.
    """
    uid_map = enter.read("/proc/self/uid_map")
    program = os.readlink("/proc/self/exe") if os.path.exists("/proc/self/exe") else ""
    why = decide.obstacle(os.environ, uid=os.geteuid(), uid_map=uid_map, threads=1, program=program)
    over: list[str] = []
    for place in enter.places(image, os.path.basename(image), os.geteuid()):
        lines = enter.read(f"{place}/trial").splitlines()[2:]
        if lines and enter.is_private(place):
            over, why = (lines[1:], why) if lines[0] == "ok" else ([], why or lines[0])
            break
    folder = mount.generations(f"{image}/layer", image)
    number = mount.newest_generation(folder)
    found = {"folder": folder, "number": number, "bytes": 0, "written": [], "overridden": []}
    if number:
        found.update(_contents(folder, number))
    inside = decide.is_inside(os.environ, os.readlink("/proc/self/ns/mnt")) if uid_map else False
    return {"inside": inside, "over": over, "why": why, **found, "keep": merge.mode(os.environ)}


def _contents(folder: str, number: int) -> dict[str, Any]:
    try:
        newest = records.read(folder, number)
    except OSError:  # superseded just now
        return {}
    tree = f"{newest.folder}/tree"
    paths = [f"/{name}" for name, _ in files.walk(tree) if not os.path.isdir(f"{tree}/{name}")]
    seen: dict[str, None] = {}
    for path in paths:
        _, site, rest = path.partition("-packages/")
        seen[rest.partition("/")[0] if site else path] = None
    # In a layer that is what the layer shows: the image itself is not seen.
    overridden = [path for path in paths if os.path.lexists(path)]
    return {"bytes": newest.size, "written": sorted(seen), "overridden": sorted({*overridden, *newest.removed})}


def lines(told: dict[str, Any]) -> list[str]:
    """Return it as sentences."""
    if told["over"] and not told["why"]:
        found = [
            f"programs can write in {_some(told['over'])}: what they write is theirs, and the image stays as it is"
        ]
    else:
        found = [f"none: {told['why']}" if told["why"] else "none was needed yet"]
    if told["number"]:
        size = human(told["bytes"])
        found.append(f"kept: {size} in {told['folder']}/gen-{told['number']}; by {_some(told['written'])}")
    if told["overridden"] and not told["inside"]:
        found.append(f"in place of files of the image: {_some(told['overridden'])}")
    if (value := os.environ.get(decide.KEEP, "")) and value.lower() != told["keep"]:
        allowed = f"{merge.NEW}, {merge.ALL}, {merge.NONE}"
        found.append(f"{decide.KEEP}={value[:80]!r} is not understood and counts as unset; allowed: {allowed}")
    if told["keep"] != merge.NEW:
        found.append(f"{decide.KEEP}={told['keep']}")
    return found


def _some(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
