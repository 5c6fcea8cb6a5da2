"""Make what storage needs: roots, folders, seeded locations, a private home. The cold path of the hook.

Whatever other processes may look at is built aside and renamed into place, so a process killed at any moment leaves
either nothing or a whole thing; leftovers have a name of :mod:`sif_writable.aside`, and a later start collects them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from typing import TYPE_CHECKING

from sif_writable import aside
from sif_writable.act import seed
from sif_writable.act.links import Links, watch_of
from sif_writable.errors import Problem
from sif_writable.plan import redirects
from sif_writable.signals import suppress
from sif_writable.startup import let_pass
from sif_writable.storage.layout import NOTE
from sif_writable.system.filesystem import SILENT, explain, is_unheard, planted
from sif_writable.system.listing import names
from sif_writable.system.probe import given_away

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sif_writable.act import Outcome
    from sif_writable.plan import Redirect

LOCK_SECONDS = 10.0
"""Seconds that a process waits for another one that makes the same thing; after that it makes it as well."""
MAX_RELINKED = 1000
"""Times that a link is removed which other processes put back."""
STALE_SECONDS = 86400.0
"""Seconds after which something left aside belongs to a process that was killed."""
STAYS = "stays"
"""The code of a problem for which a variable, or HOME, keeps the value that it had."""


def make_base(path: str) -> str:
    """Make a base directory, private to the user, with its parents; return an empty string or what is wrong."""
    missing = []
    while path and not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    problem = planted(path, os.geteuid()) if path else ""
    if not problem and not missing and not os.path.isdir(path):
        return f"does not exist and cannot be made: {path!r} is a link to nothing"
    try:
        for folder in reversed(missing):  # os.makedirs makes parents as open as the umask lets them be
            if problem:
                break
            try:
                os.mkdir(folder, 0o700)
            except FileExistsError:  # made just now: by another process of ours, or by somebody else
                problem = planted(folder, os.geteuid())
    except OSError as error:
        where = error.filename or path
        return f"does not exist and cannot be made: {where!r} {explain(error, path)}"
    return problem


def complaint(error: OSError, path: str, place: str) -> Problem:
    """Say why a path in storage could not be written; where the place is full, with the remedy that fits it.

    :param place: a directory above the path that exists.
    """
    from sif_writable.plan.space import FULL, remedy, short_of
    from sif_writable.storage.space import look

    room = look(place, os.environ) if error.errno in FULL else None
    text = f"{path} {explain(error, place)}"
    if not room:
        return Problem("write-failed", text)
    return Problem("write-failed", f"{text}.", f"{remedy(room, short_of(room, error.errno or 0))}.")


def write_aside(path: str, content: bytes) -> None:
    """Write a file aside and rename it into place.

    :raises OSError: it could not be written; nothing is left behind.
    """
    directory, name = os.path.split(path)
    descriptor, new = aside.create(directory, name)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        os.rename(new, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(new)
        raise


def make_tree(folder: str, root: str, *, earlier: str = "") -> str:
    """Make the folder of a kind below its root, each level private; return an empty string or what is wrong.

    :param earlier: a place that the user gave; what an earlier version kept in it is still found in the new folder.
    """
    path = root
    try:
        for part in os.path.relpath(folder, root).split("/"):
            path = os.path.join(path, part)
            with suppress(FileExistsError):
                if path == folder and earlier and not os.path.lexists(path):
                    from sif_writable.act.earlier import take_over

                    take_over(earlier, root, folder)
                os.mkdir(path, 0o700)
                owner = os.lstat(path).st_uid
                if owner != os.geteuid():
                    os.rmdir(path)
                    return given_away(owner)
            # The process that made the folder may have been killed before it could say what it is.
            if part.startswith("image-") and not os.path.lexists(f"{path}/{NOTE}"):
                _note_image(path)
        os.listdir(folder)
    except OSError as error:
        return explain(error, root)
    with suppress(OSError):
        collect_leftovers(root)
    return ""


def _note_image(folder: str) -> None:
    """Write down which image a folder belongs to, for ``sif-writable cache list``."""
    import sys

    from sif_writable.system.container import engine

    image = engine(os.environ).image.replace("\n", " ")
    with suppress(OSError):
        write_aside(f"{folder}/{NOTE}", os.fsencode(f"image: {image}\nprefix: {sys.prefix}\n"))


def make_redirect(redirect: Redirect, outcome: Outcome, environ: Mapping[str, str]) -> None:
    """Make the folder of a redirect and fill it; a redirect whose folder fails is dropped."""
    links = Links(redirect, outcome, environ)
    for _, old in links.single:
        if is_unheard(old):  # a folder without its link would stay until that has changed
            outcome.failed.append(Problem(STAYS, f"{redirect.variable} stays as it was: {old} {SILENT}"))
            outcome.decision.redirects.remove(redirect)
            return

    def fill(new: str) -> None:
        inner = os.path.join(new, redirect.subfolder) if redirect.subfolder else new
        for source in redirect.seeds:
            # A default below /tmp that cannot be written is not the image's: another user has made it.
            if not planted(source, outcome.facts.uid):
                seed.copy(source, inner)
        links.make(new)

    try:
        if redirect.seeds or links.any():
            publish(redirect.folder, fill, lock_below=outcome.storage.roots[redirect.kind])
        else:
            with suppress(FileExistsError):
                os.mkdir(redirect.folder, 0o700)
    except OSError as error:
        problem = complaint(error, redirect.folder, outcome.storage.roots[redirect.kind])
        text = f"{redirect.variable} stays as it was: {problem.text}"
        outcome.failed.append(Problem(STAYS, text, problem.remedy))
        outcome.decision.redirects.remove(redirect)


def make_home(outcome: Outcome) -> None:
    """Make the private home, which offers what was readable in the old one."""
    decision, old = outcome.decision, outcome.facts.home

    def fill(new: str) -> None:
        place = outcome.storage.places["config"]
        if place.given:
            from sif_writable.act.earlier import copy_home

            copy_home(place.base, decision.home, new)
        seed.link_home(old, new, watch_of(outcome))
        own = redirects.baked(outcome.facts).get("HOME")
        if own:
            seed.copy(own, new)

    try:
        publish(decision.home, fill, lock_below=outcome.storage.roots["config"])
    except OSError as error:
        problem = complaint(error, decision.home, outcome.storage.roots["config"])
        outcome.failed.append(Problem(STAYS, f"HOME stays as it was: {problem.text}", problem.remedy))
        decision.home = ""


def publish(
    folder: str,
    fill: Callable[[str], None],
    *,
    lock_below: str,
    aside_in: str = "",
    seconds: float = LOCK_SECONDS,
    over_link: bool = False,
) -> None:
    """Build a folder aside, and rename it into place unless another process was first.

    The lock only saves work: without it two processes build the same, and one of the two is thrown away.

    :param fill: is given the path of an empty directory to fill.
    :param aside_in: where it is built, on the same filesystem; by default beside its place.
    :param seconds: how long another process may take that builds the same.
    :param over_link: a link that stands in its place is replaced; by default it counts as the folder.
    :raises OSError: the folder could not be built; nothing is left behind.
    """
    parent, name = os.path.split(folder)
    with bounded_lock(os.path.join(lock_below, "locks"), name, seconds):
        if not _is_there(folder, over_link=over_link):
            put(folder, fill, aside_in=aside_in or parent, over_link=over_link)


def put(folder: str, fill: Callable[[str], None], *, aside_in: str, over_link: bool = False) -> None:
    """Build a folder aside, and rename it into place; what another process has put there meanwhile serves as well.

    The parameters are those of :func:`publish`, and so is what is raised.
    """
    new = aside.path(aside_in, os.path.basename(folder))
    os.mkdir(new, 0o700)
    try:
        fill(new)
        if over_link:
            _rename_over_link(new, folder)
        else:
            os.rename(new, folder)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        let_pass(error)
        if not _is_there(folder, over_link=over_link):
            raise
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def _is_there(folder: str, *, over_link: bool) -> bool:
    return os.path.isdir(folder) and not (over_link and os.path.islink(folder))


def _rename_over_link(new: str, folder: str) -> None:
    """Rename a folder to where a link may stand.

    No call does that at once, and another process may put the link back in between. Each process does so once for
    each folder that it is about to make, so trying again comes to an end.
    """
    for _ in range(MAX_RELINKED):
        with suppress(FileNotFoundError, IsADirectoryError):  # no link, or another process was faster
            os.unlink(folder)
        with suppress(NotADirectoryError):  # the link is back
            os.rename(new, folder)
            return
    os.rename(new, folder)


@contextlib.contextmanager
def bounded_lock(directory: str, name: str, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold a file lock for as long as the block runs, or go on without one when it cannot be had in time."""
    lock = None
    path = os.path.join(directory, name + ".lock")
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
        _try_lock(path)
        from filelock import FileLock

        # No argument that a version does not know: it would leave an object half made, whose end prints a traceback on
        # the program's stderr. One that has soft locks makes them where a call fails that was just tried.
        if "fallback_to_soft" in FileLock.__init__.__code__.co_varnames:
            lock = FileLock(path, timeout=seconds, fallback_to_soft=False)
        else:
            lock = FileLock(path, timeout=seconds)
        lock.acquire()
    except Exception as error:  # noqa: BLE001 - not in time, no locks here, or another module bears the name filelock
        let_pass(error)
        lock = None
    try:
        yield
    finally:
        if lock is not None:
            with suppress(Exception):
                lock.release()


