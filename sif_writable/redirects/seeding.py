"""Fill a new folder from what the image (or the old home) already holds.

Directories become real directories, so that new files can be made anywhere; small files are copied, so that they can
be rewritten; large ones are links to the image. Both are bounded: past the bound a directory is linked as a whole.
"""

from __future__ import annotations

import os
import stat

from sif_writable import aside
from sif_writable.errors import is_passing
from sif_writable.redirects.beside import SHARED
from sif_writable.signals import let_pass
from sif_writable.warm import FOLDER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Optional

    from sif_writable.redirects.watch import Watch

    _Entry = tuple[str, Optional[os.stat_result]]
    """A name, and its status; None where the filesystem fails to give it."""

SMALL_FILE = 1 << 20
"""Bytes up to which a file is copied and above which it is linked."""
COPY_TOTAL = 64 << 20
"""Bytes that one seed copies at most."""
ENTRIES = 10_000
"""Directory entries that one seed makes at most."""
HOME_TOTAL = 16 << 20
"""Bytes of the image's own HOME that are copied at most."""
HOME_DEPTH = 3
"""Levels of the old home that become real directories: enough for ``.local/share/NAME``."""

_SECRET = ("token", "stored_tokens", "credentials.json", ".netrc")
"""Names that are linked, never copied: a token is renewed in one place only."""
_SECRETS = (".aws", ".azure", ".docker", ".gnupg", ".kaggle", ".kube", ".ssh", "gcloud")
"""Directories all of whose files are."""
NEVER = (".lock", ".locks", ".nfs")
_ROOT_HOME = (".singularity.d", ".dockerenv", ".containerenv")


class _Budget:
    """What may still be made, and what is noted on the way."""

    def __init__(
        self, copied: int, entries: int, watch: Watch | None = None, bound: frozenset[str] = frozenset()
    ) -> None:
        self.copied = copied
        self.entries = entries
        self.watch = watch
        self.bound = bound
        """Mount points of the host's: linked as they are, so that what is written reaches them."""


def copy(source: str, target: str) -> None:
    """Fill ``target`` from the files of ``source``.

    :raises OSError: the target could not be written, or the source not be listed for a cause that will pass; what
        this user may not read of the source is left out.
    """
    _mirror(source, target, _Budget(COPY_TOTAL, ENTRIES), depth=32)


def link_home(old: str, target: str, watch: Watch | None = None, *, copies: bool = True) -> None:
    """Offer in a private home what is readable in the old one; what is there already stays.

    Of the image's own files the small ones are copied, so that they can be rewritten. All others are links, and what a
    user's own HOME holds is one in any case: its settings change there. With ``/`` as the old home only hidden entries
    are somebody's settings; the rest is the image.

    :param copies: copy those small files; else all are links.
    :raises OSError: the target could not be written, or the old home not be listed for a cause that will pass.
    """
    if not old.startswith("/"):
        return
    from sif_writable.system import image_mounts

    mounts, real = image_mounts.mounts(), real_path(old)
    copied = HOME_TOTAL if copies and mounts.is_image(real) else 0
    below = (point[len(real) :].lstrip("/") for point in mounts.host_mounts_below(real))
    bound = frozenset(f"{old.rstrip('/')}/{point}" for point in below)
    budget = _Budget(copied, ENTRIES, watch, bound)
    for name, status in _entries(old, target, budget):
        if old == "/" and (not name.startswith(".") or name in _ROOT_HOME):
            continue
        hidden_directory = name.startswith(".") and status is not None and stat.S_ISDIR(status.st_mode)
        _place(
            os.path.join(old, name), os.path.join(target, name), status, budget, HOME_DEPTH if hidden_directory else 0
        )


def share_downloads(home: str, downloads: str) -> None:
    """Let the directories of a private home into which packages download lead to where other images look, too.

    A link of ours that leads to where downloads were kept before, which may be gone, is made anew.

    :param downloads: where that is; it may have come after the home, and nothing is done where it is empty.
    :raises OSError: one could not be made.
    """
    for name, folder in SHARED if downloads else ():
        place, target = f"{home}/{name}", f"{downloads}/{folder}"
        if os.path.islink(os.path.dirname(place)):
            continue
        try:
            before = os.readlink(place)
        except OSError as error:  # nothing is there, or a directory of the program's
            let_pass(error)
            before = ""
        root, found, _ = before.rpartition(f"/{os.path.basename(downloads)}/{folder}")
        if found and before != target and os.path.basename(root).startswith(FOLDER):  # no link of the user's
            os.unlink(place)
        elif before != target and os.path.lexists(place):
            continue
        os.makedirs(target, 0o700, exist_ok=True)
        os.makedirs(os.path.dirname(place), 0o700, exist_ok=True)
        link(target, place)


