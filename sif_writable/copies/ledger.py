"""The learned list: which packages have or shall have a writable copy, which get none, and what is forgotten.

A line is appended in one write, and what a later line says counts.
"""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING, NamedTuple

from sif_writable import aside
from sif_writable.copies.known_writers import WRITERS
from sif_writable.copies.store import ANYWHERE, learned_list
from sif_writable.identity import PURELIB
from sif_writable.signals import let_pass, suppress
from sif_writable.storage.layout import LEARNED
from sif_writable.system import manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sif_writable.copies.store import Copies
    from sif_writable.copies.units import Unit

PACKAGE, PATH, REFUSED, FORGOTTEN = "package", "path", "refused", "forgotten"
TAKEN_BACK = "taken back"
"""The detail of the line of a package whose copy did not help: it outweighs what was said before."""


class Line(NamedTuple):
    """One line of the learned list."""

    what: str
    """``package``: it is imported from a copy. ``path``: it can not be written and no package's copy cures that.
    ``refused``: a package that gets no copy. ``forgotten``: earlier lines of this name count no more."""
    name: str
    """The package, or ``-``."""
    place: str
    """The directory of the image that holds the package, ``*`` for any; or the path."""
    why: str
    """A word or sentence: the evidence, or the refusal."""
    detail: str
    """What was seen, such as the path that could not be written."""

    def __str__(self) -> str:
        """Return it as it is written; what would break the line is replaced."""
        return "\t".join(re.sub(r"[\t\r\n]", "?", field) for field in self)


def parse(text: str) -> tuple[list[Line], int]:
    """Return what a learned list says, each thing once, and how many of its lines are not understood."""
    found: dict[tuple[str, str, str], Line] = {}
    broken = 0
    for raw in text.split("\n"):
        if not raw or raw.startswith("#"):
            continue
        fields = raw.split("\t")
        if len(fields) != 5 or fields[0] not in (PACKAGE, PATH, REFUSED, FORGOTTEN) or "\ufffd" in raw:
            broken += 1
            continue
        line = Line(*fields)
        if line.what == FORGOTTEN:
            found = {key: other for key, other in found.items() if line.name not in (other.name, other.place)}
            continue
        found[line[:3]] = line
        if line.what == REFUSED and line.detail == TAKEN_BACK:
            found.pop((PACKAGE, *line[1:3]), None)
    return list(found.values()), broken


def begin(folder: str) -> str:
    """Make the folder of copies with its learned list, which starts with what is known beforehand; return the list."""
    lines = ["# sif_writable: packages that are imported from a writable copy; see `sif-writable status`"]
    lines += [str(Line(PACKAGE, name, ANYWHERE, "catalogue", why)) for name, why, _ in WRITERS]
    lines += [str(line) for line in _declared()]
    text = "".join(f"{line}\n" for line in lines)
    with suppress(OSError), aside.Usable():
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
    declared = manifest.read(PURELIB)
    for value in declared.get("package", ()):
        name, _, why = value.partition(" ")
        yield Line(PACKAGE, name, ANYWHERE, "manifest", why)


def refuse(unit: Unit, sentence: str, copies: Copies) -> None:
    """Keep for ``status`` why a package has no copy."""
    learn([Line(REFUSED, unit.name, unit.directory, sentence, "")], copies)


def listed(folder: str) -> tuple[list[Line], int]:
    """Return the learned list, and how many of its lines are not understood; nothing where it cannot be read."""
    try:
        return parse(learned_list(folder))
    except OSError as error:
        let_pass(error)
        return [], 0


def unreadable(folder: str) -> str:
    """Say why the learned list cannot be used, or return an empty string."""
    try:
        learned_list(folder)
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


def learn(lines: Iterable[Line], copies: Copies, *, again: bool = False) -> None:
    """Append to the learned list what it does not say already, in one write.

    :param again: also what it says.
    """
    # A path of no package is served where it is declared, and never because something failed there.
    new = [line for line in lines if line.what != PATH or line.name != "-"]
    if not copies.folder or not new:
        return
    known = set() if again else set(listed(copies.folder)[0])
    text = "".join(f"{line}\n" for line in dict.fromkeys(new) if line not in known)
    if not text:
        return
    flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(OSError):
        try:
            descriptor = os.open(f"{copies.folder}/{LEARNED}", flags)
        except FileNotFoundError:  # it could not be made before: now it is, with the packages that are known to write
            begin(copies.folder)
            descriptor = os.open(f"{copies.folder}/{LEARNED}", flags)
        try:
            end = os.fstat(descriptor).st_size
            if end and os.pread(descriptor, 1, end - 1) != b"\n":  # the line of a process that was killed
                text = "\n" + text
            os.write(descriptor, text.encode("utf-8", "surrogateescape"))
        finally:
            os.close(descriptor)


def withdraw(names: Iterable[str], copies: Copies) -> None:
    """Let all that the learned list says of some packages or paths count no more, also for this process."""
    wanted = sorted(names)
    learn((Line(FORGOTTEN, name, ANYWHERE, "", "") for name in wanted), copies, again=True)
    for name in wanted:
        copies.wanted().pop(name, None)
