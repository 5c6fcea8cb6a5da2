"""``sif-writable cache``: what storage holds, and taking things out of it."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

from sif_writable.cleanup import policy, roots
from sif_writable.cleanup.contents import RECENT_DAYS, on_this_node
from sif_writable.commands import forget, usage
from sif_writable.report import cache, text
from sif_writable.report.status import current
from sif_writable.sizes import FORMS, parse_size
from sif_writable.stderr import say

if TYPE_CHECKING:
    import argparse

    from sif_writable.cleanup.contents import Contents
    from sif_writable.redirects.decision import Outcome

_DIR = "a directory that has storage, such as what is bound to /sif-writable; may be given more than once"


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    forgetting = actions.add_parser("forget", help=forget.HELP, description=f"{forget.HELP}.")
    usage.complete(forgetting, "cache forget")
    forget.add(forgetting)
    listing = actions.add_parser(
        "list",
        help="list what storage holds, with size and last use",
        description="List what storage holds of this image and what images share, with size and last use; with "
        "--all-images what other images have, too. What is empty is left out. JSON always has all of it.",
    )
    prune = actions.add_parser(
        "prune",
        help="remove what was not used, what is dead, or the least recently used",
        description="Remove compiled caches, copies of packages and of generations of this image by age or size; with "
        "--all-images those of other images and downloads, too. Settings, histories, homes, generations and what "
        "programs wrote in copies stay, and so does what a running program uses.",
    )
    prune.add_argument("--older-than", metavar="TIME", help=f"what was not used for so long: {policy.DURATIONS}")
    prune.add_argument("--max-size", metavar="SIZE", help=f"the least recently used, until so much remains: {FORMS}")
    prune.add_argument(
        "--dead",
        action="store_true",
        help=f"with --all-images: what belongs to other images and was not used for {RECENT_DAYS} days, and what "
        "processes that are gone left behind",
    )
    clear = actions.add_parser(
        "clear",
        help="remove what bears a name of the listing, whatever its age",
        description="Remove things of this image by name, also what programs wrote in them; with --all-images those of "
        "other images and what images share. Copies that a running program imports from stay.",
    )
    clear.add_argument("names", nargs="+", metavar="NAME", help="numba, data/pip, image-ID, image-ID/config/ipython")
    for action in (listing, prune, clear):
        where = action.add_mutually_exclusive_group()
        where.add_argument("--dir", action="append", metavar="DIR", help=_DIR)
        everywhere = "all places where the hook looks for storage" + (" (the default)" if action is listing else "")
        where.add_argument("--everywhere", action="store_true", help=everywhere)
        action.add_argument("--json", action="store_true", help="print the result as JSON (schema 1)")
        reach = "list what other images have" if action is listing else "reach what other images have and images share"
        action.add_argument("--all-images", action="store_true", help=f"{reach}, too")
    for name, action in (("list", listing), ("prune", prune), ("clear", clear)):
        usage.complete(action, f"cache {name}")
    for action in (prune, clear):
        action.add_argument(
            "--in-use",
            action="store_true",
            help="where files cannot be locked: also copies that a program may be importing from",
        )
        choice = action.add_mutually_exclusive_group()
        choice.add_argument("--yes", action="store_true", help="remove it; without this it is only shown")
        choice.add_argument("--dry-run", action="store_true", help="only show what would be removed (the default)")


def run(arguments: argparse.Namespace) -> int:
    """List or remove; 0, 1 when something that should go stays, 2 on bad usage."""
    if arguments.action == "forget":
        return forget.run(arguments)
    age, size = _criteria(arguments) if arguments.action == "prune" else (None, None)
    outcome = current()
    places = _roots(arguments, outcome)
    if isinstance(places, int):
        return places
    seen, refused = roots.contents(places)
    if not arguments.dir:
        seen += [entry for entry in on_this_node() if entry.items]
    this = outcome.facts.identity if outcome else ""
    if arguments.action == "list":
        if arguments.json:
            print(json.dumps(cache.model(seen, refused, this), indent=2))
        elif arguments.quiet:
            print("".join(line + "\n" for line in cache.names(seen, policy.Reach(this, arguments.all_images))), end="")
        elif seen or refused:
            shown = cache.Shown(this, arguments.all_images or not this, bool(arguments.dir))
            print(cache.listing(seen, refused, shown, time.time(), text.Painter()), end="")
        else:
            print("no storage of sif-writable was found; --dir DIR names one in another place")
        return 0
    if not this and not arguments.all_images:
        return _bad("no image runs here whose things could be meant. Remedy: add --all-images, or run it in the image")
    reach = policy.Reach(this, arguments.all_images, arguments.in_use)
    chosen = (
        policy.prune(seen, reach=reach, now=time.time(), older_than=age, max_size=size, dead=arguments.dead)
        if arguments.action == "prune"
        else _clear(arguments, seen, reach)
    )
    if isinstance(chosen, int):
        return chosen
    for path, why in refused:
        say([f"{path} is left alone: it {why}"])
    if not arguments.yes:
        _report(arguments, _intended(chosen), cache.intended(chosen, seen), chosen.notes)
        if chosen.removals and not (arguments.json or arguments.quiet):
            print("nothing was removed, this was a dry run; add --yes to remove it")
        return 0
    if reach.all_images and chosen.removals and not arguments.quiet:
        say([f"removing {cache.reach(chosen.removals)}"])
    from sif_writable.cleanup.request import remove

    done = remove(chosen.removals, outcome, unlocked=reach.in_use)
    result = {
        "schema": 1,
        "dry_run": False,
        "removed": [entry.item.path for entry in done if not entry.problem],
        "freed_bytes": sum(entry.freed for entry in done),
        "failed": [{"path": entry.item.path, "why": entry.problem} for entry in done if entry.problem],
        "notes": chosen.notes,
    }
    _report(arguments, result, cache.outcome(done), chosen.notes)
    return int(chosen.kept or any(entry.problem for entry in done))


def _roots(arguments: argparse.Namespace, outcome: Outcome | None) -> list[str] | int:
    """Return the storage roots that are meant, or the exit code."""
    found: list[str] = []
    for directory in arguments.dir or ():
        below = roots.below(directory)
        if not below:
            return _bad(
                f"{directory or repr('')} holds no storage of sif-writable (no .sif-writable file marks it, or a "
                "folder in it). "
                "Remedy: name the directory that is bound to /sif-writable, or one that `cache list` shows."
            )
        found += below
    if found:
        return found
    if arguments.action == "list" or arguments.everywhere:
        return roots.known(os.environ)
    if outcome is None:
        why = text.inactive() or "outside an image"
        return _bad(f"no storage was chosen here: {why}. Remedy: name it with --dir DIR, or add --everywhere")
    return roots.chosen(outcome)


def _criteria(arguments: argparse.Namespace) -> tuple[float | None, int | None]:
    """Return the age and the size that were given.

    :raises SystemExit: one is not understood, or nothing says what may go: code 2, with the usage on stderr.
    """
    wrong = arguments.parser.error
    age = size = None
    if arguments.older_than is not None:
        age = policy.parse_duration(arguments.older_than)
        if age is None:
            wrong(f"--older-than {arguments.older_than!r} is not understood; allowed: {policy.DURATIONS}")
    if arguments.max_size is not None:
        size = parse_size(arguments.max_size)
        if size is None:
            wrong(f"--max-size {arguments.max_size!r} is not understood; allowed: {FORMS}")
    if age is None and size is None and not arguments.dead:
        wrong("what may go is not said: --older-than TIME, --max-size SIZE or --dead")
    if arguments.dead and not arguments.all_images:
        wrong("--dead is about other images and what is shared. Remedy: add --all-images")
    return age, size


def _clear(arguments: argparse.Namespace, seen: list[Contents], reach: policy.Reach) -> policy.Plan | int:
    chosen, wrong = policy.clear(seen, arguments.names, reach=reach, now=time.time())
    if wrong:
        within = [item for contents in seen for item in contents.items if reach.holds(item)]
        known = sorted({item.name for item in within if item.kind in policy.KNOWN and not policy.is_empty(item)})
        there = f"within reach is: {', '.join(known)}" if known else "nothing is within reach"
        return _bad(f"{'; '.join(wrong)}; {there}")
    return chosen


def _intended(chosen: policy.Plan) -> dict[str, Any]:
    return {
        "schema": 1,
        "dry_run": True,
        "would_remove": [
            {
                "path": removal.item.path,
                "image": removal.item.image or None,
                "size_bytes": removal.item.size,
                "why": removal.why,
            }
            for removal in chosen.removals
        ],
        "notes": chosen.notes,
    }


def _report(arguments: argparse.Namespace, data: dict[str, Any], words: str, notes: list[str]) -> None:
    if arguments.json:
        print(json.dumps(data, indent=2))
        return
    if not arguments.quiet:
        print(words, end="")
    for note in notes:
        print(text.paragraph(note, 0))


def _bad(words: str) -> int:
    say([words])
    return 2
