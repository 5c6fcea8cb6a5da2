"""What is replayed: `cases.json`, one real package per case, and `frameworks.json`, what people do with large ones.

A case was first run without this project, on a writable root and on a read-only one, which showed how it fails and
what a healthy run leaves behind. `lock` pins everything, so that a release tomorrow does not change what is tested.
"""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

REDIRECT, COPY_UP, OVERLAY = "redirect", "copy-up", "overlay"
MEANS = (REDIRECT, COPY_UP, OVERLAY)
"""What makes a case work: a variable or HOME; a writable copy of the package; a mount over a path of no package."""

NEXT = "next"
"""What :attr:`Case.by_copies` is where nothing has to be named."""

LIGHT_MB = 160
"""Megabytes installed up to which a case is replayed by default; it takes seconds then, and otherwise minutes."""

_HERE = os.path.dirname(os.path.abspath(__file__))


class Case(NamedTuple):
    """One package, what it is asked to do, and how a healthy run of that looks."""

    name: str
    environment: str
    """The name of what is installed: the case's own, or that of another one with the same packages."""
    lock: tuple[str, ...]
    """Every distribution that is installed, with its version."""
    source: tuple[str, ...]
    """Those of them that are published without a wheel."""
    debian: tuple[str, ...]
    """Debian packages that it needs, such as a compiler."""
    mb: int
    means: str
    """The strongest of MEANS that it needs."""
    env: dict[str, str]
    """What the user has set."""
    snippet: str
    """The program, for `python -c`."""
    prints: str
    """A part of what a healthy run prints."""
    leaves: tuple[str, ...]
    """Ends of paths (with wildcards) of what a healthy run leaves in a writable place and does not make again."""
    rewrites: tuple[str, ...]
    """Ends of paths of what every healthy run writes anew."""
    removes: tuple[str, ...]
    """Ends of paths of what a healthy run has removed by its end: nothing of it is left."""
    opens: tuple[str, ...]
    """Ends of paths of what a healthy run opens for writing and leaves as it is: a layer keeps nothing of it."""
    remedy: str
    """What is said where the case cannot be fixed: the means is an overlay, and the kernel gives no namespaces."""
    exits: tuple[int, int]
    """Exit codes of a healthy first and second run."""
    by_copies: str
    """Where no layer is possible: NEXT: its first run fails and names the cure for the next ones; else a package that
    the user has to name, since the error is caught. Empty: it works at the first run there, too."""
    rare: bool
    """It is replayed only where all are, though it is small: others that are replayed by default show the same."""
    healthy: bool
    """It works on a read-only root by itself, and has to go on doing so."""

    @property
    def light(self) -> bool:
        """Whether it is replayed by default."""
        return self.mb <= LIGHT_MB and not self.rare


_DEFAULTS: dict[str, object] = {
    "source": "",
    "debian": "",
    "env": {},
    "leaves": [],
    "rewrites": [],
    "removes": [],
    "opens": [],
    "exits": [0, 0],
    "means": REDIRECT,
    "remedy": "",
    "by_copies": "",
    "rare": False,
    "healthy": False,
}


def load() -> tuple[Case, ...]:
    """Return every case of a package that fails in a read-only image."""
    return tuple(_case(fields) for fields in _read("cases.json"))


def frameworks() -> tuple[Case, ...]:
    """Return every case of a large framework. Several share an environment, so what is installed is written once."""
    table = _read("frameworks.json")
    return tuple(_case({**table["environments"][fields["environment"]], **fields}) for fields in table["cases"])


def _read(name: str) -> Any:
    with open(os.path.join(_HERE, name), encoding="utf-8") as file:
        return json.load(file)


def _case(fields: dict[str, object]) -> Case:
    known = {
        **_DEFAULTS,
        "environment": fields["name"],
        **{name: value for name, value in fields.items() if name in Case._fields},
    }
    words = {name: tuple(str(known[name]).split()) for name in ("lock", "source", "debian")}
    lists = {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
    return Case(**{**known, **words, **lists})  # type: ignore[arg-type]
