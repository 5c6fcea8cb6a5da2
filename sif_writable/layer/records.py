"""What a generation says about itself, in small files beside its tree."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from sif_writable.layer import files

if TYPE_CHECKING:
    from collections.abc import Iterable

LAYERS = 1000
"""How many layers a generation remembers to be made of, and how many paths to be forgotten."""


_FOLDS = 100
"""How many times a layer is known to have been folded in."""


class Generation(NamedTuple):
    """What a generation says about itself."""

    number: int
    folder: str
    stamps: dict[str, tuple[int, int]]
    """Directory to the number of the generation that changed it last, and when in ns."""
    removed: set[str]
    """Paths of the image that it hides."""
    layers: dict[str, tuple[str, int]]
    """Name of a layer to its state, and the number of the generation that it was folded into."""
    size: int
    """Bytes of its files."""
    overridden: set[str] = frozenset()  # type: ignore[assignment]
    """Paths of the image in whose place it has something else."""
    forgotten: dict[str, int] = {}  # noqa: RUF012 - never changed
    """Path to the number of the generation in which the user had it forgotten, with all below it."""
    files: int = 0
    node: str = ""
    """The machine that published it."""
    folds: dict[str, tuple[int, ...]] = {}  # noqa: RUF012 - likewise
    """Name of a layer to the numbers of all generations that it was folded into, the latest first."""


def read(folder: str, number: int) -> Generation:
    """Read what a generation says about itself; number 0 is the empty one.

    :raises OSError: it is not there, or no longer.
    """
    where = f"{folder}/gen-{number}"
    if not number:
        return Generation(0, "", {}, set(), {}, 0, set(), {})
    stamps: dict[str, tuple[int, int]] = {}
    layers: dict[str, tuple[str, int]] = {}
    folds: dict[str, tuple[int, ...]] = {}
    for line in _lines(f"{where}/stamps"):
        last, when, path = line.split(" ", 2)
        stamps[path] = (int(last), int(when))
    for line in _lines(f"{where}/layers"):
        name, state, last = line.split(" ")
        folds[name] = tuple(map(int, last.split(",")))
        layers[name] = (state, folds[name][0])
    size, count, node = [*(_lines(f"{where}/note") or [""])[0].split(), "0", "0", ""][:3]
    removed = set(_lines(f"{where}/removed"))
    forgotten: dict[str, int] = {}
    overridden: set[str] = set()
    try:
        overridden.update(_lines(f"{where}/overridden"))
        for line in _lines(f"{where}/forgotten"):
            last, path = line.split(" ", 1)
            forgotten[path] = int(last)
    except FileNotFoundError:  # of an earlier version, or it was superseded and removed just now
        os.stat(where)
    return Generation(number, where, stamps, removed, layers, int(size), overridden, forgotten, int(count), node, folds)


def write(aside: str, new: Generation) -> None:
    """Write what a generation says about itself into its folder, beside its tree.

    :param new: its size, files and node are not read: they come from the tree and the machine.
    :raises OSError: storage does not take it.
    """
    _write(f"{aside}/stamps", [f"{last} {when} {path}" for path, (last, when) in sorted(new.stamps.items())])
    _write(f"{aside}/removed", sorted(new.removed))
    layers = []
    for name, (state, last) in list(new.layers.items())[-LAYERS:]:
        numbers = new.folds.get(name, (last,))[:_FOLDS]
        layers.append(f"{name} {state} {','.join(map(str, numbers))}")
    _write(f"{aside}/layers", layers)
    tree = f"{aside}/tree"
    there = (path for path in new.overridden if os.path.lexists(f"{tree}{path}"))
    _write(f"{aside}/overridden", sorted(there))
    latest = sorted(new.forgotten.items(), key=lambda pair: pair[1])[-LAYERS:]
    _write(f"{aside}/forgotten", [f"{last} {path}" for path, last in latest])
    regular = [status for _, status in files.walk(tree) if stat.S_ISREG(status.st_mode)]
    _write(f"{aside}/note", [f"{sum(_space(status) for status in regular)} {len(regular)} {os.uname().nodename}"])


def _space(status: os.stat_result) -> int:
    """Return how much a file takes: a sparse one, as databases make them, may be larger than its disk."""
    return min(status.st_size, 512 * status.st_blocks + 4096)


def text(path: str) -> str:
    """Return the text of a file.

    :raises OSError: it cannot be read. It must not count as empty.
    """
    with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        return file.read()


def _lines(path: str) -> list[str]:
    lines = text(path).split("\n")[:-1]
    return ["\\".join([part.replace("\\n", "\n") for part in line.split("\\\\")]) for line in lines]


def _write(path: str, lines: Iterable[str]) -> None:
    """Write lines; the names of files may hold anything but a slash."""
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        file.writelines(line.replace("\\", "\\\\").replace("\n", "\\n") + "\n" for line in lines)
