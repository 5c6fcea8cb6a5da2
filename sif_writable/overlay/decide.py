"""Which directories of the image become writable in a private mount namespace, and how. Pure.

Two ways, since one of them is cheap and the other one complete:

``graft``
    A directory of storage is mounted over one of the image, and everything that the image has in there is mounted back.
    So what is new lands in storage, shared by all processes, on any filesystem; what was there is what it was. This
    serves a path that does not exist yet, and a single file, which is copied.
``overlay``
    An overlayfs over a directory that exists, for what changes files in it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from sif_writable.child import OVERLAY as MODE
from sif_writable.child import PATHS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Protocol

    class PathQueries(Protocol):
        """What :func:`decide` asks about paths; :class:`sif_writable.overlay.path_queries.PathQueries` answers."""

        def exists(self, path: str) -> bool: ...  # noqa: D102
        def is_directory(self, path: str) -> bool: ...  # noqa: D102
        def writable(self, path: str) -> bool: ...  # noqa: D102
        def entries(self, path: str) -> list[str] | None: ...  # noqa: D102
        def mounts_below(self, path: str) -> list[str]: ...  # noqa: D102
        def size(self, path: str) -> int: ...  # noqa: D102
        def host_mount(self, path: str) -> str: ...  # noqa: D102


AUTO, ON, OFF = "auto", "on", "off"
GRAFT, OVERLAY = "graft", "overlay"

MAX_ENTRIES = 512
"""Entries of a directory from which on mounting each of them back is worse than an overlay over all of it."""

MAX_COPY = 64 << 20
"""Bytes up to which a file that has to be writable is copied as a whole, when it is not the kernel that copies it."""

NEVER = ("/", "/proc", "/sys", "/dev", "/run", "/tmp", "/.singularity.d")  # noqa: S108
"""Directories that are not the image's, or without which a container is none."""

PLACES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (
        "certbot",
        ("/etc/letsencrypt", "/var/lib/letsencrypt", "/var/log/letsencrypt"),
        "certbot 5.8.0: only its flags --config-dir, --work-dir and --logs-dir move them",
    ),
)
"""(package, what it writes outside the prefix and without a variable, where that was seen)."""


class Wanted(NamedTuple):
    """A path that has to be writable: the user, the image or :data:`PLACES` names it."""

    path: str
    """Absolute, links resolved as far as it exists."""
    why: str
    """The evidence."""


class Target(NamedTuple):
    """A directory of the image over which something is mounted."""

    point: str
    how: str
    """``graft`` or ``overlay``."""
    paths: tuple[str, ...]
    """What is wanted in it."""
    why: str
    """The evidence, for ``status``."""


class Plan(NamedTuple):
    """What is going to be mounted, outer directories before those in them, and what is not."""

    targets: tuple[Target, ...]
    refused: tuple[tuple[str, str], ...]
    """(path, sentence)."""


def mode(environ: Mapping[str, str]) -> str:
    """Return ``auto``, ``on`` or ``off``; what is not understood counts as unset."""
    value = environ.get(MODE, "").lower()
    return value if value in {ON, OFF} else AUTO


def named(environ: Mapping[str, str], prefix: str, purelib: str) -> Iterator[Wanted]:
    """Yield what the user named: absolute paths, ``prefix`` for the whole environment, or packages."""
    for word in environ.get(PATHS, "").replace(",", ":").replace("\n", ":").split(":"):
        name = word.strip()
        if name.startswith("/"):
            yield Wanted(name, PATHS)
        elif name == "prefix":
            yield Wanted(prefix, PATHS)
        elif name:
            yield Wanted(f"{purelib}/{name.replace('.', '/')}", PATHS)


