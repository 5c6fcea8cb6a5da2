"""``sif-writable cache forget``: undo what was learned of this image, so that all is as if it had just been pulled."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from sif_writable import importhook
from sif_writable.copies import forget as forgetting
from sif_writable.copies import policy
from sif_writable.layer.files import remove
from sif_writable.overlay import trial
from sif_writable.report import text
from sif_writable.stderr import say
from sif_writable.storage import layout
from sif_writable.storage.leases import NO_LOCKS, alone

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from sif_writable.layer.forget import Unit

HELP = "undo what was learned of packages and paths of this image: copies, generations, refusals, proofs of mounts"


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="a package, as in `import NAME`, or a path")
    parser.add_argument("--all", action="store_true", help="everything that was learned of this image")
    parser.add_argument("--yes", action="store_true", help="remove also what programs wrote")
    parser.add_argument("--json", action="store_true", help="print the result as JSON (schema 1)")


def run(arguments: argparse.Namespace) -> int:
    """Forget; 0, 1 when something is in use or cannot be moved, 2 on bad usage or a name of which nothing is known."""
    folder = importhook.folder()
    known = forgetting.known(folder) if folder else {}
    for path in sorted(trial.proven(os.path.dirname(folder))) if folder else ():
        known.setdefault(path, [])
    layers = Layers(folder)
    there = sorted({*known, *layers.names()})
    names = there if arguments.all else list(dict.fromkeys(_name(word, known, layers) for word in arguments.names))
    if arguments.all == bool(arguments.names):
        arguments.parser.error(_with("give either names or --all", there))
    if not folder:
        why = text.inactive() or "no storage was found"
        return _bad(f"what was learned of an image is not known here: {why}. Remedy: call it where the hook is active")
    unknown = [name for name in names if name not in there]
    if unknown:
        words = f"nothing was learned of {' or '.join(name or repr('') for name in unknown)} in this image"
        return _bad(_with(words, there))
    result: dict[str, Any] = {"schema": 1, "forgotten": names, "kept": [], "removed": [], "failed": []}
    result.update(copies=any(name in known for name in names), tried=False)
    copied = [path for name in names for path in known.get(name, ())]
    with alone(folder) if copied else contextlib.nullcontext() as problem:
        for path in copied:
            if problem and problem.code != NO_LOCKS:
                result["failed"].append({"path": path, "why": f"its copy {problem.text}"})
                continue
            try:
                taken = forgetting.set_aside(path, folder)
            except OSError as error:
                why = f"its copy cannot be moved ({error.strerror or error})"
                result["failed"].append({"path": path, "why": why})
                continue
            if taken.written and arguments.yes:
                remove(taken.kept)
            if taken.written:
                where = "removed" if arguments.yes else "kept"
                result[where].append({"path": taken.kept, "of": path, "written": list(taken.written)})
    forgotten = [name for name in names if name in known]
    forgetting.forget(forgotten, folder)
    trial.forget(forgotten, os.path.dirname(folder))
    layers.forget(names, result, remove=arguments.yes)
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        for line in _lines(result) if not arguments.quiet else _failures(result):
            print(text.paragraph(text.shown(line), 0))
    return int(bool(result["failed"]))


class Layers:
    """What the layers of this image have left that can be forgotten."""

    def __init__(self, folder: str) -> None:
        """:param folder: of the copies, which lies beside."""
        self.image = os.path.dirname(folder)
        self.units: list[Unit] = []
        self.folder = ""
        if self.image:
            from sif_writable.layer import forget, make, records

            self.folder = make.generations(f"{self.image}/{layout.LAYERS}", self.image)
            with contextlib.suppress(FileNotFoundError):  # superseded just now
                if number := make.newest_generation(self.folder):
                    self.units = forget.of_generation(records.read(self.folder, number))

    def names(self) -> list[str]:
        """Return what can be forgotten: whose files are in a generation, and the directory that a trial was about."""
        tried = [sys.prefix] if any(True for _ in self._trials()) else []
        return [unit.names[0] for unit in self.units] + tried

    def name(self, word: str) -> str:
        """Return the name of the unit that a word stands for, or the word itself."""
        from sif_writable.layer import forget

        return next((unit.names[0] for unit in forget.named(self.units, [word])), word)

    def forget(self, names: list[str], result: dict[str, Any], *, remove: bool) -> None:
        """Publish a generation without some units, and let a trial be made anew.

        :param result: what is reported.
        """
        wanted = [unit for unit in self.units if unit.names[0] in names]
        if wanted:
            from sif_writable.layer import forget

            try:
                number, kept = forget.forget(self.folder, [unit.names[0] for unit in wanted], keep=not remove)
            except OSError as error:
                why = (
                    f"no generation without {', '.join(unit.names[0] for unit in wanted)} can be made: {error.strerror}"
                )
                result["failed"].append({"path": self.folder, "why": why, "kind": "generation"})
                return
            result["generation"] = number
            tops = [top for unit in wanted for top in unit.tops]
            if kept or remove:
                where = "removed" if remove else "kept"
                result[where].append({"path": kept, "of": "", "written": tops})
        for path in list(self._trials()) if sys.prefix in names else ():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
                result["tried"] = True

    def _trials(self) -> Iterator[str]:
        from sif_writable.layer import enter

        for place in enter.places(self.image, os.path.basename(self.image), os.geteuid()) if self.image else ():
            if os.path.lexists(f"{place}/trial") and enter.is_private(place):
                yield f"{place}/trial"


def _name(word: str, known: dict[str, list[str]], layers: Layers) -> str:
    """Return what is known by a word: a path counts however it is written, and that of a package for the package."""
    path = os.path.normpath(word) if "/" in word else word
    if word in known or path in known:
        return word if word in known else path
    holder = next((name for name, paths in known.items() if path in paths), "")
    return holder or layers.name(path)


def _lines(result: dict[str, Any]) -> list[str]:
    names = result["forgotten"]
    lines = [f"forgotten: {', '.join(names)}" if names else "nothing was learned in this image"]
    if result["tried"]:
        lines.append("whether a layer is possible here is tried anew by the next start")
    if names and (result["copies"] or "generation" in result):
        until = ", until a write is refused again" if result["copies"] else ""
        lines.append(f"from the next start on the image's own is used{until}")
    for one in result["kept"]:
        written = forgetting.shown(tuple(one["written"]))
        whose = f"to the copy of {one['of']} " if one["of"] else ""
        lines.append(f"what programs wrote {whose}is kept in {one['path']} ({written})")
    for one in result["removed"]:
        whose = f"to the copy of {one['of']}" if one["of"] else f"({forgetting.shown(tuple(one['written']))})"
        lines.append(f"removed what programs wrote {whose}")
    if "generation" in result:
        lines.append(
            "programs that run in a layer now see it until the last process of their container ends, and what they "
            "write to it is not kept"
        )
    lines += [
        f"SIF_WRITABLE_PACKAGES still names {name}, so it gets a copy all the same"
        for name in set(names).intersection(policy.names(os.environ))
    ]
    return lines + _failures(result)


def _failures(result: dict[str, Any]) -> list[str]:
    lines = []
    for one in result["failed"]:
        more = "it is as before" if one.get("kind") == "generation" else "programs that start from now on do not use it"
        lines.append(f"{one['path']}: {one['why']}; {more}")
    return lines


def _with(words: str, known: list[str]) -> str:
    there = f"can be forgotten: {', '.join(known)}" if known else "nothing was learned so far"
    return text.shown(f"{words}; {there}")


def _bad(words: str) -> int:
    say([words])
    return 2
