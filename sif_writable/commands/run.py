"""``sif-writable run -- CMD``: run a command, Python or not, with the redirects in its environment.

Where there may be a writable layer, the command is in it, too.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import sif_writable
from sif_writable import importhook, layered
from sif_writable.commands import usage
from sif_writable.report import text
from sif_writable.stderr import say
from sif_writable.system.program import not_started

if TYPE_CHECKING:
    import argparse


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    usage.add_command(parser)


def run(arguments: argparse.Namespace) -> int:
    """Replace this process by the command; return only when that fails: 126 or 127, as shells do, 2 without one."""
    argv = usage.command_of(arguments)
    sys.stdout.flush()
    if (why := text.inactive()) and sif_writable.state != "writable" and not arguments.quiet:
        say([f"{text.shown(argv[0])} runs as without sif-writable: {why}"])
    layered.enter(importhook.install())
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - the user's own command, no shell between
    except OSError as error:
        code, words = not_started(argv[0], error)
        say([words])
        return code
