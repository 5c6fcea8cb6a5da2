"""The door to the machine: what surroundings and the choice of storage ask, goes through here, and can be noted.

A warm start asks the same again (:mod:`sif_writable.warm`), which also says what counts of an answer.
"""

import os

from sif_writable import seldom, warm
from sif_writable.home import home_directory
from sif_writable.signals import let_pass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Optional

    Question = tuple[int, str, Any, Any]
    """Kind, path, what more is asked, answer."""

_noted: "Optional[dict[tuple[int, str, Any], Any]]" = None
_devices: "dict[int, int]" = {}
_repeatable = True


def note() -> None:
    """Note all that is asked from now on."""
    global _noted, _repeatable
    _noted, _repeatable = {}, True
    _devices.clear()


def noted() -> "Optional[list[Question]]":
    """Return all questions since :func:`note`, or None: they cannot all be asked again. No more are noted."""
    global _noted
    found, _noted = _noted, None
    return [(*question, answer) for question, answer in (found or {}).items()] if _repeatable else None


def once() -> None:
    """Say that something is done or asked which a warm start cannot do or ask again."""
    global _repeatable
    _repeatable = False


def _ask(kind: int, path: str, more: "Any", question: "Callable[[], Any]", about: "Callable[[Any], Any]") -> "Any":
    try:
        answer = question()
    except OSError as error:
        let_pass(error)
        if _noted is not None:
            _noted.setdefault((kind, path, more), error.errno)
        raise
    if _noted is not None:
        _noted.setdefault((kind, path, more), about(answer))
    return answer


def _about(status: "os.stat_result") -> "Any":
    return warm.about(status, _devices)


def _itself(answer: "Any") -> "Any":
    return answer


def stat(path: str) -> os.stat_result:
    """Do as :func:`os.stat`."""
    found: os.stat_result = _ask(warm.STAT, path, None, lambda: os.stat(path), _about)
    return found


def lstat(path: str) -> os.stat_result:
    """Do as :func:`os.lstat`."""
    found: os.stat_result = _ask(warm.LSTAT, path, None, lambda: os.lstat(path), _about)
    return found


def names(path: str) -> "frozenset[str]":
    """List a directory. It is no question that is asked again: what more comes to storage changes no decision."""
    return frozenset(os.listdir(path))


def readlink(path: str) -> str:
    """Do as :func:`os.readlink`."""
    found: str = _ask(warm.LINK, path, None, lambda: os.readlink(path), _itself)
    return found


def statvfs(path: str) -> os.statvfs_result:
    """Do as :func:`os.statvfs`."""
    found: os.statvfs_result = _ask(warm.SPACE, path, None, lambda: os.statvfs(path), warm.space)
    return found


def access(path: str, mode: int) -> bool:
    """Do as :func:`os.access`."""
    found: bool = _ask(warm.ACCESS, path, mode, lambda: os.access(path, mode), _itself)
    return found


def acl(path: str, name: str) -> bytes:
    """Do as :func:`os.getxattr`."""
    found = _ask(seldom.ACL, path, name, lambda: seldom.ask(seldom.ACL, path, name, ()), _itself)
    if isinstance(found, int):
        raise OSError(found, os.strerror(found), path)
    return bytes(found)


def text(path: str) -> bytes:
    """Return the text of a small file of the kernel's."""
    found: bytes = _ask(seldom.TEXT, path, None, lambda: seldom.ask(seldom.TEXT, path, None, ()), _itself)
    return found


def mounted_between(path: str, above: str) -> bool:
    """Whether something is mounted on a path or on the way to it, below a directory above it."""
    found: bool = _ask(
        seldom.MOUNTS, path, above, lambda: seldom.ask(seldom.MOUNTS, path, above, warm.mounts()[1]), _itself
    )
    return found


def passwd_home() -> str:
    """Return the home of this user's passwd entry; an empty string where there is none."""
    found: str = _ask(warm.USER, "", None, lambda: home_directory(None), _itself)
    return found


def is_directory(path: str) -> bool:
    """Do as :func:`os.path.isdir`."""
    try:
        return stat(path).st_mode & 0o170000 == 0o040000
    except (OSError, ValueError) as error:
        let_pass(error)
        return False


def exists(path: str) -> bool:
    """Do as :func:`os.path.lexists`."""
    try:
        lstat(path)
    except (OSError, ValueError) as error:
        let_pass(error)
        return False
    return True
