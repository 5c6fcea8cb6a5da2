"""Facts, storage and default locations as tables of decisions want them; nothing of it is on the disk."""

from __future__ import annotations

import os
from typing import Any

from sif_writable.storage.candidates import Candidate
from sif_writable.storage.chosen import Slot, Storage
from sif_writable.system.surroundings import Facts


class Ground:
    """Default locations as a test wants them: what is named, and what is below it."""

    def __init__(
        self,
        writable: tuple[str, ...] = (),
        read_only: tuple[str, ...] = (),
        texts: dict[str, str] | None = None,
        installed: str | None = None,
    ) -> None:
        """:param texts: file path to its content; :param installed: names, or None: everything is."""
        self.writable = writable
        self.read_only = read_only
        self.texts = texts or {}
        self.installed = installed

    def state(self, path: str) -> str:
        """Answer for exactly this path."""
        return "writable" if path in self.writable else "read-only" if path in self.read_only else "absent"

    def works(self, path: str) -> bool:
        """Answer for the nearest path that is named."""
        while path not in self.writable and path not in self.read_only and path != "/":
            path = os.path.dirname(path)
        return path in self.writable

    def lies_on(self, path: str, device: int) -> bool:
        """Take each device for the one that all is on, but below a bind."""
        return bool(device) and not path.startswith("/home/u/bound")

    def holds(self, path: str, text: str) -> bool:
        """Answer from the texts."""
        return text in self.texts.get(path, "")

    def installs(self, words: str) -> bool:
        """Answer from the names."""
        return self.installed is None or any(word in self.installed for word in words.split())


def make_facts(**changes: Any) -> Facts:
    """Return facts of an ordinary default run in a read-only image."""
    facts = Facts()
    values: dict[str, Any] = {
        "uid": 1000,
        "user": 1000,
        "home": "/home/u",
        "home_problem": "",
        "home_timed_out": False,
        "session_device": None,
        "target_mounted": False,
        "tmp_works": True,
        "prefix": "/opt/venv",
        "prefix_writable": False,
        "purelib": "/opt/venv/lib/python3.11/site-packages",
        "ships_bytecode": True,
        "identity": "0123456789abcdef",
        "tag": "cpython-311",
    }
    for name, value in {**values, **changes}.items():
        setattr(facts, name, value)
    return facts


def make_storage(*, given: bool = False, present: tuple[str, ...] = (), without: tuple[str, ...] = ()) -> Storage:
    """Return storage at /s with every kind, except those without a place."""
    storage = Storage()
    place = Candidate("test", "/s", "persistent", given=given)
    folders = {
        "data": "/s/data",
        "compiled": "/s/image-i/compiled-t",
        "config": "/s/image-i/config",
        "runtime": "/s/run",
    }
    for kind, folder in folders.items():
        if kind not in without:
            storage.slots[kind] = Slot("/s", place, folder, frozenset(present))
    if "image" not in without:
        storage.image = Slot("/s", place, "/s/image-i", frozenset(present))
    return storage


HOME_WORKS = Ground(writable=("/home/u", "/tmp"))