def _try_lock(path: str) -> None:
    """See whether files can be locked here; else filelock would make a soft lock.

    That outlives a killed process, and filelock warns of it on the program's stderr.

    :raises OSError: they cannot.
    """
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # not by closing: a thread that forks just now hands the descriptor on
    except BlockingIOError:  # somebody holds it, so they can
        pass
    finally:
        os.close(descriptor)


def collect_leftovers(root: str) -> None:
    """Remove what processes of this user that were killed left aside in a storage root of ours more than a day ago."""
    import stat

    now = time.time()
    for directory in (root, *_subfolders(root)):
        for name in names(directory):
            if not aside.is_ours(name):
                continue
            path = os.path.join(directory, name)
            with suppress(OSError):
                status = os.lstat(path)
                if now - status.st_mtime < STALE_SECONDS or status.st_uid != os.geteuid():
                    continue
                if stat.S_ISDIR(status.st_mode):
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    os.unlink(path)


def _subfolders(root: str) -> Iterator[str]:
    """Yield the folders in which things are built aside: the kinds' folders of every image."""
    for name in names(root):
        path = os.path.join(root, name)
        if name == "data":
            yield path
        elif name.startswith("image-"):
            yield path
            for inner in names(path):
                if inner == "config" or inner.startswith(("compiled-", "packages-")):
                    yield os.path.join(path, inner)
