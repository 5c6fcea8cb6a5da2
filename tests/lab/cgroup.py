"""Control groups: limits that the kernel holds a job to, as a batch system sets them."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from tests.lab.store import ORDINARY_UID
from tests.lab.unavailable import LabUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = "/sys/fs/cgroup"
_FILES = {"memory": ("memory.limit_in_bytes", "memory.max"), "pids": ("pids.max", "pids.max")}
"""Controller to the file of its limit, in the first version and in the second."""


@contextlib.contextmanager
def limited(controller: str, limit: int) -> Iterator[str]:
    """Make a group with a limit; yield the file into which a process of the ordinary user writes 0 to enter it.

    :raises LabUnavailable: nobody may make groups here.
    """
    first, second = _FILES[controller]
    unified = os.path.exists(f"{_ROOT}/cgroup.controllers")
    folder = f"{_ROOT}/{'' if unified else controller + '/'}sif-writable-{os.getpid()}"
    try:
        if unified:
            _write(f"{_ROOT}/cgroup.subtree_control", f"+{controller}")
        os.mkdir(folder)
    except OSError as error:
        raise LabUnavailable(f"no control group can be made: {error}") from error
    try:
        try:
            _write(f"{folder}/{second if unified else first}", str(limit))
            os.chown(f"{folder}/cgroup.procs", ORDINARY_UID, ORDINARY_UID)
            if unified:  # who moves a process must be able to write where it comes from, too
                raise LabUnavailable("no ordinary user can enter a control group of the second version here")
        except OSError as error:
            raise LabUnavailable(f"a control group cannot have a limit: {error}") from error
        yield f"{folder}/cgroup.procs"
    finally:
        os.rmdir(folder)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
