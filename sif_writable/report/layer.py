"""The writable layer: whether programs of this environment get one, what they wrote, and what is kept of it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from sif_writable import LAYER
from sif_writable.child import KEEP, OVERLAY
from sif_writable.cleanup import layers
from sif_writable.layer import decide, enter, files, forget, make, memory, merge, records, survey, trial
from sif_writable.layer.generations import SET_ASIDE
from sif_writable.mounted import in_layer
from sif_writable.report.text import shown
from sif_writable.sizes import count, human
from sif_writable.storage import layout
from sif_writable.system import image_mounts

if TYPE_CHECKING:
    from sif_writable.cleanup.contents import Item
    from sif_writable.report.model import Kept, Layer, Pending

_NAMED = 5
_NOTHING: Kept = {"bytes": 0, "files": 0, "node": "", "written": [], "overridden": []}


def model(image: str) -> Layer:
    """Return it as plain data.

    :param image: the folder of this image in storage.
    """
    uid_map = enter.read("/proc/self/uid_map")
    program = os.readlink("/proc/self/exe") if os.path.exists("/proc/self/exe") else ""
    uid = os.geteuid()
    threads = 1 if program else 0  # 0: /proc is not there, which is all that is to be said
    why = enter.obstacle(
        os.environ, uid=uid, uid_map=uid_map, threads=threads, program=program, prefix=sys.prefix, storage=image
    )
    namespace = os.readlink("/proc/self/ns/mnt") if uid_map else ""
    places = [place for place in enter.places(image, os.path.basename(image), os.geteuid()) if enter.is_private(place)]
    over: list[str] = []
    chosen = ""
    in_memory = False
    for place in places:
        lines = enter.read(f"{place}/trial").splitlines()[2:]
        if lines:
            found_ok = lines[0] == "ok"
            chosen, why = (place, why) if found_ok else ("", why or lines[0])
            over = [line for line in lines[1:] if found_ok and line[:1] == "/"]
            in_memory = lines[-1] == trial.IN_MEMORY
            break
    if not why and (bound := _bound_into()):  # whatever a trial in another container has shown
        why, chosen, over = bound, "", []
    pending, inside = survey.here(places, namespace)
    inside = inside or bool(in_layer(os.environ.get(LAYER)))
    folder = make.generations(f"{image}/{layout.LAYERS}", image)
    number = make.newest_generation(folder)
    kept = _contents(folder, number) if number else None
    room = os.statvfs(chosen) if chosen else None
    return {
        "inside": inside,
        "hides": decide.hides(os.environ, os.geteuid(), uid_map),
        "over": over,
        "why": why,
        "place": chosen,
        "in_memory": in_memory,
        "filesystem": trial.filesystem(chosen) if chosen else "",
        "free_bytes": room.f_bavail * room.f_frsize if room else 0,
        "pending": _pending(pending, inside=inside) if pending else None,
        "folder": folder,
        "number": number,
        **(kept or _NOTHING),
        "set_aside": [f"{folder}/{SET_ASIDE}/{name}" for name in _names(f"{folder}/{SET_ASIDE}")],
        "keep": merge.mode(os.environ),
    }


def _bound_into() -> str:
    """Say that something of the host's is bound into every directory that could have a layer, or nothing."""
    if image_mounts.directories_to_cover():
        return ""
    table = image_mounts.mounts()
    for directory in image_mounts.environment_directories():
        if table.is_image(directory) and (below := table.host_mounts_below(directory)):
            return f"{below[0]} is bound into {directory}, and the kernel makes no layer over that"
    return ""


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _contents(folder: str, number: int) -> Kept | None:
    try:
        newest = records.read(folder, number)
        written = [unit.names[0] for unit in forget.of_generation(newest)]
    except OSError:  # superseded just now
        return None
    return {
        "bytes": newest.size,
        "files": newest.files,
        "node": newest.node,
        "written": written,
        "overridden": sorted({*newest.overridden, *newest.removed}),
    }


def _pending(folder: str, *, inside: bool) -> Pending:
    kept = survey.is_kept(folder, in_it=inside, of_this_image=True)
    found = survey.Written([], 0) if kept else survey.written(folder)
    return {
        "folder": folder,
        "bytes": found.size,
        "files": len(found.paths),
        "written": [unit.names[0] for unit in survey.units(folder, found.paths, sys.prefix)],
    }


