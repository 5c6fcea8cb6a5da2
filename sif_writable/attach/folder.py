"""The folder that is bound into containers: a version in a folder of its own each, and a link to the one in use.

A version is complete when it has its name, and never changes: a running container keeps the one that it has bound.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, NamedTuple

import sif_writable
from sif_writable import MODE, aside
from sif_writable.attach import sources, variables
from sif_writable.errors import SifWritableError
from sif_writable.storage.unserved import short
from sif_writable.system.filesystem import explain, way

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sif_writable.attach.sources import Source

MARK = ".sif-writable-attached"
CURRENT = "current"
_OPEN = 0o755
NEWEST = 15
"""The minor version of the newest Python that is looked for, to compile."""


class Made(NamedTuple):
    """The folder, as it is now."""

    path: str
    """What is to be bound."""
    new: bool
    taken: list[str]
    """What it holds, in words."""
    lacking: list[str]
    """What it does not, with the consequence."""
    compiled: list[str]
    """Versions of Python that have compiled it."""
    others: list[str]
    """Earlier versions, which are left to the jobs that run with them."""


def default() -> str:
    """Return where the folder is made unless somebody says otherwise.

    :raises SifWritableError: this user has no directory.
    """
    data = os.environ.get("XDG_DATA_HOME", "")
    try:
        import platformdirs

        data = platformdirs.user_data_dir("sif-writable", appauthor=False)
    except Exception:  # noqa: BLE001 - whatever bears this name; and without HOME there is none
        data = f"{data or os.path.expanduser('~/.local/share')}/sif-writable"
    if not os.path.isabs(data):
        raise SifWritableError("HOME names no directory. Remedy: name one for the folder by --dir.")
    return os.path.join(data, "attached")


def closed_to_others(path: str) -> str:
    """Return the outermost directory on the way to a path whose mode keeps other users out, or an empty string."""
    here, found = os.path.realpath(path), ""
    while here != "/":
        if not os.stat(here).st_mode & 0o001:
            found = here
        here = os.path.dirname(here)
    return found


def make(folder: str) -> Made:
    """Make the folder, or bring it up to date.

    :raises SifWritableError: it cannot be made there.
    """
    folder = os.path.abspath(folder)
    try:
        _own(folder)
        return _make(folder)
    except OSError as error:
        where = str(error.filename or folder)
        # The kernel's filesystems say so of what they do not let anybody make.
        cannot = error.errno == errno.ENOENT and os.path.isdir(os.path.dirname(where))
        why = "cannot be made there" if cannot else explain(error)
        raise SifWritableError(
            f"{short(where)} {why}, so nothing can be attached. Remedy: another place by --dir."
        ) from error


def _own(folder: str) -> None:
    """Make the folder ours.

    :raises SifWritableError: it is somebody else's, or others could change what containers execute.
    """
    problem, loose = way(folder, os.geteuid())
    if loose and "KUBERNETES_SERVICE_HOST" in os.environ and os.path.ismount(loose):
        # A volume, whose mode lets any user of the pod in: there is one. The variable leaks to hosts, too.
        loose = "" if sif_writable.in_container(sif_writable.environment()) else loose
    if loose and not problem and not os.path.lexists(f"{folder}/{MARK}") and loose == os.path.realpath(folder):
        loose = ""  # the mode of the folder itself is set below
    problem = variables.bad_path(folder) or problem or (loose and f"leads through {loose}, which others may write")
    if not problem and os.path.lexists(folder):
        if not os.path.isdir(folder):
            problem = "is no directory"
        elif not os.path.lexists(f"{folder}/{MARK}") and os.listdir(folder):
            problem = "is not empty and has no mark of ours"
    if not problem:
        if not os.path.isdir(folder):
            os.makedirs(folder, exist_ok=True)
            os.chmod(folder, _OPEN)  # whatever the umask, as what is in it
        status = os.stat(folder)
        if status.st_uid != os.geteuid():
            problem = f"belongs to uid {status.st_uid}, who could change what containers execute"
        elif status.st_mode & 0o022:
            if os.path.lexists(f"{folder}/{MARK}") or os.path.islink(folder):
                problem = f"can be written by others (mode {stat.S_IMODE(status.st_mode):04o})"
            else:  # it is new or empty: the umask or a group's directory has made it so
                os.chmod(folder, _OPEN)
    if problem:
        raise SifWritableError(f"{short(folder)} {problem}. Remedy: name another directory by --dir, which is made.")
    if not os.path.lexists(f"{folder}/{MARK}"):
        with open(f"{folder}/{MARK}", "w", encoding="utf-8") as file:
            file.write("Made by sif-writable attach; it may be removed when no container has it bound.\n")


def _make(folder: str) -> Made:
    with tempfile.TemporaryDirectory() as fetched:
        found, lacking = _gather(f"{folder}/{CURRENT}", fetched)
        name = f"{found[0].version}-{_digest(found)}"
        new = not _is_whole(f"{folder}/{name}", found)
        if new:
            _publish(folder, name, found)
    compiled = _compile(f"{folder}/{name}")
    if not os.path.islink(f"{folder}/{CURRENT}") or os.readlink(f"{folder}/{CURRENT}") != name:
        link = aside.path(folder, CURRENT)
        os.symlink(name, link)
        os.replace(link, f"{folder}/{CURRENT}")
    others = [entry for entry in sorted(os.listdir(folder)) if entry not in (MARK, CURRENT, name)]
    for entry in filter(aside.is_ours, others):
        _remove_if_old(f"{folder}/{entry}")
    taken = [source.words + (f" (Python 3.{source.minor} and newer)" if _is_newer(source) else "") for source in found]
    others = [f"{folder}/{entry}" for entry in others if not aside.is_ours(entry)]
    return Made(f"{folder}/{CURRENT}", new, taken, lacking, compiled, others)


def _is_newer(source: Source) -> bool:
    return source.minor > sources.OLDEST


def _gather(current: str, scratch: str) -> tuple[list[Source], list[str]]:
    """Return what the folder shall hold, this package first, and what is lacking, in words.

    :param current: the version in use, which may have what was fetched before.
    """
    found, lacking = [sources.package()], []
    for name in sources.NEEDED:
        here = sources.installed(name)
        source = here
        if source is None or _is_newer(source):
            source = sources.installed(name, [current])
        if source is None or _is_newer(source):
            place = os.path.join(scratch, name)
            os.mkdir(place)
            source = sources.fetched(name, place)
        if source is None or _is_newer(source):
            source = here or source
            words = (
                f"{here.words}, as installed here, needs Python 3.{here.minor}" if here else f"{name} is not installed"
            )
            lacking.append(f"{words}, and pip did not get one for Python 3.{sources.OLDEST}")
        if source is not None:
            found.append(source)
    return found, lacking


def _files(found: Iterable[Source]) -> dict[str, str]:
    """Return the path of each file in the folder, and where it comes from."""
    return {
        (f"needs-3.{source.minor}/{new}" if _is_newer(source) else new): path
        for source in found
        for new, path in source.files.items()
    }


def _digest(found: list[Source]) -> str:
    whole = hashlib.sha256()
    for new, path in sorted(_files(found).items()):
        whole.update(f"{new}\0".encode() + hashlib.sha256(_content(path)).digest())
    return whole.hexdigest()[:12]


def _is_whole(place: str, found: list[Source]) -> bool:
    """Whether a version is as it was made; bytecode apart."""
    try:
        return all(_content(f"{place}/{new}") == _content(path) for new, path in _files(found).items())
    except FileNotFoundError:
        return False


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _publish(folder: str, name: str, found: list[Source]) -> None:
    """Make a version aside, and give it its name; a damaged one of that name is put aside first."""
    new = aside.path(folder, name)
    try:
        for path, source in _files(found).items():
            os.makedirs(os.path.dirname(f"{new}/{path}"), exist_ok=True)
            shutil.copyfile(source, f"{new}/{path}")
        for here, _, files in os.walk(new):
            os.chmod(here, _OPEN)  # whatever the umask: an administrator makes it for everybody
            for file in files:
                os.chmod(f"{here}/{file}", 0o644)
        if os.path.lexists(f"{folder}/{name}"):
            os.rename(f"{folder}/{name}", aside.path(folder, name))
        os.rename(new, f"{folder}/{name}")
    except BaseException as error:
        shutil.rmtree(new, ignore_errors=True)
        if isinstance(error, OSError) and _is_whole(f"{folder}/{name}", found):
            return  # another process was faster
        raise


def _remove_if_old(path: str) -> None:
    """Remove what was built aside or put aside more than a day ago."""
    import time

    with contextlib.suppress(OSError):
        if time.time() - os.lstat(path).st_mtime > 86400:
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)


def _compile(place: str) -> list[str]:
    """Compile a version for each Python that is here; return those.

    An image's own compiles it at its first start where it may write there.
    """
    programs = [sys.executable, *(shutil.which(f"python3.{minor}") for minor in range(sources.OLDEST, NEWEST + 1))]
    words = (
        "import compileall, sys; compileall.compile_dir(sys.argv[1], quiet=2); print('%d.%d' % sys.version_info[:2])"
    )
    found: dict[str, None] = {}
    own = "{}.{}".format(*sys.version_info)
    for program in filter(None, programs):
        version = own if program == sys.executable else program.rpartition("python")[2]
        if version in found:
            continue
        try:
            command = [program, "-I", "-S", "-c", words, place]
            environ = {**os.environ, MODE: "off"}
            done = subprocess.run(
                command,
                env=environ,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
                umask=0o022,
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0 and done.stdout.strip() == version:
            found[version] = None
    return sorted(found, key=lambda version: int(version.partition(".")[2]))
