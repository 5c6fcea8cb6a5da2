"""Give packages of the image their writable copies, and keep the list of those that have or shall have one.

A copy lies in storage at the path that the package has in the image, below ``tree``; every directory on the way from
the environment's prefix down is real and holds links to what the image has beside it. So what a package reaches by
``..`` is found, and what it makes there lands in storage.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from typing import TYPE_CHECKING

from sif_writable import act, aside, importhook, lease
from sif_writable.act import directories, kept
from sif_writable.facts import manifest, packages
from sif_writable.facts.filesystem import explain
from sif_writable.plan import packages as plan
from sif_writable.plan.packages import PACKAGE, PATH, REFUSED, Line
from sif_writable.plan.writers import WRITERS
from sif_writable.signals import suppress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from importlib.machinery import ModuleSpec

    from sif_writable.facts.packages import Unit

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
        descriptor, new = aside.create(folder, "learned")
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        try:  # unlike a rename, a link does not replace the list of a process that was first and went on to learn
            os.link(new, folder + "/learned")
        except FileExistsError:
            pass
        except OSError:  # a filesystem without hard links
            if not os.path.lexists(folder + "/learned"):
                os.rename(new, folder + "/learned")
        with suppress(OSError):
            os.unlink(new)
    return text


def _declared() -> Iterator[Line]:
    """Yield what the image declares in its manifest, as lines of the list."""
    declared = manifest.read(__file__.rsplit("/", 3)[0])
    for value in declared.get("package", ()):
        name, _, why = value.partition(" ")
        yield Line(PACKAGE, name, importhook.ANYWHERE, "manifest", why)
    for value in declared.get("overlay", ()):
        path, _, why = value.partition(" ")
        yield Line(PATH, "-", path, "manifest", why)


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
    listed = list(dict.fromkeys(mate for unit in asked for mate in packages.mates(unit)))
    missing = [unit for unit in listed if not finder.has(unit.path)]
    execute = act.read_marker(os.path.dirname(os.path.dirname(finder.folder))).startswith("exec")
    problem = ""
    if missing:
        problem = (
            ("" if execute else _object_code(missing, finder.folder))
            or _room(asked[0].name, missing, finder.folder, execute=execute)
            or _copy(missing, finder, execute=execute)
        )
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


def _object_code(units: list[Unit], folder: str) -> str:
    for unit in units:
        if not unit.is_package and packages.is_extension(unit.entry):
            return (
                f"{unit.name} gets no writable copy: it is object code, which cannot be loaded from {folder} (noexec). "
                "Remedy: name a place that is not noexec with SIF_WRITABLE_DIR."
            )
    return ""


def _room(name: str, units: list[Unit], folder: str, *, execute: bool) -> str:
    size = packages.measure(units, execute=execute)
    allowed, _ = plan.limit(os.environ)
    try:
        space = os.statvfs(folder)
    except OSError as error:
        return f"{name} gets no writable copy: {folder} {explain(error)}"
    free, inodes = space.f_bavail * space.f_frsize, space.f_favail if space.f_files else None
    return plan.refusal(name, size.copied, size.entries, free, inodes, allowed, folder)


def _copy(units: list[Unit], finder: importhook.Finder, *, execute: bool) -> str:
    """Copy each unit and publish it; return an empty string or what went wrong."""
    seconds = directories.LOCK_SECONDS + packages.measure(units, execute=execute).copied / BYTES_PER_SECOND
    for unit in units:
        target = finder.tree + unit.path
        given: list[str] = []
        try:
            _mirror(unit.directory, finder.tree)
            if unit.is_package:

                def fill(new: str, unit: Unit = unit, given: list[str] = given) -> None:
                    _copy_tree(unit.path, new, execute=execute)
                    given[:] = kept.settle(finder.folder, unit.path, new)

                directories.publish(
                    target, fill, lock_below=finder.folder, aside_in=finder.folder, seconds=seconds, over_link=True
                )
            else:
                with directories.bounded_lock(finder.folder + "/locks", unit.entry, seconds):
                    # What another process has made meanwhile may have been written to since.
                    if os.path.islink(target) or not os.path.exists(target):
                        _copy_module(unit, target, finder.folder)
                        given = kept.settle(finder.folder, unit.path, target)
            kept.forget(given, finder.folder)
        except OSError as error:
            problem = directories.complaint(error, error.filename or target, finder.folder)
            return f"{unit.name} gets no writable copy: {problem.rstrip('.')}."
    kept.give_back_beside(finder.folder, finder.tree)
    return ""


def _mirror(directory: str, tree: str) -> None:
    """Make the directory of the tree that stands for one of the image, with links to what the image has in it.

    So it is with those above it, up to the prefix: ``..`` finds there what it finds in the image.
    """
    levels = [directory]
    for prefix in (sys.prefix, sys.base_prefix):
        while directory.startswith(prefix + "/") and levels[-1] != prefix:
            levels.append(os.path.dirname(levels[-1]))
    for level in reversed(levels):
        mirror = tree + level

        def link(into: str, level: str = level) -> None:
            present = set(os.listdir(into))
            for name in os.listdir(level):
                # Bytecode of modules beside the package is written there.
                if name not in present and name != "__pycache__" and f"{level}/{name}" not in levels:
                    with suppress(FileExistsError):
                        os.symlink(f"{level}/{name}", f"{into}/{name}")

        if os.path.islink(mirror) or not os.path.isdir(mirror):  # a link: as a neighbour of an earlier copy
            os.makedirs(os.path.dirname(mirror), 0o700, exist_ok=True)
            directories.put(mirror, link, aside_in=os.path.dirname(tree), over_link=True)
        link(mirror)


def _copy_tree(source: str, target: str, *, execute: bool) -> None:
    """Copy a directory's contents: everything that may be rewritten as real files that their owner may write.

    Times are kept, since bytecode is valid for the time of its source.

    :raises OSError: the target cannot be written. What cannot be read becomes a link to the image.
    """
    stack = [(source, target)]
    while stack:
        here, there = stack.pop()
        with os.scandir(here) as entries:
            for entry in entries:
                path, new = entry.path, f"{there}/{entry.name}"
                borrowed = packages.borrowed(path, source) if entry.is_symlink() else None
                if entry.is_symlink() and borrowed is None:
                    os.symlink(_link_target(path, source), new)
                    continue
                status = borrowed or entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    if os.access(path, os.R_OK | os.X_OK) and not os.access(path, os.W_OK):
                        os.mkdir(new, stat.S_IMODE(status.st_mode) & 0o777 | stat.S_IRWXU)
                        stack.append((path, new))
                    else:  # unreadable, or something writable that is mounted there
                        os.symlink(path, new)
                elif stat.S_ISREG(status.st_mode):
                    if plan.is_linked(entry.name, status.st_size, execute=execute):
                        os.symlink(path, new)
                    else:
                        _copy_file(path, new, status)
    os.chmod(target, stat.S_IMODE(os.stat(source).st_mode) & 0o777 | stat.S_IRWXU)


def _copy_file(path: str, new: str, status: os.stat_result) -> None:
    try:
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        os.symlink(path, new)
        return
    try:
        mode = stat.S_IMODE(status.st_mode) & 0o777 | stat.S_IWUSR
        target = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            while block := os.read(source, _BLOCK):
                while block:
                    block = block[os.write(target, block) :]
            os.fchmod(target, mode)  # the umask has had its say
            os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
        finally:
            os.close(target)
    finally:
        os.close(source)


_BLOCK = 1 << 20


def _link_target(path: str, package: str) -> str:
    """Return what the copy of a link points at: its copied neighbour within the package, else the image."""
    return os.readlink(path) if packages.is_inner_link(path, package) else os.path.realpath(path)


def _copy_module(unit: Unit, target: str, folder: str) -> None:
    """Copy a module of one file, with its bytecode."""
    _copy_into_place(unit.path, target, folder)
    with suppress(OSError):
        stem = unit.entry.rpartition(".")[0]
        caches = (f"{unit.directory}/__pycache__", f"{os.path.dirname(target)}/__pycache__")
        os.makedirs(caches[1], 0o700, exist_ok=True)
        for name in os.listdir(caches[0]):
            if name.startswith(f"{stem}.{sys.implementation.cache_tag}") and not os.path.lexists(f"{caches[1]}/{name}"):
                _copy_into_place(f"{caches[0]}/{name}", f"{caches[1]}/{name}", folder)


def _copy_into_place(path: str, target: str, folder: str) -> None:
    """Copy a file such that it appears whole: half a bytecode file would stop its module from being imported."""
    new = aside.path(folder, os.path.basename(path))
    try:
        _copy_file(path, new, os.stat(path))
        os.rename(new, target)
    finally:
        with suppress(OSError):
            os.unlink(new)


def refuse(unit: Unit, sentence: str) -> None:
    """Keep for ``status`` why a package has no copy."""
    learn([Line(REFUSED, unit.name, unit.directory, sentence, "")])


def listed(folder: str) -> tuple[list[Line], int]:
    """Return the learned list, and how many of its lines are not understood; nothing where it cannot be read."""
    try:
        return plan.parse(importhook.learned_list(folder))
    except OSError:
        return [], 0


def unreadable(folder: str) -> str:
    """Say why the learned list cannot be used, or return an empty string."""
    try:
        importhook.learned_list(folder)
    except FileNotFoundError:
        return ""
    except OSError as error:
        why = "it is a link" if error.errno == errno.ELOOP else error.strerror or str(error)
        return (
            f"{folder}/learned cannot be used ({why}), so packages are imported from the image and not from their "
            "copies. Remedy: remove it; what is needed is learned anew."
        )
    return ""


def learn(lines: Iterable[Line]) -> None:
    """Append to the learned list what it does not say already, in one write."""
    finder = importhook.finder()
    new = list(lines)
    if finder is None or not new:
        return
    known = set(listed(finder.folder)[0])
    text = "".join(f"{line}\n" for line in dict.fromkeys(new) if line not in known)
    if not text:
        return
    flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(OSError):
        try:
            descriptor = os.open(finder.folder + "/learned", flags)
        except FileNotFoundError:  # its beginning failed; without that, it would lack for ever what is known beforehand
            begin(finder.folder)
            descriptor = os.open(finder.folder + "/learned", flags)
        try:
            end = os.fstat(descriptor).st_size
            if end and os.pread(descriptor, 1, end - 1) != b"\n":  # the line of a process that was killed
                text = "\n" + text
            os.write(descriptor, text.encode("utf-8", "surrogateescape"))
        finally:
            os.close(descriptor)
        if any(line.what == PATH and line.name == "-" for line in new):  # what each start looks for, and no more
            os.close(os.open(finder.folder + importhook.OUTSIDE_LEARNED, flags | os.O_CREAT, 0o600))


def take_back(units: Iterable[Unit], why: str) -> None:
    """Have units imported from the image again, from the next process on: their copies did not help.

    :param why: what shows that.
    """
    finder = importhook.finder()
    for unit in units:
        learn([Line(REFUSED, unit.name, unit.directory, f"its copy did not help: {why}", plan.TAKEN_BACK)])
        if finder is not None:
            known = finder.wanted()
            known[unit.name] = tuple(where for where in known.get(unit.name, ()) if where != unit.directory)


def was_taken_back(units: Iterable[Unit], finder: importhook.Finder) -> bool:
    """Whether the copy of one of these units did not help before."""
    lines = listed(finder.folder)[0]
    back = {(line.name, line.place) for line in lines if line.what == REFUSED and line.detail == plan.TAKEN_BACK}
    return any((unit.name, unit.directory) in back for unit in units)
