"""Give packages of the image their writable copies, where these are possible, and take back those that cure nothing.

How they are copied is in :mod:`sif_writable.copies.copying`; when a copy may be used, in
:mod:`sif_writable.copies.validity`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sif_writable import aside, lease
from sif_writable.copies import carry_over, copying, ledger, policy, store, validity
from sif_writable.copies.known_writers import WRITERS
from sif_writable.copies.ledger import PACKAGE, REFUSED, Line
from sif_writable.copies.units import installed_with, is_extension, measure, record_of, unit_of_spec
from sif_writable.layer import others
from sif_writable.signals import suppress
from sif_writable.storage import marker, publish, shortage
from sif_writable.storage.layout import LOCKS
from sif_writable.system import image_mounts

if TYPE_CHECKING:
    from collections.abc import Iterable
    from importlib.machinery import ModuleSpec

    from sif_writable.copies.store import Copies
    from sif_writable.copies.units import Unit

BYTES_PER_SECOND = 10 << 20
"""How fast another process is thought to copy, at least, when it is waited for."""


def provide(spec: ModuleSpec, copies: Copies) -> bool:
    """Make the copy of a package that is wanted; return whether it is there now. A refusal is kept for ``status``."""
    unit = unit_of_spec(spec)
    if type(spec.loader).__name__ == "zipimporter":
        where = spec.origin or unit.path
        remedy = "install it unpacked (pip does)"
        words = f"{unit.name} gets no writable copy: it lies in a zip file ({where}). Remedy: {remedy}."
        ledger.refuse(unit, words, copies)
        return False
    if unit.name in policy.names(os.environ):
        return not make([unit], "user", store.PACKAGES, copies)
    return not make([unit], "catalogue", next((why for name, why, _ in WRITERS if name == unit.name), ""), copies)


def make(units: Iterable[Unit], why: str, detail: str, copies: Copies) -> str:
    """Copy units and what belongs with them, and have them imported from the copies from now on.

    :param why: the evidence, a word; :param detail: the path that was refused, or the like.
    :returns: an empty string, or the sentence why there is no copy.
    """
    with aside.Usable():
        return _make(list(units), why, detail, copies)


def _make(asked: list[Unit], why: str, detail: str, copies: Copies) -> str:
    lease.hold(copies.folder)
    if known_before := _why_taken_back(asked, copies):
        return known_before
    problem = _not_of_image(asked)
    listed: list[Unit] = []
    if not problem:
        together = dict.fromkeys(mate for unit in asked for mate in installed_with(unit))
        listed = [unit for unit in together if unit in asked or not _not_of_image([unit])]
        problem = _provide(asked[0].name, listed, copies)
    if problem:
        ledger.refuse(asked[0], problem, copies)
        return problem
    known = copies.wanted()
    anew = others.is_others(detail)  # in a layer, the refused path decides
    new = [unit for unit in listed if unit.directory not in known.get(unit.name, ()) or (anew and unit in asked)]
    lines = [
        Line(PACKAGE, unit.name, unit.directory, why, detail if unit in asked else f"installed with {asked[0].name}")
        for unit in new
    ]
    ledger.learn(lines, copies)
    for unit in listed:
        known[unit.name] = (*known.get(unit.name, ()), unit.directory)
    return ""


def _provide(name: str, units: list[Unit], copies: Copies) -> str:
    """Copy those of some units that have no good copy; return an empty string or why that is not possible."""
    missing = []
    for unit in units:
        state = validity.state(copies.folder, unit.path)
        if state == validity.UNTRUSTED:
            return untrusted_words(unit.name, copies.tree + unit.path)
        if state == validity.CHANGED:
            from sif_writable.copies import forget

            if problem := forget.replace(unit, copies.folder):
                return problem
        if state != validity.GOOD:
            missing.append(unit)
    if not missing:
        return ""
    execute = marker.read_marker(os.path.dirname(os.path.dirname(copies.folder))).executable
    return (
        ("" if execute else _object_code(missing, copies.folder))
        or _room(name, missing, copies.folder)
        or _copy(missing, copies)
    )


def _not_of_image(units: Iterable[Unit]) -> str:
    """Say why units get no copy that are not the image's own, or return an empty string."""
    for unit in units:
        if not image_mounts.environment_directory(unit.path):
            point = image_mounts.host_mount(unit.path)
            if not point and (words := words_of_a_bind_within(unit)):
                return words
            why = f"{point} is bound in from the host" if point else f"{unit.path} is no directory of packages"
            return (
                f"{unit.name} gets no writable copy: {why}, and only what is the image's own is copied. "
                f"Remedy: bind it such that it can be written (without :ro)."
            )
    return ""


def words_of_a_bind_within(unit: Unit) -> str:
    """Say that a package of the image gets no copy for what is bound into it, or return an empty string."""
    table, path = image_mounts.mounts(), os.path.realpath(unit.path)
    within = table.host_mounts_below(path) if table.is_image(path) else []
    if not within:
        return ""
    return (
        f"{unit.name} gets no writable copy: {within[0]} in it is bound in from the host, which a copy would not "
        f"follow. Remedy: leave out that bind, or bind a copy of the whole package, which can be written, to {path}."
    )


