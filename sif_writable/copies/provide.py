"""Give packages of the image their writable copies, and keep the list of those that have or shall have one.

How they are copied is in :mod:`sif_writable.copies.copying`; when a copy may be used, in
:mod:`sif_writable.copies.validity`.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from sif_writable import act, aside, importhook, lease
from sif_writable.copies import copying, kept, validity
from sif_writable.copies import policy as plan
from sif_writable.copies import units as packages
from sif_writable.copies.known_writers import WRITERS
from sif_writable.copies.policy import FORGOTTEN, PACKAGE, PATH, REFUSED, Line
from sif_writable.signals import let_pass, suppress
from sif_writable.storage import publish
from sif_writable.storage import shortage as space_
from sif_writable.storage.layout import LEARNED, LOCKS
from sif_writable.system import image_mounts, manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from importlib.machinery import ModuleSpec

    from sif_writable.copies.units import Unit

BYTES_PER_SECOND = 10 << 20
"""How fast another process is thought to copy, at least, when it is waited for."""


def begin(folder: str) -> str:
    """Make the folder of copies with its learned list, which starts with what is known beforehand; return the list."""
    lines = ["# sif_writable: packages that are imported from a writable copy; see `sif-writable status`"]
    lines += [str(Line(PACKAGE, name, importhook.ANYWHERE, "catalogue", why)) for name, why, _ in WRITERS]
    lines += [str(line) for line in _declared()]
    text = "".join(f"{line}\n" for line in lines)
    with suppress(OSError):
        # Level by level, and never the storage root: where storage has gone, a root that is open to others would stay.
        for path in (os.path.dirname(folder), folder, folder + "/tree"):
            with suppress(FileExistsError):
                os.mkdir(path, 0o700)
        descriptor, new = aside.create(folder, LEARNED)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        try:  # unlike a rename, a link does not replace the list of a process that was first and went on to learn
            os.link(new, f"{folder}/{LEARNED}")
        except FileExistsError:
            pass
        except OSError as error:  # a filesystem without hard links
            let_pass(error)
            if not os.path.lexists(f"{folder}/{LEARNED}"):
                os.rename(new, f"{folder}/{LEARNED}")
        with suppress(OSError):
            os.unlink(new)
    return text


def _declared() -> Iterator[Line]:
    """Yield what the image declares in its manifest, as lines of the list."""
    declared = manifest.read(__file__.rsplit("/", 3)[0])
    for value in declared.get("package", ()):
        name, _, why = value.partition(" ")
        yield Line(PACKAGE, name, importhook.ANYWHERE, "manifest", why)


def provide(spec: ModuleSpec) -> bool:
    """Make the copy of a package that is wanted; return whether it is there now. A refusal is kept for ``status``."""
    unit = packages.unit_of_spec(spec)
    if type(spec.loader).__name__ == "zipimporter":
        where = spec.origin or unit.path
        remedy = "install it unpacked (pip does)"
        refuse(unit, f"{unit.name} gets no writable copy: it lies in a zip file ({where}). Remedy: {remedy}.")
        return False
    if unit.name in plan.names(os.environ):
        return not make([unit], "user", "SIF_WRITABLE_PACKAGES")
    return not make([unit], "catalogue", next((why for name, why, _ in WRITERS if name == unit.name), ""))


def make(units: Iterable[Unit], why: str, detail: str) -> str:
    """Copy units and what belongs with them, and have them imported from the copies from now on.

    :param why: the evidence, a word; :param detail: what was seen.
    :returns: an empty string, or the sentence why there is no copy.
    """
    finder = importhook.finder()
    if finder is None:
        return "the import hook is not in place"
    lease.hold(finder.folder)
    asked = list(units)
    if known_before := _why_taken_back(asked, finder):
        return known_before
    problem = _not_of_image(asked)
    listed: list[Unit] = []
    if not problem:
        mates = dict.fromkeys(mate for unit in asked for mate in packages.mates(unit))
        listed = [unit for unit in mates if unit in asked or not _not_of_image([unit])]
        problem = _provide(asked[0].name, listed, finder)
    if problem:
        refuse(asked[0], problem)
        return problem
    known = finder.wanted()
    new = [unit for unit in listed if unit.directory not in known.get(unit.name, ())]
    learn(
        Line(PACKAGE, unit.name, unit.directory, why, detail if unit in asked else f"installed with {asked[0].name}")
        for unit in new
    )
    for unit in listed:
        known[unit.name] = (*known.get(unit.name, ()), unit.directory)
    return ""


def _provide(name: str, units: list[Unit], finder: importhook.Finder) -> str:
    """Copy those of some units that have no good copy; return an empty string or why that is not possible."""
    missing = []
    for unit in units:
        state = validity.state(finder.folder, unit.path)
        if state == validity.UNTRUSTED:
            return untrusted_words(unit.name, finder.tree + unit.path)
        if state == validity.CHANGED:
            from sif_writable.copies import forgetting

            if problem := forgetting.replace(unit, finder.folder):
                return problem
        if state != validity.GOOD:
            missing.append(unit)
    if not missing:
        return ""
    execute = act.read_marker(os.path.dirname(os.path.dirname(finder.folder))).startswith("exec")
    return (
        ("" if execute else _object_code(missing, finder.folder))
        or _room(name, missing, finder.folder)
        or _copy(missing, finder)
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


def was_taken_back(units: Iterable[Unit], finder: importhook.Finder) -> bool:
    """Whether the copy of one of these units was there and has cured nothing."""
    return bool(_why_taken_back(units, finder))


def _why_taken_back(units: Iterable[Unit], finder: importhook.Finder) -> str:
    names = {unit.name for unit in units}
    lines = [line for line in listed(finder.folder)[0] if line.what == REFUSED and line.detail == plan.TAKEN_BACK]
    return next((line.why for line in lines if line.name in names), "")


def take_back(units: Iterable[Unit], why: str) -> None:
    """Have units imported from the image again from now on, since their copies have cured nothing.

    They get no further copy until they are forgotten (``sif-writable cache forget NAME``).

    :param why: what shows that.
    """
    taken = list(dict.fromkeys(mate for unit in units for mate in packages.mates(unit)))
    withdraw({unit.name for unit in taken})
    sentence = f"its copy did not help: {why}"
    learn(Line(REFUSED, unit.name, unit.directory, sentence, plan.TAKEN_BACK) for unit in taken)


def withdraw(names: Iterable[str]) -> None:
    """Let all that the learned list says of some packages or paths count no more, also for this process."""
    finder = importhook.finder()
    wanted = sorted(names)
    learn((Line(FORGOTTEN, name, importhook.ANYWHERE, "", "") for name in wanted), again=True)
    if finder is not None:
        for name in wanted:
            finder.wanted().pop(name, None)


def _object_code(units: list[Unit], folder: str) -> str:
    for unit in units:
        if not unit.is_package and packages.is_extension(unit.entry):
            return (
                f"{unit.name} gets no writable copy: it is object code, which cannot be loaded from {folder} (noexec). "
                "Remedy: name a place that is not noexec with SIF_WRITABLE_DIR."
            )
    return ""


def _room(name: str, units: list[Unit], folder: str) -> str:
    size = packages.measure(units)
    allowed, _ = plan.limit(os.environ)
    try:
        with suppress(FileExistsError):  # it is not there where its beginning failed: this says why
            os.mkdir(folder, 0o700)
        space = os.statvfs(folder)
    except OSError as error:
        problem = space_.complaint(error, folder, os.path.dirname(folder))
        remedy = problem.remedy or "name another place with SIF_WRITABLE_DIR."
        return f"{name} gets no writable copy: {problem.text.rstrip('.')}. Remedy: {remedy}"
    free, inodes = space.f_bavail * space.f_frsize, space.f_favail if space.f_files else None
    return plan.refusal(name, size.copied, size.entries, free, inodes, allowed, folder)


def _copy(units: list[Unit], finder: importhook.Finder) -> str:
    """Copy each unit and publish it; return an empty string or what went wrong."""
    seconds = publish.LOCK_SECONDS + packages.measure(units).copied / BYTES_PER_SECOND
    for unit in units:
        target = finder.tree + unit.path
        given: list[str] = []
        try:
            record = packages.record(unit)
            stamp = validity.seal(unit.path, record), record
            copying.mirror(unit.directory, finder.tree)
            if unit.is_package:

                def fill(new: str, unit: Unit = unit, stamp: tuple[str, str] = stamp, given: list[str] = given) -> None:
                    copying.copy_tree(unit.path, new)
                    _write_stamp(unit, finder.folder, *stamp)
                    given[:] = kept.settle(finder.folder, unit.path, new)

                publish.publish(
                    target, fill, lock_below=finder.folder, aside_in=finder.folder, seconds=seconds, over_link=True
                )
            else:
                with publish.bounded_lock(f"{finder.folder}/{LOCKS}", unit.entry, seconds):
                    # What another process has made meanwhile may have been written to since.
                    if os.path.islink(target) or not os.path.exists(target):
                        _write_stamp(unit, finder.folder, *stamp)

                        def settle(new: str, unit: Unit = unit, given: list[str] = given) -> None:
                            given[:] = kept.settle(finder.folder, unit.path, new)

                        copying.copy_module(unit, target, finder.folder, settle)
            kept.forget(given, finder.folder)
        except OSError as error:
            problem = space_.complaint(error, error.filename or target, finder.folder)
            return f"{unit.name} gets no writable copy: {str(problem).rstrip('.')}."
    kept.give_back_beside(finder.folder, finder.tree)
    return ""


def _write_stamp(unit: Unit, folder: str, seal: str, record: str) -> None:
    """Write what a copy is made of, before it appears: a copy without that is not used."""
    path = validity.stamp_file(folder, unit.path)
    with suppress(FileExistsError):
        os.mkdir(os.path.dirname(path), 0o700)
    publish.write_aside(path, os.fsencode(f"{seal}\n{record}\n{unit.path}\n"))


def refuse(unit: Unit, sentence: str) -> None:
    """Keep for ``status`` why a package has no copy."""
    learn([Line(REFUSED, unit.name, unit.directory, sentence, "")])


def listed(folder: str) -> tuple[list[Line], int]:
    """Return the learned list, and how many of its lines are not understood; nothing where it cannot be read."""
    try:
        return plan.parse(importhook.learned_list(folder))
    except OSError as error:
        let_pass(error)
        return [], 0


def unreadable(folder: str) -> str:
    """Say why the learned list cannot be used, or return an empty string."""
    try:
        importhook.learned_list(folder)
    except FileNotFoundError:
        return ""
    except OSError as error:
        let_pass(error)
        why = "it is a link" if error.errno == errno.ELOOP else error.strerror or str(error)
        return (
            f"{folder}/learned cannot be used ({why}), so packages are imported from the image and not from their "
            "copies. Remedy: remove it; what is needed is learned anew."
        )
    return ""


def learn(lines: Iterable[Line], *, again: bool = False) -> None:
    """Append to the learned list what it does not say already, in one write.

    :param again: also what it says.
    """
    finder = importhook.finder()
    # A path of no package is served where it is declared, and never because something failed there.
    new = [line for line in lines if line.what != PATH or line.name != "-"]
    if finder is None or not new:
        return
    known = set() if again else set(listed(finder.folder)[0])
    text = "".join(f"{line}\n" for line in dict.fromkeys(new) if line not in known)
    if not text:
        return
    flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(OSError):
        try:
            descriptor = os.open(f"{finder.folder}/{LEARNED}", flags)
        except FileNotFoundError:  # its beginning failed; without that, it would lack for ever what is known beforehand
            begin(finder.folder)
            descriptor = os.open(f"{finder.folder}/{LEARNED}", flags)
        try:
            end = os.fstat(descriptor).st_size
            if end and os.pread(descriptor, 1, end - 1) != b"\n":  # the line of a process that was killed
                text = "\n" + text
            os.write(descriptor, text.encode("utf-8", "surrogateescape"))
        finally:
            os.close(descriptor)
