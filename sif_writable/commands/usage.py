"""What ``--help`` of each command ends with: two examples, the exit codes, and where the documentation is."""

from __future__ import annotations

import argparse
import sys
from typing import NamedTuple

import sif_writable
from sif_writable.stderr import say

DOCUMENTATION = "https://github.com/OWNER/sif_writable/blob/main/container/README.md"
"""As in ``project.urls`` of pyproject.toml."""
PROGRAM = "sif-writable"
CMD = "-- CMD [ARGUMENT...]"


class Page(NamedTuple):
    """The end of a page of help."""

    examples: tuple[tuple[str, str], ...]
    """(words after the name of the program, what for)."""
    codes: str


_ALWAYS = "0; 2 where the command line is not understood"
_REMOVAL = "0 done; 1 something that was to go stays; 2 not understood or refused"
PAGES = {
    "": Page(
        (
            ("status", "what went where, and what is wrong: for a ticket"),
            ("doctor", "before a job: exit code 1 on FAIL"),
        ),
        "those of the command; 2 where the command line is not understood",
    ),
    "status": Page(
        (("status", "25 lines at most, for a ticket"), ("status --verbose --full", "everything, with all sizes")),
        _ALWAYS,
    ),
    "doctor": Page(
        (
            ("doctor || exit", "first line of a job script"),
            ("doctor --require-gpu", "fails without a GPU that can be used"),
        ),
        "0; 1 where a check is FAIL; 2 where the command line is not understood",
    ),
    "cache": Page(
        (
            ("cache list", "what this image keeps, and how much"),
            ("cache prune --older-than 30d --yes", "remove what was not used for a month"),
        ),
        _REMOVAL,
    ),
    "cache list": Page(
        (
            ("cache list", "what this image keeps, and what images share"),
            ("cache list --all-images --dir /scratch/me/cache", "all that is in a directory, also outside a container"),
        ),
        "0; 2 where the command line is not understood, or a directory holds no storage",
    ),
    "cache prune": Page(
        (
            ("cache prune --older-than 30d", "show what would go; --yes removes it"),
            ("cache prune --all-images --dead --yes", "remove what idle images and killed processes left"),
        ),
        f"{_REMOVAL}; without --yes nothing goes",
    ),
    "cache clear": Page(
        (
            ("cache clear numba --yes", "remove numba's cache of this image"),
            ("cache clear data/pip --all-images --yes", "remove a download cache that images share"),
        ),
        f"{_REMOVAL}; without --yes nothing goes",
    ),
    "cache forget": Page(
        (
            ("cache forget PACKAGE", "import it from the image again, until a write is refused"),
            ("cache forget --all --yes", "as if the image had just been pulled; removes what programs wrote, too"),
        ),
        "0; 1 something is in use or cannot be moved; 2 not understood, or nothing is known of a name",
    ),
    "env": Page(
        (
            ('eval "$(sif-writable env)"', "the same variables for programs of this shell"),
            ("env --shell fish | source", "in fish"),
        ),
        _ALWAYS,
    ),
    "run": Page(
        (
            ("run -- R --no-save -f analysis.R", "a program that is not Python, with the same caches"),
            ("run -- make test", "the same for make, and for what it starts"),
        ),
        "those of CMD; 126 it cannot be executed; 127 there is none; 2 where no CMD is given",
    ),
    "trace": Page(
        (
            ("trace -- python train.py --steps 1", "what it writes under the image, and what cures it"),
            ("trace --save -- python train.py", "and keep the findings for the next runs"),
        ),
        "those of CMD; 1 where it ended well and a finding could not be saved; 2 where no CMD is given",
    ),
    "prepare": Page(
        (
            ("prepare --require-gpu --packages mytool", "in %post: what each run demands and needs"),
            ("prepare --check", "in %test: is everything still as prepared?"),
        ),
        "0; 1 where --check finds something stale; 2 where something is wrong",
    ),
    "prestage": Page(
        (
            ('prestage -- python -c "import mytool"', "in %post: bake what the import caches"),
            ("prestage -- python warm_up.py", "the same for a script that downloads models"),
        ),
        "those of CMD; 2 where no CMD is given, or what it left cannot be baked",
    ),
    "attach": Page(
        (
            ('eval "$(sif-writable attach)"', "on the host: each container of this shell has the hook"),
            ("attach --image my.sif --shell fish | source", "for an image that sets PYTHONPATH itself, in fish"),
        ),
        "0; 2 where the folder cannot be made or the image not be looked into, or on bad usage",
    ),
    "completion": Page(
        (
            ('eval "$(sif-writable completion bash)"', "in ~/.bashrc"),
            ("completion fish > ~/.config/fish/completions/sif-writable.fish", "once, in fish"),
        ),
        _ALWAYS,
    ),
}


def epilog(command: str, program: str = PROGRAM) -> str:
    """Return the end of a page of help, each thing on a line of its own.

    :param command: such as ``cache list``; empty for the program itself.
    :param program: what the user calls.
    """
    page = PAGES[command]
    lines = ["examples:"]
    for words, purpose in page.examples:
        whole = (words if f"{PROGRAM} " in words else f"{PROGRAM} {words}").replace(f"{PROGRAM} ", f"{program} ")
        lines += [f"  {whole}", f"      {purpose}"]
    return "\n".join([*lines, "", f"exit codes: {page.codes}", f"documentation: {DOCUMENTATION}"])


class _Formatter(argparse.HelpFormatter):
    """Folds all but the end of a page."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith("examples:") else super()._fill_text(text, width, indent)


def complete(parser: argparse.ArgumentParser, command: str) -> None:
    """Give a parser what all have: ``-q``, and the end of its page."""
    end = f" {command}" if command else ""
    parser.epilog = epilog(command, parser.prog[: len(parser.prog) - len(end)])
    parser.formatter_class = _Formatter
    parser.set_defaults(parser=parser)
    # Before a command it counts as well as after it, whose default would undo it.
    default = argparse.SUPPRESS if command else False
    words = "say only what is wrong, and what was asked for"
    parser.add_argument("-q", "--quiet", action="store_true", default=default, help=words)


def add_command(parser: argparse.ArgumentParser) -> None:
    """Declare the command that is to be run, behind two dashes."""
    parser.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- CMD", help="the command and its arguments")
    parser.usage = f"%(prog)s [options] {CMD}"


def warn_of_host(arguments: argparse.Namespace) -> None:
    """Say that a command for the build of an image is at work on what seems to be a host."""
    if sif_writable.state == "host" and not arguments.quiet:
        words = f"no container is recognised here, so the environment that is changed is this machine's: {sys.prefix}"
        say([f"{words}. In an image, call this in %post or in a RUN line"])


def command_of(arguments: argparse.Namespace) -> list[str]:
    """Return the command that is to be run.

    :raises SystemExit: there is none, or it has no name: code 2, with the usage on stderr.
    """
    argv: list[str] = arguments.argv
    argv = argv[1:] if argv[:1] == ["--"] else argv
    if not argv:
        arguments.parser.error("no command given")
    if not argv[0].strip():  # such as a variable of the shell that is not set
        arguments.parser.error(f"the command has no name: {argv[0]!r}")
    return argv
