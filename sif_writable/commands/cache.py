"""``sif-writable cache``: what storage holds, and taking things out of it."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from sif_writable.plan import cleanup
from sif_writable.report import cache, text
from sif_writable.report.status import current
from sif_writable.sizes import FORMS, parse_size

if TYPE_CHECKING:
    import argparse

    from sif_writable.facts.storage_contents import Contents

_DIR = "a directory that has storage, such as what is bound to /sif-writable; may be given more than once (default: \
everywhere the hook looks)"


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="list what storage holds, with size and last use")
    prune = actions.add_parser(
        "prune",
        help="remove what was not used, what is dead, or the least recently used",
        description="Remove downloads, compiled caches and copies of packages by age or size. Settings, histories and "
        "homes stay.",
    )
    prune.add_argument("--older-than", metavar="TIME", help=f"what was not used for so long: {cleanup.DURATIONS}")
    prune.add_argument("--max-size", metavar="SIZE", help=f"the least recently used, until so much remains: {FORMS}")
    prune.add_argument(
        "--dead",
        action="store_true",
        help=f"what belongs to other images and was not used for {cleanup.DEAD_DAYS} days, and what processes that are "
        "gone left behind",
    )
    clear = actions.add_parser("clear", help="remove what bears a name of the listing, whatever its age")
    clear.add_argument("names", nargs="+", metavar="NAME", help="numba, data/pip, image-ID, image-ID/config/ipython")
    for action in (listing, prune, clear):
        action.add_argument("--json", action="store_true", help="print the result as JSON (schema 1)")
        action.add_argument("--dir", action="append", metavar="DIR", help=_DIR)
    for action in (prune, clear):
        choice = action.add_mutually_exclusive_group()
        choice.add_argument("--yes", action="store_true", help="remove it; without this it is only shown")
        choice.add_argument("--dry-run", action="store_true", help="only show what would be removed (the default)")


def run(arguments: argparse.Namespace) -> int:
    """List or remove; 0, 1 when something that should go could not be removed, 2 on bad usage."""
    found: list[str] = []
    for directory in arguments.dir or ():
        below = cache.below(directory)
        if not below:
            return _bad(
                f"{directory} holds no storage of sif-writable (no .sif-writable file marks it, or a folder in it). "
                "Remedy: name the directory that is bound to /sif-writable, or one that `cache list` shows."
            )
        found += below
    seen, refused = cache.contents(found or cache.roots(os.environ))
    outcome = current()
    this = outcome.facts.identity if outcome else ""
    if arguments.action == "list":
        if arguments.json:
            print(json.dumps(cache.model(seen, refused, this), indent=2))
        elif seen or refused:
            print(cache.listing(seen, refused, this, time.time(), text.Painter()), end="")
        else:
            print("no storage of sif-writable was found; --dir DIR names one in another place")
        return 0
    chosen = _prune(arguments, seen, this) if arguments.action == "prune" else _clear(arguments, seen)
    if isinstance(chosen, int):
        return chosen
    for path, why in refused:
        print(f"sif-writable cache: {path} is left alone: it {why}", file=sys.stderr)
    if not arguments.yes:
        _tell(arguments, _intended(chosen), cache.intended(chosen), chosen.notes)
        if chosen.removals and not arguments.json:
            print("nothing was removed, this was a dry run; add --yes to remove it")
        return 0
    from sif_writable.act.cleanup import remove

    done = remove(chosen.removals, outcome)
    result = {
        "schema": 1,
        "dry_run": False,
        "removed": [entry.item.path for entry in done if not entry.problem],
        "freed_bytes": sum(entry.item.size for entry in done if not entry.problem),
        "failed": [{"path": entry.item.path, "why": entry.problem} for entry in done if entry.problem],
        "notes": chosen.notes,
    }
    _tell(arguments, result, cache.outcome(done), chosen.notes)
    return int(any(entry.problem for entry in done))


def _prune(arguments: argparse.Namespace, seen: list[Contents], this: str) -> cleanup.Plan | int:
    age = size = None
    if arguments.older_than is not None:
        age = cleanup.parse_duration(arguments.older_than)
        if age is None:
            return _bad(f"--older-than {arguments.older_than!r} is not understood; allowed: {cleanup.DURATIONS}")
    if arguments.max_size is not None:
        size = parse_size(arguments.max_size)
        if size is None:
            return _bad(f"--max-size {arguments.max_size!r} is not understood; allowed: {FORMS}")
    if age is None and size is None and not arguments.dead:
        return _bad("prune needs to know what may go: --older-than TIME, --max-size SIZE or --dead")
    return cleanup.prune(seen, this=this, now=time.time(), older_than=age, max_size=size, dead=arguments.dead)


def _clear(arguments: argparse.Namespace, seen: list[Contents]) -> cleanup.Plan | int:
    chosen, unknown = cleanup.clear(seen, arguments.names)
    if unknown:
        known = sorted({item.name for contents in seen for item in contents.items if item.kind in cleanup.KNOWN})
        there = f"there is: {', '.join(known)}" if known else "storage is empty"
        return _bad(f"no {' and no '.join(unknown)} in storage; {there}")
    return chosen


def _intended(chosen: cleanup.Plan) -> dict[str, Any]:
    return {
        "schema": 1,
        "dry_run": True,
        "would_remove": [
            {"path": removal.item.path, "size_bytes": removal.item.size, "why": removal.why}
            for removal in chosen.removals
        ],
        "notes": chosen.notes,
    }


def _tell(arguments: argparse.Namespace, data: dict[str, Any], words: str, notes: list[str]) -> None:
    if arguments.json:
        print(json.dumps(data, indent=2))
        return
    print(words, end="")
    for note in notes:
        print(text.paragraph(note, 0))


def _bad(words: str) -> int:
    print(f"sif-writable cache: {words}", file=sys.stderr)
    return 2
