"""DO: the only room that changes anything.

This module serves the warm path: it finds storage that an earlier start made, and sets the environment. Whatever has
to be made is made by :mod:`sif_writable.storage.make`, which a warm start does not load.
"""

import os
import sys

from sif_writable import DIR, SESSION, plan
from sif_writable.child import COPIES, MORE_HEAVY, PATHS, PYCACHE, inputs
from sif_writable.hanging import STEADY, keeper
from sif_writable.plan import COMPILED, CONFIG, DATA, RUNTIME
from sif_writable.seldom import MARKER as MARKER
from sif_writable.session import OLD, REFUSED, TOLD, check_sum, was_set
from sif_writable.signals import let_pass
from sif_writable.system import SMALL, world
from sif_writable.system.filesystem import (
    MIN_BYTES,
    ROOM,
    SILENT,
    explain,
    is_unheard,
    planted,
    reachable,
    replaceable,
    unfit,
    unheard,
    unmakable,
    unsteady,
    way,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Optional

    from sif_writable.errors import Problem
    from sif_writable.plan import Decision, Place, Storage
    from sif_writable.redirects.watch import Watch
    from sif_writable.system import Facts

UNCOUNTED = "uncounted"
FINDINGS = ("nolock", UNCOUNTED)
"""What a marker may say after ``exec`` or ``noexec``: files cannot be locked; the filesystem tells that no bytes or no
inodes are free, although files can be made."""
UNTRIED = "untried"
"""What it says where the trial failed for a cause that will pass: the folder is ours, the next start tries again."""
OURS = "All that is in this folder is sif-writable's: it may be listed, measured and removed."
"""The second line of a marker. Earlier versions, which also used directories with files of the user, wrote only one."""
FIRST_LINE = 32
"""Bytes of the first line, which is filled up with blanks: earlier versions read that much."""

LOOSE = "others may write {!r}, which has no sticky bit, and could put something else in place of our folder"
"""Why nothing that is executed goes to a place; the blank is the directory, of the place or on the way to it."""

_DECLARED = {MORE_HEAVY: ("heavy", ",,"), PATHS: ("overlay", "::")}
"""Lists to which the image's manifest adds: its key, and what stands between the user's own part and the image's."""


class Outcome:
    """What this process saw, decided and did."""

    __slots__ = ("decision", "facts", "failed", "replaced", "said", "storage", "watch")

    def __init__(self, facts: "Facts", storage: "Storage", decision: "Decision") -> None:
        """:param decision: what was decided; what of it could not be done is in ``failed``."""
        self.facts = facts
        self.storage = storage
        self.decision = decision
        self.watch: Optional[Watch] = None
        """The directories that were listed to make links to what is in them, where any were."""
        self.said: list[str] = []
        """What was said on stderr of the place that the user gave, and of storage that does not answer."""
        self.failed: list[Problem] = []
        """What could not be done."""
        self.replaced: dict[str, Optional[str]] = {}
        """Variables that were set, with their value before."""


def settle(places: "Iterable[Place]", facts: "Facts", environ: "Mapping[str, str]") -> "Storage":
    """Try the candidates in order until each kind of location has its place, and its folder there."""
    storage = plan.Storage()
    postponed: list[Place] = []
    for place in places:
        _take(place, facts, storage, plan.KINDS, postponed)
        if len(storage.roots) == len(plan.KINDS):
            break  # before the next candidate is looked at: it may be a network mount that hangs
    for place in postponed:
        if len(storage.roots) < len(plan.KINDS):
            storage.small = True
            _take(place, facts, storage, plan.KINDS, None)
    if plan.needs_runtime(facts, storage, environ):
        _settle_runtime(facts, storage)
    return storage


def _settle_runtime(facts: "Facts", storage: "Storage") -> None:
    """Choose a short path on a local filesystem for sockets, and fall back to where the settings go."""
    for place in plan.local_places():
        # That another kind found it unfit is not said twice.
        if not _consider(place, facts, storage, (RUNTIME,), None) and not _open_kind(RUNTIME, facts, storage):
            return
    root = storage.roots.get(CONFIG)
    if root and not unfit(root, uid=facts.uid, socket=True):
        storage.roots[RUNTIME] = root
        storage.places[RUNTIME] = storage.places[CONFIG]
        _open_kind(RUNTIME, facts, storage)


def _take(
    place: "Place", facts: "Facts", storage: "Storage", kinds: "tuple[str, ...]", postponed: "Optional[list[Place]]"
) -> None:
    """Give a place to each kind that it serves and that has none, with its folder; what is wrong with it is kept."""
    problem = _consider(place, facts, storage, kinds, postponed)
    if problem:
        storage.refused.append((place, problem))
    for kind in kinds:
        if storage.places.get(kind) is place:
            _open_kind(kind, facts, storage)


def _consider(
    place: "Place", facts: "Facts", storage: "Storage", kinds: "tuple[str, ...]", postponed: "Optional[list[Place]]"
) -> str:
    """Give a place to each kind that it serves and that has none; return what is wrong with it otherwise."""
    try:
        return _consider_well(place, facts, storage, kinds, postponed)
    except OSError as error:  # it fails between two looks; one place shall not cost the others
        return explain(error)


def _consider_well(
    place: "Place", facts: "Facts", storage: "Storage", kinds: "tuple[str, ...]", postponed: "Optional[list[Place]]"
) -> str:
    if ":" in place.base or "\n" in place.base:
        return "has a colon or a line break in its path, which lists of paths cannot express"
    if not reachable(place.base):
        return SILENT
    try:
        status = world.stat(place.base)
    except FileNotFoundError as error:
        if not place.make:
            return explain(error)
        problem = planted(place.base, facts.uid) or unmakable(place.base)
        if problem:
            return problem
        world.once()
        from sif_writable.storage.make import make_base

        problem = make_base(place.base)
        if problem:
            return problem
        status = world.stat(place.base)
    if status.st_mode & 0o170000 != 0o040000:
        return "is not a directory"
    if postponed is not None and not place.given and _is_small(place, status.st_dev, facts):
        postponed.append(place)
        return ""
    shared = status.st_uid != facts.uid or bool(status.st_mode & 0o022)
    # Who gives a place vouches for who owns it, but not for somebody who knew of it and made it first.
    problem, loose = way(place.base, facts.uid)
    if loose == place.base and place.given and status.st_uid == 0 and "KUBERNETES_SERVICE_HOST" in os.environ:
        loose = ""  # kubelet makes volumes so, for the containers of this pod alone
    problem = problem or ("" if place.given or not shared else replaceable(status, facts.uid, loose=bool(loose)))
    if problem:
        return problem
    foreign_mode = 0o022 if place.given and not shared else 0o077
    root, marker = _find_root(place, shared=shared, user=facts.user)
    if not marker:
        # What is plainly unusable is refused here, so that no later start loads the cold path for it again.
        if world.exists(root):
            unusable = unfit(root, uid=facts.uid, foreign_mode=foreign_mode)
        else:
            unusable = unfit(place.base + "/.", uid=status.st_uid, counted=False, foreign_mode=0)
        if unusable:
            return unusable
        world.once()
        from sif_writable.storage.roots import make_root

        problem, marker = make_root(root, uid=facts.uid, foreign_mode=foreign_mode)
        if problem:
            return problem
    # The common case in one look: everything goes to the first good place.
    common = kinds is plan.KINDS and not marker.startswith("noexec") and not storage.roots and not loose
    counted = UNCOUNTED not in marker
    if common and not unfit(root, uid=facts.uid, room=ROOM, counted=counted, execute=True, foreign_mode=foreign_mode):
        for kind in kinds:
            storage.roots[kind] = root
            storage.places[kind] = place
        return ""
    return unfit(root, uid=facts.uid, counted=counted, foreign_mode=foreign_mode) or _share_out(
        place, root, marker, loose, facts.uid, storage, kinds, foreign_mode, last=postponed is None
    )


def _share_out(
    place: "Place",
    root: str,
    marker: str,
    loose: str,
    uid: int,
    storage: "Storage",
    kinds: "tuple[str, ...]",
    foreign_mode: int,
    *,
    last: bool,
) -> str:
    """Give a root to those kinds that it serves and that have none; return why it does not serve the others.

    :param loose: the directory from which others could take the root away, or an empty string.
    :param last: nothing better comes, so downloads go there also where there is little room.
    """
    problems, withheld = [], False
    for kind in kinds:
        if kind in storage.roots:
            continue
        if loose and kind != DATA:
            withheld = True
            continue
        missing = unfit(
            root,
            uid=uid,
            room=MIN_BYTES if last or kind != DATA else ROOM,
            counted=UNCOUNTED not in marker,
            execute=kind == COMPILED,
            socket=kind == RUNTIME,
            foreign_mode=foreign_mode,
        )
        if kind == COMPILED and marker.startswith("noexec") and not missing:
            missing = "does not let object code be loaded from it"
        if missing:
            problems.append(f"{missing} (for {kind} files)")
        else:
            storage.roots[kind] = root
            storage.places[kind] = place
    if withheld:
        storage.loose.append((place, loose))
        problems.append(f"keeps no code and no settings: {LOOSE.format(loose)}")
    return "; ".join(problems)


def _find_root(place: "Place", *, shared: bool, user: int) -> "tuple[str, str]":
    """Return the folder of ours in a place, and its marker; an empty one where it has yet to be made or tried."""
    own = place.given and not shared
    if own:
        marker = read_marker(place.base, ours=True)
        if marker:
            return itself(place.base), marker if marker != UNTRIED else ""
    root = plan.own_folder(place, shared=shared, user=user)
    marker = read_marker(root)
    named = os.path.basename(place.base) == plan.FOLDER
    if own and named and not marker and not unfit(place.base + "/.", uid=os.geteuid(), counted=False):
        world.once()
        from sif_writable.storage.roots import is_for_us

        if is_for_us(place.base):
            return itself(place.base), ""
    return root, marker


def itself(base: str) -> str:
    """Return what a path that the user gave leads to: a link of his is fine, and was looked through."""
    return os.path.realpath(base) if os.path.islink(base) else base


def _is_small(place: "Place", device: int, facts: "Facts") -> bool:
    """Whether a place draws on the 64 MiB of the container session; a writable root may be such an overlay."""
    if device == facts.session_device:
        return True
    if not place.of_image:
        return False
    space = world.statvfs(place.base)
    return space.f_blocks * space.f_frsize < SMALL


def read_marker(root: str, *, ours: bool = False) -> str:
    """Return what an earlier start found out about this storage root, or an empty string.

    The words are ``exec`` or ``noexec``, and any of :data:`FINDINGS`.

    :param ours: only if the marker says that all in there is ours; then also :data:`UNTRIED`.
    """
    try:
        # Not blocking: what somebody made a named pipe would wait for a writer, at every interpreter start.
        descriptor = os.open(f"{root}/{MARKER}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        let_pass(error)
        return ""
    try:
        first, _, second = os.read(descriptor, 256).decode("ascii", "replace").partition("\n")
    except OSError as error:
        let_pass(error)
        return ""
    finally:
        os.close(descriptor)
    if ours and second.rstrip("\n") != OURS:
        return ""
    words = first.split()
    if words[:1] == ["exec"] or words[:1] == ["noexec"]:
        return " ".join(words) if set(words[1:]).issubset(FINDINGS) else ""
    return UNTRIED if ours and words == [UNTRIED] else ""


def _open_kind(kind: str, facts: "Facts", storage: "Storage") -> str:
    """Name the folder of a kind, list what it holds, and make it when it is not there.

    :returns: an empty string, or what is wrong with it; then the kind has no place any more.
    """
    root, place = storage.roots[kind], storage.places[kind]
    image = f"{root}/image-{facts.identity}"
    folder = {
        DATA: f"{root}/data",
        RUNTIME: f"{root}/run",
        CONFIG: f"{image}/config",
        COMPILED: f"{image}/compiled-{facts.tag}",
    }[kind]
    problem, names = "", {}
    try:
        names[kind] = frozenset(os.listdir(folder))
        if kind == CONFIG:
            names["image"] = frozenset(os.listdir(image))
    except OSError:
        world.once()
        from sif_writable.storage.make import make_tree

        try:
            problem = make_tree(folder, root, earlier=place.base if place.given else "")
            if not problem:
                names[kind] = frozenset(os.listdir(folder))
                if kind == CONFIG:
                    names["image"] = frozenset(os.listdir(image))
        except OSError as error:
            problem = explain(error)
    # A root of our own making lets nobody in. A given one may have had a folder of that name for others.
    if not problem and place.given and world.stat(folder).st_mode & 0o022:
        problem = f"can be written by other users (remedy: chmod go-w {folder})"
    if problem:
        problem = f"{folder[len(root) + 1 :]} in it {problem}"
        storage.refused.append((place, problem))
        del storage.roots[kind], storage.places[kind]
        return problem
    storage.present.update(names)
    storage.folders[kind] = folder
    if kind == CONFIG:
        storage.folders["image"] = image
    return ""


def decide(facts: "Facts", storage: "Storage", environ: "Mapping[str, str]") -> "Decision":
    """Run the decisions on the default locations as they are."""
    from sif_writable.redirects import decide as redirects
    from sif_writable.redirects.locations import Locations

    return redirects.decide(facts, storage, Locations(facts.home), environ)


def apply(
    decision: "Decision", facts: "Facts", storage: "Storage", environ: "Mapping[str, str]", token: str
) -> Outcome:
    """Make what must exist, then set the environment, then hand the decisions down to children.

    :param environ: the environment as it was decided on; os.environ is what changes.
    :param token: names this container run (:func:`sif_writable.child.token`).
    """
    outcome = Outcome(facts, storage, decision)
    from sif_writable.redirects import links

    links.provide(outcome, environ)
    for redirect in decision.redirects:
        _set(redirect.variable, redirect.value, outcome)
    for beside, variable, path in decision.carried:
        if beside in outcome.replaced and not is_unheard(path) and os.access(path, os.R_OK):
            _set(variable, path, outcome)
    if decision.home:
        _set("HOME", decision.home, outcome)
    _name_user(outcome, environ)
    if decision.pycache and sys.pycache_prefix is None and not sys.dont_write_bytecode:
        sys.pycache_prefix = decision.pycache
        root = os.path.basename(storage.roots[COMPILED])
        if keeper(decision.pycache, unsteady())[1] == STEADY and root != f"{plan.FOLDER}-{facts.user}":
            _set("PYTHONPYCACHEPREFIX", decision.pycache, outcome)
        else:
            os.environ[PYCACHE] = decision.pycache
    if facts.manifest.get("user-site") == ["no"] and "PYTHONNOUSERSITE" not in environ:
        _ignore_user_site(outcome)
    elif decision.home and getattr(sys.modules.get("site"), "USER_SITE", None):
        from sif_writable import usersite

        usersite.follow_home(make=True)
    if "TMPDIR" in outcome.replaced and "tempfile" in sys.modules:
        sys.modules["tempfile"].tempdir = None  # type: ignore[attr-defined]
    for variable, (key, mark) in _DECLARED.items():
        declared = facts.manifest.get(key)
        if declared:
            values = mark[0].join([value.partition(" ")[0] for value in declared])
            _set(variable, f"{environ.get(variable, '')}{mark}{values}", outcome)
    roots = dict.fromkeys(storage.roots.values())  # the order is that of the kinds, the main root first
    kinds = "".join([keeper(root, unsteady())[1] for root in roots]) if unsteady() else ""
    copies = storage.roots.get(COMPILED) or storage.roots.get(CONFIG)
    if copies:  # the prefix is said too, since another environment of this image is another identity
        os.environ[COPIES] = f"{facts.prefix}:{copies}/image-{facts.identity}"
    done = ",".join([was_set(name, os.environ[name], before) for name, before in outcome.replaced.items()])
    os.environ[SESSION] = f"2{kinds};{token};{done};{inputs()};{':'.join(roots)}"
    if storage.refused and storage.refused[0][0].label == DIR:
        from sif_writable.storage.unserved import unmet

        problem = unmet(storage)
        if problem:
            os.environ[REFUSED] = f"{problem.text}\n{problem.remedy}"
            _say_once([str(problem)], outcome)
    elif storage.loose and storage.loose[0][0].given:
        from sif_writable.storage.unserved import unmet

        _say_once([str(unmet(storage, storage.loose[0][0].label) or "")], outcome)
    elif unheard:
        from sif_writable.storage.unserved import silence

        _say_once([silence(path) for path in unheard], outcome)
    return outcome


def _say_once(lines: "list[str]", outcome: Outcome) -> None:
    """Say lines on stderr, unless an ancestor of a process that is decided anew has said the same."""
    from sif_writable.stderr import say

    outcome.said += lines
    told = check_sum("\n".join(lines))
    if getattr(sys.modules.get("sif_writable.session"), "told", "") != told:
        say(lines)
    os.environ[TOLD] = told


def _set(variable: str, value: str, outcome: Outcome) -> None:
    if variable not in outcome.replaced:
        before = outcome.replaced[variable] = os.environ.get(variable)
        if before is not None:
            os.environ[OLD + variable] = before
    os.environ[variable] = value


def _ignore_user_site(outcome: Outcome) -> None:
    """Take the user's own packages off the path, as the image declares; children never look for them."""
    _set("PYTHONNOUSERSITE", "1", outcome)
    from sif_writable import usersite

    usersite.ignore()


def _name_user(outcome: Outcome, environ: "Mapping[str, str]") -> None:
    """Give a uid without a passwd entry a name, which getpass.getuser() demands (torch before 2.13 at import)."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        if environ.get(name):
            return
    import pwd

    try:
        pwd.getpwuid(outcome.facts.uid)
    except KeyError:
        outcome.decision.user = f"uid{outcome.facts.uid}"
        _set("USER", outcome.decision.user, outcome)
        _set("LOGNAME", outcome.decision.user, outcome)
