"""What is kept of a layer, and who wins where two sides changed a directory. Pure, but for what it is given to ask.

The unit is the directory: a database and its journal, or an index and its data, belong together, and one side's with
the other's are malformed or wrong.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, NamedTuple

from sif_writable.child import KEEP

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from typing import Callable

NEW, ALL, NONE = "new", "all", "none"

FILE, LINK, FOLDER, GONE = "file", "link", "folder", "gone"

_CODE = (".py", ".pyc", ".pyo", ".so", ".pyd", ".pyx", ".pxd", ".pyi", ".pth")
_METADATA = (".dist-info", ".egg-info", ".egg", ".egg-link")
INSTALLED_FILES = ".egg-info/installed-files.txt"
_STARTED = ("sitecustomize", "usercustomize")
"""Modules that the interpreter imports at each start."""
_BESIDE = ("-journal", "-wal", "-shm", ".lock", ".lck", ".tmp", ".temp", ".part", ".partial", ".crdownload", "~")
"""Endings of what is of no use without the file that it belongs to."""


class Change(NamedTuple):
    """What a layer did to one path of the image."""

    path: str
    """In the image, absolute."""
    kind: str
    """``file``, ``link``, ``folder`` (made or changed) or ``gone``."""
    time: int
    """When it was written last, in ns."""


class Kept(NamedTuple):
    """What is kept of a layer."""

    changes: list[Change]
    dropped: list[str]
    """Paths that are gone with the layer: code that was replaced, or is run in its place, and what was installed."""


def mode(environ: Mapping[str, str]) -> str:
    """Return what the user wants to be kept; what is not understood counts as unset."""
    value = environ.get(KEEP, "").strip().lower()
    return value if value in {NEW, ALL, NONE} else NEW


def is_code(path: str) -> bool:
    """Whether a file of the image is run, so that a changed one would make another image of it."""
    name = posixpath.basename(path)
    return name.endswith(_CODE) or ".so." in name or "/bin/" in path or _in_metadata(path)


GENERATED = ("generated", "created"), ("edit", "modif", "change", "@generated")
"""A module whose first lines have a word of each is a file that its package makes: a table of a parser, an interface.

Where the image's says so, and what is in its place, it is data that a package rewrites, and goes with what that notes
beside it. Another mode or time makes no other code either.
"""


def is_generated(text: str) -> bool:
    """Whether a module says that it is generated and not to be edited.

    :param text: its first lines.
    """
    comments = [line.lower() for line in text.splitlines() if line.lstrip()[:1] in {"#", '"', "'"}]
    return all(any(word in line for line in comments for word in words) for words in GENERATED)


def source_of(path: str) -> str:
    """Return the module that a file of bytecode was made of, or an empty string. It is checked at each use."""
    folder, name = posixpath.split(path)
    if not name.endswith(".pyc") or posixpath.basename(folder) != "__pycache__":
        return ""
    return f"{posixpath.dirname(folder)}/{name.partition('.')[0]}.py"


def _in_metadata(path: str) -> bool:
    return any(f"{ending}/" in f"{path}/" for ending in _METADATA) or "/conda-meta/" in path


def _runs_at_start(path: str) -> bool:
    parts = path.split("/")
    modules = {part.partition(".")[0] for part in parts}  # which may be packages
    return parts[-1].endswith((".pth", "._pth")) or parts[-1] == "pyvenv.cfg" or not modules.isdisjoint(_STARTED)


def installed(records: Mapping[str, Iterable[str]]) -> set[str]:
    """Return the paths that distributions own.

    :param records: the path of each RECORD to its lines, or of the ``installed-files.txt`` of an older installer.
    """
    found = set()
    for record, lines in records.items():
        folder = posixpath.dirname(record)
        site = folder if record.endswith(INSTALLED_FILES) else posixpath.dirname(folder)
        for line in lines:
            name = line[1:].partition('"')[0] if line.startswith('"') else line.partition(",")[0]
            if name:
                found.add(posixpath.normpath(posixpath.join(site, name)))
    return found


def of_conda(path: str, text: str) -> set[str]:
    """Return the paths that a package of conda owns.

    :param path: of its file in ``conda-meta``, whose directory is that of the prefix.
    :param text: of that file; where it is damaged nothing is known.
    """
    import json

    try:
        files = json.loads(text)["files"]
        return {posixpath.normpath(posixpath.join(path, "../..", name)) for name in files}
    except (ValueError, KeyError, TypeError):
        return set()


def keep(
    changes: Iterable[Change],
    how: str,
    *,
    replaces: Callable[[Change], bool],
    installed: Collection[str],
    takes_place: Callable[[Change], bool] = lambda _: False,
) -> Kept:
    """Return what is kept of a layer's changes.

    :param replaces: whether the image has something else at the path of a change.
    :param installed: paths that a distribution owns which the layer installed, changed or removed.
    :param takes_place: whether what the image does not have is run in the place of code that it has: see
        :func:`sif_writable.layer.shadow.takes_place`.
    """
    hiding: set[str] = set()
    kept: list[Change] = []
    dropped: list[str] = []
    for change in changes:
        path = change.path
        is_metadata = _in_metadata(path)
        if how == ALL or (how == NEW and change.kind == FOLDER and not is_metadata):
            kept.append(change)
        elif (
            how == NONE
            or is_metadata
            or path in installed
            or _runs_at_start(path)
            or (is_code(path) and replaces(change))
        ):
            dropped.append(path)
        elif takes_place(change):
            hiding.add(path)
            dropped.append(path)
        else:
            kept.append(change)
    if how == ALL:
        return Kept(kept, dropped)
    inits = {path for path in hiding if posixpath.basename(path).startswith("__init__.")}
    return _without_remains(_without_bytecode(kept, dropped), dropped, {*installed, *inits})


def _without_bytecode(kept: list[Change], dropped: list[str]) -> list[Change]:
    """Take out what was compiled of sources that are not kept: it may pass for that of the image's."""
    sources = {path for path in dropped if path.endswith(".py")}
    rest = []
    for change in kept:
        if source_of(change.path) in sources:
            dropped.append(change.path)
        else:
            rest.append(change)
    return rest


