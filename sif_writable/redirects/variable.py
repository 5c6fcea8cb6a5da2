"""Which variable moves what is kept at a path? Asked where a write was refused, for the remedy."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sif_writable.redirects.catalog import OPT_IN, ROWS
from sif_writable.redirects.templates import default_bases, resolve

if TYPE_CHECKING:
    from sif_writable.system.surroundings import Facts


def locations(seen: Facts) -> list[tuple[str, str]]:
    """List the default locations of packages, each with the variable that moves it."""
    bases = default_bases(seen, os.environ)
    return [
        (place, row.variable)
        for row in (*ROWS, *OPT_IN)
        for template in row.defaults
        if "/" in template and (place := resolve(template, bases, os.environ)) not in ("", "/tmp")  # noqa: S108 - anybody's
    ]


def moves(path: str, known: list[tuple[str, str]]) -> str:
    """Return the variable that moves a path, or an empty string.

    :param known: what :func:`locations` returned.
    """
    return next((name for place, name in known if path == place or path.startswith(place + "/")), "")
