"""Where each kind goes: the candidates are tried in order, until each kind has its place and its folder there.

Whatever has to be made is made by :mod:`sif_writable.storage.make`.
"""

import os

from sif_writable.hanging import LOCAL, hangable_mount_on
from sif_writable.settings import shares_data
from sif_writable.storage import layout
from sif_writable.storage.candidates import FOLDER, local_places, storage_root
from sif_writable.storage.chosen import Slot, Storage, needs_runtime, tmp_is_small
from sif_writable.storage.kinds import COMPILED, CONFIG, DATA, KINDS, RUNTIME
from sif_writable.storage.marker import UNTRIED, Marker, read_marker
from sif_writable.system import world
from sif_writable.system.filesystem import (
    MIN_BYTES,
    ROOM,
    explain,
    foreign_component,
    replaceable,
    unfit,
    way,
    why_not_creatable,
)
from sif_writable.system.timeouts import TIMED_OUT, may_hang, responds
from sif_writable.warm import SMALL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Optional

    from sif_writable.storage.candidates import Candidate
    from sif_writable.storage.chosen import TakeOver
    from sif_writable.system.surroundings import Facts


LOOSE = "others may write {!r}, which has no sticky bit, and could put something else in place of our folder"
"""Why a place holds nothing that is executed; the field is the directory at fault, the place or one above it."""


def choose_storage(
    places: "Iterable[Candidate]",
    facts: "Facts",
    environ: "Mapping[str, str]",
    take_over: "Optional[TakeOver]" = None,
) -> Storage:
    """Try the candidates in order until each kind of location has its place, and its folder there.

    :param take_over: moves what an earlier version kept into a new folder; is called with the place that the user gave,
        the root and the folder.
    """
    storage = Storage()
    storage.take_over = take_over
    storage.shares = shares_data(environ)
    postponed: list[Candidate] = []
    for place in places:
        _take(place, facts, storage, KINDS, postponed)
        if len(storage.slots) == len(KINDS):
            break  # the next candidate may be a network mount that hangs
    for place in postponed:
        if len(storage.slots) < len(KINDS):
            storage.small = True
            _take(place, facts, storage, KINDS, None)
    if needs_runtime(facts, storage, environ):
        if tmp_is_small(facts, environ) and not storage.small:
            storage.roomy = _choose_roomy(facts, storage)
        if not storage.roomy:
            _choose_runtime(facts, storage)
    return storage


def _choose_roomy(facts: "Facts", storage: "Storage") -> bool:
    """Choose for temporary files a local place with room, with a short path, from which code can be loaded."""
    compiled = storage.slots.get(COMPILED)
    if compiled and hangable_mount_on(compiled.root, may_hang())[1] == LOCAL and _is_roomy(compiled.root, facts):
        storage.slots[RUNTIME] = Slot(compiled.root, compiled.place)
        return not _open_kind(RUNTIME, facts, storage)
    memory = next(each for each in local_places() if each.lasting == "memory")
    if not _consider(memory, facts, storage, (RUNTIME,), None) and _is_roomy(storage.slots[RUNTIME].root, facts):
        return not _open_kind(RUNTIME, facts, storage)
    storage.slots.pop(RUNTIME, None)
    return False


def _is_roomy(root: str, facts: "Facts") -> bool:
    return not unfit(root, uid=facts.uid, room=ROOM, execute=True, socket=True)


def _choose_runtime(facts: "Facts", storage: "Storage") -> None:
    """Choose a short path on a local filesystem for sockets, and fall back to where the settings go."""
    for place in local_places():
        # A place that was refused for another kind is not reported again.
        if not _consider(place, facts, storage, (RUNTIME,), None) and not _open_kind(RUNTIME, facts, storage):
            return
    settings = storage.slots.get(CONFIG)
    if settings and not unfit(settings.root, uid=facts.uid, socket=True):
        storage.slots[RUNTIME] = Slot(settings.root, settings.place)
        _open_kind(RUNTIME, facts, storage)


