"""The preflight of the writable layer: whether one is possible here, what prevents it, what ended layers have left."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, NamedTuple

from sif_writable.cleanup import layers
from sif_writable.layer import decide, enter, kernel, make, trial
from sif_writable.report import layer
from sif_writable.sizes import count, human
from sif_writable.storage.shortage import LOW_INODES
from sif_writable.storage.shortage import remedy as space_remedy
from sif_writable.storage.space import room_at
from sif_writable.system import image_mounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sif_writable.cleanup.contents import Contents, Item
    from sif_writable.report.model import Layer

LEAST_KERNEL = (5, 11)
"""The first one on which a user without privileges may mount an overlay."""
LOW_BYTES = 64 << 20
_USERS = "/proc/sys/user/max_user_namespaces"
_DEBIAN = "/proc/sys/kernel/unprivileged_userns_clone"
_APPARMOR = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"
_COPIES = "packages that write beside themselves get copies instead"


class Machine(NamedTuple):
    """The properties of this machine that decide whether a layer is possible."""

    kernel: str
    users: int
    """How many user namespaces a user may have; -1: not known."""
    apparmor: bool
    """Whether AppArmor denies them to programs without a profile of their own."""
    proc: bool = True
    """Whether /proc is mounted: else nobody knows what is of the image, and there are no copies either."""

    @property
    def is_old(self) -> bool:
        """Whether the kernel is too old."""
        match = re.match(r"(\d+)\.(\d+)", self.kernel)
        return match is not None and (int(match[1]), int(match[2])) < LEAST_KERNEL


def machine(text: Callable[[str], str] = enter.read) -> Machine:
    """Read them.

    :param text: returns the text of a file, or an empty string.
    """
    users = text(_USERS).strip()
    off = text(_DEBIAN).strip() == "0"
    count = 0 if off else int(users) if users.isdigit() else -1
    proc = bool(text("/proc/self/mountinfo"))
    return Machine(os.uname().release, count, text(_APPARMOR).strip() == "1", proc)


def try_now(image: str) -> None:
    """Try a layer for this environment in a child process, if none was tried in these circumstances yet."""
    from sif_writable import layered

    if not image or layered._inside:  # noqa: SLF001
        return
    uid, uid_map = os.geteuid(), enter.read("/proc/self/uid_map")
    program = os.readlink("/proc/self/exe") if uid_map else ""
    if enter.obstacle(
        os.environ, uid=uid, uid_map=uid_map, threads=1, program=program, prefix=sys.prefix, storage=image
    ):
        return
    name = os.path.basename(image)
    wanted = decide.distinct([*filter(decide.can_be_named, image_mounts.directories_to_cover())])
    here = trial.circumstances(wanted, uid_map)
    if wanted and make.settled(enter.places(image, name, uid), 0, here) is None:
        table = kernel.table(enter.read("/proc/self/mountinfo"))
        trial.settle(wanted, image, name, [here, make.environment(uid_map, table)])


class Found(NamedTuple):
    """One finding."""

    good: bool
    text: str
    remedy: str


def findings(state: Layer, seen: Machine, places: Iterable[str], left: Iterable[Contents]) -> Iterator[Found]:
    """Yield whether a layer is possible, and what layers that have ended have left.

    :param state: see :func:`sif_writable.report.layer.model`.
    :param places: where layers of this image could lie on this node.
    :param left: what layers have left in storage and on this node.
    """
    limit = "not known" if seen.users < 0 else str(seen.users)
    facts = f"kernel {seen.kernel}, user.max_user_namespaces {limit}"
    if seen.apparmor:
        facts += ", AppArmor restricts user namespaces"
    if state["over"] and not state["why"]:
        where = layer.place_of(state)
        yield Found(True, f"tried, and possible over {', '.join(state['over'])}; it lies in {where}; {facts}", "")
        yield from () if state["in_memory"] else _room(state["place"])
    elif state["why"]:
        cure = remedy(seen, [*places])
        copies = _COPIES if seen.proc else "nor are there copies, as nothing shows here what belongs to the image"
        yield Found(not cure, f"none: {state['why']}; {copies}; {facts}", cure)
    else:
        yield Found(True, f"not tried yet: it is when a program imports from the image; {facts}", "")
    yield from _leftovers(left)


def remedy(seen: Machine, places: Iterable[str]) -> str:
    """Return what would make a layer possible, by what is known of the machine, or nothing: none is wanted."""
    wanted = enter.mode(os.environ) != "off"
    if not wanted or enter.parallel(os.environ) or os.environ.get("KRB5CCNAME", "").startswith("KEYRING:"):
        return ""
    if not seen.proc:
        return "start it with /proc mounted (Apptainer: without --no-mount proc)"
    if seen.is_old:
        return f"a kernel from {'.'.join(map(str, LEAST_KERNEL))} on"
    if seen.users == 0:
        return "ask the administrator for user namespaces: sysctl user.max_user_namespaces=10000"
    if seen.apparmor:
        return (
            "ask the administrator for an AppArmor profile with the rule `userns,` for the container runtime, or for "
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0"
        )
    kinds = {trial.filesystem(_existing(place)) for place in places}
    if not kinds & trial.UPPER_TYPES:
        good = ", ".join(sorted(trial.UPPER_TYPES))
        return f"bind a directory of a local disk: --bind DIR:/var/tmp ({good})"
    return ""


def _existing(path: str) -> str:
    while path != "/" and not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _room(place: str) -> Iterator[Found]:
    room = room_at(place, os.environ)
    if room is None:
        return
    few = bool(room.inodes) and room.free_inodes < LOW_INODES
    if room.free < LOW_BYTES or few:
        text = f"what programs write lies in {place}, which has {human(room.free)} and {room.free_inodes} inodes free"
        yield Found(False, text, full_remedy(place, few))


def full_remedy(place: str, few: bool) -> str:
    """Return what helps where the folder of the layers runs full.

    :param few: inodes run short, not bytes.
    """
    room = room_at(place, os.environ)
    if room is None:
        return "bind a directory with more room: --bind DIR:/sif-writable"
    if "/layers/image-" not in place:
        return space_remedy(room, "inodes" if few else "bytes")
    parent = place.partition("/sif-writable-")[0]
    return f"free some of {parent}, or bind a directory of a larger local disk: --bind DIR:{parent}"


def _leftovers(left: Iterable[Contents]) -> Iterator[Found]:
    waiting: list[Item] = []
    gone: list[Item] = []
    aside: list[Item] = []
    copies: list[Item] = []
    for contents in left:
        for item in contents.items:
            if item.kind == layers.UPPER and not item.problem:
                (waiting if item.written else gone).append(item)
            elif item.kind == layers.REPLICA:
                copies.append(item)
            elif item.kind == layers.SET_ASIDE:
                aside.append(item)
    if waiting:
        files = sum(item.written for item in waiting)
        yield Found(
            True,
            f"{count(files, 'file')} of containers that have ended are in {_first([item.path for item in waiting])}: "
            "the next start of their image on this node keeps them",
            "",
        )
    if copies:
        number = count(len(copies), "copy", "copies")
        size = human(sum(item.size for item in copies))
        yield Found(
            True, f"{number} of generations for this machine, {size}, in {_first([i.path for i in copies])}", ""
        )
    if gone:
        size = human(sum(item.size for item in gone))
        yield Found(
            True,
            f"{count(len(gone), 'layer')} without anything to keep, {size}, in {_first([i.path for i in gone])}",
            "",
        )
    if aside:
        size = human(sum(item.size for item in aside))
        yield Found(
            False,
            f"{size} of files that were not taken when two changed a directory, or were forgotten, are in "
            f"{_first([item.path for item in aside])}",
            f"look whether something is missed there, then remove it: sif-writable cache clear {aside[0].name} --yes",
        )


def _first(paths: list[str]) -> str:
    return f"{paths[0]} and {len(paths) - 1} more" if len(paths) > 1 else paths[0]
