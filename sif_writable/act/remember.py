"""Keep the plan of this start for the next ones: :mod:`sif_writable.act.recall` reads it. The cold path of the hook."""

from __future__ import annotations

import marshal
import os
from typing import TYPE_CHECKING, Any

from sif_writable.act import recall
from sif_writable.redirects import decide
from sif_writable.redirects.locations import Locations
from sif_writable.signals import suppress
from sif_writable.storage.publish import write_aside

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sif_writable.act import Outcome


class _Asked(dict[str, str]):
    """An environment that notes which names it is asked for, so that a plan knows all that it depends on."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(environ)
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        self.names.add(str(name))
        return super().__contains__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.names.add(name)
        return super().get(name, default)

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("a plan that depends on every variable cannot be kept")

    def keys(self) -> Any:
        return self.__iter__()

    items = values = keys


def keep(path: str, outcome: Outcome, environ: Mapping[str, str]) -> None:
    """Keep the plan that a start would make now that storage is as this one leaves it.

    :param path: :func:`sif_writable.act.recall.path`.

    Without room for it nothing is lost but a millisecond at each start.
    """
    facts, storage, watch = outcome.facts, outcome.storage, outcome.watch
    if watch is not None and not watch.whole:
        return
    with suppress(OSError):
        present = {kind: frozenset(os.listdir(folder)) for kind, folder in storage.folders.items()}
        before, storage.present = storage.present, present
        asked, ground = _Asked(environ), Locations(facts.home)
        try:
            decision = decide.decide(facts, storage, ground, asked)
        finally:
            storage.present = before
        if any(redirect.make for redirect in decision.redirects) or (decision.home and not decision.home_made):
            return  # something could not be made, and is tried again at the next start
        fields = [(name, getattr(decision, name)) for name in decision.__slots__ if name != "redirects"]
        moved = [(r.variable, r.value, r.kind, r.folder, r.why, r.subfolder, r.offers) for r in decision.redirects]
        there = sorted(asked.names.intersection(environ))
        body = marshal.dumps(
            (
                recall.seen(facts),
                recall.settled(storage),
                list(present.items()),
                [(name, environ[name]) for name in there],
                frozenset(asked.names.difference(there)),
                ground.told(),
                watch.noted() if watch is not None else [],
                fields,
                moved,
            )
        )
        if len(body) < recall.LARGEST // 2:
            write_aside(path, recall.seal(body) + body)
