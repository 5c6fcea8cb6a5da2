"""The packages with a writable copy: why, how, where, how large, and what they wrote."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from typing import TYPE_CHECKING

from sif_writable import importhook
from sif_writable.child import PATHS
from sif_writable.copies import ledger, policy, store, units
from sif_writable.copies.ledger import PACKAGE, PATH, REFUSED, Line
from sif_writable.copies.units import Unit
from sif_writable.identity import PURELIB
from sif_writable.overlay import decide
from sif_writable.overlay.decide import existing
from sif_writable.overlay.path_queries import PathQueries
from sif_writable.sizes import count

if TYPE_CHECKING:
    from sif_writable.report.model import Package

WHY = {
    "user": "SIF_WRITABLE_PACKAGES names it",
    "catalogue": "it is known to write into its own directory",
    "import": "its import failed for want of a writable directory",
    "use": "a program failed for want of a writable directory",
    "trace": "a trace saw it write there",
    "manifest": "the image says so",
}


def listed(folder: str) -> list[Package]:
    """List every package of this image that has a copy, shall have one, or was refused one.

    :param folder: the folder of copies.
    """
    lines, _ = ledger.listed(folder)
    refused = {line.name: line.why for line in lines if line.what == REFUSED}
    found: dict[str, Package] = {}
    tree = store.Copies(folder)
    wanted = [line for line in lines if line.what == PACKAGE]
    named = [name for name in policy.names(os.environ) if name not in importhook.NEVER]  # see `misnamed`
    wanted += [Line(PACKAGE, name, store.ANYWHERE, "user", "") for name in named]
    for line in sorted(wanted, key=lambda line: line.place == store.ANYWHERE):
        if line.name in found:
            continue
        unit = _unit(line)
        if unit is None:
            continue
        copy = f"{folder}/tree{unit.path}"
        mounted = os.access(unit.path, os.W_OK)  # then it is imported from where it is
        copied = tree.has(unit.path) and not mounted
        if not copied and line.place == store.ANYWHERE and line.why != "user" and line.name not in refused:
            continue  # known to write, and installed, but not used so far
        written, size = units.written(unit, copy) if copied else ([], 0)
        found[line.name] = {
            "name": line.name,
            "why": WHY.get(line.why, line.why) + (f": {line.detail}" if line.detail else ""),
            "how": _how(refused.get(line.name, ""), copied=copied, mounted=mounted),
            "where": copy if copied else unit.path,
            "size_bytes": size,
            "written": written,
        }
    for name, why in refused.items():
        if name not in found:
            how = f"refused: {why}"
            found[name] = {"name": name, "why": "", "how": how, "where": "", "size_bytes": 0, "written": []}
    return sorted(found.values(), key=lambda entry: entry["name"])


def _given_paths() -> list[str]:
    return [word.strip() for word in os.environ.get(PATHS, "").replace(",", ":").split(":")]


def _how(refused: str, *, copied: bool, mounted: bool) -> str:
    if copied:
        return "copy"
    if mounted:
        return "mount"
    return f"refused: {refused}" if refused else "next import"


def _unit(line: Line) -> Unit | None:
    """Return the unit that a line is about, or None where it is not installed."""
    directories = units.directories() if line.place == store.ANYWHERE else [line.place]
    *holders, last = line.name.split(".")
    for directory in directories:
        holder = "/".join([directory, *holders]) if line.place == store.ANYWHERE else directory
        for entry in (last, f"{last}.py", *(last + suffix for suffix in importlib.machinery.EXTENSION_SUFFIXES)):
            if os.path.exists(f"{holder}/{entry}"):
                return Unit(line.name, holder, entry)
    return None


def notes(folder: str) -> list[str]:
    """Return further notes for ``status``: what was not understood, and paths that no copy makes writable."""
    lines, broken = ledger.listed(folder)
    found = [
        line.why if " " in line.why else policy.outside_words(line.place, "")
        for line in lines
        if line.what == PATH and line.name != "-" and not os.access(existing(line.place, PathQueries()), os.W_OK)
    ]
    levels = {line.place for line in lines if line.what == PACKAGE and line.place != store.ANYWHERE}
    levels |= {os.path.dirname(place) for place in levels}
    made = units.made_next_to(folder + "/tree", sorted(levels))
    if made:
        found.append(f"made beside packages, in {folder}/tree: {', '.join(made)}")
    unreadable = ledger.unreadable(folder)
    if unreadable:
        found.append(unreadable)
    if broken:
        verb = "is not understood and was" if broken == 1 else "are not understood and were"
        found.append(f"{count(broken, 'line')} of {folder}/learned {verb} passed over")
    return found


def misnamed() -> list[str]:
    """Return what is wrong with the names of packages that the user wants copies of, or to be writable in place."""
    found = [
        f"{PATHS} names {os.path.relpath(one.path, PURELIB)[:80]!r}, which is no whole path, no package that is "
        "installed, nor the word prefix"
        for one in decide.named(os.environ, sys.prefix, PURELIB)
        if one.path.startswith(f"{PURELIB}/") and not os.path.exists(one.path) and one.path not in _given_paths()
    ]
    for name in policy.names(os.environ):
        if name in importhook.NEVER:
            found.append(f"SIF_WRITABLE_PACKAGES names {name[:80]!r}, which sif_writable itself needs as it is")
        elif _unit(Line(PACKAGE, name, store.ANYWHERE, "", "")) is None:
            known = " in the standard library" if name in getattr(sys, "stdlib_module_names", ()) else ""
            words = f"is{known}, which is not copied" if known else "is not installed (the name as in `import NAME`)"
            found.append(f"SIF_WRITABLE_PACKAGES names {name[:80]!r}, which {words}")
    return found
