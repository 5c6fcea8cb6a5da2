"""Which packages get a writable copy, and what it may take. Pure.

What an error says about writing is read by :mod:`sif_writable.copies.failures`; what is known beforehand is listed in
:mod:`sif_writable.copies.known_writers`.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from sif_writable import settings
from sif_writable.copies.store import PACKAGES
from sif_writable.sizes import FORMS, count, human, parse_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LINK_BYTES = 1 << 20
"""Bytes from which on a library is linked to the image, not copied: nobody rewrites one."""
MAX_COPIES = 2 << 30
"""Bytes of real copies that one package may take, unless ``SIF_WRITABLE_COPYUP_MAX`` says otherwise."""
MARGIN = 16 << 20
"""Bytes that a copy leaves free for what the package is going to write."""
MAX = "SIF_WRITABLE_COPYUP_MAX"

_SHARED = re.compile(r"\.so(\.\d+)*$")
_LIBRARY = re.compile(r"\.a$|\.cubin$|\.fatbin$")


def is_linked(name: str, size: int) -> bool:
    """Whether a file of a package is linked to the image rather than copied.

    A shared object always is: the linker knows a library by its inode, so that a copy beside the original, which other
    packages load, would be there twice, each with variables of its own.
    """
    return bool(_SHARED.search(name)) or (bool(_LIBRARY.search(name)) and size >= LINK_BYTES)


def limit(environ: Mapping[str, str]) -> tuple[int, str]:
    """Return the bytes that copies of one package may take, and a note where the user's figure is not understood."""
    text = environ.get(MAX, "").strip()
    if not text:
        return MAX_COPIES, ""
    size = parse_size(text)
    if size is None:
        return MAX_COPIES, f"{MAX}={text[:80]!r} is not understood and counts as unset; allowed: {FORMS}"
    return size, ""


def names(environ: Mapping[str, str]) -> list[str]:
    """Return the packages that the user wants to be copied up."""
    return settings.listed(environ, PACKAGES)


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
            f"{name} gets no writable copy: it takes {count(entries)} and {place} has {inodes} inodes free. "
            "Remedy: name another place with SIF_WRITABLE_DIR, or remove some files."
        )
    return ""


def _round_up(size: int) -> str:
    return f"{-(-size // (1 << 30))}GiB" if size >= 1 << 30 else f"{-(-size // (1 << 20))}MiB"


# --- Words for what no copy cures ---


def outside_words(path: str, variable: str, *, is_file: bool = False, hides: bool = False) -> str:
    """Say what cures a path of the image that has to be written and belongs to no package.

    :param variable: what moves the path, if anything does.
    :param is_file: it is a file of the image.
    :param hides: the image has something beside it, which a directory that is bound there would hide.
    """
    name = os.path.basename(path)
    begin = f"{path} cannot be written, and it belongs to no package that could have a writable copy. Remedy:"
    if not variable and is_file:
        return f"{begin} bind a copy of it there (apptainer exec --bind COPY:{path})."
    if not variable and hides and "." in name:
        cure = f"or bind a file there (touch {name}; apptainer exec --bind {name}:{path})"
        return f"{begin} write it to a directory that is bound, {cure}."
    remedy = f"set {variable} to a directory that can be written, or bind one" if variable else "bind a directory"
    target = path if variable else os.path.dirname(path) if "." in name else path
    return f"{begin} {remedy} there (apptainer exec --bind DIRECTORY:{target})."


_NAMED = 3
"""Variables that one line names."""


def sent_words(what: str, sent: Iterable[str], variables: Iterable[str], bind: str) -> str:
    """Say which variables of the user sent a program to a path that is of no use.

    :param what: the path, and what is wrong with it.
    :param sent: each as ``NAME=VALUE``; :param variables: their names. Of more than three the first are named.
    :param bind: what has to be bound; empty: it is bound, and this user may not write there.
    """
    named = list(sent)
    cure = f"bind that directory (apptainer exec --bind {bind})" if bind else "make that directory writable"
    if len(named) > _NAMED:
        first = ", ".join(named[:_NAMED])
        return f"{what}: {first} and {len(named) - _NAMED} more lead there. Remedy: {cure}."
    return (
        f"{what}: {join(named)} lead{'s' * (len(named) == 1)} there. Remedy: {cure}, or unset "
        f"{join(variables)}, so that a place that can be written is found."
    )


def link_words(path: str, target: str) -> str:
    """Say what a link is that was written through and leads into the image, as some in the copy of a package do."""
    return (
        f"{path} is a link to {target}, a file of the image, which cannot be written. Remedy: put a copy of that file "
        "there (cp -L, or shutil.copytree without symlinks=True)."
    )


def join(found: Iterable[str]) -> str:
    """Join names for a sentence."""
    listed = sorted(set(found))
    return listed[0] if len(listed) == 1 else ", ".join(listed[:-1]) + " and " + listed[-1]
