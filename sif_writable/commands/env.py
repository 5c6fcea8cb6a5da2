"""``sif-writable env``: the redirects as shell commands."""

from __future__ import annotations

import os
import re
import shlex
import sys
from typing import TYPE_CHECKING

from sif_writable import SESSION, session
from sif_writable.report import text
from sif_writable.stderr import say

if TYPE_CHECKING:
    import argparse

SHELLS = ("sh", "bash", "zsh", "fish", "csh", "tcsh")
_SAME = {"bash": "sh", "zsh": "sh", "tcsh": "csh"}
"""Shells that read what another one does."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""What a shell takes for a name; anything else would be a command to it."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_shell(parser)


def add_shell(parser: argparse.ArgumentParser) -> None:
    """Declare the option that says which shell reads what is printed: ``sh``, ``fish`` or ``csh`` comes of it."""
    parser.add_argument(
        "--shell",
        choices=SHELLS,
        type=syntax,
        default="sh",
        help="whose syntax to print (default: sh)",
    )


def syntax(shell: str) -> str:
    """Return the shell whose syntax a shell reads: ``sh``, ``fish`` or ``csh``; anything else as it is."""
    return _SAME.get(shell, shell)


def run(arguments: argparse.Namespace) -> int:
    """Print one command per variable that this session sets, or that it has taken back; always 0."""
    lines = [removal(arguments.shell, name) for name in names_taken_back()]
    lines += [assignment(arguments.shell, name, value) for name, value in session_variables().items()]
    if not lines and not arguments.quiet:
        say([f"nothing is set here: {text.inactive() or 'all defaults work'}"])
    sys.stdout.buffer.write(os.fsencode("".join(line + "\n" for line in lines)))  # paths are bytes, some no text
    return 0


def session_variables() -> dict[str, str]:
    """Return what this session put into the environment, the session itself last.

    What was taken back from the session before comes with it, where it had a value before that.
    """
    names = [name for name in session.taken_back if name in os.environ]
    if SESSION in os.environ:
        own = session.names(os.environ)
        names += [*own, *[session.OLD + name for name in own], *session.HANDED_DOWN, SESSION]
    return {name: os.environ[name] for name in dict.fromkeys(names) if name in os.environ and _NAME.fullmatch(name)}


def names_taken_back() -> list[str]:
    """Return the variables of an earlier session that the shell must not keep."""
    return [name for name in session.taken_back if name not in os.environ and _NAME.fullmatch(name)]


def removal(shell: str, name: str) -> str:
    """Return the command that unsets a variable in a shell."""
    return {"fish": f"set -e {name};", "csh": f"unsetenv {name};"}.get(shell, f"unset {name};")


def assignment(shell: str, name: str, value: str) -> str:
    """Return the command that sets a variable to exactly this value in a shell.

    :param shell: ``sh``, ``fish`` or ``csh``.
    """
    if shell == "fish":
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"set -gx {name} '{quoted}';"
    if shell == "csh":
        # In csh a quoted line break needs a backslash, and ! is history even within quotes.
        quoted = value.replace("'", "'\\''").replace("!", "\\!").replace("\n", "\\\n")
        return f"setenv {name} '{quoted}';"
    return f"export {name}={shlex.quote(value)};"
