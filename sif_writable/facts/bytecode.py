"""Which importable sources have no valid bytecode? A read-only image can never write it later."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def stale(folders: Iterable[str]) -> list[str]:
    """Return the sources below some directories whose bytecode is missing or of an older source."""
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
                name for name in inner if (name.isidentifier() and name != "__pycache__") or name == "site-packages"
            ]
            if here.startswith(standard) and "-packages" not in here:  # the library's own tests are never imported
                inner[:] = [name for name in inner if name not in ("test", "tests")]
            for name in files:
                if name.endswith(".py"):
                    yield f"{here}/{name}"


def _is_valid(path: str) -> bool:
    try:
        with open(importlib.util.cache_from_source(path), "rb") as file:
            header = file.read(16)
        if header[:4] != importlib.util.MAGIC_NUMBER:
            return False
        if header[4] & 1:  # by the content of the source
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
