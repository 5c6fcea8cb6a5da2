"""Whether an error shows a refused write: asked of errors that nobody caught, and of imports that failed.

It imports what is loaded already, and an error that has nothing to do with us loads nothing more.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Optional

_DENIED = (1, 13, 30, 75)
"""EPERM, EACCES, EROFS; and EOVERFLOW, by which a layer refuses files of other users whose mode permits writing."""
_WORDS = (
    "read-only", "readonly", "read only", "permission denied", "not permitted", " writable", " writeable", "errno = ",
    "errno=", "errno: ", "errno 30", "errno 13", "error number ", "no locator available",
    "unable to open database file", "erofs", "eacces", "eperm",
)  # fmt: skip
"""Of which one is in every text that :mod:`sif_writable.copies.failures` understands."""
_FULL = (28, 122)
"""ENOSPC, EDQUOT."""
_FULL_WORDS = ("no space left on device", "disk quota exceeded", "disk is full", "errno = 28", "errno = 122")
_MOST_ERRORS, _MOST_TEXT = 50, 1 << 15
_SLOT = type(BaseException.__str__)


def chain(error: "Optional[BaseException]", leave: "Optional[BaseException]" = None) -> "Iterator[BaseException]":
    """Yield an error and what it came from, also the parts of a group and errors that others were made of, each once.

    :param leave: one that counts no more, nor what it came from.
    """
    waiting: list[Any] = [error]
    seen: set[int] = {id(leave)}
    while waiting and len(seen) <= _MOST_ERRORS:
        this = waiting.pop(0)
        if not isinstance(this, BaseException) or id(this) in seen:
            continue
        seen.add(id(this))
        yield this
        waiting += (this.__cause__, this.__context__)
        for more in (getattr(this, "exceptions", ()), this.args):
            if isinstance(more, (tuple, list)):
                waiting += [part for part in more[:_MOST_ERRORS] if isinstance(part, BaseException)]


def said(error: BaseException) -> str:
    """Return what an error says, and what a failed program said; of long texts the beginning and the end.

    Where the error's class does not make the text itself, its arguments are not asked for theirs: those may be
    large, such as the table of a KeyError.
    """
    if type(type(error).__str__) is _SLOT:
        parts = [part for part in error.args if isinstance(part, (str, bytes)) or hasattr(type(part), "__fspath__")]
    else:
        parts = [str(error)]
    if hasattr(error, "returncode"):  # subprocess.CalledProcessError
        parts += [getattr(error, "stderr", None), getattr(error, "output", None)]
    texts = []
    for part in parts:
        text = os.fsdecode(part) if part and not isinstance(part, str) else part or ""
        texts.append(text if len(text) <= 2 * _MOST_TEXT else f"{text[:_MOST_TEXT]}\n{text[-_MOST_TEXT:]}")
    return " ".join(texts)


def may_be_a_refusal(error: BaseException, leave: "Optional[BaseException]" = None) -> bool:
    """Whether an error may come from a refused write: asked of every error, so it loads and reads nothing."""
    for this in chain(error, leave):
        number = this.errno if isinstance(this, OSError) else None
        if number in _DENIED:
            return True
        if number is None:  # any other errno is the cause itself
            text = said(this).lower()
            for words in _WORDS:
                if words in text:
                    return True
    return False


def misses_a_mount(error: BaseException) -> str:
    """Return the path that an error could not find where its directory is neither there nor can be made.

    That is so where a directory of the host is not bound. Asked of errors that nobody caught; it loads nothing, and
    looks only where a path is missing.
    """
    for this in chain(error):
        path = this.filename if isinstance(this, FileNotFoundError) else None
        if isinstance(path, str) and path[:1] == "/":
            folder = here = os.path.dirname(path)
            while not os.path.lexists(here):
                here = os.path.dirname(here)
            if here != folder and not os.access(here, os.W_OK):
                return path
    return ""


def may_be_a_full_disk(error: BaseException) -> bool:
    """Whether an error may come from want of space, wherever: asked of errors in a layer, and loads nothing either."""
    for this in chain(error):
        number = this.errno if isinstance(this, OSError) else None
        if number in _FULL:
            return True
        if number is None:
            text = said(this).lower()
            for words in _FULL_WORDS:
                if words in text:
                    return True
    return False


def may_concern_us(error: BaseException) -> bool:
    """Whether an error may come from a refused write, a full disk, or a directory that is not bound."""
    return may_be_a_refusal(error) or may_be_a_full_disk(error) or bool(misses_a_mount(error))


def is_of_a_handler(error: BaseException) -> bool:
    """Whether a signal handler of the program raised an error while our code ran."""
    from sif_writable.signals import from_handler

    return from_handler(error)
