"""Where lab parts are kept, and how each is made exactly once."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import os
import shutil
import stat
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LAB = os.path.abspath(os.environ.get("SIF_WRITABLE_LAB") or os.path.join(REPOSITORY, ".lab"))
_HOUR = 3600.0
watchers: list[Callable[[str, float | None], None]] = []
"""Each is called when a part is begun, and again with the seconds that it took."""
ORDINARY_UID = os.getuid() or 1000
"""The uid that containers run as: our own, or an ordinary one where we are root."""


def provide(name: str, recipe: object, make: Callable[[str], None], *, kept: int = 3) -> str:
    """Return the path of a part, which `make(path)` has finished, now or in an earlier run.

    The recipe is everything that the part is made from: another recipe is another part. Some older ones are `kept`,
    and so is what was asked for in the last hour, because somebody else's tests may be running from it.
    """
    stem, suffix = os.path.splitext(name)
    path = os.path.join(LAB, f"{stem}-{digest(repr(recipe).encode())}{suffix}")
    stamp = path + ".done"
    with locked(name):
        if not os.path.exists(stamp):
            remove(path)
            began = time.monotonic()
            _report(stem, None)
            make(path)
            _report(stem, time.monotonic() - began)
            with open(stamp, "w", encoding="utf-8") as file:  # last: a killed run leaves no stamp and is done again
                file.write(repr(recipe))
            _remove_old(stem, suffix, kept)
        os.utime(stamp)
    return path


def _report(part: str, seconds: float | None) -> None:
    for watcher in watchers:
        watcher(part, seconds)


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lab's lock of that name; the kernel frees it when the process ends, however it ends."""
    os.makedirs(LAB, exist_ok=True)
    with open(os.path.join(LAB, f"{name}.lock"), "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_old(stem: str, suffix: str, kept: int) -> None:
    """Remove what killed runs have left of that name, and the finished parts that are neither newest nor in use."""
    parts = glob.glob(os.path.join(glob.escape(LAB), f"{stem}-{'[0-9a-f]' * 12}{suffix}"))
    finished = [part for part in parts if os.path.exists(part + ".done")]
    newest = sorted(finished, key=_last_used, reverse=True)
    in_use = [part for part in newest if time.time() - _last_used(part) < _HOUR]
    for part in set(parts).difference(newest[:kept], in_use):
        remove(part + ".done")
        remove(part)


def _last_used(part: str) -> float:
    return os.path.getmtime(part + ".done")


def remove(path: str) -> None:
    """Remove a file or a whole tree, also one whose folders deny us to enter or to write."""
    if os.path.isdir(path) and not os.path.islink(path):
        _let_in(path)
        for here, folders, _ in os.walk(path):  # which lists a folder after its parent was handed out
            for name in folders:
                _let_in(os.path.join(here, name))
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def _let_in(folder: str) -> None:
    with contextlib.suppress(OSError):
        mode = os.lstat(folder).st_mode
        if stat.S_ISDIR(mode):
            os.chmod(folder, mode | stat.S_IRWXU)


def digest(content: bytes) -> str:
    """Return twelve characters that stand for this content."""
    return hashlib.sha256(content).hexdigest()[:12]


def digest_of_files(paths: list[str]) -> str:
    """Return twelve characters that stand for the names and contents of these files of the repository."""
    whole = hashlib.sha256()
    for path in sorted(paths):
        with open(path, "rb") as file:
            whole.update(repr((os.path.relpath(path, REPOSITORY), file.read())).encode())
    return whole.hexdigest()[:12]
