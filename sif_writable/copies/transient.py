"""Distinguish momentary errors of storage from those that show that a copy does not help."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from sif_writable import evidence

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sif_writable.copies.store import Copies
    from sif_writable.copies.units import Unit

_PASSING = frozenset(
    (
        *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EINTR, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
        *(errno.ETIMEDOUT, errno.ENOTCONN),
    )
)
"""Errors that say nothing about what was tried."""
_REFUSING = frozenset((errno.EROFS, errno.EACCES, errno.EPERM))
"""Errors that say so where they name a path of the copies: storage can be written whenever it is chosen."""


def has_passed(error: BaseException, units: Iterable[Unit], copies: Copies) -> bool:
    """Whether an error from a copy says nothing about the copy: storage has failed, or did not answer for a moment.

    Storage did not answer if a module was not found though its file is there.
    """
    for this in evidence.chain(error):
        if isinstance(this, OSError) and this.errno in _PASSING:
            return True
        if isinstance(this, OSError) and this.errno in _REFUSING and str(this.filename).startswith(copies.tree + "/"):
            return True
        name = _not_found(this) if isinstance(this, ImportError) else ""
        for unit in units:
            if name.startswith(unit.name + "."):
                inner = f"{copies.tree}{unit.path}/{name[len(unit.name) + 1 :].replace('.', '/')}"
                if os.path.isfile(f"{inner}.py") or os.path.isfile(f"{inner}/__init__.py"):
                    return True
    return False


def _not_found(error: ImportError) -> str:
    """Return the module that was not found, or an empty string; from a package, it is a name that is missing."""
    if isinstance(error, ModuleNotFoundError):
        return error.name or ""
    name = str(error).partition("cannot import name '")[2].partition("'")[0]
    return f"{error.name}.{name}" if name else ""
