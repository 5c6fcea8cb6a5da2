"""Whose writable copy would have cured an error: which packages, by what evidence."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from sif_writable import importhook
from sif_writable.facts import packages, sources
from sif_writable.plan import packages as plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sif_writable.facts.packages import Unit


ANSWERED = "__sif_writable_answered__"
"""The attribute of the first error of an import that was tried again: it has been learned from."""


class Verdict(NamedTuple):
    """Whose copies would cure an error."""

    units: list[Unit]
    why: str
    """``import`` or ``use``."""
    detail: str
    """What was seen: the path that could not be written, or the line that writes."""


def in_image(unit: Unit, finder: importhook.Finder) -> Unit:
    """Return the unit of the image that a unit is the copy of, or the unit itself."""
    if unit.directory.startswith(finder.tree + "/"):
        return unit._replace(directory=unit.directory[len(finder.tree) :])
    return unit


def judge_import(unit: Unit, error: Exception, finder: importhook.Finder) -> Verdict:
    """Find whose copies cure the failing import of ``unit``."""
    failed = plan.failures(error, working_directory())
    found, detail = owners(failed, finder)
    if unit not in found and not _is_copied(unit, finder) and not _is_foreign(unit, error):
        if beside := _beside(unit, failed, finder):
            return Verdict([*found, unit], "import", detail or beside)
        files = [path for path, _ in _frames(error) if unit.holds(path)]
        line = sources.Sources([*files, *_sources_of(unit)]).write()
        if line:
            found.append(unit)
            detail = detail or f"writes beside itself: {line}"
    return Verdict(found, "import", detail)


def _is_foreign(unit: Unit, error: Exception) -> bool:
    """Whether an error is one of the kinds that a writable copy never cures: something else cannot be loaded."""
    for this in plan.chain(error):
        if isinstance(this, ImportError):
            top = (this.name or unit.name).partition(".")[0]
            return top != unit.name.partition(".")[0] or packages.is_extension(this.path)
    return isinstance(error, SyntaxError)


def owners(failed: Iterable[plan.Failure], finder: importhook.Finder) -> tuple[list[Unit], str]:
    """Return the packages of the image, without a copy so far, that hold the paths which could not be written.

    A path is read as it is written and as it is: ``pkg/../other/x`` needs both.
    """
    found: dict[Unit, None] = {}
    detail = ""
    where = packages.directories(finder.seen())
    for failure in failed:
        path = failure.path[len(finder.tree) :] if failure.path.startswith(finder.tree + "/") else failure.path
        for way in dict.fromkeys((path, os.path.normpath(path), os.path.realpath(path))):
            unit = packages.unit_at(way, where) if way else None
            if unit is None or _is_copied(unit, finder) or os.access(unit.directory, os.W_OK):
                continue
            if unit.name not in importhook.NEVER and not is_unreadable(failure.path):
                found[unit] = None
                detail = detail or failure.path
    return list(found), detail


def _beside(unit: Unit, failed: Iterable[plan.Failure], finder: importhook.Finder) -> str:
    """Return the path beside a unit without sources, and in no other, that could not be written; or an empty string.

    Where there are sources, they say whether it was this unit that wrote.
    """
    if unit.has_source:
        return ""
    where = packages.directories(finder.seen())
    for failure in failed:
        path = os.path.normpath(failure.path)
        if path.startswith(unit.directory + "/") and packages.unit_at(path, where) is None:
            return path
    return ""


def _is_copied(unit: Unit, finder: importhook.Finder) -> bool:
    """Whether this process has a package from its copy; the copy itself may have come from another process since."""
    module = sys.modules.get(unit.name)
    path = getattr(module, "__file__", None)
    return str(path).startswith(finder.tree + "/") if path else finder.has(unit.path)


def working_directory() -> str:
    """Return the working directory, which errors' relative paths lie in."""
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return "/"


def is_unreadable(path: str) -> bool:
    """Whether it was reading that was denied."""
    return os.path.exists(path) and not os.access(path, os.R_OK)


def _frames(error: BaseException) -> Iterator[tuple[str, str]]:
    """Yield (file, function) of an error's traceback and those of its causes, innermost first."""
    for this in plan.chain(error):
        yield from plan.frames(this)
        found = []
        traceback = this.__traceback__
        while traceback is not None:
            code = traceback.tb_frame.f_code
            file = traceback.tb_frame.f_globals.get("__file__")
            # Code without sources names the file that it was made from, wherever that was.
            found.append((code.co_filename if str(file or ".py").endswith(".py") else str(file), code.co_name))
            traceback = traceback.tb_next
        yield from reversed(found)


def _sources_of(unit: Unit) -> list[str]:
    """Return the source files of the unit's modules that are loaded."""
    files = [
        getattr(module, "__file__", None)
        for name, module in list(sys.modules.items())
        if name == unit.name or name.startswith(unit.name + ".")
    ]
    return [path for path in files if isinstance(path, str) and path.endswith(".py")]


def writer(error: Exception, failed: list[plan.Failure], finder: importhook.Finder) -> tuple[Unit | None, str]:
    """Return the innermost package of a traceback that writes beside itself, and where it does.

    :param failed: where there are any, all its functions count; otherwise only those on the traceback.
    """
    where = packages.directories(finder.seen())
    functions: dict[Unit, dict[str, set[str]]] = {}
    for path, function in _frames(error):
        unit = packages.unit_at(path, where)
        if unit is None or unit.name in importhook.NEVER or _is_copied(unit, finder):
            continue
        if not os.access(unit.directory, os.W_OK):
            functions.setdefault(unit, {}).setdefault(path, set()).add(function)
    for unit, within in functions.items():
        if _is_foreign(unit, error):
            continue
        if beside := _beside(unit, failed, finder):
            return unit, beside
        line = sources.Sources([*within, *_sources_of(unit)]).write(None if failed else within)
        if line:
            return unit, f"writes beside itself: {line}"
    return None, ""
