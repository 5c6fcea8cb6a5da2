"""``sif-writable cache forget``: undo what was learned of this image, so that all is as if it had just been pulled."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from sif_writable import importhook
from sif_writable.act import forgetting, upper
from sif_writable.facts.leases import NO_LOCKS, alone
from sif_writable.plan import packages as plan
from sif_writable.report import text

if TYPE_CHECKING:
    import argparse

HELP = "undo what was learned of packages and paths of this image: copies, refusals, proofs of mounts"


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="a package, as in `import NAME`, or a path")
    parser.add_argument("--all", action="store_true", help="everything that was learned of this image")
    parser.add_argument("--yes", action="store_true", help="remove also what programs wrote to the copies")
    parser.add_argument("--json", action="store_true", help="print the result as JSON (schema 1)")


def run(arguments: argparse.Namespace) -> int:
    """Forget; 0, 1 when a copy is in use or cannot be moved, 2 on bad usage or a name of which nothing is known."""
    folder = importhook.folder()
    known = forgetting.known(folder) if folder else {}
    names = list(known) if arguments.all else list(dict.fromkeys(_name(word, known) for word in arguments.names))
    if arguments.all == bool(arguments.names):
        return _bad("give either names or --all", known)
    unknown = [name for name in names if name not in known]
    if unknown:
        return _bad(f"nothing was learned of {' or '.join(name or repr('') for name in unknown)} in this image", known)
    result: dict[str, Any] = {"schema": 1, "forgotten": names, "kept": [], "removed": [], "failed": []}
    with alone(folder) if any(known[name] for name in names) else contextlib.nullcontext("") as problem:
        for path in [path for name in names for path in known[name]]:
            if problem and problem is not NO_LOCKS:
                result["failed"].append({"path": path, "why": f"its copy {problem}"})
                continue
            try:
                taken = forgetting.set_aside(path, folder)
            except OSError as error:
                why = f"its copy cannot be moved ({error.strerror or error})"
                result["failed"].append({"path": path, "why": why})
                continue
            if taken.written and arguments.yes:
                upper.remove(taken.kept)
            if taken.written:
                where = "removed" if arguments.yes else "kept"
                result[where].append({"path": taken.kept, "of": path, "written": list(taken.written)})
    forgetting.forget(names, folder)
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        for line in _lines(result):
            print(text.paragraph(line, 0))
    return int(bool(result["failed"]))


def _name(word: str, known: dict[str, list[str]]) -> str:
    """Return what is known by a word: a path counts however it is written, and that of a package for the package."""
    if word in known or "/" not in word:
        return word
    path = os.path.normpath(word)
    return path if path in known else next((name for name, paths in known.items() if path in paths), word)


def _lines(result: dict[str, Any]) -> list[str]:
    names = result["forgotten"]
    lines = [f"forgotten: {', '.join(names)}" if names else "nothing was learned in this image"]
    if names:
        lines.append("from the next start on the image's own is used, until a write is refused again")
    for one in result["kept"]:
        written = forgetting.shown(tuple(one["written"]))
        lines.append(f"what programs wrote to the copy of {one['of']} is kept in {one['path']} ({written})")
    lines += [f"removed what programs wrote to the copy of {one['of']}" for one in result["removed"]]
    for name in set(names).intersection(plan.names(os.environ)):
        lines.append(f"SIF_WRITABLE_PACKAGES still names {name}, so it gets a copy all the same")
    lines += [f"{one['path']}: {one['why']}; programs that start from now on do not use it" for one in result["failed"]]
    return lines


def _bad(words: str, known: dict[str, list[str]]) -> int:
    there = f"can be forgotten: {', '.join(known)}" if known else "nothing was learned so far"
    print(f"sif-writable cache forget: {words}; {there}", file=sys.stderr)
    return 2