def lines(state: Layer, *, verbose: bool = False) -> list[str]:
    """Return it as sentences: five at most.

    :param verbose: name everything.
    """
    named = 1_000_000 if verbose else _NAMED
    found = []
    if state["over"] and not state["why"]:
        found.append(
            f"programs can write in {_some(state['over'], named)}: what they write is theirs, and the image stays as "
            f"it is; while they run it lies in {place_of(state)}"
        )
    else:
        found.append(f"none: {state['why']}" if state["why"] else "none was needed yet")
    if state["hides"] and not state["why"]:
        found[-1] += f"; {state['hides']}"
    if state["inside"] and state["why"] and os.environ.get(OVERLAY, "").strip().lower() == "off":
        words = "this process is in a layer all the same"
        found.append(f"{words}: {OVERLAY}=off cannot take a program out of the one that it was started in")
    elif state["inside"]:
        found.append("this process is in a layer")
    if state["pending"] and state["pending"]["files"]:
        by = _some(state["pending"]["written"], named)
        found.append(f"not kept yet: {_amount(state['pending'])} in {state['pending']['folder']}; by {by}")
    if state["number"]:
        found.append(
            f"kept: {_amount(state)} in {state['folder']}/gen-{state['number']}; by {_some(state['written'], named)}"
        )
        if not state["written"]:
            found[-1] = f"kept: nothing any more, as {state['folder']}/gen-{state['number']} says"
    replaced = state["overridden"]
    more = [f"in place of files of the image: {_some(replaced, named)}"] if replaced else []
    more += [f"set aside: {_some(state['set_aside'], 1_000_000 if verbose else 1)}"] if state["set_aside"] else []
    found += ["; ".join(more)] if more else []
    if state["keep"] != merge.NEW:
        found[0] += f"; {KEEP}={state['keep']}"
    return found


def brief(state: Layer) -> str:
    """Return it in a few words: whether programs have one, and what is kept."""
    if state["over"] and not state["why"]:
        found = f"programs can write in {_some(state['over'], 1)}"
    else:
        found = f"none: {state['why']}" if state["why"] else "none was needed yet"
    if state["inside"]:
        found += "; this process is in one"
    if state["pending"] and state["pending"]["files"]:
        found += f"; not kept yet: {_amount(state['pending'])}"
    if state["number"] and state["written"]:
        found += f"; kept: {_amount(state)}, by {_some(state['written'])}"
    return found


def place_of(state: Layer) -> str:
    """Return in words where layers lie while programs run."""
    if state["in_memory"]:
        return f"memory, up to {human(memory.LIMIT)}: what is killed before it is kept is lost"
    return f"{state['place']} ({state['filesystem']}, {human(state['free_bytes'])} free)"


def _amount(state: Layer | Pending) -> str:
    return f"{human(state['bytes'])} in {count(state['files'])}"


def _some(names: list[str], most: int = _NAMED) -> str:
    more = len(names) - most
    return ", ".join(map(shown, names[:most])) + (f" and {more} more" if more > 0 else "")


# --- Single things, for `cache list` ---


def details(item: Item) -> dict[str, Any]:
    """Return the details of something that a layer has left in storage or on this node.

    ===========  ==========================================================================================
    kind         keys
    ===========  ==========================================================================================
    generation   number, node, packages, overridden
    replica      number
    upper        directories, lost (whether it is of before the machine was started last), packages
    set aside    paths
    ===========  ==========================================================================================
    """
    folder, name = os.path.split(item.path)
    if item.kind == layers.GENERATION:
        kept = _contents(folder, int(name[4:])) or _NOTHING
        return {
            "number": int(name[4:]),
            "node": kept["node"],
            "packages": kept["written"],
            "overridden": kept["overridden"],
        }
    if item.kind == layers.REPLICA:
        return {"number": int(name.rpartition("-")[2])}
    if item.kind == layers.UPPER:
        about = survey.about(item.path)
        units = survey.units(item.path, survey.written(item.path).paths, sys.prefix)
        return {
            "directories": about.directories,
            "lost": about.is_lost,
            "packages": [unit.names[0] for unit in units],
        }
    return {"paths": [f"/{path}" for path, _ in files.walk(item.path) if not os.path.isdir(f"{item.path}/{path}")]}


def is_unused(item: Item) -> bool:
    """Whether nothing was written to a layer, and so nothing of it is lost either."""
    state = details(item)
    return not state["packages"] and not state["lost"]


def about(item: Item) -> list[str]:
    """Return the same as sentences."""
    state = details(item)
    if item.kind == layers.GENERATION:
        if layers.is_superseded(item.path):
            return ["a later one has taken its place; it goes an hour after that"]
        found = [f"kept, by {_some(state['packages'])}; published by {state['node'] or 'a machine that is not known'}"]
        if state["overridden"]:
            found.append(f"in place of files of the image: {', '.join(map(shown, state['overridden']))}")
        return found
    if item.kind == layers.REPLICA:
        return [f"a copy of generation {state['number']} for this machine"]
    if item.kind == layers.SET_ASIDE:
        return [f"not kept: {_some(state['paths'])}"]
    if state["lost"]:
        return ["what was written to it is lost: the machine has been started since, and half of it may be missing"]
    if not state["packages"]:
        return ["nothing was written to it"]
    wrote = _some(state["packages"])
    if not item.written:
        return [f"nothing of what {wrote} wrote waits to be kept; it goes with the next start on this machine"]
    return [f"{count(item.written)} of {wrote}, not kept yet"]
