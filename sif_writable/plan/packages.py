"""Which packages get a writable copy, and what it may take. Pure, but for the words of errors.

An error is read for the paths that it could not write: from its attributes, else from its text. See
:mod:`sif_writable.plan.writers` for what is known beforehand.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
from typing import TYPE_CHECKING, NamedTuple

from sif_writable.sizes import FORMS, human, parse_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

LINK_BYTES = 1 << 20
"""Bytes from which on a library is linked to the image, not copied: nobody rewrites one."""
MAX_COPIES = 2 << 30
"""Bytes of real copies that one package may take, unless ``SIF_WRITABLE_COPYUP_MAX`` says otherwise."""
MARGIN = 16 << 20
"""Bytes that a copy leaves free for what the package is going to write."""
MAX = "SIF_WRITABLE_COPYUP_MAX"

_LIBRARY = re.compile(r"\.so(\.\d+)*$|\.a$|\.cubin$|\.fatbin$")


def is_linked(name: str, size: int, *, execute: bool) -> bool:
    """Whether a file of a package is linked to the image rather than copied.

    :param execute: whether object code can be loaded from the place of the copies.
    """
    return bool(_LIBRARY.search(name)) and (size >= LINK_BYTES or not execute)


def limit(environ: Mapping[str, str]) -> tuple[int, str]:
    """Return the bytes that copies of one package may take, and a note where the user's figure is not understood."""
    text = environ.get(MAX, "")
    if not text:
        return MAX_COPIES, ""
    size = parse_size(text)
    if size is None:
        return MAX_COPIES, f"{MAX}={text[:80]!r} is not understood and counts as unset; allowed: {FORMS}"
    return size, ""


def names(environ: Mapping[str, str]) -> list[str]:
    """Return the packages that the user wants to be copied up."""
    return environ.get("SIF_WRITABLE_PACKAGES", "").replace(",", " ").split()


def refusal(name: str, copied: int, entries: int, free: int, inodes: int | None, allowed: int, place: str) -> str:
    """Say why a package can not be copied, with the figures and the remedy; an empty string: it can.

    :param copied: bytes of its real files; :param entries: files, links and directories of its copy.
    :param free: bytes free in ``place``; :param inodes: inodes free there, None where they are not counted.
    :param allowed: bytes that the user allows.
    """
    if copied > allowed:
        return (
            f"{name} gets no writable copy: it takes {human(copied)} and {MAX} allows {human(allowed)}. "
            f"Remedy: set {MAX}={_round_up(copied)}."
        )
    if copied + MARGIN > free:
        return (
            f"{name} gets no writable copy: it takes {human(copied)} and {place} has {human(free)} free. "
            "Remedy: name a larger place with SIF_WRITABLE_DIR, or free some space."
        )
    if inodes is not None and entries > inodes:
        return (
            f"{name} gets no writable copy: it takes {entries} files and {place} has {inodes} inodes free. "
            "Remedy: name another place with SIF_WRITABLE_DIR, or remove some files."
        )
    return ""


def _round_up(size: int) -> str:
    return f"{-(-size // (1 << 30))}GiB" if size >= 1 << 30 else f"{-(-size // (1 << 20))}MiB"


# --- The learned list ---

PACKAGE, PATH, REFUSED = "package", "path", "refused"


class Line(NamedTuple):
    """One line of the learned list."""

    what: str
    """``package``: it is imported from a copy. ``path``: it can not be written and no package's copy cures that.
    ``refused``: a package that gets no copy."""
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
        if len(fields) != 5 or fields[0] not in (PACKAGE, PATH, REFUSED) or "\ufffd" in raw:
            broken += 1
            continue
        line = Line(*fields)
        found[line[:3]] = line
    return list(found.values()), broken


# --- What an error says about writing ---

_WORDS = re.compile(
    r"read-?only|permission denied|operation not permitted|not writ(e?able|ten)|unable to (open|create)"
    r"|can(not|'t| not) (write|create|open)|errno ?=? ?(30|13)\b",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"['\"`]([^'\"`\n]*/[^'\"`\n]*)['\"`]|(?<![\w./'\"`-])(/[^\s'\"`:,;()]+)")