def _without_remains(kept: list[Change], dropped: list[str], installed: Collection[str]) -> Kept:
    """Take out what is left of an installed package: its empty directory could be imported, as a namespace.

    So does a new environment go: without what says that it is one, its interpreter is that of another.
    """
    made = {change.path for change in kept if change.kind == FOLDER}
    packages = made.intersection(posixpath.dirname(path) for path in installed if is_code(path))
    packages |= made.intersection(_environment(path) for path in dropped)
    rest = []
    for change in kept:
        if packages.isdisjoint(_at_and_above(change.path)):
            rest.append(change)
        elif change.kind != FOLDER:
            dropped.append(change.path)
    lost = {above for path in dropped for above in _at_and_above(path)}
    used = {above for change in rest if change.kind != FOLDER for above in _at_and_above(change.path)}
    found = [change for change in rest if change.kind != FOLDER or change.path in used or change.path not in lost]
    return Kept(found, dropped)


def _environment(path: str) -> str:
    """Return the environment that a file says there is, or an empty string."""
    folder, name = posixpath.split(path)
    return folder if name == "pyvenv.cfg" else path.rpartition("/conda-meta/")[0]


def _at_and_above(path: str) -> Iterator[str]:
    while len(path) > 1:
        yield path
        path = posixpath.dirname(path)


def by_folder(changes: Iterable[Change]) -> dict[str, list[Change]]:
    """Return the changes of each directory: what lies directly in it; a directory that was only made is its own."""
    found: dict[str, list[Change]] = {}
    for change in changes:
        where = change.path if change.kind == FOLDER else posixpath.dirname(change.path)
        found.setdefault(where, []).append(change)
    return found


OURS, THEIRS, BOTH, MINE, FORGOTTEN = "ours", "theirs", "both", "mine", "forgotten"


def is_forgotten(path: str, forgotten: Mapping[str, int], base: int) -> bool:
    """Whether the user had something forgotten while the layer that wrote it was in use.

    :param forgotten: path to the number of the generation in which it was forgotten.
    :param base: the number of the generation that the layer was made from.
    """
    while path and forgotten:
        if forgotten.get(path, 0) > base:
            return True
        path = path.rpartition("/")[0]
    return False


def winner(changes: Iterable[Change], base: int, stamp: tuple[int, int], own: Collection[int] = ()) -> str:
    """Say whose version of a directory goes into the next generation.

    :param changes: what this layer changed directly in it.
    :param base: the number of the generation that the layer was made from.
    :param stamp: (number of the generation that changed it last, time in ns of what is in there).
    :param own: numbers of the generations that this very layer was folded into before.
    :returns: ``both``: the others have not changed it since, so our changes are added; ``mine``: this layer was the
        last that did, so what it holds now is taken whole; ``ours`` or ``theirs``: the one that was written later is.
    """
    if stamp[0] in own:
        return MINE
    real = [change for change in changes if change.kind != FOLDER]
    if stamp[0] <= base or not real:
        return BOTH
    return OURS if max(change.time for change in real) > stamp[1] else THEIRS


def without_base(names: Collection[str], there: Callable[[str], bool]) -> list[str]:
    """Return the names of a directory that are of no use: journals, locks and temporary files of no file.

    :param there: whether the image has a name in this directory.
    """
    found = []
    for name in names:
        for ending in _BESIDE:
            base = name[: -len(ending)]
            if name.endswith(ending) and base and base not in names and not there(base):
                found.append(name)
                break
    return found