def _take(
    place: "Candidate",
    facts: "Facts",
    storage: "Storage",
    kinds: "tuple[str, ...]",
    postponed: "Optional[list[Candidate]]",
) -> None:
    """Give a place to each kind that it serves and that has none, with its folder; note what is wrong with it."""
    problem = _consider(place, facts, storage, kinds, postponed)
    if problem:
        storage.refused.append((place, problem))
    for kind in kinds:
        if kind in storage.slots and storage.slots[kind].place is place:
            _open_kind(kind, facts, storage)


def _consider(
    place: "Candidate",
    facts: "Facts",
    storage: "Storage",
    kinds: "tuple[str, ...]",
    postponed: "Optional[list[Candidate]]",
) -> str:
    """Give a place to each kind that it serves and that has none; return what is wrong with it otherwise."""
    try:
        return _consider_well(place, facts, storage, kinds, postponed)
    except OSError as error:  # it fails between two checks; the other candidates may serve
        return explain(error)


def _consider_well(
    place: "Candidate",
    facts: "Facts",
    storage: "Storage",
    kinds: "tuple[str, ...]",
    postponed: "Optional[list[Candidate]]",
) -> str:
    if place.base[:1] != "/":
        return "is not an absolute path, so it would be another place in each working directory"
    if ":" in place.base or "\n" in place.base:
        return "has a colon or a line break in its path, which lists of paths cannot express"
    if not responds(place.base):
        return TIMED_OUT
    try:
        status = world.stat(place.base)
    except FileNotFoundError as error:
        if not place.make:
            return explain(error)
        problem = foreign_component(place.base, facts.uid) or why_not_creatable(place.base)
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
    problem, loose = way(place.base, facts.uid, whole=True)
    if loose == place.base and place.given and status.st_uid == 0 and place.of_pod:
        loose = ""  # kubelet makes volumes so, for the containers of this pod alone
    problem = problem or ("" if place.given or not shared else replaceable(status, facts.uid, loose=bool(loose)))
    if problem:
        return problem
    if place.given and storage.shares and storage.shared is None:
        from sif_writable.storage.sharing import share

        share(place, status, loose, storage)
    foreign_mode = 0o022 if place.given and not shared else 0o077
    root, marker = _find_root(place, shared=shared, user=facts.user)
    if not marker:
        # What is plainly unusable is refused here, so that no later start loads the cold path for it again.
        if world.exists(root):
            unusable = unfit(root, uid=facts.uid, foreign_mode=foreign_mode)
        else:
            unusable = unfit(place.base + "/.", uid=status.st_uid, counted=False, foreign_mode=0)
        if unusable:
            return _within(place, root, unusable, storage)
        world.once()
        from sif_writable.storage.roots import make_root

        problem, marker = make_root(root, uid=facts.uid, foreign_mode=foreign_mode)
        if problem:
            return _within(place, root, problem, storage)
    # The common case, in one check: everything goes to the first good place.
    common = kinds is KINDS and marker.executable and not storage.slots and not loose
    counted = marker.counted
    if common and not unfit(root, uid=facts.uid, room=ROOM, counted=counted, execute=True, foreign_mode=foreign_mode):
        for kind in kinds:
            storage.slots[kind] = Slot(root, place)
        return ""
    unusable = unfit(root, uid=facts.uid, counted=counted, foreign_mode=foreign_mode)
    if unusable:
        return _within(place, root, unusable, storage)
    return _share_out(place, root, marker, loose, facts.uid, storage, kinds, foreign_mode, last=postponed is None)


def _within(place: "Candidate", folder: str, problem: str, storage: "Storage") -> str:
    """Return what is wrong with a place for what is wrong with a folder of ours in it, which is named."""
    if folder == place.base or not world.exists(folder):
        return problem
    storage.folders.append((place, folder))
    if world.lstat(folder).st_mode & 0o170000 not in (0o040000, 0o120000):
        problem = "is not a directory"
    return f"has {folder!r}, which {problem}"