_FRAME = re.compile(r'^([\s|]*)File "([^"\n]+)", line \d+(?:, in (\S+))?[^\n]*(?:\n\1\s\s[^\n]*)*', re.MULTILINE)
"""A frame of a traceback as text, with the lines of code below it."""
_DENIED = (errno.EROFS, errno.EACCES, errno.EPERM)


class Failure(NamedTuple):
    """A write that failed, as far as an error tells."""

    path: str
    """As it was given, made absolute; empty where it is not known."""
    number: int
    """The errno, 0 where it is not known."""


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it came from, also the parts of a group, each once."""
    stack, seen = [error], set[int]()
    while stack and len(seen) < 50:
        this = stack.pop(0)
        if this is None or id(this) in seen:
            continue
        seen.add(id(this))
        yield this
        stack += [this.__cause__, this.__context__, *getattr(this, "exceptions", ())]


def failures(error: BaseException, folder: str, *, leave: str = "") -> list[Failure]:
    """Return the writes that failed, as an error and its causes tell: with EROFS, EACCES, EPERM, or such words.

    :param folder: the working directory, for relative paths.
    :param leave: an attribute of errors among them that do not count.
    """
    found: dict[Failure, None] = {}
    for this in chain(error):
        if leave and hasattr(this, leave):
            continue
        if isinstance(this, OSError) and this.errno in _DENIED and (this.filename or this.filename2):
            for name in (this.filename, this.filename2):
                if isinstance(name, (str, bytes)) and name:
                    found[Failure(os.path.join(folder, os.fsdecode(name)), this.errno)] = None
            continue
        text = _FRAME.sub("", _told(this))
        if _WORDS.search(text) or (isinstance(this, OSError) and this.errno in _DENIED):
            number = (this.errno or 0) if isinstance(this, OSError) else 0
            paths = [quoted or bare for quoted, bare in _QUOTED.findall(text)]
            for path in paths or [""]:
                found[Failure(os.path.join(folder, path) if path else "", number)] = None
    return list(found)


def frames(error: BaseException) -> list[tuple[str, str]]:
    """Return (file, function) of the tracebacks that an error has in its text, innermost first.

    That is how the error of a worker process arrives: with multiprocessing, concurrent.futures, torch's DataLoader.
    """
    text = _told(error)
    return [(match[2], match[3] or "<module>") for match in _FRAME.finditer(text)][::-1] if 'File "' in text else []


def _told(error: BaseException) -> str:
    """Return what an error says, with what a failed program said."""
    text = str(error)
    if isinstance(error, subprocess.CalledProcessError):
        text += "".join(f"\n{_text(part)}" for part in (error.stderr, error.output))
    return text


def _text(part: object) -> str:
    return os.fsdecode(part) if isinstance(part, bytes) else str(part or "")


def missing_home(error: BaseException, home: str) -> str:
    """Return the path below a HOME that does not exist which an error names as missing, or an empty string."""
    for this in chain(error):
        if isinstance(this, OSError) and this.errno == errno.ENOENT and isinstance(this.filename, (str, bytes)):
            path = os.fsdecode(this.filename)
            if home and (path == home or path.startswith(home.rstrip("/") + "/")):
                return path
    return ""


def outside_words(path: str, variable: str, *, hope: bool = False) -> str:
    """Say what cures a path of the image that has to be written and belongs to no package.

    :param variable: what moves the path, if anything does.
    :param hope: the next start is going to try an overlay.
    """
    remedy = f"set {variable} to a directory that can be written, or bind one" if variable else "bind a directory"
    target = path if variable else os.path.dirname(path) if "." in os.path.basename(path) else path
    words = f"{path} cannot be written, and it belongs to no package that could have a writable copy. "
    if hope:
        words += "From the next run on it is writable where the kernel allows a private mount; "
        words += "`sif-writable status` tells. "
    return f"{words}Remedy{' otherwise' if hope else ''}: {remedy} there (apptainer exec --bind DIRECTORY:{target})."


def join(found: Iterable[str]) -> str:
    """Join names for a sentence."""
    listed = sorted(set(found))
    return listed[0] if len(listed) == 1 else ", ".join(listed[:-1]) + " and " + listed[-1]
