"""Try in a forked child, which leaves nothing behind, what is going to be mounted here.

A successful mount proves nothing where the image's files are root's, and a process whose own namespace went wrong could
not go back.
"""

from __future__ import annotations

import os
import select
import signal
import stat
import time
from typing import TYPE_CHECKING

from sif_writable import aside
from sif_writable.layer import files
from sif_writable.overlay import layers, mounting, obstacles
from sif_writable.overlay.decide import GRAFT
from sif_writable.signals import fork, let_pass, suppress
from sif_writable.storage import layout
from sif_writable.system.mounts import mounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sif_writable.overlay.decide import Target
    from sif_writable.system.mounts import Mount

PROVEN = "proven"
"""The file of what was shown to work, among what storage keeps for the overlays of an image."""
TRIAL_SECONDS = 20.0
"""Seconds that the forked child may take; a filesystem that hangs shall not hang the program."""


def verify_mounts(targets: tuple[Target, ...], folder: str, in_storage: str, table: list[Mount]) -> str:
    """Try what was not shown to work before in these circumstances; return an empty string or what failed.

    :param folder: what storage keeps for the overlays of this image; the proof is noted there.
    :param in_storage: why that folder cannot carry an upper layer, or an empty string.
    """
    circumstances = obstacles.circumstances(table)
    first, *others = proofs(folder)
    proven = set(others) if first == circumstances else set()
    unproven = {f"{target.how} {target.point!r} {target.paths!r}" for target in targets} - proven
    if not unproven:
        return ""
    tried = aside.path(folder, "trial")
    try:
        problem = _try_in_child(lambda: _trial(targets, folder, tried, in_storage))
    finally:
        files.remove(tried)
    if not problem:
        _note_proof(folder, [circumstances, *proven, *unproven])
    return problem


def proofs(folder: str) -> list[str]:
    """Return the circumstances of the last trial, and what it has shown to work: it takes longer than all the rest."""
    with suppress(OSError), open(f"{folder}/{PROVEN}", encoding="utf-8", errors="surrogateescape") as file:
        return file.read().split("\n")
    return [""]


def proven(image: str) -> set[str]:
    """Return the directories that a mount was shown to work on.

    :param image: the folder of this image in storage.
    """
    _, *lines = proofs(f"{image}/{layout.OVERLAY}")
    return {line.split("'")[1] for line in lines if line.count("'") > 1}


def forget(names: Iterable[str], image: str) -> None:
    """Have what was shown to work shown anew, if it is about one of some directories."""
    if not proven(image).isdisjoint(names):
        with suppress(OSError):
            os.unlink(f"{image}/{layout.OVERLAY}/{PROVEN}")


def _note_proof(folder: str, lines: Iterable[str]) -> None:
    with suppress(OSError):
        descriptor, new = aside.create(folder, PROVEN)
        with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write("\n".join(lines))
        os.rename(new, f"{folder}/{PROVEN}")


def _try_in_child(work: Callable[[], str]) -> str:
    """Run something in a forked child that ends with it; return what it returns, or what became of it."""
    readable, writable = os.pipe()
    try:
        child = fork()
    except OSError as error:
        let_pass(error)
        os.close(readable)
        os.close(writable)
        return f"no child process can be made to try it in: {error.strerror}"
    if child == 0:
        _be_child(work, writable)
    os.close(writable)
    try:
        return _read_answer(child, readable)
    finally:
        os.close(readable)
        with suppress(ChildProcessError):  # the program ignores SIGCHLD
            os.waitpid(child, 0)


def _be_child(work: Callable[[], str], writable: int) -> None:
    try:
        try:
            text = work() or "."
        except BaseException as error:  # noqa: BLE001 - nothing of this child may reach the program
            text = f"trying it failed: {type(error).__name__}: {error}"
        os.write(writable, text.encode("utf-8", "surrogateescape")[:4000])
    finally:
        os._exit(0)


def _read_answer(child: int, readable: int) -> str:
    deadline = time.monotonic() + TRIAL_SECONDS
    text = b""
    poll = select.poll()
    poll.register(readable, select.POLLIN)
    while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        part = os.read(readable, 4096)
        if not part:
            break
        text += part
    else:
        os.kill(child, signal.SIGKILL)
        return f"trying it took more than {TRIAL_SECONDS:.0f} seconds"
    words = text.decode("utf-8", "surrogateescape")
    return "" if words == "." else words or "trying it ended the child that did"


def _trial(targets: tuple[Target, ...], folder: str, trial: str, in_storage: str) -> str:
    """Do for each directory what a program may do there; return an empty string or what failed."""
    from sif_writable.overlay.kernel import overlay

    problem = mounting.separate()
    if problem:
        return problem
    for number, target in enumerate(targets):
        step = ""
        samples = [sample for path in target.paths for sample in _samples(path)]
        try:
            if target.how == GRAFT:
                mounting.mount_graft(target, folder)
                samples = []  # what is kept in storage is ours, and not to be tried with
            else:
                place = f"{mounting.memory(folder) if in_storage else trial}/{number}"
                layers.make_folder(f"{place}/upper", target.point)
                os.makedirs(f"{place}/work", 0o700)
                layers.mirror(target.point, f"{place}/upper", samples, deep=False)
                overlay(target.point, f"{place}/upper", f"{place}/work", target.point, shared=False)
            step = "making a file"
            _exercise(target.point)
            for sample in samples:
                step = f"changing {sample}"
                (_exercise if os.path.isdir(sample) else _rewrite)(sample)
        except OSError as error:
            let_pass(error)
            if not step:
                return obstacles.mount_words(error.errno, target.point, mounts())
            return f"{target.point} can be made writable, but {step} in it fails: {error.strerror}"
    return ""


def _samples(path: str) -> list[str]:
    """Return one directory and one small file of a tree, to be changed in the trial."""
    found: dict[str, str] = {}
    if os.path.isdir(path):
        with suppress(OSError), os.scandir(path) as entries:
            for number, entry in enumerate(entries):
                if number > 200 or len(found) == 2 or entry.is_symlink():
                    continue
                kind = "directory" if entry.is_dir(follow_symlinks=False) else "file"
                size = entry.stat(follow_symlinks=False).st_size
                if kind == "directory" or (size <= layers.SMALL and os.access(entry.path, os.R_OK)):
                    found.setdefault(kind, entry.path)
    elif os.path.isfile(path) and os.path.getsize(path) <= layers.SMALL:
        found["file"] = path
    return list(found.values())


def _exercise(directory: str) -> None:
    """Make, rename and remove a file and a directory.

    :raises OSError: what a program would get.
    """
    descriptor, name = aside.create(directory, begin=aside.TRY)
    try:
        os.write(descriptor, b"x")
    finally:
        os.close(descriptor)
    renamed = aside.path(directory, begin=aside.TRY)
    os.rename(name, renamed)
    os.unlink(renamed)
    os.mkdir(name)
    os.rmdir(name)


def _rewrite(path: str) -> None:
    """Rewrite a file in place, then replace it.

    :raises OSError: what a program would get.
    """
    if not stat.S_ISREG(os.lstat(path).st_mode):
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.write(descriptor, os.pread(descriptor, 1, 0))
    finally:
        os.close(descriptor)
    descriptor, new = aside.create(os.path.dirname(path), begin=aside.TRY)
    os.close(descriptor)
    os.rename(new, path)
