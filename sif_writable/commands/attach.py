"""``sif-writable attach``: for images that nobody can rebuild, the hook comes from a folder of the host's."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

import sif_writable
from sif_writable.attach import folder, look, sources, variables
from sif_writable.commands.env import add_shell, assignment
from sif_writable.errors import SifWritableError
from sif_writable.report import text
from sif_writable.stderr import say

if TYPE_CHECKING:
    import argparse

_quiet = False
"""Whether only the lines for the shell are printed."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    where = "where to make the folder (default: below ~/.local/share)"
    parser.add_argument("--dir", metavar="DIR", help=where)
    add_shell(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--image",
        metavar="X.sif",
        help="look into this image, and bind a .pth file into its site directories: for an image that sets PYTHONPATH",
    )
    which.add_argument(
        "--site", action="store_true", help="print lines for an administrator: for every image and user of a cluster"
    )


def _check(option: str, word: str | None) -> None:
    """Check that an option names something.

    :raises SifWritableError: it does not, as where a variable of the shell is not set.
    """
    if word is not None and not word.strip():
        raise SifWritableError(f"{option} {word!r} names nothing. Remedy: give a path; is a variable of it not set?")
    if word is not None and word.startswith("~"):
        raise SifWritableError(f"{option} {word!r} has a ~ that the shell left as it is. Remedy: write $HOME instead.")


def run(arguments: argparse.Namespace) -> int:
    """Make the folder, and print what brings it into containers; always 0."""
    global _quiet
    _quiet = arguments.quiet
    _check("--dir", arguments.dir)
    _check("--image", arguments.image)
    place = arguments.dir or folder.default()
    _report_place(place)
    engine = look.engine_for(arguments.image) if arguments.image else ""
    made = folder.make(place)
    lines: list[str] = []
    if arguments.site:
        settings, profile = variables.for_site(made.path, arguments.shell)
        lines += ["# In apptainer.conf (or singularity.conf), for every container:", *settings]
        lines += [f"# In a profile script of {arguments.shell}; SIF_WRITABLE=off switches it off:", *profile]
        if closed := folder.closed_to_others(made.path):
            _report(
                f"{closed} lets nobody else in, so other users' containers cannot bind the folder. Remedy: a place "
                "that everybody reaches on every node, such as --dir /opt/sif-writable"
            )
    elif arguments.image:
        looked = look.into(engine, arguments.image, made.path)
        if bad := [path for path in looked.directories if variables.bad_path(path)]:
            raise SifWritableError(
                f"{bad[0]} in {arguments.image} {variables.bad_path(bad[0])}. Remedy: leave --image out."
            )
        for path in looked.have:
            _report(f"{path} is in the image already: it needs nothing attached")
        for program in looked.too_old:
            _report(f"{program} is left out: sif-writable needs Python 3.9")
        if looked.directories:
            lines += _assignments(arguments.shell, variables.for_image(os.environ, made.path, looked.directories))
            _report(
                "a file is bound into the image's packages then, and the kernel makes no layer over those: what writes "
                "beside itself there gets copies"
            )
    else:
        lines += _assignments(arguments.shell, variables.for_shell(os.environ, made.path))
    _report_folder(made)
    if lines and not arguments.site:
        _report(
            "a container has it now when these lines are in its shell; in there: python -m sif_writable status. A bind "
            "to a path that the image lacks ends `apptainer build` and `--writable`: unset APPTAINER_BIND for them"
        )
    sys.stdout.buffer.write(os.fsencode("".join(line + "\n" for line in lines)))
    return 0


def _assignments(shell: str, values: dict[str, str]) -> list[str]:
    return [assignment(shell, name, value) for name, value in values.items()]


def _report_place(place: str) -> None:
    """Say what a path made in a container is worth; nothing where containers are started from."""
    if not sif_writable.in_container(sif_writable.environment()) or any(map(shutil.which, look.ENGINES)):
        return
    from sif_writable.system import image_mounts

    if image_mounts.host_mount(place):
        _report(f"{place} is as this container shows it; outside it may have another path")
    else:
        _report(
            f"{os.path.abspath(place)} is of this container and gone with it: name a directory of the host's by --dir"
        )


def _report_folder(made: folder.Made) -> None:
    oldest = f"3.{sources.OLDEST}"
    _report(
        f"{made.path} {'holds' if made.new else 'has held'} {', '.join(made.taken)}, for Python {oldest} and newer; "
        f"bytecode for {', '.join(made.compiled) or 'none'}"
    )
    for words in made.lacking:
        _report(f"{words}. Older ones do without it: nothing fails for that")
    if made.others:
        _report(f"earlier versions, to be removed when no job runs with them: {', '.join(made.others)}")


def _report(words: str) -> None:
    if not _quiet:
        say([text.paragraph(f"{words}.", 2)[2:]])
