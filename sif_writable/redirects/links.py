"""Offer in a folder of storage, by links, what the user has at a default location. The cold path of the hook.

So weights and settings are found where a location moves, and what is new goes to where it moved. What the folder has
itself wins; a link to what is gone is taken away. Each directory that is listed is noted (:class:`.watch.Watch`).
"""

from __future__ import annotations

import os
import stat

from sif_writable import aside
from sif_writable.redirects import own, templates
from sif_writable.redirects.seeding import NEVER, contents, drop_dangling, link, link_home, real_path, share_downloads
from sif_writable.redirects.watch import Watch
from sif_writable.signals import let_pass
from sif_writable.storage import layout
from sif_writable.storage.kinds import DATA
from sif_writable.system.filesystem import foreign_component
from sif_writable.system.timeouts import has_timed_out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sif_writable.redirects.decision import Outcome, Redirect

ENTRIES = 5000
"""Entries of a default location that are linked or compared at most."""
MANY = 1000
"""Entries from which on a directory is linked as a whole."""
_NOTHING: frozenset[str] = frozenset()
_DEEPEST = 3
"""Levels below the last one that are compared, where both sides have a directory."""


def provide(outcome: Outcome, environ: Mapping[str, str]) -> None:
    """Make the folders that must exist and the private home, and offer in those that are there what has come since."""
    decision = outcome.decision
    for redirect in list(decision.redirects):
        if redirect.make:
            from sif_writable.redirects import folders

            folders.make_redirect(redirect, outcome, environ)
        elif redirect.sources or redirect.linking:
            _again(Links(redirect, outcome, environ).make, redirect.folder, outcome)
    if decision.home and not decision.home_made:
        from sif_writable.redirects import folders

        folders.make_home(outcome)
    elif decision.home:
        downloads = outcome.storage.folder(DATA)

        def offer(home: str) -> None:
            link_home(outcome.facts.home, home, watch_of(outcome))
            share_downloads(home, downloads)

        _again(offer, decision.home, outcome)


def watch_of(outcome: Outcome) -> Watch:
    """Return where this start notes the directories that it lists."""
    if outcome.watch is None:
        outcome.watch = Watch()
    return outcome.watch


def _again(make: Callable[[str], None], folder: str, outcome: Outcome) -> None:
    """Offer in a folder what has come since; where that fails it serves as it is, and the next start tries again."""
    try:
        make(folder)
    except OSError as error:
        from sif_writable.errors import Problem
        from sif_writable.storage.shortage import complaint

        watch_of(outcome).whole = False
        problem = complaint(error, folder, folder)
        text = f"not all that has come since is found in {problem.text}"
        outcome.failed.append(Problem(problem.code, text, problem.remedy))


class Links:
    """What one redirect's folder has to offer of the user's."""

    def __init__(self, redirect: Redirect, outcome: Outcome, environ: Mapping[str, str]) -> None:
        """Find the single files and the default locations."""
        self.single = list(templates.linked(redirect, outcome.facts, environ))
        self._sources: list[tuple[str, int, frozenset[str]]] = []
        for path, levels in redirect.sources:
            if not has_timed_out(path) and _is_believed(path, outcome):
                folder, brought = own.read(path) if layout.ALSO in os.path.basename(path) else (path, _NOTHING)
                if folder and layout.ALSO in os.path.basename(path) and redirect.subfolder:
                    folder = os.path.join(folder, redirect.subfolder)
                if folder:
                    self._sources.append((folder, levels, brought))
        self._subfolder = redirect.subfolder
        self._own = _ways(outcome.storage.roots())
        self._watch = watch_of(outcome)
        self._left = ENTRIES
        self._brought = _NOTHING
        """Paths in a source that came with another image, and may lead into it."""

    def any(self) -> bool:
        """Whether there is anything to offer."""
        return bool(self._sources) or any(os.access(old, os.R_OK) for _, old in self.single)

    def make(self, folder: str) -> None:
        """Make what is missing in a folder, and take away what leads nowhere.

        :raises OSError: something cannot be made.
        """
        inner = os.path.join(folder, self._subfolder) if self._subfolder else folder
        for source, levels, brought in self._sources:
            if real_path(source) != real_path(inner):
                self._brought = frozenset(f"{source}/{name}" for name in brought)
                self._offer(source, inner, levels)
        for name, old in self.single:
            place = os.path.join(folder, name)
            if os.path.islink(place) and not os.path.exists(place):
                _unlink(place)
            if not has_timed_out(old) and os.access(old, os.R_OK) and not os.path.lexists(place):
                os.makedirs(os.path.dirname(place), 0o700, exist_ok=True)
                link(old, place)

    def _offer(self, source: str, target: str, levels: int) -> None:
        os.makedirs(target, 0o700, exist_ok=True)
        try:
            names = self._watch.names(source)
        except OSError as error:  # it is gone, or may not be read: then without us it would not be found either
            let_pass(error)
            names = []
        there = contents(target)
        for name in names:
            old, new, kind = f"{source}/{name}", f"{target}/{name}", there.get(name, "")
            passing = name.startswith(NEVER) or name.endswith(NEVER) or aside.is_ours(name)
            if passing or kind == "file" or self._left <= 0 or self._holds_storage(old):
                continue
            self._left -= 1
            if kind == "link" and not os.path.exists(new):
                _unlink(new)
                kind = ""
            if kind != "link" and levels > (-_DEEPEST if kind else 1) and _is_directory(old):
                if kind or len(_names(old)) < MANY:
                    self._offer(old, new, levels - 1)
                elif old not in self._brought:
                    link(old, new)
            elif not kind and old not in self._brought:
                link(old, new)
        drop_dangling(source, target, there, names)

    def _holds_storage(self, path: str) -> bool:
        """Whether the storage lies at or below a path; a link to it would lead round in a circle."""
        return any(own == path or own.startswith(path + "/") for own in self._own)


def _ways(roots: Iterable[str]) -> set[str]:
    found = set(roots)
    return found | {real_path(root) for root in found}


def _is_believed(path: str, outcome: Outcome) -> bool:
    """Whether nobody else can have put there what is at a path."""
    try:
        return not foreign_component(path, outcome.facts.uid, whole=True)
    except OSError as error:  # a link that may not be read
        let_pass(error)
        return False


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError as error:
        let_pass(error)
        return []


def _is_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError as error:
        let_pass(error)
        return False


def _unlink(path: str) -> None:
    try:  # noqa: SIM105 - contextlib is an import too many
        os.unlink(path)
    except FileNotFoundError:  # another process was faster
        pass
