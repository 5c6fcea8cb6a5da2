"""What the files that layers wrote belong to, and a next generation without some of them.

A unit is what a user names: a package, a module, a distribution with all that its RECORD lists, or a path outside the
directories of packages. A generation never changes, and is never just removed: a later one would get its number, and
what is copied of it would be taken for that one. So what is forgotten is left out of the next one.
"""

from __future__ import annotations

import os
import posixpath
import stat
import sys
from typing import TYPE_CHECKING, NamedTuple

from sif_writable.layer import files, generations, merge, records
from sif_writable.layer.enter import read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sif_writable.layer.records import Generation

_SITE = "-packages/"
_METADATA = (".dist-info", ".egg-info")
_MODULE = (".py", ".pyc", ".so")
_SHARED = frozenset(("bin", "etc", "include", "lib", "lib64", "libexec", "share", "var"))
"""Directories of an environment in which what many made lies side by side."""


class Unit(NamedTuple):
    """What a user can have forgotten."""

    names: list[str]
    """The first is the one that is shown."""
    tops: list[str]
    """Paths of the image: it is all that lies at or below them."""


def units(paths: Iterable[str], text: Callable[[str], str], prefix: str = sys.prefix) -> list[Unit]:
    """Return the units that some files belong to.

    :param paths: of the image.
    :param text: returns the text of one of them, here of a RECORD.
    :param prefix: of the environment that they are of.
    """
    listed = set(paths)
    found: dict[str, set[str]] = {}
    alias: dict[str, str] = {}
    for record in sorted(path for path in listed if path.endswith(".dist-info/RECORD")):
        owned = merge.installed({record: text(record).splitlines()}) & listed
        names = {_unit(path, prefix)[0] for path in owned if _SITE in path} | {_unit(record, prefix)[0]}
        own = _unit(record, prefix)[0]
        best = min(names, key=lambda name: (name == own, name[:1] == "_", "." in name, name))
        best = alias.get(best, best)
        alias.update(dict.fromkeys(names, best))
        outside = {path for path in owned if _SITE not in path}
        found.setdefault(best, set()).update(outside)
        listed -= outside
    for path in sorted(listed):
        name, top = _unit(path, prefix)
        alias.setdefault(name, name)
        found.setdefault(name, set()).add(top)
    whole: dict[str, Unit] = {}
    for name in sorted(found, key=lambda name: (name != alias[name], name)):
        unit = whole.setdefault(alias[name], Unit([], []))
        unit.names.append(name)
        unit.tops.extend(top for top in sorted(found[name]) if top not in unit.tops)
    return sorted(whole.values())


def _unit(path: str, prefix: str) -> tuple[str, str]:
    """Return the name of what a file belongs to, and the path that holds all of that."""
    before, site, rest = path.partition(_SITE)
    if site:
        first, _, inner = rest.partition("/")
        if first == "__pycache__" and inner:
            return inner.partition(".")[0], path
        if first.endswith(_METADATA):
            return first.partition("-")[0], f"{before}{site}{first}"
        return first.partition(".")[0] if first.endswith(_MODULE) else first, f"{before}{site}{first}"
    if path.startswith(f"{prefix}/"):
        parts = path[len(prefix) + 1 :].split("/")
        top = "/".join([prefix, *parts[: 1 + (parts[0] in _SHARED and len(parts) > 1)]])
    else:
        top = posixpath.dirname(path)
    return top, top


def contents(generation: Generation) -> list[str]:
    """Return the paths of the image that a generation says something about: its files, and what it hides."""
    tree = f"{generation.folder}/tree"
    found = [f"/{name}" for name, status in files.walk(tree) if not stat.S_ISDIR(status.st_mode)]
    return sorted({*found, *generation.removed})


def of_generation(generation: Generation, prefix: str = sys.prefix) -> list[Unit]:
    """Return the units that have files in a generation."""
    return units(contents(generation), lambda path: read(f"{generation.folder}/tree{path}"), prefix)


def named(listed: Iterable[Unit], names: Iterable[str]) -> list[Unit]:
    """Return the units that bear one of some names, or hold one of these paths."""
    wanted = set(names)
    return [
        unit
        for unit in listed
        if wanted.intersection(unit.names)
        or any(path.startswith("/") and _is_below(path.rstrip("/"), unit.tops) for path in wanted)
    ]


def _is_below(path: str, tops: Iterable[str]) -> bool:
    return any(path == top or path.startswith(f"{top}/") for top in tops)


def forget(folder: str, names: Iterable[str] | None, *, keep: bool) -> tuple[int, str]:
    """Publish a generation without some units; return its number, and where their files are now.

    :param folder: the generations.
    :param names: of the units, each as :func:`named` understands it; None: all.
    :param keep: the files are set aside, not lost.
    :raises OSError: storage does not take it; then nothing has changed there.
    """
    wanted = None if names is None else list(names)

    def build(newest: Generation, aside: str, beside: str) -> int:
        listed = of_generation(newest)
        tops = [top for unit in (listed if wanted is None else named(listed, wanted)) for top in unit.tops]
        if not tops:  # another process was first
            return newest.number or generations.NOTHING
        os.mkdir(f"{aside}/tree", 0o700)
        source = f"{newest.folder}/tree"
        for name, status in files.walk(source, strict=True):
            gone = _is_below(f"/{name}", tops)
            target = beside if gone else f"{aside}/tree"
            if stat.S_ISDIR(status.st_mode):
                if not gone:
                    files.make_folder(target, name, status.st_mode)
            elif not gone or keep:
                if gone:
                    files.make_folder(target, posixpath.dirname(name), 0o700)
                files.copy(f"{source}/{name}", f"{target}/{name}", status, link=True)
        number = newest.number + 1
        records.write(
            aside,
            newest._replace(
                stamps={path: stamp for path, stamp in newest.stamps.items() if not _is_below(path, tops)},
                removed={path for path in newest.removed if not _is_below(path, tops)},
                overridden={path for path in newest.overridden if not _is_below(path, tops)},
                forgotten={**newest.forgotten, **dict.fromkeys(tops, number)},
            ),
        )
        return 0

    return generations.succeed(folder, build)
