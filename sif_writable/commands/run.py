"""``sif-writable run -- CMD``: run a command, Python or not, with the redirects in its environment.

Where there may be a writable layer, the command is in it, too.
"""

from __future__ import annotations

import argparse
import os
import sys

from sif_writable import importhook, layered
from sif_writable.system.program import not_started


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- CMD", help="the command and its arguments")


def run(arguments: argparse.Namespace) -> int:
    """Replace this process by the command; return only when that fails: 126 or 127, as shells do, 2 without one."""
    argv = arguments.argv[1:] if arguments.argv[:1] == ["--"] else arguments.argv
    if not argv:
        print("sif-writable run: no command given; usage: sif-writable run -- CMD [ARGUMENT...]", file=sys.stderr)
        return 2
    sys.stdout.flush()
    layered.enter(importhook.install())
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - the user's own command, no shell between
    except OSError as error:
        code, words = not_started(argv[0], error)
        print(f"sif-writable run: {words}", file=sys.stderr)
        return code
