"""``sif-writable env``: the redirects as shell commands."""

from __future__ import annotations

import os
import re
import shlex
import sys
from typing import TYPE_CHECKING

from sif_writable import startup

if TYPE_CHECKING:
    import argparse

SHELLS = ("sh", "fish", "csh")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""What a shell takes for a name; anything else would be a command to it."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--shell", choices=SHELLS, default="sh", help="whose syntax to print (default: sh)")


def run(arguments: argparse.Namespace) -> int:
    """Print one command per variable that this session sets; always 0."""
    text = "".join(assignment(arguments.shell, name, value) + "\n" for name, value in session_variables().items())
    sys.stdout.buffer.write(os.fsencode(text))  # paths are bytes, and some are no text
    return 0


def session_variables() -> dict[str, str]:
    """Return what this session put into the environment, the session itself last."""
    session = os.environ.get(startup.SESSION, "")
    names = session.split(";", 3)[2].split(",") if session.count(";") >= 3 else []
    if session:
        names += ["SIF_WRITABLE_OLD_HOME", "SIF_WRITABLE_COPIES", startup.PYCACHE, startup.SESSION]
    return {name: os.environ[name] for name in names if name in os.environ and _NAME.fullmatch(name)}


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
