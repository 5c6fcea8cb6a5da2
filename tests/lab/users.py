"""Two ordinary users on one machine: work that is done as one of them, in a process that is really theirs."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import NOT_RUN
from tests.lab.store import LAB, ORDINARY_UID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

VICTIM = ORDINARY_UID
NEIGHBOUR = VICTIM + 1


def needs_two_users(*, in_lab: bool = True) -> None:
    """Skip the test where nobody can be another user, or where others cannot get into the lab, if that is needed."""
    if os.getuid() != 0:
        pytest.skip(f"{NOT_RUN}only root can be two other users")
    for folder in pathlib.Path(LAB, "x").parents if in_lab else ():
        if folder.exists() and not folder.stat().st_mode & 0o001:
            pytest.skip(
                f"{NOT_RUN}other users cannot get into {folder}; SIF_WRITABLE_LAB=DIRECTORY puts the lab elsewhere"
            )


def as_user(uid: int, work: Callable[[], Any], groups: Sequence[int] = ()) -> Any:
    """Return what a function returns that runs as another user; it has to be something that JSON can say."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(readable)
            _become(uid, groups)
            answer = json.dumps(work()).encode()
            with open(writable, "wb") as file:
                file.write(answer)
            code = 0
        except BaseException:  # noqa: BLE001 - pytest must not go on in here
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writable)
    with open(readable, "rb") as file:
        answer = file.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return json.loads(answer)


@contextlib.contextmanager
def busy(uid: int, step: Callable[[int], object]) -> Iterator[None]:
    """Repeat something as another user for as long as the block runs; what fails is tried again."""
    child = os.fork()
    if child == 0:
        try:
            _become(uid)
            number = 0
            while True:
                number += 1
                with contextlib.suppress(OSError):
                    step(number)
        finally:
            os._exit(1)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _become(uid: int, groups: Sequence[int] = ()) -> None:
    os.setgroups(groups)
    os.setgid(uid)
    os.setuid(uid)


def owned_by(uid: int, folder: str) -> list[str]:
    """List what a user has below a folder."""
    return [
        os.path.join(here, name)
        for here, folders, files in os.walk(folder)
        for name in (*folders, *files)
        if os.lstat(os.path.join(here, name)).st_uid == uid
    ]
