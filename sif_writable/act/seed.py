"""Fill a new folder from what the image (or the old home) already holds.

Directories become real directories, so that new files can be made anywhere; small files are copied, so that they can
be rewritten; large ones are links to the image. Both are bounded: past the bound a directory is linked as a whole.
"""

from __future__ import annotations

import os
import stat
from typing import Optional

from sif_writable.facts.filesystem import is_passing

SMALL_FILE = 1 << 20
"""Bytes up to which a file is copied and above which it is linked."""
COPY_TOTAL = 64 << 20
"""Bytes that one seed copies at most."""
ENTRIES = 10_000
"""Directory entries that one seed makes at most."""
HOME_DEPTH = 3
"""Levels of the old home that become real directories: enough for ``.local/share/NAME``."""

_SECRET = ("token", "stored_tokens", "credentials.json", ".netrc")
"""Names that are linked, never copied: a token is renewed in one place only."""
_NEVER = (".lock", ".locks", ".nfs")
_ROOT_HOME = (".singularity.d", ".dockerenv", ".containerenv")


_Entry = tuple[str, Optional[os.stat_result]]
"""A name, and its status; None where the filesystem fails to tell it."""


class _Budget:
    def __init__(self, copied: int, entries: int) -> None:
        self.copied = copied
        self.entries = entries


def copy(source: str, target: str) -> None:
    """Fill ``target`` from the files of ``source``.

    :raises OSError: the target could not be written, or the source not be listed for a cause that will pass; what of
        the source this user may not read is left out.
    """
    _mirror(source, target, _Budget(COPY_TOTAL, ENTRIES), depth=32)


def link_home(old: str, target: str) -> None:
    """Fill a private home with links to what is readable in the old one.

    With ``/`` as the old home only hidden entries are somebody's settings; the rest is the image.

    :raises OSError: the target could not be written, or the old home not be listed for a cause that will pass.
    """
    if not old.startswith("/"):
        return
    budget = _Budget(0, ENTRIES)
    for name, status in _entries(old):
        if old == "/" and (not name.startswith(".") or name in _ROOT_HOME):
            continue
        hidden_directory = name.startswith(".") and status is not None and stat.S_ISDIR(status.st_mode)
        _place(
            os.path.join(old, name), os.path.join(target, name), status, budget, HOME_DEPTH if hidden_directory else 0
        )


def _mirror(source: str, target: str, budget: _Budget, depth: int) -> None:
    _fill(_entries(source), source, target, budget, depth)


def _fill(entries: list[_Entry], source: str, target: str, budget: _Budget, depth: int) -> None:
    os.makedirs(target, 0o700, exist_ok=True)
    for name, status in entries:
        _place(os.path.join(source, name), os.path.join(target, name), status, budget, depth)


def _entries(directory: str) -> list[_Entry]:
    """List a directory.

    :raises OSError: the filesystem fails to list it; what is denied or not there counts as empty.
    """
    found: list[_Entry] = []
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        if is_passing(error):
            raise
        return found
    for name in names:
        path = os.path.join(directory, name)
        if name.endswith(_NEVER) or name.startswith(_NEVER) or not os.access(path, os.R_OK):
            continue
        try:
            found.append((name, os.lstat(path)))
        except OSError as error:
            if is_passing(error):
                found.append((name, None))
    return found


def _place(path: str, target: str, status: os.stat_result | None, budget: _Budget, depth: int) -> None:
    budget.entries -= 1
    if status is None:
        if not os.path.lexists(target):
            os.symlink(path, target)  # as with a file that cannot be read, below
        return
    name = os.path.basename(path)
    if os.path.lexists(target):
        if stat.S_ISDIR(status.st_mode) and depth:
            _mirror(path, target, budget, depth - 1)
        return
    directory = stat.S_ISDIR(status.st_mode)
    if directory and os.access(path, os.W_OK):  # a bind mount within what is read-only: writes shall reach it
        os.symlink(path, target)
    elif directory and depth and budget.entries > 0:
        try:
            entries = _entries(path)
        except OSError:
            os.symlink(path, target)
            return
        _fill(entries, path, target, budget, depth - 1)
    elif stat.S_ISLNK(status.st_mode):
        destination = os.readlink(path)
        # A relative link within the mirrored tree leads to its mirrored neighbour; out of the tree it would not.
        inside = not os.path.isabs(destination) and depth
        os.symlink(destination if inside else os.path.realpath(path), target)
    elif stat.S_ISREG(status.st_mode) and status.st_size <= min(SMALL_FILE, budget.copied) and name not in _SECRET:
        budget.copied -= status.st_size
        try:
            with open(path, "rb") as file:
                content = file.read(SMALL_FILE)
        except OSError:  # its filesystem fails (a stale handle, an input error): it may be back when it is needed
            os.symlink(path, target)
            return
        with open(target, "wb") as file:
            file.write(content)
        os.chmod(target, stat.S_IMODE(status.st_mode) & 0o700 | stat.S_IWUSR)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
        os.symlink(path, target)
