"""What layers leave in storage and on this node, as things that are listed and removed."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from sif_writable import LAYER
from sif_writable.child import COPIES
from sif_writable.mounted import in_layer
from sif_writable.signals import suppress
from sif_writable.system.listing import names

if TYPE_CHECKING:
    from collections.abc import Iterator

GENERATION, REPLICA, UPPER, SET_ASIDE = "generation", "replica", "upper", "set aside"
"""Kinds: what is kept of layers, a copy of that on this node, what was written and is not kept yet, and files of the
side that was not taken where two changed a directory, or that were forgotten."""
KINDS = frozenset((GENERATION, REPLICA, UPPER, SET_ASIDE))


def weigh(path: str, kind: str, problem: str, all_of_it: tuple[int, int]) -> tuple[str, tuple[int, int]]:
    """Return why something of layers cannot be removed, and how much of it nothing brings back."""
    from sif_writable.layer import records, survey

    if kind == SET_ASIDE:
        return problem, all_of_it
    problem = survey.in_use(path) or problem
    if kind == GENERATION:
        place, name = os.path.split(path)
        with suppress(OSError, ValueError):
            found = records.read(place, int(name.partition("-")[2]))
            return problem, (0, 0) if is_superseded(path) else (found.files, found.size)
        return problem, all_of_it
    if kind == REPLICA or survey.about(path).is_lost:
        return problem, (0, 0)
    if not problem and survey.is_kept(path, of_this_image=_is_of_this_image(path)):
        return problem, (0, 0)
    written = survey.written(path)
    return problem, (len(written.paths), written.size)


def _is_of_this_image(path: str) -> bool:
    """Whether a layer is over directories of this image, and this process sees them as the image has them."""
    prefix, _, image = os.environ.get(COPIES, "").rpartition(":")
    known = prefix == sys.prefix and os.path.basename(image) in path.split("/")
    return known and not in_layer(os.environ.get(LAYER))


def is_superseded(path: str) -> bool:
    """Whether there is a newer generation."""
    from sif_writable.layer.make import newest_generation

    place, name = os.path.split(path)
    return newest_generation(place) != int(name.partition("-")[2])


def listed(root: str, folder: str) -> Iterator[tuple[str, str, str]]:
    """Yield what is in a folder of layers, as (folder, name, kind).

    :param folder: below the root.
    """
    from sif_writable.layer import records, survey
    from sif_writable.layer.generations import SET_ASIDE as ASIDE

    path = f"{root}/{folder}"
    for name in names(path):
        kind = survey.kind(name)
        if name == ASIDE:
            yield from ((f"{folder}/{name}", leaf, SET_ASIDE) for leaf in names(f"{path}/{name}"))
        elif kind == GENERATION:
            with suppress(OSError, ValueError):
                generation = records.read(path, int(name[4:]))
                if generation.files or generation.removed:  # else it only says that nothing is kept
                    yield folder, name, kind
        elif kind:
            yield folder, name, kind