def real_path(path: str) -> str:
    """Return a path without links; the path itself where they may not be read, as below ``/proc/1``."""
    try:
        return os.path.realpath(path)
    except OSError as error:
        let_pass(error)
        return path


def contents(directory: str) -> dict[str, str]:
    """Map the names in a directory to ``directory``, ``link`` or ``file``; nothing where it cannot be listed."""
    try:
        with os.scandir(directory) as entries:
            return {
                entry.name: "link" if entry.is_symlink() else "directory" if entry.is_dir() else "file"
                for entry in entries
            }
    except OSError as error:
        let_pass(error)
        return {}


def drop_dangling(source: str, target: str, there: dict[str, str], names: Iterable[str]) -> None:
    """Remove from a directory the links to entries of another one that are no longer there.

    A program that writes through such a link would fail where the directory is gone as well.

    :param there: what the target holds, from :func:`contents`; :param names: what the source holds.
    """
    links = [name for name, kind in there.items() if kind == "link"]
    for name in set(links).difference(names):
        place = f"{target}/{name}"
        try:
            if os.readlink(place) == f"{source.rstrip('/')}/{name}" and not os.path.lexists(f"{source}/{name}"):
                os.unlink(place)
        except OSError as error:  # another process was faster
            let_pass(error)
            continue


def _mirror(source: str, target: str, budget: _Budget, depth: int) -> None:
    _fill(_entries(source, target, budget), source, target, budget, depth)


def _fill(entries: list[_Entry], source: str, target: str, budget: _Budget, depth: int) -> None:
    os.makedirs(target, 0o700, exist_ok=True)
    inner = _Budget(0, budget.entries, budget.watch, budget.bound) if os.path.basename(source) in _SECRETS else budget
    for name, status in entries:
        _place(os.path.join(source, name), os.path.join(target, name), status, inner, depth)


def _entries(directory: str, target: str, budget: _Budget) -> list[_Entry]:
    """List a directory, and note it where that is wished; without what the target has already, but for directories.

    :raises OSError: the filesystem fails to list it; what is denied or not there counts as empty.
    """
    found: list[_Entry] = []
    try:
        names = sorted(os.listdir(directory)) if budget.watch is None else budget.watch.names(directory)
    except OSError as error:
        if is_passing(error):
            raise
        return found
    there = contents(target)
    drop_dangling(directory, target, there, names)
    for name in names:
        if there.get(name, "directory") != "directory":
            continue
        path = os.path.join(directory, name)
        if name.endswith(NEVER) or name.startswith(NEVER) or not os.access(path, os.R_OK):
            continue
        try:
            found.append((name, os.lstat(path)))
        except OSError as error:
            if is_passing(error):
                found.append((name, None))
    return found


def link(path: str, target: str) -> None:
    """Make a link, unless another process has put something there.

    :raises OSError: it cannot be made.
    """
    try:  # noqa: SIM105 - contextlib is an import too many
        os.symlink(path, target)
    except FileExistsError:
        pass


def _place(path: str, target: str, status: os.stat_result | None, budget: _Budget, depth: int) -> None:
    budget.entries -= 1
    if status is None:
        if not os.path.lexists(target):
            link(path, target)  # as with a file that cannot be read, below
        return
    name = os.path.basename(path)
    if os.path.lexists(target):
        if stat.S_ISDIR(status.st_mode) and depth and not os.path.islink(target):
            _mirror(path, target, budget, depth - 1)
        return
    directory = stat.S_ISDIR(status.st_mode)
    # A bind mount within what is read-only: writes shall reach it.
    if path in budget.bound or (directory and os.access(path, os.W_OK)):
        link(path, target)
    elif directory and depth and budget.entries > 0:
        try:
            entries = _entries(path, target, budget)
        except OSError as error:
            let_pass(error)
            link(path, target)
            return
        _fill(entries, path, target, budget, depth - 1)
    elif stat.S_ISLNK(status.st_mode):
        destination = os.readlink(path)
        # A relative link within the mirrored tree leads to its mirrored neighbour; out of the tree it would not.
        inside = not os.path.isabs(destination) and depth
        link(destination if inside else os.path.realpath(path), target)
    elif stat.S_ISREG(status.st_mode) and status.st_size <= min(SMALL_FILE, budget.copied) and name not in _SECRET:
        budget.copied -= status.st_size
        try:
            with open(path, "rb") as file:
                content = file.read(SMALL_FILE)
        except (
            OSError
        ) as error:  # its filesystem fails (a stale handle, an input error): it may be back when it is needed
            let_pass(error)
            link(path, target)
            return
        descriptor, new = aside.create(os.path.dirname(target), name)
        with open(descriptor, "wb") as file:
            file.write(content)
        os.chmod(new, stat.S_IMODE(status.st_mode) & 0o700 | stat.S_IWUSR)
        os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.rename(new, target)
    elif stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
        link(path, target)
