"""``sif-writable prestage -- CMD``, called in ``%post``: what the command caches becomes part of the image."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sif_writable.commands import usage
from sif_writable.errors import SifWritableError
from sif_writable.gpu import signs
from sif_writable.identity import PURELIB
from sif_writable.image import bytecode, inventory, options, prestage
from sif_writable.report import text
from sif_writable.sizes import count, human
from sif_writable.stderr import say
from sif_writable.system import manifest

if TYPE_CHECKING:
    import argparse

COVERED = ("/tmp", "/var/tmp")  # noqa: S108
"""Directories that a run covers with others."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    usage.add_command(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command and bake what it left; its exit code, 2 when baking fails."""
    argv = usage.command_of(arguments)
    usage.warn_of_host(arguments)
    folders = inventory.folders(bytecode.importable())
    area = prestage.Area()
    area.open()
    finished = False
    before = prestage.in_tree(folders)
    passing = {folder: frozenset(_names(folder)) for folder in COVERED}
    try:
        try:
            decision = area.decide()
            prestage.round_times(folders)
            before = prestage.in_tree(folders)
            code, words = prestage.run(argv, decision)
            if code:
                say([f"{words}; nothing of it is baked"])
                return code
            if area.is_full():
                raise SifWritableError(
                    f"{area.path} has no space left, so what {argv[0]} wrote may be cut short; nothing of it is baked. "
                    "Remedy: build on a larger disk; APPTAINER_TMPDIR names the one that images are built on."
                )
            baked, secrets = area.tidy(decision)
            prestage.declare(PURELIB, baked, folders)
        except OSError as error:
            raise SifWritableError(area.words(error)) from error
        finished = True
    finally:
        area.close(keep=finished)
        if not finished:
            _take_back(before, prestage.in_tree(folders))
    if not arguments.quiet:
        _report(baked, secrets, before, prestage.in_tree(folders), passing)
    return 0


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _take_back(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> None:
    """Remove the files that a failed command made in the packages, and name those that it changed."""
    for path in after:
        if path not in before:
            os.unlink(path)
    changed = [path for path, what in after.items() if path in before and before[path] != what]
    if changed:
        words = f"files of packages that the command changed stay as it left them: {options.listed(changed)}"
        say([words])


def _report(
    baked: list[prestage.Baked],
    secrets: list[str],
    before: dict[str, tuple[int, int]],
    after: dict[str, tuple[int, int]],
    passing: dict[str, frozenset[str]],
) -> None:
    print(f"baked: {human(sum(entry.size for entry in baked))}" if baked else "baked: nothing was cached")
    for entry in baked:
        print(f"  {entry.variable:<26} {human(entry.size):>9} {count(entry.files):>12}  {entry.folder}")
    if any(entry.variable == "NUMBA_CACHE_DIR" for entry in baked):
        print(text.paragraph("numba's kernels fit CPUs like this one; set NUMBA_CPU_NAME=generic for all of them", 2))
    for path in secrets:
        print(text.paragraph(f"not baked, a secret: {path}", 2))
    written = sorted(path for path, what in after.items() if before.get(path) != what)
    if written:
        print(text.paragraph(f"written into packages, where it stays: {options.listed(written)}", 0))
    for folder, names in passing.items():
        new = sorted(f"{folder}/{name}" for name in set(_names(folder)) - names)
        if new:
            words = f"written to {options.listed(new)}: a run covers {folder} with another, so it is not found there"
            print(text.paragraph(words, 0))
    if not any(name.startswith("nvidia") for name in signs.nodes()):
        named = {line.partition(" ")[0] for line in manifest.read(PURELIB).get("location", ())}
        left = sorted((named & options.NEED_GPU) - {entry.variable for entry in baked})
        words = f": {options.listed(left)}" if left else ""
        print(
            text.paragraph(
                f"there is no GPU here: kernels for GPUs are made at run time, and kept in storage{words}", 0
            )
        )
