"""Try in a forked child what is going to be mounted, once for these circumstances: `unshare` cannot be taken back.

A mount that succeeds proves nothing where the image's files are root's, or where the upper filesystem keeps no
attributes: so a trial does what programs do.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from typing import TYPE_CHECKING

from sif_writable.layer import child, decide, enter, files, kernel, make, memory, replicas
from sif_writable.signals import let_pass, suppress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

UPPER_TYPES = frozenset(("ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs"))
"""Filesystems that carry an upper layer. A list and not a trial: on GPFS the trial has ended in a kernel panic."""
MARKER = ".sif-writable"
"""The file by which a folder for the layers of images is known to be ours."""
SECONDS = 20.0
PASSING = "for now "
"""How a refusal begins that the next start does not take for granted."""
_PASSING = (errno.EIO, errno.EINTR, errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT)
IN_MEMORY = "in memory"
"""The last line of a trial that has found no filesystem for a layer."""
_OK = "ok"
_SMALL, _FEW, _MOST = 1 << 20, 20, 2000
"""Bytes of a file and entries of a directory to try with, and how many paths are looked at for them."""


def asked(
    find: Callable[[], Sequence[str]], storage: str, image: str, uid_map: str, quick: str
) -> tuple[str, list[str]] | None:
    """Return what a trial has shown or shows now over the directories that are found; None: there are none.

    :param quick: what :func:`sif_writable.layer.make.environment` returned.
    :returns: as :func:`settle`.
    """
    wanted = decide.distinct([*filter(decide.can_be_named, find())])
    if not wanted:
        return None
    here = circumstances(wanted, uid_map)
    found = make.settled(enter.places(storage, image, os.geteuid()), 0, here)
    return found or settle(wanted, storage, image, [here, quick])


def circumstances(directories: Sequence[str], uid_map: str) -> str:
    """Return what a trial depends on, in one line: what worked once works while this stays the same."""
    words = [make.boot(), enter.read("/proc/self/attr/current"), " ".join(uid_map.split())]
    for directory in directories:
        status, space = os.stat(directory), os.statvfs(directory)
        words.append(f"{directory} {status.st_uid} {space.f_bsize} {space.f_namemax} {space.f_flag}")
    return repr(";".join([word.strip("\n\0") for word in words]))


def settle(directories: list[str], storage: str, image: str, here: list[str]) -> tuple[str, list[str]]:
    """Return the place of the layers, and the lines that are kept there: `here`, then ``ok`` and directories.

    :param here: the circumstances: what the trial depends on, and what the choice of directories does.
    :returns: in place of ``ok`` and directories the refusal, where there is no layer.
    """
    refusal, first = "", ""
    for place in enter.places(storage, image, os.geteuid()):
        problem = _make_place(place, keep_parent=bool(storage) and place.startswith(f"{storage}/"))
        if problem:
            refusal = refusal or problem
            continue
        first = first or place
        replicas.drop_unflushed(place)
        good, problem = _try(place, directories)
        if good:
            return place, note(place, [*here, _OK, *good])
        refusal = refusal if problem.startswith("no layer on ") and refusal else problem
        if not problem.startswith("no layer on "):
            break  # another place changes nothing
    else:
        for place in filter(enter.is_private, enter.places(storage, image, os.geteuid())):
            good, problem = _try(place, directories, in_memory=True)
            if good:
                return place, note(place, [*here, _OK, *good, IN_MEMORY])
    if refusal.startswith(PASSING):
        return first, [*here, refusal]
    return first, note(first, [*here, refusal])


def note(place: str, lines: list[str]) -> list[str]:
    """Keep what a trial has shown, where there is a place for it; return it."""
    with suppress(OSError):
        aside = f"{place}/{make.NEW}-{os.urandom(8).hex()}"
        enter.write(aside, "\n".join(lines))
        os.rename(aside, f"{place}/trial")
    return lines


def _make_place(place: str, *, keep_parent: bool) -> str:
    """Make a private folder; return what is wrong with it, or an empty string."""
    path = place
    missing = []
    while not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    try:
        for folder in reversed(missing):
            if keep_parent and folder != place:
                return f"{folder} is not there"
            with suppress(FileExistsError):
                os.mkdir(folder, 0o700)
        if not keep_parent:
            with suppress(FileExistsError):
                enter.write(f"{os.path.dirname(place)}/{MARKER}", "layers of sif_writable\n")
    except OSError as error:
        let_pass(error)
        return f"{error.filename} cannot be made: {error.strerror}"
    if not enter.is_private(place):
        return f"{place} is not this user's alone"
    kind = filesystem(place)
    if kind not in UPPER_TYPES:
        return f"no layer on {kind or 'an unknown filesystem'} ({place})"
    return ""


def filesystem(path: str) -> str:
    """Return the type of the filesystem that holds a path."""
    found, kind = "", ""
    real = os.path.realpath(path)
    for line in enter.read("/proc/self/mountinfo").splitlines():
        fields = line.split(" ")
        point = fields[4].replace("\\040", " ").replace("\\134", "\\")
        if len(point) >= len(found) and (real == point or real.startswith(f"{point.rstrip('/')}/")):
            found, kind = point, fields[fields.index("-") + 1]
    return kind


def _try(place: str, directories: list[str], *, in_memory: bool = False) -> tuple[list[str], str]:
    """Return the directories that can have a layer in a place, and what failed with the first that cannot."""
    good: list[str] = []
    problem = ""
    for directory in directories:
        layer = enter.Layer(place, "")
        layer.directories, layer.in_memory = [directory], in_memory
        try:
            if in_memory:
                memory.prepare(layer, "")
            else:
                layer.name = make.prepare(place, [directory], "", "")
        except OSError as error:
            let_pass(error)
            return [], f"no layer on what refuses to hold it ({place}: {error.strerror})"
        try:
            answer = child.ask(lambda layer=layer: _trial(layer) or _OK, SECONDS)  # type: ignore[misc]
        finally:
            files.remove(layer.folder)
        if answer == _OK:
            good.append(directory)
        else:
            problem = problem or answer or f"trying a layer over {directory} failed, or took {SECONDS:.0f} seconds"
            if not good:
                break  # the environment itself comes first
    return good, problem


def _trial(layer: enter.Layer) -> str:
    (point,) = layer.directories
    mode = os.stat(point).st_mode
    if point.endswith("-packages") and not mode & stat.S_IWUSR:  # in the layer, its topmost directory is ours
        return f"a layer over {point} would serve nothing: its owner may not write there (mode {stat.S_IMODE(mode):o})"
    problem = kernel.mount_layer(layer, "")
    if problem:
        return problem if layer.refused else f"{PASSING}{problem}"
    step = "making a file"
    try:
        _make_things(point)
        for directory in _of_packages(point):
            step = f"making a file in {directory}"
            _make_things(directory)
        file, folder = _samples(point)
        if folder:
            step = f"making a file in {folder}"
            _make_things(folder)
        if file:
            step = f"changing {file}"
            _rewrite(file)
            step = f"removing {file}"
            _remove(file)
        if folder:
            step = f"removing {folder} and making it again"
            _make_again(folder)
    except OSError as error:
        let_pass(error)
        problem = f"a layer over {point} can be mounted here, but {step} in it fails: {error.strerror}"
        return f"{PASSING}{problem}" if error.errno in _PASSING else problem
    return ""


def _of_packages(point: str) -> list[str]:
    """Return the directories of packages below: where their owner may not write there, a layer serves nothing."""
    found = {os.path.realpath(path) for path in sys.path if path.endswith("-packages") and os.path.isdir(path)}
    return sorted(path for path in found if path.startswith(f"{point}/"))


def _samples(point: str) -> tuple[str, str]:
    """Return a small file and a directory without directories in it, both of which their owner may change.

    The first directory that belongs to somebody else is what fails, if anything does.
    """
    file = folder = ""
    for number, (name, status) in enumerate(files.walk(point)):
        path = f"{point}/{name}"
        if stat.S_ISDIR(status.st_mode):
            if status.st_uid != os.geteuid():
                return file, path
            if not folder and _may_change(path, status):
                folder = _plain(path)
        elif stat.S_ISREG(status.st_mode) and 0 < status.st_size < _SMALL and not file and _may_change(path, status):
            file = path
        if number > _MOST:
            break
    return file, folder


def _may_change(path: str, status: os.stat_result) -> bool:
    """Whether its owner may write to it and remove it: an image may have directories of mode 0555."""
    return bool(status.st_mode & os.lstat(os.path.dirname(path)).st_mode & stat.S_IWUSR)


def _plain(path: str) -> str:
    """Return a directory if it holds a few files and no directories."""
    try:
        with os.scandir(path) as entries:
            found = [entry.is_dir(follow_symlinks=False) for entry in entries]
    except OSError as error:
        let_pass(error)
        return ""
    return path if 0 < len(found) <= _FEW and not any(found) else ""


def _make_things(directory: str) -> None:
    name = f"{directory}/.try-{os.urandom(8).hex()}"
    os.close(os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    os.rename(name, f"{name}-renamed")
    os.unlink(f"{name}-renamed")
    os.mkdir(name)
    os.rmdir(name)


def _rewrite(path: str) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.write(descriptor, os.pread(descriptor, 1, 0))
    finally:
        os.close(descriptor)


def _remove(path: str) -> None:
    os.unlink(path)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _make_again(folder: str) -> None:
    for name in os.listdir(folder):
        os.unlink(f"{folder}/{name}")
    os.rmdir(folder)
    os.mkdir(folder)
    if os.listdir(folder):
        raise FileExistsError(17, "what was removed is there again")
