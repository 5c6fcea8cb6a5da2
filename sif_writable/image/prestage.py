"""Run a command whose caches become part of the image, as seeds.

They are laid out like storage: ``data/NAME``, ``config/NAME``, ``compiled-TAG/NAME`` and ``home``. The command writes
to their final place, since some files contain their own path. What was there before is kept aside until the command
has succeeded, and the manifest names complete seeds only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

from sif_writable import DIR, SESSION, aside
from sif_writable.errors import SifWritableError
from sif_writable.identity import MANIFEST
from sif_writable.image import inventory, manifest
from sif_writable.redirects import environment as environment_
from sif_writable.redirects import seeding
from sif_writable.storage import candidates, layout
from sif_writable.storage.chosen import Slot, Storage
from sif_writable.storage.kinds import COMPILED, CONFIG, DATA
from sif_writable.system import surroundings
from sif_writable.system.filesystem import explain
from sif_writable.system.program import not_started

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sif_writable.redirects.decision import Decision

MIN_BYTES = 1 << 20
"""Bytes that must be free when the command has ended: else what it wrote is likely cut short."""
_UNWANTED = (".lock", ".pid", ".sock")
_SECRET = frozenset(("token", "stored_tokens", "credentials", "credentials.json", ".netrc", "id_rsa", "id_ed25519"))


class Baked(NamedTuple):
    """What became part of the image for one location."""

    variable: str
    """``HOME`` for the home."""
    folder: str
    size: int
    files: int


class Area:
    """Where this environment keeps its seeds."""

    def __init__(self) -> None:
        """Find it: below the prefix, so that each environment of an image has its own."""
        self.path = f"{sys.prefix}/share/sif-writable/seed"
        self.before = self.path + ".before"

    def open(self) -> None:
        """Begin: copy aside what is there, unless a run that was killed has done so.

        :raises SifWritableError: it cannot be made.
        """
        saved = self.before + ".new"
        try:
            if os.path.isdir(self.before):  # a run that was killed
                shutil.rmtree(self.path, ignore_errors=True)
                os.rename(self.before, self.path)
            os.makedirs(self.path, 0o755, exist_ok=True)
            shutil.rmtree(saved, ignore_errors=True)
            shutil.copytree(self.path, saved, symlinks=True)
            os.rename(saved, self.before)
            descriptor, probe = aside.create(self.path, begin=aside.TRY)
            with open(descriptor, "wb") as file:
                file.write(b"\0" * (MIN_BYTES >> 4))
            os.unlink(probe)
        except OSError as error:
            self.close(keep=False)
            raise SifWritableError(self.words(error)) from error

    def words(self, error: OSError) -> str:
        """Say why nothing can be baked, with the remedy."""
        number = error.errno
        if isinstance(error, shutil.Error):  # of copytree: a list of (source, target, words)
            words = str(error.args[0][0][2])
            number = next((code for code in (errno.ENOSPC, errno.EDQUOT) if os.strerror(code) in words), errno.EIO)
        problem = explain(OSError(number, os.strerror(number or 0)), self.path)
        return (
            f"{error.filename or self.path} {problem}, so nothing can be baked. Remedy: call this in %post as root of "
            "the image, on a disk with space (APPTAINER_TMPDIR names the one that images are built on)."
        )

    def close(self, *, keep: bool) -> None:
        """End: keep what was made, or restore what was there before."""
        if keep:
            shutil.rmtree(self.before, ignore_errors=True)
            return
        shutil.rmtree(self.before + ".new", ignore_errors=True)
        if os.path.isdir(self.before):
            shutil.rmtree(self.path, ignore_errors=True)
            with contextlib.suppress(OSError):
                os.rename(self.before, self.path)
        for folder in (self.path, os.path.dirname(self.path)):
            with contextlib.suppress(OSError):
                os.rmdir(folder)

    def decide(self) -> Decision:
        """Decide where each location goes, as at run time in a place that the user gave, and make the folders."""
        environ = {name: value for name, value in os.environ.items() if name != DIR}
        seen = surroundings.see(environ)
        seen.manifest = {}
        storage = Storage()
        place = candidates.Candidate("the image", self.path, "persistent", given=True, of_image=True)
        for kind, name in ((DATA, layout.DATA), (CONFIG, layout.CONFIG), (COMPILED, layout.COMPILED + seen.tag)):
            folder = f"{self.path}/{name}"
            os.makedirs(folder, 0o755, exist_ok=True)
            storage.slots[kind] = Slot(self.path, place, folder, frozenset(os.listdir(folder)))
        decision = environment_.decide(seen, storage, environ)
        decision.pycache = ""  # bytecode belongs beside its source
        for redirect in decision.redirects:
            if redirect.make:
                inner = os.path.join(redirect.folder, redirect.subfolder) if redirect.subfolder else redirect.folder
                os.makedirs(inner, 0o755, exist_ok=True)
        decision.home = self.path + "/home"
        os.makedirs(decision.home, 0o755, exist_ok=True)
        seeding.link_home(os.environ.get("HOME", ""), decision.home, copies=False)
        return decision

    def tidy(self, decision: Decision) -> tuple[list[Baked], list[str]]:
        """Remove what must not be baked, let everybody read the rest, and list it.

        :returns: what is baked, and the secrets that were removed.
        """
        secrets = _sweep(self.path, decision.home)
        places = {redirect.folder: redirect.variable for redirect in decision.redirects if redirect.folder}
        places[decision.home] = "HOME"
        baked = []
        for folder, variable in places.items():
            size, files = _measure(folder)
            if files:
                baked.append(Baked(variable, folder, size, files))
        return sorted(baked), secrets

    def is_full(self) -> bool:
        """Whether almost no space is free."""
        space = os.statvfs(self.path)
        return space.f_bavail * space.f_frsize < MIN_BYTES or (bool(space.f_files) and space.f_favail < 16)


def run(argv: Sequence[str], decision: Decision) -> tuple[int, str]:
    """Run the command with every location in the area; return its exit code, as a shell would, and what went wrong."""
    environment = {**os.environ, **{redirect.variable: redirect.value for redirect in decision.redirects}}
    environment.update(HOME=decision.home, SIF_WRITABLE="off")
    environment.pop(SESSION, None)  # with it, "off" would take back what is set here
    sys.stdout.flush()
    try:
        done = subprocess.run(argv, env=environment, check=False)
    except OSError as error:
        return not_started(argv[0], error)
    if done.returncode < 0:
        return 128 - done.returncode, f"{argv[0]} was ended by {signal.Signals(-done.returncode).name}"
    return done.returncode, f"{argv[0]} failed with exit code {done.returncode}" if done.returncode else ""


def declare(purelib: str, baked: Sequence[Baked], folders: Sequence[str]) -> None:
    """Let the manifest name what is baked."""
    seeds = [f"{entry.variable} {entry.folder}" for entry in baked]
    stamp = inventory.stamp(folders, (entry.folder for entry in baked))
    manifest.update(purelib, {"seed": seeds, "stamp": [stamp]})


def round_times(folders: Sequence[str]) -> None:
    """Cut the times of sources to whole seconds, which is all that an image keeps.

    Some caches note the time of a source (numba before 0.60) and would not know it again.
    """
    for folder in folders:
        for path in _files(folder):
            if path.endswith(".py"):
                with contextlib.suppress(OSError):
                    status = os.lstat(path)
                    if stat.S_ISREG(status.st_mode) and status.st_mtime_ns % 10**9:
                        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns // 10**9 * 10**9))


def in_tree(folders: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Map each file of what is installed to its size and time, bytecode apart."""
    found = {}
    for folder in folders:
        for here, inner, files in os.walk(folder):
            inner[:] = [name for name in inner if name != "__pycache__"]
            for name in files:
                if name.startswith(MANIFEST):
                    continue
                with contextlib.suppress(OSError):
                    status = os.lstat(f"{here}/{name}")
                    found[f"{here}/{name}"] = (status.st_size, status.st_mtime_ns)
    return found


