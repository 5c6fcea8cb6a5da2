"""Who wrote what below the image, from the changes and the events of a traced command. Pure."""

from __future__ import annotations

import ast
import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CREATED, CHANGED, REMOVED, TRIED = "created", "changed", "removed", "tried"

PYTHON, CHILD, NATIVE = "Python", "a child process running Python", "native code in Python"


class Change(NamedTuple):
    """Something that is different after the command."""

    path: str
    what: str
    """``created``, ``changed`` or ``removed``."""
    size: int
    """Bytes."""


class Record(NamedTuple):
    """An event that an interpreter reported, before it happened."""

    pid: int
    event: str
    what: str
    """The path, or the program to start."""


class Finding(NamedTuple):
    """A write under the image."""

    path: str
    what: str
    """``created``, ``changed``, ``removed``; or ``tried``: it failed, or what was made is gone again."""
    by: str
    """Who wrote, as far as it is known."""
    package: str
    """The package that the path lies in, or an empty string."""
    directory: str
    """The directory that holds the package."""
    remedy: str
    """What makes the write possible in a read-only image."""


def records(text: str) -> list[Record]:
    """Read the log of the interpreters; a line that was cut short is skipped."""
    found = []
    for line in text.splitlines():
        fields = line.split("\t", 2)
        try:
            what = ast.literal_eval(fields[2])
            found.append(Record(int(fields[0]), fields[1], os.fsdecode(what)))
        except (ValueError, SyntaxError, IndexError, TypeError):
            continue
    return found


def is_bytecode(path: str) -> bool:
    """Whether a path is compiled bytecode, which no program depends on."""
    return path.endswith((".pyc", ".pyo", "/__pycache__")) or "/__pycache__/" in path


def findings(
    changes: Iterable[Change],
    reported: Iterable[Record],
    pid: int,
    command: str,
    *,
    is_python: Callable[[str], bool],
    in_image: Callable[[str], bool],
    owner: Callable[[str], tuple[str, str]],
    remedy: Callable[[str, str], str],
) -> list[Finding]:
    """Return a finding for each write below the image, whether it succeeded or only was tried.

    :param changes: found after the command; :param reported: by interpreters, while it ran.
    :param pid: the process of the command itself; :param command: its program.
    :param is_python: whether a program is Python or a Python script, so that an interpreter reports what it does.
    :param in_image: whether a reported path lies in the image.
    :param owner: path to (package, directory that holds it).
    :param remedy: path and package to what makes the write possible.
    """
    writers: dict[str, set[int]] = {}
    reported = list(reported)
    others = _unreported(reported, command, is_python)
    for record in reported:
        if record.event not in ("python", "path", "program"):
            writers.setdefault(os.path.normpath(record.what), set()).add(record.pid)
    found: dict[str, Finding] = {}

    def add(path: str, what: str) -> None:
        pids = writers.get(path, set())
        by = PYTHON if pid in pids else CHILD if pids else others
        package, directory = owner(path)
        found[path] = Finding(path, what, by, package, directory, remedy(path, package))

    # A directory that has changed, though nothing in it is different: something was made there, and removed.
    known = {os.path.dirname(path) for path in writers}
    for change in changes:
        if not is_bytecode(change.path) and not (change.what == CHANGED and change.path in known):
            add(change.path, change.what)
    gone = tuple(f"{path}/" for path, finding in found.items() if finding.what == REMOVED)
    for path in writers:
        if path not in found and not is_bytecode(path) and not path.startswith(gone) and in_image(path):
            add(path, TRIED)
    return sorted(found.values())


def _unreported(reported: list[Record], command: str, is_python: Callable[[str], bool]) -> str:
    """Name who may have made the writes that no interpreter reported: native code, or programs that were started.

    Which of them it was can only be seen with privileges.
    """
    programs = [command, *(record.what for record in reported if record.event == "program" and record.what)]
    others = sorted({os.path.basename(program.split()[0]) for program in programs if not is_python(program)})
    if not others:
        return NATIVE
    interpreters = any(record.event == "python" for record in reported)
    words = f"{'another program' if interpreters else 'a program'} ({', '.join(others)})"
    return f"{NATIVE}, or {words}" if interpreters else words


def tops(paths: Iterable[str]) -> list[str]:
    """Return the paths that lie in none of the others."""
    found: list[str] = []
    for path in sorted(paths):
        if not any(path.startswith(top + "/") for top in found):
            found.append(path)
    return found