def _share_out(
    place: "Candidate",
    root: str,
    marker: Marker,
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
        if kind in storage.slots:
            continue
        if loose and kind != DATA:
            withheld = True
            continue
        missing = unfit(
            root,
            uid=uid,
            room=MIN_BYTES if last or kind != DATA else ROOM,
            counted=marker.counted,
            execute=kind == COMPILED,
            socket=kind == RUNTIME,
            foreign_mode=foreign_mode,
        )
        if kind == COMPILED and not marker.executable and not missing:
            missing = "does not let object code be loaded from it"
        if missing:
            problems.append(f"{missing} (for {kind} files)")
        else:
            storage.slots[kind] = Slot(root, place)
    # A user who shares downloads knows that code is not shared.
    if withheld and not (storage.shared and storage.shared.place is place):
        storage.loose.append((place, loose))
        problems.append(f"keeps no code and no settings: {LOOSE.format(loose)}")
    return "; ".join(problems)


def _find_root(place: "Candidate", *, shared: bool, user: int) -> "tuple[str, Marker]":
    """Return the folder of ours in a place, and its marker; an empty one where it has yet to be made or tried."""
    own = place.given and not shared
    if own:
        marker = read_marker(place.base, ours=True)
        if marker:
            return itself(place.base), marker if marker != UNTRIED else Marker()
    root = storage_root(place, shared=shared, user=user)
    marker = read_marker(root)
    named = os.path.basename(place.base) == FOLDER
    if own and named and not marker and not unfit(place.base + "/.", uid=os.geteuid(), counted=False):
        world.once()
        from sif_writable.storage.roots import is_for_us

        if is_for_us(place.base):
            return itself(place.base), Marker()
    return root, marker


def itself(base: str) -> str:
    """Resolve a path that the user gave, if it is a link: a link of his own was followed when it was checked."""
    return os.path.realpath(base) if os.path.islink(base) else base


def _is_small(place: "Candidate", device: int, facts: "Facts") -> bool:
    """Whether a place draws on the 64 MiB of the container session; a writable root may be such an overlay."""
    if device == facts.session_device:
        return True
    if not place.of_image:
        return False
    space = world.statvfs(place.base)
    return space.f_blocks * space.f_frsize < SMALL


def _open_kind(kind: str, facts: "Facts", storage: "Storage") -> str:
    """Name the folder of a kind, list what it holds, and make it when it is not there.

    :returns: an empty string, or what is wrong with it; then the kind has no place any more.
    """
    slot = storage.slots[kind]
    root, place = slot.root, slot.place
    image = f"{root}/{layout.image(facts.identity)}"
    folder = slot.folder = {
        DATA: f"{root}/{layout.DATA}",
        RUNTIME: f"{root}/{layout.RUN}",
        CONFIG: f"{image}/{layout.CONFIG}",
        COMPILED: f"{image}/{layout.COMPILED}{facts.tag}",
    }[kind]
    own = Slot(root, place, image) if kind == CONFIG else None
    problem = ""
    try:
        _list(slot, own)
    except OSError:
        world.once()
        from sif_writable.storage.make import make_tree

        bring = storage.take_over if place.given else None
        try:
            problem = make_tree(folder, root, bring and (lambda root, folder: bring(place.base, root, folder)))
            if not problem:
                _list(slot, own)
        except OSError as error:
            problem = explain(error)
    # A root of our own making lets nobody in. A given one may have had a folder of that name for others.
    if not problem and place.given and world.stat(folder).st_mode & 0o022:
        problem = "can be written by other users"
    if problem:
        problem = _within(place, folder, problem, storage)
        storage.refused.append((place, problem))
        del storage.slots[kind]
        return problem
    storage.image = own or storage.image
    return ""


def _list(*slots: "Optional[Slot]") -> None:
    for slot in slots:
        if slot:
            slot.present = world.names(slot.folder)
