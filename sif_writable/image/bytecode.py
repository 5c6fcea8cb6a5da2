"""Find and compile the bytecode that an image lacks: its packages cannot be compiled into it later."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import py_compile
import sys
import warnings
from typing import TYPE_CHECKING

from sif_writable.errors import SifWritableError
from sif_writable.system.filesystem import explain
from sif_writable.system.parallel import parallel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

MANY = 200
"""Number of files for which it pays to start more processes."""


def stale(folders: Iterable[str]) -> list[str]:
    """Return the sources below some directories whose bytecode is missing, or was made from an older source."""
    return [path for path in sources(folders) if not _is_valid(path)]


def sources(folders: Iterable[str]) -> Iterator[str]:
    """Yield the modules that an interpreter with these directories on its path could import."""
    seen: set[str] = set()
    standard = os.path.dirname(os.__file__)
    for folder in folders:
        for here, inner, files in os.walk(folder):
            real = os.path.realpath(here)
            if real in seen:  # site-packages lies within the standard library's directory
                inner.clear()
                continue
            seen.add(real)
            inner[:] = [
                name
                for name in sorted(inner)
                if (name.isidentifier() and name != "__pycache__") or name == "site-packages"
            ]
            if here.startswith(standard) and "-packages" not in here:  # the library's own tests are never imported
                inner[:] = [name for name in inner if name not in ("test", "tests")]
            for name in sorted(files):
                if name.endswith(".py"):
                    yield f"{here}/{name}"


def _is_valid(path: str) -> bool:
    try:
        with open(importlib.util.cache_from_source(path), "rb") as file:
            header = file.read(16)
        if header[:4] != importlib.util.MAGIC_NUMBER:
            return False
        if header[4] & 1:  # hash-based: nothing to compare
            return True
        status = os.stat(path)
    except (OSError, IndexError, NotImplementedError):
        return False
    times = (int(status.st_mtime) & 0xFFFFFFFF, status.st_size & 0xFFFFFFFF)
    return times == (int.from_bytes(header[8:12], "little"), int.from_bytes(header[12:16], "little"))


def importable() -> list[str]:
    """Return the directories whose modules this interpreter can import: sys.path, less what is the caller's own.

    That is the directory of the script, or the working directory, at the head of it, and ``~/.local``.
    """
    own = not (sys.flags.isolated or getattr(sys.flags, "safe_path", False))
    found = dict.fromkeys(os.path.realpath(entry) for entry in sys.path[own:] if entry and os.path.isdir(entry))
    home = os.path.expanduser("~")
    return [entry for entry in found if entry not in ("/", home) and not entry.startswith(home + "/.local/")]


def compile_all(paths: Sequence[str], progress: Callable[[str, float], None]) -> list[str]:
    """Compile these sources; return those that still have no bytecode.

    Templates and old code cannot be compiled, and some directories belong to another user.

    :param progress: is called with a path and the part of the work that is done.
    :raises SifWritableError: there is no space.
    """
    failed = []
    with contextlib.closing(parallel(_compile, paths, many=MANY, at_once=16)) as results:
        for number, (path, number_of_error) in enumerate(zip(paths, results)):
            progress(path, number / len(paths))
            if number_of_error in (errno.ENOSPC, errno.EDQUOT):
                place = os.path.dirname(path) + "/__pycache__"
                words = explain(OSError(number_of_error, os.strerror(number_of_error)), place)
                raise SifWritableError(
                    f"bytecode cannot be written: {place} {words}. "
                    "Remedy: build on a larger disk; APPTAINER_TMPDIR names the one that images are built on."
                )
            if number_of_error != 0:
                failed.append(path)
    return failed


def _compile(path: str) -> int | None:
    """Return 0, the errno of what could not be written, or None for what is not valid Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about other people's code
            py_compile.compile(path, doraise=True)
    except OSError as error:
        return error.errno or 0
    except Exception:  # noqa: BLE001 - of any kind: invalid syntax, null bytes, too deep, an unknown encoding
        return None
    return 0
