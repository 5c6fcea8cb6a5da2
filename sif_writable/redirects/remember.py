"""Keep what this start has decided for the next ones, which :mod:`sif_writable.warm` asks whether it still holds.

The cold path of the hook. All questions of this start are noted. Where it has made something, what the next start would
see and decide is asked once more, now that storage is as this one leaves it.
"""

from __future__ import annotations

import marshal
import os
import stat
import sys
import time
from typing import TYPE_CHECKING, Any

import sif_writable
from sif_writable import DEBUG, DIR, SESSION, hanging, identity, warm
from sif_writable.child import FIELDS, MORE_HEAVY, PATHS
from sif_writable.redirects import decide
from sif_writable.redirects.locations import Locations
from sif_writable.seldom import MARKER
from sif_writable.session import SAID
from sif_writable.signals import let_pass, suppress
from sif_writable.storage import candidates, choose, kinds, layout
from sif_writable.storage.publish import write_aside
from sif_writable.system import surroundings, timeouts, world

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sif_writable.redirects.decision import Decision, Outcome
    from sif_writable.storage.chosen import Storage
    from sif_writable.system.surroundings import Facts

SECONDS = 60.0
"""How long a kept plan is not replaced: programs with different surroundings do not always overwrite each other's."""
_ALSO = (
    *("HOME", "XDG_CACHE_HOME", DIR, "SLURM_TMPDIR", "SCRATCH", "TMPDIR", "KUBERNETES_SERVICE_HOST"),
    *("USER", "LOGNAME", "LNAME", "USERNAME", "PYTHONNOUSERSITE", "PYTHONUSERBASE", "PYTHONPYCACHEPREFIX"),
    *(MORE_HEAVY, PATHS, DEBUG),
)
"""What is asked for where no note is taken: as variables are set."""
_WRITABLE = os.W_OK | os.X_OK


class Asked(dict[str, str]):
    """An environment that notes which names it is asked for, so that a plan knows all that it depends on."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Take it as it is."""
        super().__init__(environ)
        self.names: set[str] = set()
        self.every = False
        """Whether it was asked for all names: a plan that depends on every variable cannot be kept."""

    def __getitem__(self, name: str) -> str:
        """Return a value."""
        self.names.add(name)
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        """Whether a variable is set."""
        self.names.add(str(name))
        return super().__contains__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """Return a value, or the default."""
        self.names.add(name)
        return super().get(name, default)

    def __iter__(self) -> Iterator[str]:
        """Go through all names."""
        self.every = True
        return super().__iter__()

    def keys(self) -> Any:
        """Return all names."""
        self.every = True
        return super().keys()

    def items(self) -> Any:
        """Return all variables."""
        self.every = True
        return super().items()

    def values(self) -> Any:
        """Return all values."""
        self.every = True
        return super().values()


def begin(environ: Mapping[str, str]) -> Asked:
    """Note all questions from now on; return the environment for whoever asks."""
    world.note()
    return Asked(environ)


class Decided:
    """What a start has seen and decided, with the questions on the way."""

    def __init__(self, facts: Facts, storage: Storage, queries: Locations, decision: Decision, asked: Asked) -> None:
        """Take it before anything is made; no more questions are noted.

        :param queries: the answers about default locations; :param asked: the environment that all of them were given.
        """
        self.facts, self.storage, self.queries, self.decision, self.asked = facts, storage, queries, decision, asked
        self.questions = world.noted()
        self.holds = (
            self.questions is not None
            and not any(redirect.make for redirect in decision.redirects)
            and (not decision.home or decision.home_made)
        )
        """Whether the next start sees the same: nothing has been made, and nothing is to be made."""


def see_and_decide(environ: Mapping[str, str]) -> Decided:
    """See and decide as the next start will."""
    asked = begin(environ)
    try:
        facts = surroundings.see(asked)
        storage = choose.choose_storage(candidates.places(facts, asked), facts, asked)
        queries = Locations(facts.home)
        return Decided(facts, storage, queries, decide.decide(facts, storage, queries, asked), asked)
    finally:
        world.noted()


def path(facts: Facts, storage: Storage) -> str:
    """Return where the plan of this image and interpreter is kept, or an empty string."""
    image = storage.image
    return f"{image.folder}/{layout.PLAN}{facts.tag}" if image else ""


def is_due(path: str) -> bool:
    """Whether a plan may be kept there now: none is, or not since a moment ago."""
    try:
        return abs(time.time() - os.lstat(path).st_mtime) > SECONDS
    except OSError as error:
        let_pass(error)
        return True