def untrusted_words(name: str, path: str) -> str:
    """Say why a copy is not imported that others could have changed."""
    return (
        f"{name} is imported from the image: its copy {path} does not belong to this user alone, so that others could "
        "have changed its code. Remedy: remove that folder."
    )


def was_taken_back(units: Iterable[Unit], copies: Copies) -> bool:
    """Whether the copy of one of these units was there and has cured nothing."""
    return bool(_why_taken_back(units, copies))


def _why_taken_back(units: Iterable[Unit], copies: Copies) -> str:
    names = {unit.name for unit in units}
    lines = [
        line for line in ledger.listed(copies.folder)[0] if line.what == REFUSED and line.detail == ledger.TAKEN_BACK
    ]
    return next((line.why for line in lines if line.name in names), "")


def take_back(units: Iterable[Unit], why: str, copies: Copies) -> None:
    """Have units imported from the image again from now on, since their copies have cured nothing.

    They get no further copy until they are forgotten (``sif-writable cache forget NAME``).

    :param why: what shows that.
    """
    taken = list(dict.fromkeys(mate for unit in units for mate in installed_with(unit)))
    ledger.withdraw({unit.name for unit in taken}, copies)
    sentence = f"its copy did not help: {why}"
    lines = [Line(REFUSED, unit.name, unit.directory, sentence, ledger.TAKEN_BACK) for unit in taken]
    ledger.learn(lines, copies)


def _object_code(units: list[Unit], folder: str) -> str:
    for unit in units:
        if not unit.is_package and is_extension(unit.entry):
            return (
                f"{unit.name} gets no writable copy: it is object code, which cannot be loaded from {folder} (noexec). "
                "Remedy: name a place that is not noexec with SIF_WRITABLE_DIR."
            )
    return ""


def _room(name: str, units: list[Unit], folder: str) -> str:
    size = measure(units)
    allowed, _ = policy.limit(os.environ)
    try:
        with suppress(FileExistsError):  # it is missing if it could not be begun: this raises the reason
            os.mkdir(folder, 0o700)
        space = os.statvfs(folder)
    except OSError as error:
        problem = shortage.complaint(error, folder, os.path.dirname(folder))
        remedy = problem.remedy or "name another place with SIF_WRITABLE_DIR."
        return f"{name} gets no writable copy: {problem.text.rstrip('.')}. Remedy: {remedy}"
    free, inodes = space.f_bavail * space.f_frsize, space.f_favail if space.f_files else None
    return policy.refusal(name, size.copied, size.entries, free, inodes, allowed, folder)


def _copy(units: list[Unit], copies: Copies) -> str:
    """Copy each unit and publish it; return an empty string or what went wrong."""
    seconds = publish.LOCK_SECONDS + measure(units).copied / BYTES_PER_SECOND
    for unit in units:
        target = copies.tree + unit.path
        given: list[str] = []
        try:
            record = record_of(unit)
            stamp = validity.fingerprint(unit.path, record), record
            copying.mirror(unit.directory, copies.tree)
            if unit.is_package:

                def fill(new: str, unit: Unit = unit, stamp: tuple[str, str] = stamp, given: list[str] = given) -> None:
                    made = copying.copy_tree(unit.path, new)
                    _write_stamp(unit, copies.folder, *stamp)
                    given[:] = carry_over.settle(copies.folder, unit.path, new, made)

                publish.publish(
                    target, fill, lock_below=copies.folder, aside_in=copies.folder, seconds=seconds, over_link=True
                )
            else:
                with publish.bounded_lock(f"{copies.folder}/{LOCKS}", unit.entry, seconds):
                    # Programs may have written to a copy that another process has made meanwhile.
                    if os.path.islink(target) or not os.path.exists(target):
                        _write_stamp(unit, copies.folder, *stamp)

                        def settle(new: str, unit: Unit = unit, given: list[str] = given) -> None:
                            given[:] = carry_over.settle(copies.folder, unit.path, new, 1)

                        copying.copy_module(unit, target, copies.folder, settle)
            carry_over.forget(given, copies.folder)
        except OSError as error:
            problem = shortage.complaint(error, error.filename or target, copies.folder)
            return f"{unit.name} gets no writable copy: {str(problem).rstrip('.')}."
    carry_over.give_back_beside(copies.folder, copies.tree)
    return ""


def _write_stamp(unit: Unit, folder: str, fingerprint: str, record: str) -> None:
    """Write what a copy is made of, before it appears: a copy without that is not used."""
    path = validity.stamp_file(folder, unit.path)
    with suppress(FileExistsError):
        os.mkdir(os.path.dirname(path), 0o700)
    publish.write_aside(path, os.fsencode(f"{fingerprint}\n{record}\n{unit.path}\n"))
