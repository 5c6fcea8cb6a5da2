"""Which packages the writes of a traced command belong to, what makes them possible, and how that is saved."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

from sif_writable.copies.ledger import PACKAGE, Line
from sif_writable.errors import SifWritableError
from sif_writable.identity import PURELIB
from sif_writable.system import listing, manifest, surroundings
from sif_writable.trace import places
from sif_writable.trace.findings import findings as judged
from sif_writable.trace.findings import tops

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sif_writable.trace.findings import Finding
    from sif_writable.trace.watch import Traced


def lies_in(path: str, directories: Iterable[str]) -> bool:
    """Whether a path lies in one of some directories."""
    return any(path.startswith(f"{directory}/") for directory in directories)


def named(found: Iterable[Finding]) -> list[str]:
    """Return the packages of findings, and the paths of those that lie in none."""
    listed = list(found)
    packages = dict.fromkeys(one.package for one in listed if one.package)
    return [*packages, *tops(one.path for one in listed if not one.package and one.path.count("/") > 1)]


def findings(traced: Traced, command: str, covered: Iterable[str] = ()) -> list[Finding]:
    """Return a finding for each write of a traced command.

    :param covered: directories in which a layer makes all writes possible.
    """
    from sif_writable.copies import units as packages
    from sif_writable.redirects import variable
    from sif_writable.system import mounts

    reported = traced.reported
    where = packages.directories(record.what for record in reported if record.event == "path" and record.what)
    table = mounts.mounts()
    image = {mount.point for mount in (mounts.mount_of("/", table), mounts.mount_of(sys.prefix, table)) if mount}
    known = variable.locations(surroundings.see(os.environ))
    environment = places.of_environment()

    def in_image(path: str) -> bool:
        if environment is not None and not lies_in(path, environment):
            return False
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
                f"a writable copy of {package}: it is made when its import fails, and for the next run when it writes "
                f"later; at once with SIF_WRITABLE_PACKAGES={package}"
            )
        if name := variable.moves(path, known):
            return f"{name}, set to a directory that can be written"
        above = os.path.dirname(path)
        if os.path.isdir(path):
            bind = f"a bind (apptainer exec --bind DIRECTORY:{path})"
        elif listing.names(above) or above == "/":  # a directory there would hide what the image has
            bind = f"a bind of a file or directory of yours (apptainer exec --bind YOURS:{path})"
        else:
            bind = f"a bind (apptainer exec --bind DIRECTORY:{above})"
        return bind if above == "/" else f"SIF_WRITABLE_OVERLAY_PATHS={path}, or {bind}"

    return judged(
        *(traced.changes, reported, traced.pid, command),
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


def save(found: Iterable[Finding], covered: Iterable[str] = ()) -> tuple[list[str], str]:
    """Save the findings for the next run; return what was saved, and what went wrong.

    :param covered: directories in which a layer makes writes possible, so that nothing in them needs to be saved.
    """
    needed = [finding for finding in found if not lies_in(finding.path, covered)]
    packages = {finding.package: finding for finding in needed if finding.package}
    names = named(needed)
    paths = names[len(packages) :]
    if os.access(PURELIB, os.W_OK):
        declared = manifest.read(PURELIB)
        changes = {
            "package": _added(declared.get("package", []), packages),
            "overlay": _added(declared.get("overlay", []), paths),
        }
        from sif_writable.image import manifest as writer

        try:
            writer.update(PURELIB, changes)
        except SifWritableError as error:
            return [], str(error)
        return names, ""
    from sif_writable import importhook
    from sif_writable.copies import ledger, store

    copies = store.Copies(importhook.folder())
    if not names:
        return [], ""
    if not copies.folder:
        return [], "nothing was saved: there is no storage in use to save it in"
    copies.wanted()  # creates the list, with the packages that are known to write
    lines = [Line(PACKAGE, name, one.directory, "trace", one.path) for name, one in packages.items()]
    ledger.learn(lines, copies)
    if not paths:
        return names, ""
    listed = ":".join(paths)
    problem = f"{', '.join(paths)} cannot be kept here: paths of no package are served where they are declared. "
    return list(packages), f"{problem}Remedy: set SIF_WRITABLE_OVERLAY_PATHS={listed}, or bind directories there"


def _added(values: list[str], names: Iterable[str]) -> list[str]:
    known = {value.partition(" ")[0] for value in values}
    return values + [f"{name} seen by sif-writable trace" for name in names if name not in known]