def _sweep(area: str, home: str) -> list[str]:
    """Remove locks, sockets, secrets, links into the builder's home, and folders without a file."""
    secrets = []
    for here, inner, files in os.walk(area, topdown=False):
        for name in (*files, *(name for name in inner if os.path.islink(f"{here}/{name}"))):
            path = f"{here}/{name}"
            status = os.lstat(path)
            secret = name in _SECRET and stat.S_ISREG(status.st_mode)
            linked = stat.S_ISLNK(status.st_mode) and here.startswith(home)
            special = not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode))
            if secret or linked or special or name.endswith(_UNWANTED):
                os.unlink(path)
                secrets += [path] if secret else []
            elif stat.S_ISREG(status.st_mode):
                os.chmod(path, stat.S_IMODE(status.st_mode) | 0o644)
        if here != area and not os.listdir(here):
            os.rmdir(here)
        else:
            os.chmod(here, 0o755)  # noqa: S103 - a part of the image, for everybody to read
    return secrets


def _measure(folder: str) -> tuple[int, int]:
    size = files = 0
    for path in _files(folder):
        size += os.lstat(path).st_size
        files += 1
    return size, files


def _files(folder: str) -> Iterator[str]:
    for here, _, files in os.walk(folder):
        yield from (f"{here}/{name}" for name in files)
