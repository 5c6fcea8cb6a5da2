"""What is at the default locations of packages: the questions of a decision, and their answers.

Loaded where no earlier start has left its plan.
"""

import os
import sys

from sif_writable.hanging import timed_out
from sif_writable.identity import PURELIB
from sif_writable.signals import let_pass
from sif_writable.system import world
from sif_writable.system.filesystem import access_state, holds
from sif_writable.system.timeouts import has_timed_out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

    Answers = tuple[
        list[tuple[str, frozenset[str], frozenset[str], frozenset[str]]],
        list[tuple[str, str]],
        list[tuple[str, str, bool]],
    ]
    """Directories with the names that were asked for, those of them that are there, and all that were there; paths with
    their state; files, a text, and whether it is in there."""


_ROOTS = (sys.prefix, "/usr", "/usr/local", "/opt/conda")
"""Where an image has programs."""


class Locations:
    """What is at the default locations below HOME, learned with one listing per directory and not one call per row."""

    __slots__ = ("_devices", "_held", "_home", "_installed", "_listings", "_states")

    def __init__(self, home: str) -> None:
        """Start with nothing known; only directories at or below ``home`` are ever listed."""
        self._home = home
        self._listings: dict[str, Optional[frozenset[str]]] = {}
        self._states: dict[str, str] = {}
        self._held: dict[tuple[str, str], bool] = {}
        self._installed = ""
        self._devices: dict[str, int] = {}

    def state(self, path: str) -> str:
        """Return what :func:`sif_writable.system.filesystem.access_state` does."""
        known = self._states.get(path)
        if known is None:
            known = self._states[path] = self._access_state(path)
        return known

    def works(self, path: str) -> bool:
        """Whether a directory can be used, or made, at this path."""
        states = self._states
        while True:  # a loop, because HOME can be deeper than calls can nest
            state = states.get(path) or self.state(path)
            if state != "absent":
                return state == "writable"
            parent = _parent(path)
            if parent == path:
                return False
            path = parent

    def lies_on(self, path: str, device: int) -> bool:
        """Whether what is at this path, or where it would be made, lies on the filesystem of a device (``st_dev``)."""
        if path[:1] != "/":
            return False
        while path != "/" and self.state(path) == "absent":
            path = _parent(path)
        if path not in self._devices:
            try:
                self._devices[path] = world.stat(path).st_dev
            except OSError as error:
                let_pass(error)
                self._devices[path] = -1
        return self._devices[path] == device

    def holds(self, path: str, text: str) -> bool:
        """Whether there is a file at this path that contains a text."""
        if not path or self.state(path) == "absent":
            return False
        self._held[path, text] = found = holds(path, text)
        return found

    def installs(self, words: str) -> bool:
        """Whether any of these words is in the name of something that the image has installed.

        Of the user's own packages nothing is known: the image's are what its identity says, at each later start.
        """
        if not self._installed:
            ask = getattr(sys.modules.get("site"), "getsitepackages", None)
            names = [name for folder in {PURELIB, *(ask() if ask else ())} for name in _listed(folder)]
            self._installed = "\0".join([*names, ""]).lower()
        return any(
            any(os.path.exists(f"{root}/{word}") for root in _ROOTS) if word[:4] == "bin/" else word in self._installed
            for word in words.split()
        )

    def answers(self) -> "Answers":
        """Return everything that was asked, with the answers, for :mod:`sif_writable.redirects.remember`."""
        listed: dict[str, set[str]] = {directory: set() for directory in self._listings}
        looked = []
        for path, state in self._states.items():
            parent, _, name = path.rpartition("/")
            parent = parent or "/"
            names = self._listings.get(parent)
            if names is not None:
                listed[parent].add(name)
            if state != "absent" or (names is None and self._states.get(parent) != "absent"):
                looked.append((path, state))
        listings = [
            (directory, frozenset(asked), names.intersection(asked), names)
            for directory, asked in listed.items()
            if (names := self._listings[directory]) is not None
        ]
        return listings, looked, [(path, text, found) for (path, text), found in self._held.items()]

    def _access_state(self, path: str) -> str:
        home, parent = self._home, _parent(path)
        if timed_out and has_timed_out(path):  # before its directory is listed
            return "silent"
        if home and parent != path and parent.startswith(home) and (parent == home or parent[len(home)] == "/"):
            if (self._states.get(parent) or self.state(parent)) == "absent":
                return "absent"
            names = self._listings[parent] if parent in self._listings else self._names(parent)
            if names is not None and path.rpartition("/")[2] not in names:
                return "absent"
        return access_state(path)

    def _names(self, directory: str) -> "Optional[frozenset[str]]":
        names: Optional[frozenset[str]]
        try:
            names = frozenset(os.listdir(directory))
        except OSError as error:
            let_pass(error)
            names = None
        self._listings[directory] = names
        return names


def _listed(folder: str) -> "list[str]":
    try:
        return os.listdir(folder)
    except OSError as error:
        let_pass(error)
        return []


def _parent(path: str) -> str:
    """Return what os.path.dirname does, which takes four times as long and is asked for each known location."""
    return path.rpartition("/")[0] or ("/" if path.startswith("/") else "")
