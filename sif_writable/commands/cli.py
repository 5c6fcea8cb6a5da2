"""The command line: one module per command, each with ``add(parser)`` and ``run(arguments)``.

Exit codes: 0, 1 when ``doctor`` finds a requirement unmet, 2 on bad usage; ``run`` passes on that of its command.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import TYPE_CHECKING

import sif_writable
from sif_writable import layered
from sif_writable.errors import SifWritableError

if TYPE_CHECKING:
    from collections.abc import Sequence

DESCRIPTION = "Make Python packages work in a read-only container image."
"""What ``--help`` says; a doc string does not exist under ``python -OO``."""

COMMANDS = {
    "status": "say where everything goes, and why",
    "doctor": "check this container before a job: PASS, WARN or FAIL, with remedies",
    "cache": "list what storage holds, and remove what is old, dead, or asked for",
    "attach": "for an image that nobody can rebuild: make a folder of this host's, and print what binds it in",
    "env": "print the redirects as shell commands, for programs that are not Python",
    "prepare": "build time: let the image describe itself, and compile its bytecode",
    "prestage": "build time: run a command, and bake what it caches into the image",
    "run": "run a command with the redirects in its environment",
    "trace": "run a command, and list what is written under the image, by whom, and what cures it",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    ran = sif_writable.state != "not run"
    if not ran:  # `pip install --target`, or -S: the commands work all the same
        sif_writable.run()
    layered.leave_out()
    brought = bool(getattr(getattr(sys.modules.get("sif_writable_attached"), "Last", None), "folder", ""))
    if brought and os.path.basename(sys.argv[0]) != "__main__.py":
        words = "is the host's, and no command of this image. Remedy: call it by the image's Python, as"
        rest = " ".join(sys.argv[1:] if argv is None else argv)
        print(f"sif-writable: {sys.argv[0]} {words} python -m sif_writable {rest}".rstrip(), file=sys.stderr)
        return 2
    program = "python -m sif_writable" if brought else "sif-writable"
    parser = argparse.ArgumentParser(prog=program, description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"sif-writable {sif_writable.__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    given = sys.argv[1:] if argv is None else argv
    asked = next((word for word in given if word in COMMANDS), "")
    modules = {}
    for name, words in COMMANDS.items():
        own = subparsers.add_parser(name, help=words, description=words)
        if name == asked:  # the others are only listed
            modules[name] = importlib.import_module(f"sif_writable.commands.{name}")
            modules[name].add(own)
    arguments = parser.parse_args(argv)
    arguments.hook_ran = ran
    try:
        code: int = modules[arguments.command].run(arguments)
        sys.stdout.flush()
    except SifWritableError as error:
        print(f"sif-writable {arguments.command}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `sif-writable status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at exit
        return 0
    return code
