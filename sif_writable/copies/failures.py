"""Which paths an error says were refused to be written. Pure, but for the error's own attributes and text.

A refusal is EROFS, EACCES or EPERM, or the words that stand for them. A path counts as the object of a refusal only:
where it stands right before or after the words, in the same line, as programs write it (``PATH: Read-only file
system``, ``Read-only file system: 'PATH'``, ``name = 'PATH', errno = 30``). Another path in the same text does not, and
neither does a line that gives another cause (no space, no such file, a shared object) or is about reading.
"""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from sif_writable.evidence import chain, said

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_REFUSED = re.compile(
    r"(?:\[errno \d+\] )?(?:read[- ]?only (?:file ?system|database)|permission denied|operation not permitted)"
    r"|(?:not|n't)(?: a)? write?able|err(?:no|or number)(?: = |=|: | )?(?:30|13)\b|no locator available"
    r"|\b(?:EROFS|EACCES|EPERM)\b",
    re.IGNORECASE,
)
_PATH = re.compile(
    r"b?['\"`‘“]([^'\"`‘’“”\s/]*/[^'\"`‘’“”\n]*)['\"`’”]"  # noqa: RUF001 - GNU's programs quote so
    r"|(?<![\w./:~'\"`‘“-])(/[^\s'\"`‘’“”:,;()\[\]<>|]+)"  # noqa: RUF001
)
_OTHER_CAUSE = re.compile(
    r"no space left|quota exceeded|no such file|not found|shared object|for reading|not a directory|file exists"
    r"|(?:cannot|can't|could not|unable to|failed to) read\b|too many open"
    r"|(?:\w*sh|env|make): (?:(?:line )?\d+: )?[^:\s]*: permission denied|permission denied \((?:publickey|password)",
    re.IGNORECASE,
)
"""A shell's way to say that a program may not be run, and what a server says of a user, are among them."""
_OTHER_WORK = re.compile(
    r"\b(?:load|loading|dlopen|exec|execv\w*|execute|executing|run|running|launch|start|starting|spawn|connect|connecting"
    r"|import|importing|stat|lstat|list|listing|mmap|map)\b(?:\s(?:\w+\s){0,3}|[:(\s]*)[\s(\[{'\"`‘“]*$",  # noqa: RUF001
    re.IGNORECASE,
)
"""What stands right before a path that was denied, but not to be written. What is read-only is only ever written."""
_BETWEEN_AFTER = re.compile(
    r"(?:\s*[(\[][^)\]/\n]{0,30}[)\]])?['\"]?\s*[:,]?\s*"
    r"(?:(?:open|opening|mkdir|unlink|rename|rmdir|access|write|writing|create|creating|copyfile|symlink|chmod|utime"
    r"|at|to|for|on|in|by|path|file|directory|folder|filename|the|while|when|trying|@ \w+)[\s:=-]*){0,6}(?:- )?[(\[<]?",
    re.IGNORECASE,
)
_BETWEEN_BEFORE = re.compile(
    r"(?!:\d)[\s)\]'\"]*(?:; mode=\w+\)|, ?['\"]?\w{1,3}\+?['\"]?\)|, ?O_[\w|]+(?:, ?\w+)?\) = -1)?"
    r"(?:[\s:;,.=()\[\]'\"-]|\b(?:is|are|was|it|its|which|a|the|on|for|writing|output|write|open|opening|create|cannot"
    r"|could|not|be|created|written|opened|because|due|to|with|detail|details|cause|caused|reason|error|errno|os"
    r"|system|message|failed|directory|file|oserror|ioerror|permissionerror|flags|because of|30|13)\b){0,40}",
    re.IGNORECASE,
)
_FRAME = re.compile(r'^([\s|]*)File "([^"\n]+\.pyw?|<[^"\n]*)", line \d+[^\n]*(?:\n\1\s\s[^\n]*)*', re.MULTILINE)
"""A frame of a traceback as text, with the lines of code below it. HDF5 reports its own C files in the same way."""
_DATABASE = re.compile(r"unable to open database file|readonly database")
_STARTERS = ("_execute_child", "_posix_spawn")
"""Functions of ``subprocess`` that start a program."""
_STARTING = re.compile(rf'^[\s|]*File "[^"\n]*", line \d+, in (?:{"|".join(_STARTERS)})$', re.MULTILINE)
_SPAWNERS = frozenset(("posix_spawn", "posix_spawnp"))
_DENIED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EOVERFLOW)
"""The last is how a layer refuses files of other users whose mode permits writing."""


class Failure(NamedTuple):
    """A write that was refused, according to an error."""

    path: str
    """As it was given, made absolute."""
    number: int
    """The errno, 0 where only the text says it."""


