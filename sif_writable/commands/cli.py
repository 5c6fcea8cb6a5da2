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
from sif_writable.commands import usage
from sif_writable.errors import SifWritableError
from sif_writable.stderr import say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

DESCRIPTION = "Make Python packages work in a read-only container image."
"""What ``--help`` says; a doc string does not exist under ``python -OO``."""

COMMANDS = {
    "status": "say where everything goes, and why",
    "doctor": "check this container before a job: PASS, INFO, WARN or FAIL, with remedies",
    "cache": "list what storage holds, and remove what is old, dead, or asked for",
    "attach": "for an image that nobody can rebuild: make a folder of this host's, and print what binds it in",
    "env": "print the redirects as shell commands, for programs that are not Python",
    "prepare": "build time: let the image describe itself, and compile its bytecode",
    "prestage": "build time: run a command, and bake what it caches into the image",
    "run": "run a command with the redirects in its environment",
    "trace": "run a command, and list what is written under the image, by whom, and what cures it",
    "completion": "print what lets a shell complete these commands",
}


def make_parser(wanted: Callable[[str], bool], program: str = usage.PROGRAM) -> argparse.ArgumentParser:
    """Return the parser of the command line.

    :param wanted: whether the options of a command are declared, for which its module has to be loaded.
    :param program: what the user calls.
    """
    parser = argparse.ArgumentParser(prog=program, description=DESCRIPTION)
    usage.complete(parser, "")
    parser.add_argument("--version", action="version", version=f"{usage.PROGRAM} {sif_writable.__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, words in COMMANDS.items():
        own = subparsers.add_parser(name, help=words, description=words)
        if wanted(name):
            usage.complete(own, name)
            _module(name).add(own)
    return parser


def _module(name: str) -> Any:
    return importlib.import_module(f"sif_writable.commands.{name}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    if sys.stdout is None:  # closed: what is printed goes nowhere, as with print()
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until the process ends
    ran = sif_writable.state != "not run"
    if not ran:  # `pip install --target`, or -S: the commands work all the same
        sif_writable.run()
    layered.leave_out()
    brought = bool(getattr(getattr(sys.modules.get("sif_writable_attached"), "Last", None), "folder", ""))
    if brought and os.path.basename(sys.argv[0]) != "__main__.py":
        words = "is the host's, and no command of this image. Remedy: call it by the image's Python, as"
        rest = " ".join(sys.argv[1:] if argv is None else argv)
        say([f"{sys.argv[0]} {words} python -m sif_writable {rest}".rstrip()])
        return 2
    given = sys.argv[1:] if argv is None else argv
    asked = next((word for word in given if word in COMMANDS), "")
    program = "python -m sif_writable" if brought else usage.PROGRAM
    parser = make_parser(lambda name: name == asked, program)  # the others are only listed
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:  # argparse itself would print the usage of the program
        arguments.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    arguments.hook_ran = ran
    try:
        code: int = _module(arguments.command).run(arguments)
        return code if (problem := _flush()) is None else _unwritten(problem)
    except SifWritableError as error:
        say([str(error)])
        return 2
    except BrokenPipeError:  # `sif-writable status | head`
        _discard()
        return 0
    except KeyboardInterrupt:
        _discard()
        return 130  # as shells say of SIGINT


def _flush() -> OSError | None:
    """Write what is buffered; return why that is not possible."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        return error
    return None


def _unwritten(error: OSError) -> int:
    say([f"standard output cannot be written: {error.strerror}. Remedy: send it elsewhere, or make room"])
    _discard()
    return 2


def _discard() -> None:
    """Send what is still buffered nowhere: the interpreter flushes once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
