"""``sif-writable trace -- CMD``: run a command, and list what is written under the image, by whom, and the remedy."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

from sif_writable import facts, importhook
from sif_writable.errors import SifWritableError
from sif_writable.facts import manifest
from sif_writable.plan import trace as plan
from sif_writable.plan.packages import PACKAGE, Line
from sif_writable.report import text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sif_writable.act.trace import Traced
    from sif_writable.plan.trace import Finding

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
    parser.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- CMD", help="the command and its arguments")


def run(arguments: argparse.Namespace) -> int:
    """Run the command and print the findings; return the command's exit code, 2 without a command.

    What could not be saved makes a success a 1.
    """
    argv = arguments.argv[1:] if arguments.argv[:1] == ["--"] else arguments.argv
    if not argv:
        print("sif-writable trace: no command given; usage: sif-writable trace -- CMD [ARGUMENT...]", file=sys.stderr)
        return 2
    from sif_writable.act import trace

    sys.stdout.flush()
    covered = layer()  # asked before: where it was not tried yet, that is done now
    traced = trace.run(argv, quiet=arguments.json, image=os.path.basename(os.path.dirname(importhook.folder())))
    found = findings(traced, argv[0], covered)
    served = named(one for one in found if lies_in(one.path, covered))
    saved, problem = save(found, covered) if arguments.save else ([], "")
    if arguments.json:
        print(json.dumps(model(traced, found, saved, served), indent=2))
    else:
        print(render(traced, found, saved, served, full=arguments.full), end="")
    if problem:
        print(f"sif-writable trace: {problem}", file=sys.stderr)
    return traced.code or int(bool(problem))


def layer() -> list[str]:
    """Return the directories in which programs can write here without more ado, since they get a layer."""
    image = os.path.dirname(importhook.folder())
    if not image:
        return []
    from sif_writable.report import layer as report
    from sif_writable.report import layer_checks

    layer_checks.try_now(image)
    told = report.model(image)
    return [] if told["why"] else list(told["over"])


def lies_in(path: str, directories: Iterable[str]) -> bool:
    """Whether a path lies in one of some directories."""
    return any(path.startswith(f"{directory}/") for directory in directories)


def named(found: Iterable[Finding]) -> list[str]:
    """Return the packages of findings, and the paths of those that lie in none."""
    listed = list(found)
    packages = dict.fromkeys(one.package for one in listed if one.package)
    return [*packages, *plan.tops(one.path for one in listed if not one.package and one.path.count("/") > 1)]


def findings(traced: Traced, command: str, covered: Iterable[str] = ()) -> list[Finding]:
    """Judge what was seen and told.

    :param covered: directories in which a layer serves all writes.
    """
    from sif_writable.facts import mounts, packages

    told = traced.told
    where = packages.directories(record.what for record in told if record.event == "path" and record.what)
    table = mounts.mounts()
    image = {mount.point for mount in (mounts.mount_of("/", table), mounts.mount_of(sys.prefix, table)) if mount}
    variables = _variables()

    def in_image(path: str) -> bool:
        holder = path
        while not os.path.lexists(holder):
            holder = os.path.dirname(holder)
        mount = mounts.mount_of(holder, table)
        if path.startswith(("/proc/", "/dev/", "/sys/", "/tmp/")) or mount is None:  # noqa: S108
            return False
        if os.path.isdir(holder) and holder == path:
            return False  # mkdir(exist_ok=True), or opened for its descriptor
        return mount.point in image or not os.access(holder, os.W_OK)

    def owner(path: str) -> tuple[str, str]:
        unit = packages.unit_at(path, where)
        return (unit.name, unit.directory) if unit else ("", "")

    def remedy(path: str, package: str) -> str:
        if lies_in(path, covered):
            return f"none is needed: programs have a layer here, which serves it. Without one: {without(path, package)}"
        return without(path, package)

    def without(path: str, package: str) -> str:
        if package:
            return (
                f"a writable copy of {package} (made by itself when its import fails; SIF_WRITABLE_PACKAGES={package})"
            )
        variable = next((name for place, name in variables if path == place or path.startswith(place + "/")), "")
        if variable:
            return f"{variable}, set to a directory that can be written"
        bind = path if os.path.isdir(path) or path.count("/") == 1 else os.path.dirname(path)
        if path.count("/") == 1:
            return f"a bind (apptainer exec --bind DIRECTORY:{bind})"
        return f"SIF_WRITABLE_OVERLAY_PATHS={path}, or a bind (apptainer exec --bind DIRECTORY:{bind})"

    return plan.findings(
        *(traced.changes, told, traced.pid, command),
        is_python=_is_python,
        in_image=in_image,
        owner=owner,
        remedy=remedy,
    )


def _is_python(program: str) -> bool:
    path = shutil.which(program) or program
    if os.path.basename(path).startswith("python"):
        return True
    try:
        with open(path, "rb") as file:
            first = file.read(256).partition(b"\n")[0]
    except OSError:  # os.system() is given a line for the shell
        return False
    return first.startswith(b"#!") and b"python" in first


def _variables() -> list[tuple[str, str]]:
    """List the default locations in the image that a variable moves."""
    from sif_writable.plan import catalog, templates

    bases = templates.default_bases(facts.see(os.environ), os.environ)
    return [
        (place, row[0])
        for row in (*catalog.ROWS, *catalog.OPT_IN)
        for template in row[3]
        if "/" in template and (place := templates.resolve(template, bases, os.environ))
    ]


def save(found: Iterable[Finding], covered: Iterable[str] = ()) -> tuple[list[str], str]:
    """Keep the findings where the next run looks; return what was kept, and what went wrong.

    :param covered: what lies in these directories is served by a layer, so that nothing needs to be kept of it.
    """
    needed = [finding for finding in found if not lies_in(finding.path, covered)]
    packages = {finding.package: finding for finding in needed if finding.package}
    names = named(needed)
    paths = names[len(packages) :]
    purelib = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if os.access(purelib, os.W_OK):
        declared = manifest.read(purelib)
        changes = {
            "package": _added(declared.get("package", []), packages),
            "overlay": _added(declared.get("overlay", []), paths),
        }
        from sif_writable.act import manifest as writer

        try:
            writer.update(purelib, changes)
        except SifWritableError as error:
            return [], str(error)
        return names, ""
    from sif_writable.act import copyup

    finder = importhook.finder()
    if not names:
        return [], ""
    if finder is None or not finder.folder:
        return [], "nothing was saved: there is no storage in use to save it in"
    finder.wanted()  # makes the list with what is known beforehand
    copyup.learn(Line(PACKAGE, name, one.directory, "trace", one.path) for name, one in packages.items())
    if not paths:
        return names, ""
    listed = ":".join(paths)
    problem = f"{', '.join(paths)} cannot be kept here: paths of no package are served where they are declared. "
    return list(packages), f"{problem}Remedy: set SIF_WRITABLE_OVERLAY_PATHS={listed}, or bind directories there"


def _added(values: list[str], names: Iterable[str]) -> list[str]:
    known = {value.partition(" ")[0] for value in values}
    return values + [f"{name} seen by sif-writable trace" for name in names if name not in known]


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
    }


def render(traced: Traced, found: list[Finding], saved: list[str], served: list[str], *, full: bool) -> str:
    """Return the findings as text, grouped by what serves them."""
    lines = ["", f"sif-writable trace: {len(found)} writes under the image; the command ended with {traced.code}"]
    if traced.problem:
        words = f"only Python programs were heard, no native code and no other programs: {traced.problem}"
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
    tops = plan.tops(finding.path for finding in found if not finding.package)

    def title(one: Finding) -> str:
        if one.package:
            return f"package {one.package}"
        return next(top for top in tops if one.path == top or one.path.startswith(top + "/"))

    for finding in found:
        groups.setdefault(title(finding), []).append(finding)
    return list(groups.items())
