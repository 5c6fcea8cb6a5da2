"""Compile sources to bytecode, on all processors where there is much to do."""

from __future__ import annotations

import contextlib
import errno
import os
import py_compile
import warnings
from typing import TYPE_CHECKING

from sif_writable.errors import SifWritableError
from sif_writable.facts.filesystem import explain
from sif_writable.facts.processors import parallel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MANY = 200
"""Files from which on starting more processes pays."""


def compile_all(paths: Sequence[str], tell: Callable[[str, float], None]) -> list[str]:
    """Compile these sources; return those that have no bytecode still.

    Some cannot be compiled, as templates and old code cannot; of others the directory belongs to somebody else.

    :param tell: is called with a path and the part of the work that is done.
    :raises SifWritableError: there is no space.
    """
    failed = []
    with contextlib.closing(parallel(_compile, paths, many=MANY, at_once=16)) as results:
        for number, (path, number_of_error) in enumerate(zip(paths, results)):
            tell(path, number / len(paths))
            if number_of_error in (errno.ENOSPC, errno.EDQUOT):
                place = os.path.dirname(path) + "/__pycache__"
                words = explain(OSError(number_of_error, os.strerror(number_of_error)), place)
                raise SifWritableError(
                    f"bytecode cannot be written: {place} {words}. "
                    "Remedy: build on a larger disk; APPTAINER_TMPDIR names the one that images are built on."
                )
            if number_of_error != 0:
                failed.append(path)
    return failed


def _compile(path: str) -> int | None:
    """Return 0, the errno of what could not be written, or None for what is not valid Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about other people's code
            py_compile.compile(path, doraise=True)
    except OSError as error:
        return error.errno or 0
    except Exception:  # noqa: BLE001 - of any kind: invalid syntax, null bytes, too deep, an unknown encoding
        return None
    return 0
