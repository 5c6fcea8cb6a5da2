"""Variables whose names are nearly ours: a misspelt one has no effect, and nothing else would say so."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from sif_writable import MODE
from sif_writable.session import OLD

if TYPE_CHECKING:
    from collections.abc import Iterable

_FOR_USERS = """
DEBUG COPYUP_MAX DIR GPU GPU_COUNT GPU_MIN_CAPABILITY GPU_MIN_MEMORY GPU_TIMEOUT HEAVY HOME KEEP MAX OPT_IN OVERLAY
OVERLAY_PATHS PACKAGES SHARE STRICT
"""
_BETWEEN_PROCESSES = "COPIES GPU_CHECKED IN_OVERLAY LAYER PYCACHE REFUSED SAID SESSION SHARED_IN TRACE"
FOR_USERS = (MODE, *(f"{MODE}_{end}" for end in _FOR_USERS.split()))
"""Variables that users set."""
KNOWN = frozenset((*FOR_USERS, *(f"{MODE}_{end}" for end in _BETWEEN_PROCESSES.split())))
"""And those that processes hand down to their children; further ones begin with :data:`~sif_writable.session.OLD`."""
_SAME = 0.85
"""How similar to one of ours a name must be if the mistake is in its beginning (SIF_WRITEABLE_DIR)."""


def misspelt(names: Iterable[str]) -> list[str]:
    """Return a sentence on each variable whose name begins like ours, or nearly so, and is not one of ours.

    :param names: of an environment.
    """
    found = []
    for name in sorted(names):
        upper = name.upper()
        if not upper.startswith("SIF") or name in KNOWN or name.startswith(OLD):  # others have SIF_IMAGE and the like
            continue
        if not upper.startswith((MODE, "SIFWRITABLE")) and not difflib.get_close_matches(upper, FOR_USERS, 1, _SAME):
            continue
        if name == f"{MODE}_LAB":  # of the tests
            continue
        near = difflib.get_close_matches(upper, FOR_USERS, n=1)
        found.append(f"{name} is not known and has no effect" + (f"; did you mean {near[0]}?" if near else ""))
    return found
