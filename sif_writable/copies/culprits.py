"""Whose writable copy would cure an error: which packages hold the paths that it could not write."""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from sif_writable import evidence
from sif_writable.copies import failures, store
from sif_writable.copies.units import directories, unit_at
from sif_writable.importhook import NEVER
from sif_writable.layer import others
from sif_writable.signals import let_pass
from sif_writable.system import image_mounts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sif_writable.copies.failures import Failure
    from sif_writable.copies.store import Copies
    from sif_writable.copies.units import Unit

ANSWERED = "__sif_writable_answered__"
"""The attribute of the first error of an import that was tried again: it has been learned from."""


class Verdict(NamedTuple):
    """Whose copies would cure an error."""

    units: list[Unit]
    detail: str
    """The path that could not be written."""
    failed: list[Failure]
    """Everything that was refused, wherever it lies."""


def in_image(unit: Unit, copies: Copies) -> Unit:
    """Return the unit of the image that a unit is the copy of, or the unit itself."""
    if unit.directory.startswith(copies.tree + "/"):
        return unit._replace(directory=unit.directory[len(copies.tree) :])
    return unit


def judge(error: BaseException, copies: Copies, handled: BaseException | None = None) -> Verdict:
    """Find whose copies cure an error: of the packages that hold what was refused, else of the one that wrote it.

    :param handled: an error that was already being handled when the failing work began.
    """
    refusals = failures.failures(evidence.chain(error, handled), working_directory())
    failed = [failure for failure in refusals if is_refused(failure)]
    units, detail = packages_holding(failed, copies)
    if not units:
        unit, detail = writer(error, failed, copies)
        units = [] if unit is None else [unit]
    return Verdict(units, detail, failed)


def is_refused(failure: Failure) -> bool:
    """Whether this process cannot write a path, or make it where it does not exist; not where reading is denied too."""
    path = os.path.normpath(failure.path)
    if failure.number == errno.EOVERFLOW:
        return others.is_others(path)
    if os.path.exists(path):
        return not os.access(path, os.W_OK) and os.access(path, os.R_OK)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return os.access(path, os.X_OK) and not os.access(path, os.W_OK)


def packages_holding(failed: Iterable[Failure], copies: Copies) -> tuple[list[Unit], str]:
    """Return the packages of the image, without a copy so far, that hold the paths which could not be written.

    The literal, the normalised and the resolved path are tried: for ``pkg/../other/x`` either package may be the one.
    """
    found: dict[Unit, None] = {}
    detail = ""
    where = directories(copies.seen())
    for failure in failed:
        path = of_image(failure.path, copies)
        for way in dict.fromkeys((path, os.path.normpath(path), os.path.realpath(path))):
            unit = unit_at(way, where)
            if unit is not None and _is_curable(unit, copies, path) and not _is_closed(path):
                found[unit] = None
                detail = detail or failure.path
    return list(found), detail


def writer(error: BaseException, failed: Iterable[Failure], copies: Copies) -> tuple[Unit | None, str]:
    """Return the package whose code could not write a path of the environment that lies in no package, and that path.

    From its copy, ``..`` leads to a place that can be written. A package that was given the path by others is found,
    too; its copy then does not help, and is taken back.
    """
    paths = [failure.path for failure in failed if not _is_closed(failure.path)]
    beside = [path for path in paths if is_in_no_package(path, copies)]
    for unit in _units(error, copies) if beside else ():
        return (unit, beside[0]) if _is_curable(unit, copies, beside[0]) else (None, "")
    return None, ""


def packages_of(error: BaseException, copies: Copies) -> list[str]:
    """Return the packages of the image that an error passed through, without a copy so far, innermost first."""
    return [unit.name for unit in _units(error, copies) if _is_curable(unit, copies)]


def _units(error: BaseException, copies: Copies) -> Iterator[Unit]:
    """Yield the packages that an error passed through, innermost first."""
    where = directories(copies.seen())
    for file in _files(error):
        unit = unit_at(of_image(file, copies), where)
        if unit is not None:
            yield unit


def is_in_no_package(path: str, copies: Copies) -> bool:
    """Whether a path lies in a directory of the environment, and there in no package."""
    if path.startswith(copies.tree + "/") or not image_mounts.environment_directory(path):
        return False
    return unit_at(os.path.normpath(path), directories(copies.seen())) is None


def of_image(path: str, copies: Copies) -> str:
    """Return what a path of the copies stands for in the image; other paths as they are."""
    return path[len(copies.tree) :] if path.startswith(copies.tree + "/") else path


def _is_curable(unit: Unit, copies: Copies, path: str = "") -> bool:
    """Whether a unit is the image's, cannot be written, and has not been imported from a copy of its own.

    :param path: what it could not write; in a layer it may belong to another user although the unit does not.
    """
    if unit.name in NEVER or _is_copied(unit, copies):
        return False
    if os.access(unit.path, os.W_OK) and not (path and others.is_others(path)):
        return False
    return bool(image_mounts.environment_directory(unit.path))


def _is_closed(path: str) -> bool:
    """Whether it is its own mode that closes a path of a layer: then it is closed without us, too."""
    return others.covers(path) and not others.is_others(path)


def _is_copied(unit: Unit, copies: Copies) -> bool:
    """Whether this process has a package from its copy; the copy itself may have come from another process since."""
    path = getattr(sys.modules.get(unit.name), "__file__", None)
    if path:
        return str(path).startswith(copies.tree + "/")
    served = {unit.directory, store.ANYWHERE} & {*copies.wanted().get(unit.name, ())}
    return bool(served) and copies.has(unit.path)


def working_directory() -> str:
    """Return the working directory, which errors' relative paths lie in."""
    try:
        return os.getcwd()
    except OSError as error:  # it was removed
        let_pass(error)
        return "/"


def _files(error: BaseException) -> Iterator[str]:
    """Yield the files of the tracebacks of an error and of what it came from, what it came from first, innermost first.

    Code without sources names the file that it was made from, wherever that was.
    """
    for this in [*evidence.chain(error)][::-1]:
        yield from failures.frames(this)
        found = []
        traceback = this.__traceback__
        while traceback is not None:
            code = traceback.tb_frame.f_code
            file = traceback.tb_frame.f_globals.get("__file__")
            found.append(code.co_filename if str(file or ".py").endswith(".py") else str(file))
            traceback = traceback.tb_next
        yield from reversed(found)