def failures(errors: Iterable[BaseException], folder: str) -> list[Failure]:
    """Return the writes that were refused, according to errors.

    :param folder: the working directory, for relative paths.
    """
    found: dict[Failure, None] = {}
    for this in errors:
        number = this.errno if isinstance(this, OSError) else None
        if number is not None and number not in _DENIED:
            continue
        if isinstance(this, OSError) and number is not None and this.filename:
            for name in () if _is_of_a_program(this) else (this.filename, this.filename2):
                if isinstance(name, (str, bytes)) and name:
                    found[Failure(os.path.join(_folder(this, folder), os.fsdecode(name)), number)] = None
            continue
        text = said(this)
        for path in () if _starts_a_program(text) else refused(text):
            found[Failure(os.path.join(folder, path), number or 0)] = None
    return list(found)


def refused(text: str) -> list[str]:
    """Return the paths of a text that are the objects of a refusal, as they are written there."""
    found: dict[str, None] = {}
    for line in _FRAME.sub("", text).replace("\\n", "\n").split("\n"):
        if _OTHER_CAUSE.search(line):
            continue
        paths = [(match.start(), match.end(), match[1] or match[2].rstrip(".!?")) for match in _PATH.finditer(line)]
        paths = [path for path in paths if "://" not in path[2]]
        for words in _REFUSED.finditer(line):
            for path in _objects(line, words.start(), words.end(), paths):
                found[path] = None
    return list(found)


def _objects(line: str, begin: int, end: int, paths: list[tuple[int, int, str]]) -> Iterator[str]:
    """Yield the paths right after the words of a refusal, or else right before them; two for a renaming."""
    for number, (first, last, path) in enumerate(paths):
        if first >= end:
            if _BETWEEN_AFTER.fullmatch(line[end:first]):
                yield path
                if number + 1 < len(paths) and line[last : paths[number + 1][0]].strip() == "->":
                    yield paths[number + 1][2]
                return
            break
    before = [number for number, (_, last, _) in enumerate(paths) if last <= begin]
    if before and _BETWEEN_BEFORE.fullmatch(line[paths[before[-1]][1] : begin]):
        number = before[-1]
        if "only" not in line[begin:end].lower() and _OTHER_WORK.search(line[: paths[number][0]]):
            return
        if number and line[paths[number - 1][1] : paths[number][0]].strip() == "->":
            yield paths[number - 1][2]
        yield paths[number][2]


def _is_of_a_program(error: BaseException) -> bool:
    """Whether what was refused is to run a program, which has the errno and the attributes of a refused write.

    The error of a worker process has no traceback but the text of one, in what it came from.
    """
    frame = _innermost(error)
    if frame is not None and {*frame.f_code.co_names} & _SPAWNERS:
        return True
    if any(this.f_code.co_name in _STARTERS for this in _frames(error)):
        return True
    return error.__cause__ is not None and _starts_a_program(said(error.__cause__))


def _starts_a_program(text: str) -> bool:
    """Whether a traceback in words goes through where a program is started; what starts it may be wrapped."""
    return _STARTING.search(text) is not None


def _folder(error: BaseException, folder: str) -> str:
    """Return the directory that a relative name lies in: ``shutil.rmtree`` works with descriptors of directories."""
    frame = _innermost(error)
    if frame is not None and frame.f_code.co_name.startswith("_rmtree_safe_fd"):
        path = frame.f_locals.get("path")
        if isinstance(path, (str, bytes)):
            return os.path.join(folder, os.fsdecode(path))
    return folder


def _innermost(error: BaseException) -> Any:
    frame = None
    for frame in _frames(error):  # noqa: B007 - the last one is meant
        pass
    return frame


def _frames(error: BaseException) -> Iterator[Any]:
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next


def is_of_a_database(error: BaseException) -> bool:
    """Whether sqlite could not write a database: it never says which."""
    return any(_DATABASE.search(said(this)) for this in chain(error) if not isinstance(this, OSError))


def frames(error: BaseException) -> list[str]:
    """Return the files of the tracebacks that an error has in its text, innermost first.

    That is how the error of a worker process arrives: with multiprocessing, concurrent.futures, torch's DataLoader.
    """
    text = said(error)
    return [match[2] for match in _FRAME.finditer(text)][::-1] if 'File "' in text else []


def missing_home(error: BaseException, home: str) -> str:
    """Return the path below a HOME that does not exist which an error names as missing, or an empty string."""
    for this in chain(error):
        if isinstance(this, OSError) and this.errno == errno.ENOENT and isinstance(this.filename, (str, bytes)):
            path = os.fsdecode(this.filename)
            if home and (path == home or path.startswith(home.rstrip("/") + "/")):
                return path
    return ""
