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


def read(folder: str, number: int) -> Generation:
    """Read what a generation says about itself; number 0 is the empty one.

    :raises OSError: it is not there, or no longer.
    """
    where = f"{folder}/gen-{number}"
    if not number:
        return Generation(0, "", {}, set(), {}, 0, set(), {})
    stamps: dict[str, tuple[int, int]] = {}
    layers: dict[str, tuple[str, int]] = {}
    for line in _lines(f"{where}/stamps"):
        last, when, path = line.split(" ", 2)
        stamps[path] = (int(last), int(when))
    for line in _lines(f"{where}/layers"):
        name, state, last = line.split(" ")
        layers[name] = (state, int(last))
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
    return Generation(number, where, stamps, removed, layers, int(size), overridden, forgotten, int(count), node)


def write(aside: str, new: Generation) -> None:
    """Write what a generation says about itself into its folder, beside its tree.

    :param new: its size, files and node are told by the tree and the machine.
    :raises OSError: storage does not take it.
    """
    _write(f"{aside}/stamps", [f"{last} {when} {path}" for path, (last, when) in sorted(new.stamps.items())])
    _write(f"{aside}/removed", sorted(new.removed))
    _write(f"{aside}/layers", [f"{n} {state} {last}" for n, (state, last) in list(new.layers.items())[-LAYERS:]])
    tree = f"{aside}/tree"
    there = (path for path in new.overridden if os.path.lexists(f"{tree}{path}"))
    _write(f"{aside}/overridden", sorted(there))
    latest = sorted(new.forgotten.items(), key=lambda pair: pair[1])[-LAYERS:]
    _write(f"{aside}/forgotten", [f"{last} {path}" for path, last in latest])
    regular = [status for _, status in files.walk(tree) if stat.S_ISREG(status.st_mode)]
    _write(f"{aside}/note", [f"{sum(s.st_size for s in regular)} {len(regular)} {os.uname().nodename}"])


def _lines(path: str) -> list[str]:
    with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        return file.read().split("\n")[:-1]


def _write(path: str, lines: Iterable[str]) -> None:
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)