def decide(wanted: Iterable[Wanted], queries: PathQueries, mode: str) -> Plan:
    """Decide what is mounted where."""
    targets: dict[str, Target] = {}
    refused: list[tuple[str, str]] = []
    for one in dict.fromkeys(wanted):
        path = os.path.normpath(one.path)
        problem = "" if mode != OFF else f"{path} gets no overlay: {MODE}=off."
        problem = problem or _problem(one, path, queries)
        if problem:
            refused.append((path, problem))
            continue
        for target in _targets(path, one.why, queries):
            known = targets.get(target.point)
            if known is not None:
                how = OVERLAY if OVERLAY in (known.how, target.how) else GRAFT
                paths = tuple(dict.fromkeys((*known.paths, *target.paths)))
                target = Target(target.point, how, paths, known.why)  # noqa: PLW2901
            targets[target.point] = target
    return Plan(tuple(_without_nested(targets)), tuple(refused))


def _problem(one: Wanted, path: str, queries: PathQueries) -> str:
    """Say why a path is refused; an empty string also where nothing is to be done for it."""
    if not one.path.startswith("/") or ".." in one.path.split("/"):
        return f"{one.path!r} gets no overlay: it is not an absolute path without '..'."
    if path in NEVER or path.startswith(tuple(never + "/" for never in NEVER[1:])):
        return f"{path} gets no overlay: it is not a directory of the image that could have one."
    place = existing(path, queries)
    if place == "/":
        return (
            f"{path} gets no overlay: it would lie in the root directory itself. "
            f"Remedy: bind a directory there (apptainer exec --bind DIRECTORY:{path})."
        )
    point = queries.host_mount(path)
    if point and not queries.writable(place):
        return (
            f"{path} gets no overlay: {point} is bound in from the host, and stays as it is. "
            "Remedy: bind it such that it can be written (without :ro)."
        )
    return ""


def existing(path: str, queries: PathQueries) -> str:
    """Return the path, or the nearest directory above it that exists."""
    while not queries.exists(path):
        path = os.path.dirname(path)
    return path


def _targets(path: str, why: str, queries: PathQueries) -> Iterator[Target]:
    place = existing(path, queries)
    directory = place if queries.is_directory(place) else os.path.dirname(place)
    if queries.writable(place) and queries.writable(directory):
        return  # a bind, or an overlay of ours
    entries = queries.entries(directory)
    big = place != directory and queries.size(place) > MAX_COPY
    if entries is None or len(entries) > MAX_ENTRIES or big:
        yield Target(directory, OVERLAY, (path,), why)
    elif path != directory or not entries:
        yield Target(directory, GRAFT, (path,), why)
    else:
        yield from whole(directory, why, queries)


def whole(directory: str, why: str, queries: PathQueries) -> Iterator[Target]:
    """Yield what makes a directory with all it holds writable.

    The kernel refuses an overlay over a directory in which the container engine has mounted something (``/etc``, with
    its resolv.conf): what lies below that mount must stay covered. There the directories within get overlays.
    """
    mounts = queries.mounts_below(directory)
    if not mounts:
        yield Target(directory, OVERLAY, (directory,), why)
        return
    entries = queries.entries(directory) or []
    # Small files are copied where they are wanted, so name them; a mount point stays the mount that it is.
    files = [path for path in (f"{directory}/{name}" for name in entries) if not queries.is_directory(path)]
    yield Target(directory, GRAFT, tuple(path for path in files if path not in mounts) or (directory,), why)
    for name in entries:
        path = f"{directory}/{name}"
        if queries.is_directory(path) and path not in mounts and not queries.writable(path):
            yield from whole(path, why, queries)


def _without_nested(targets: dict[str, Target]) -> Iterator[Target]:
    """Leave out what an overlay around it serves already; outer directories come first."""
    overlays: list[str] = []
    for point in sorted(targets):
        if any(point.startswith(outer + "/") for outer in overlays):
            continue
        if targets[point].how == OVERLAY:
            overlays.append(point)
        yield targets[point]


def folder_name(point: str) -> str:
    """Return the name of the folder in storage that belongs to a directory of the image."""
    name = point.strip("/").replace("%", "%25").replace("/", "%")
    if len(os.fsencode(name)) <= 200:
        return name
    from hashlib import blake2b

    short = name[:60].encode("ascii", "replace").decode().replace("?", "_")
    return f"{short}-{blake2b(os.fsencode(point), digest_size=8).hexdigest()}"
