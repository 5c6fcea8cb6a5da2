"""``sif-writable trace -- CMD``: run a command, and list what is written under the image, by whom, and the remedy."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from sif_writable import importhook
from sif_writable.commands import usage
from sif_writable.report import text
from sif_writable.sizes import count
from sif_writable.stderr import say
from sif_writable.system import surroundings
from sif_writable.trace.findings import tops as group_tops

if TYPE_CHECKING:
    import argparse

    from sif_writable.trace.findings import Finding
    from sif_writable.trace.watch import Traced

SHOWN = 5
"""Paths that are shown of each package, unless all are asked for."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--save",
        action="store_true",
        help="keep what was found: in the image's manifest while it is built, else for the next runs",
    )
    parser.add_argument("--json", action="store_true", help="print JSON (schema 1); CMD's stdout goes to stderr")
    parser.add_argument("--full", action="store_true", help="print every path")
    usage.add_command(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command and print the findings; return the command's exit code, 2 without a command.

    What could not be saved makes a success a 1.
    """
    argv = usage.command_of(arguments)
    from sif_writable.trace import judge, watch

    sys.stdout.flush()
    covered = layer()  # asked before: where it was not tried yet, that is done now
    traced = watch.run(argv, quiet=arguments.json, image=os.path.basename(os.path.dirname(importhook.folder())))
    found = judge.findings(traced, argv[0], covered)
    served = judge.named(one for one in found if judge.lies_in(one.path, covered))
    saved, problem = judge.save(found, covered) if arguments.save else ([], "")
    if arguments.json:
        print(json.dumps(model(traced, found, saved, served), indent=2))
    elif found or not arguments.quiet:
        print(render(traced, found, saved, served, full=arguments.full), end="")
    if problem:
        say([problem])
    return traced.code or int(bool(problem))


def layer() -> list[str]:
    """Return the directories in which programs can write here anyway, since they get a layer."""
    image = os.path.dirname(importhook.folder())
    if not image:
        return []
    from sif_writable.report import layer as report
    from sif_writable.report import layer_checks

    layer_checks.try_now(image)
    state = report.model(image)
    return [] if state["why"] else list(state["over"])


def model(traced: Traced, found: list[Finding], saved: list[str], served: list[str]) -> dict[str, Any]:
    """Return everything as plain data: schema 1."""
    return {
        "schema": 1,
        "exit_code": traced.code,
        "watched": "interpreters" if traced.problem else "everything",
        "problem": traced.problem,
        "unwatched": traced.unwatched,
        "writes": [finding._asdict() for finding in found],
        "saved": saved,
        "served_by_layer": served,
        "writable_here": is_writable(),
    }


def is_writable() -> bool:
    """Whether the environment can be written here, as on a host: then nothing of what is listed fails here."""
    return surroundings.see(os.environ).prefix_writable


def render(traced: Traced, found: list[Finding], saved: list[str], served: list[str], *, full: bool) -> str:
    """Return the findings as text, grouped by what serves them."""
    writable = is_writable()
    where = "in the environment" if writable else "under the image"
    lines = ["", f"sif-writable trace: {count(len(found), 'write')} {where}; the command ended with {traced.code}"]
    if writable and found:
        words = f"{sys.prefix} can be written here, so none of this fails here, and it was kept apart; in a read-only "
        lines.append(text.paragraph(f"{words}image it needs what is named below", 2))
    elif writable:
        lines.append(text.paragraph(f"{sys.prefix} can be written here, so nothing would fail here", 2))
    if traced.problem:
        words = f"only writes of Python code were seen, not those of native code and other programs: {traced.problem}"
        lines.append(text.paragraph(words, 2))
    lines += [text.paragraph(f"not watched: {place}", 2) for place in traced.unwatched]
    for title, group in _groups(found):
        lines += ["", title]
        for finding in group if full else group[:SHOWN]:
            lines.append(text.paragraph(f"{finding.what} {finding.path}, by {finding.by}", 2))
        if len(group) > SHOWN and not full:
            lines.append(f"  and {len(group) - SHOWN} more (all: sif-writable trace --full)")
        lines.append(text.paragraph(f"remedy: {group[0].remedy}", 2))
    if served:
        words = f"need not be declared, since programs have a layer here: {', '.join(served)}"
        lines += ["", text.paragraph(words, 0)]
    if saved:
        lines += ["", text.paragraph(f"saved: {', '.join(saved)}", 0)]
    return "\n".join(lines) + "\n"


def _groups(found: list[Finding]) -> list[tuple[str, list[Finding]]]:
    groups: dict[str, list[Finding]] = {}
    tops = group_tops(finding.path for finding in found if not finding.package)

    def title(one: Finding) -> str:
        if one.package:
            return f"package {one.package}"
        return next(top for top in tops if one.path == top or one.path.startswith(top + "/"))

    for finding in found:
        groups.setdefault(title(finding), []).append(finding)
    return list(groups.items())