def keep(path: str, outcome: Outcome, environ: Mapping[str, str], seen: Decided) -> None:
    """Keep the plan that a start would make now that storage is as this one leaves it.

    :param path: :func:`path`; :param seen: by this start, before it has made anything.
    :param environ: the environment before this start has set anything.

    Without room for it nothing is lost but some milliseconds at each start.
    """
    watch = outcome.watch
    if (watch is not None and not watch.whole) or hanging.timed_out or sif_writable.LAYER in environ:
        return
    with suppress(OSError):
        content = _content(outcome, environ, seen if seen.holds else see_and_decide(environ))
        if content and len(content) < warm.LARGEST // 2:
            write_aside(path, content)


def _content(outcome: Outcome, environ: Mapping[str, str], seen: Decided) -> bytes:
    """Return what is kept, or nothing: the next start has to see and decide for itself."""
    facts, storage, queries, decision, asked = seen.facts, seen.storage, seen.queries, seen.decision, seen.asked
    settings = {name: value for name, value in os.environ.items() if environ.get(name) != value}
    del settings[SESSION]
    world.note()
    try:
        for beside, _, file in decision.companions:
            if beside in settings:
                world.access(file, os.R_OK)
        if not any(environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")):
            world.passwd_home()
    finally:
        more = world.noted()
    listings, looked, held = queries.answers()
    if (
        not seen.holds  # something could not be made, and is tried again
        or seen.questions is None
        or more is None
        or asked.every
        or any(state == "silent" for _, state in looked)
        or not _is_as_decided(storage, decision, outcome)
        or not all(asked.get(name, "/")[:1] in ("", "/") for name in ("HOME", DIR))  # else by folder
        or (decision.pycache and sys.pycache_prefix != decision.pycache and not sys.dont_write_bytecode)
    ):
        return b""
    questions = [*seen.questions, *more]
    for place, state in looked:
        questions += _of_location(place, state)
    answered = {(warm.ACCESS, sys.prefix, os.W_OK, facts.prefix_writable)}  # among what is compared
    if (warm.ACCESS, sys.prefix, os.W_OK, False) in questions:
        answered.add((warm.ACCESS, sys.prefix, _WRITABLE, False))
    kept_by_root = {(warm.LSTAT, root) for root in storage.roots()}
    given = [slot for slot in storage.slots.values() if slot.place.given]
    closed = {slot.folder for slot in given}
    if given and given[0].root == choose.itself(given[0].place.base):  # marked: our folder itself
        questions.append((warm.ACCESS, f"{given[0].root}/{MARKER}", os.F_OK, True))
    present = [
        (slot.folder, slot.present, slot.folder in closed)
        for slot in storage.all()
        if slot is not storage.image or decision.home  # the others lie in it
    ]
    # One question where no list is needed: what other images fetched comes to downloads alone.
    single = [each for each in present if len(each[1]) < 2 and not each[2] and each[0] != storage.folder(kinds.DATA)]
    questions += [(warm.THERE, os.path.join(folder, *needed), None, True) for folder, needed, _ in single]
    if not kept_by_root.issubset([question[:2] for question in questions]):  # who owns the storage is asked each time
        return b""
    questions = [each for each in questions if each not in answered and not _is_answered(each, kept_by_root, closed)]
    noted = outcome.watch.noted() if outcome.watch is not None else []
    places = [place for _, place, *_ in questions if place]
    places += [slot.folder for slot in storage.all()]
    places += [*(str(each[0]) for each in (*listings, *held, *noted)), facts.home]
    reached = _prefixes(places)
    waited = {point: kind for point, kind in timeouts.may_hang().items() if point in reached}
    names = asked.names.union(_ALSO)
    fields = os.environ[SESSION].split(";", FIELDS - 1)
    manifest = identity.manifest_text(facts.purelib)
    first = (
        (
            *(facts.uid, facts.user, facts.home, facts.target_mounted, facts.prefix_writable),
            *(manifest, sys.dont_write_bytecode),
        ),
        [(os.fsencode(name), os.fsencode(environ[name])) for name in sorted(names.intersection(environ))],
        frozenset(map(os.fsencode, environ)),
        marks(map(os.fsencode, names.difference(environ).union(*(asked_for for _, asked_for, *_ in listings)))),
        (waited, reached if timeouts.may_hang() else None),
        grouped(questions),
        held,
        [(directory, there, names) for directory, _, there, names in listings],
        [each for each in present if each not in single],
        noted,
        (
            _used(storage),
            {os.fsencode(name): os.fsencode(value) for name, value in settings.items()},
            (fields[0][1:], fields[2], fields[4]),
            decision.pycache if sys.pycache_prefix == decision.pycache else "",
            _user_site(facts, decision, environ),
            settings.get(SAID, ""),
            outcome.said,
        ),
    )
    packed = marshal.dumps(first)
    head = len(packed).to_bytes(4, "little") + packed
    rest = (reached, _in_a_row(names.difference(environ)), [_in_a_row(asked_for) for _, asked_for, *_ in listings])
    last = marshal.dumps(rest)
    return warm.checksum(head) + head + warm.checksum(last) + last


def grouped(questions: Iterable[world.Question]) -> list[tuple[int, list[tuple[str, Any, Any]]]]:
    """Return questions by kind, as :mod:`sif_writable.warm` asks them.

    Of a directory that is no link, whatever follows links says the same. Devices have the numbers in which they come.
    """
    found: dict[int, list[tuple[str, Any, Any]]] = {}
    asked = list(dict.fromkeys(questions))
    known = {(path, answer) for kind, path, _, answer in asked if kind == warm.LSTAT and isinstance(answer, tuple)}
    devices: dict[int, int] = {}
    for kind, path, more, answer in sorted(asked, key=lambda question: question[0]):
        if kind == warm.STAT and (path, answer) in known and not stat.S_ISLNK(answer[0]):
            continue
        if kind in (warm.STAT, warm.LSTAT) and isinstance(answer, tuple):
            answer = (*answer[:3], devices.setdefault(answer[3], len(devices)))  # noqa: PLW2901
        found.setdefault(kind, []).append((path, more, answer))
    return list(found.items())


def marks(names: Iterable[bytes]) -> bytes:
    """Return bits that stand for names: however many there are, a start reads no more of them."""
    found = bytearray(warm.MARKS >> 3)
    for name in names:
        for place in warm.places_of(name):
            found[place >> 3] |= 1 << (place & 7)
    return bytes(found)


def _in_a_row(names: Iterable[str]) -> bytes:
    """Return names such that one can be looked for without unpacking the others, of which there may be many."""
    return b"\0%s\0" % b"\0".join(map(os.fsencode, names))


def _is_as_decided(storage: Storage, decision: Decision, outcome: Outcome) -> bool:
    """Whether the next start would set what this one has set."""
    then = outcome.decision
    return (
        _roots(storage) == _roots(outcome.storage)
        and (decision.home, decision.pycache) == (then.home, then.pycache)
        and [(r.variable, r.value) for r in decision.redirects] == [(r.variable, r.value) for r in then.redirects]
    )


def _roots(storage: Storage) -> dict[str, str]:
    return {kind: slot.root for kind, slot in storage.slots.items()}


def _of_location(place: str, state: str) -> list[world.Question]:
    """Return what a start has to ask so that :func:`sif_writable.system.filesystem.access_state` would say the same."""
    if state == "writable":
        return [(warm.ACCESS, place, _WRITABLE, True)]
    there = state != "absent"
    return (
        [(warm.ACCESS, place, _WRITABLE, False), (warm.THERE, place, None, True)]
        if there
        else [(warm.THERE, place, None, False)]
    )


def _is_answered(question: world.Question, roots: set[tuple[int, str]], closed: set[str]) -> bool:
    """Whether a question has an answer already.

    A root of this user's with mode 0700, on a filesystem that is not read-only, can be written by him; what holds a
    folder that the user gave is asked as it is listed; and a start has just come by the folders of this package.
    """
    kind, place, _, answer = question
    if kind == warm.THERE:
        return bool(answer) and warm.__file__.startswith(f"{place}/")
    return (kind == warm.ACCESS and (warm.LSTAT, place) in roots) or (kind == warm.STAT and place in closed)


def _prefixes(places: Iterable[str]) -> frozenset[str]:
    """Return all directories on the way to some places, by any link."""
    found: set[str] = set()
    for place in {*places, *map(os.path.realpath, places)}:
        here = place
        while len(here) > 1 and here not in found:
            found.add(here)
            here = os.path.dirname(here)
    return frozenset(found)


def _used(storage: Storage) -> str:
    """Return the file that says in another place, where no plan does, that the image is used; or an empty string."""
    compiled = os.path.dirname(storage.folder(kinds.COMPILED))
    return f"{compiled}/{layout.USED}" if compiled and not (storage.image and storage.image.folder == compiled) else ""


def _user_site(facts: Facts, decision: Decision, environ: Mapping[str, str]) -> str:
    if facts.manifest.get("user-site") == ["no"] and "PYTHONNOUSERSITE" not in environ:
        return "ignore"
    return "follow" if decision.home else ""
