"""Layers of other environments in the same container: they share a namespace, so that programs can look into others.

Processes of sibling namespaces may not read each other's /proc nor trace each other, which they may without layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sif_writable.layer import enter, join

if TYPE_CHECKING:
    from collections.abc import Sequence


def member(other: enter.Layer, record: str) -> tuple[int, int] | None:
    """Return a live process that is in the layer of another environment, and its mount namespace, open.

    :param record: what :func:`sif_writable.layer.enter.current_record` returned.
    """
    other.name, _, words = record.partition(":")
    number, _, device = words.partition(":")
    if not number.isdigit() or not device.isdigit() or not enter.is_private(other.place):
        return None
    other.directories = enter.directories(other.folder)
    return join.member(other, int(number), int(device)) if other.directories else None


def covered(pid: int | str) -> list[str]:
    """Return the directories that layers are over, in the namespace of a process."""
    lines = enter.read(f"/proc/{pid}/mountinfo").splitlines()
    points = [line.split(" ", 5)[4] for line in lines if enter.MOUNTED in line and _is_layer(line)]
    for code, letter in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        points = [point.replace(code, letter) for point in points]
    return list(dict.fromkeys(points))


def _is_layer(line: str) -> bool:
    """Whether that is no overlay of a declared path, which keeps what is written through a crash."""
    return ",volatile" in line or ",fsync=volatile" in line  # as Linux 6.18 has it


def not_covered(directories: Sequence[str], others: Sequence[str]) -> list[str]:
    """Return the directories that no other layer is over: a third overlay cannot be stacked on the image's and theirs.

    Nor is one made over a directory that another layer lies in.
    """
    return [
        path
        for path in directories
        if not any(f"{path}/".startswith(f"{other}/") or f"{other}/".startswith(f"{path}/") for other in others)
    ]
