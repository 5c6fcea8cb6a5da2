"""Choosing storage where another user was first, or is at it right now; both users are real."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from sif_writable.redirects import decision as decision_
from sif_writable.redirects import environment, folders
from sif_writable.seldom import MARKER
from sif_writable.storage import choose, make
from sif_writable.storage.candidates import Candidate, places
from sif_writable.system.filesystem import foreign_component
from tests.conftest import or_skip
from tests.lab import apt, enter
from tests.lab.decisions import make_facts
from tests.lab.users import NEIGHBOUR, VICTIM, as_user, busy, needs_two_users, owned_by

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.lab.scratch import Scratch

NAME = f"sif-writable-{VICTIM}"


@pytest.fixture(autouse=True)
def _two_users() -> None:
    needs_two_users()


def settle(*places: Candidate, uid: int = VICTIM, umask: int = 0o022, groups: Sequence[int] = ()) -> dict[str, Any]:
    """Return the storage that a user settles on, and what was refused."""

    def work() -> dict[str, Any]:
        os.umask(umask)
        keep_to_the_places_given()
        storage = choose.choose_storage(places, make_facts(uid=uid, user=uid), {})
        return {
            "roots": {kind: slot.root for kind, slot in storage.slots.items()},
            "kinds": sorted(storage.slots),
            "refused": [[place.label, problem] for place, problem in storage.refused],
        }

    found: dict[str, Any] = as_user(uid, work, groups)
    return found


def keep_to_the_places_given() -> None:
    """Leave out this machine's own /tmp and /dev/shm, where sockets would go; for processes that end soon."""
    vars(choose)["local_places"] = lambda: iter(())


def given(path: str) -> Candidate:
    """Return a place that the user gave."""
    return Candidate("SIF_WRITABLE_DIR", path, "persistent", given=True, make=True)


def folder(path: str, mode: int) -> None:
    """Make a folder of exactly this mode."""
    os.mkdir(path)
    os.chmod(path, mode)


# --- Somebody else was first.


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o755, 0o2775])
@pytest.mark.parametrize("below", ["", "/cache", "/deep/er/cache"])
def test_a_given_place_that_a_neighbour_made_beforehand_is_refused(places: Scratch, mode: int, below: str) -> None:
    path = f"{places.tmp}/mine"
    as_user(NEIGHBOUR, lambda: folder(path, mode))
    found = settle(given(path + below))
    assert found["roots"] == {}
    ((label, problem),) = found["refused"]
    assert label == "SIF_WRITABLE_DIR"
    assert "somebody else's, in a directory where everybody may make one" in problem
    assert owned_by(VICTIM, path) == []


@pytest.mark.parametrize("below", ["", "/cache"])
@pytest.mark.parametrize("to", ["own", "theirs", "nowhere"])
def test_a_neighbours_link_on_the_way_is_refused(places: Scratch, below: str, to: str) -> None:
    own = places.new_folder("own")  # the user's, so that nothing but the link gives it away
    as_user(VICTIM, lambda: settle_here(f"{own}/cache"))
    before = sorted(owned_by(VICTIM, own))
    target = {"own": own, "theirs": f"{places.var_tmp}/theirs", "nowhere": "/nowhere/at/all"}[to]

    def plant() -> None:
        if to == "theirs":
            os.mkdir(target, 0o777)
            os.chmod(target, 0o777)
        os.symlink(target, f"{places.tmp}/mine")

    as_user(NEIGHBOUR, plant)
    assert settle(given(f"{places.tmp}/mine{below}"))["roots"] == {}
    assert sorted(owned_by(VICTIM, own)) == before
    assert owned_by(VICTIM, places.var_tmp) == []


def settle_here(path: str) -> None:
    """Settle in a place of one's own."""
    keep_to_the_places_given()
    choose.choose_storage([given(path)], make_facts(uid=VICTIM, user=VICTIM), {})


def test_ones_own_link_and_folder_in_a_shared_place_are_fine(places: Scratch) -> None:
    def prepare() -> None:
        os.mkdir(f"{places.tmp}/mine", 0o700)
        os.symlink(f"{places.tmp}/mine", f"{places.tmp}/link")

    as_user(VICTIM, prepare)
    for path in (f"{places.tmp}/mine", f"{places.tmp}/link/cache"):
        assert set(settle(given(path))["roots"].values()) == {f"{path}/sif-writable"}


def test_a_link_of_ones_own_to_a_neighbours_folder_is_looked_through(places: Scratch) -> None:
    as_user(NEIGHBOUR, lambda: folder(f"{places.tmp}/theirs", 0o1777))
    link = f"{places.home}/link"
    as_user(VICTIM, lambda: os.symlink(f"{places.tmp}/theirs", link))
    assert settle(given(f"{link}/cache"))["roots"] == {}


def test_a_link_loop_has_an_end(places: Scratch) -> None:
    as_user(VICTIM, lambda: os.symlink("loop", f"{places.tmp}/loop"))
    assert settle(given(f"{places.tmp}/loop/cache"))["roots"] == {}


def _hard_link(path: str, elsewhere: str) -> None:
    with open(f"{elsewhere}/file", "w", encoding="utf-8"):
        pass
    os.link(f"{elsewhere}/file", path)


def _forged_marker(path: str, _: str) -> None:
    folder(path, 0o777)
    with open(f"{path}/{MARKER}", "w", encoding="utf-8") as file:
        file.write("exec\n")


PLANTS: dict[str, Callable[[str, str], None]] = {
    "hard link": _hard_link,
    "directory": lambda path, _: folder(path, 0o777),
    "sticky directory": lambda path, _: folder(path, 0o1777),
    "closed directory": lambda path, _: folder(path, 0o700),
    "socket": lambda path, _: os.mknod(path, stat.S_IFSOCK | 0o777),
    "forged marker": _forged_marker,
}


@pytest.mark.parametrize("plant", PLANTS)
def test_a_neighbours_root_is_refused_and_another_place_used(places: Scratch, plant: str) -> None:
    path = f"{places.tmp}/{NAME}"
    as_user(NEIGHBOUR, lambda: PLANTS[plant](path, places.var_tmp))
    found = settle(Candidate("tmp", places.tmp, "node"), Candidate("shm", places.shm, "memory"))
    assert set(found["roots"].values()) == {f"{places.shm}/{NAME}"}
    assert [label for label, _ in found["refused"]] == ["tmp"]
    assert not os.path.isdir(path) or os.stat(path).st_uid == NEIGHBOUR
    assert owned_by(VICTIM, places.tmp) == []


@pytest.mark.parametrize("mode", [0o707, 0o770, 0o755, 0o777, 0o4755, 0o000])
def test_a_root_with_a_wrong_mode_is_refused(places: Scratch, mode: int) -> None:
    path = f"{places.tmp}/{NAME}"
    as_user(VICTIM, lambda: folder(path, mode))
    assert settle(Candidate("tmp", places.tmp, "node"))["roots"] == {}


# --- Who could replace what is made there.


@pytest.mark.parametrize(
    ("owner", "mode", "words"),
    [
        (0, 0o777, "can be written by everybody and has no sticky bit"),
        (0, 0o2775, "can be written by its group and has no sticky bit"),
        (NEIGHBOUR, 0o1777, f"belongs to uid {NEIGHBOUR}"),
        (NEIGHBOUR, 0o755, f"belongs to uid {NEIGHBOUR}"),
        (0, 0o1777, ""),
        (0, 0o3775, ""),
        (VICTIM, 0o775, ""),
        (VICTIM, 0o1777, ""),
    ],
)
def test_a_shared_place_must_keep_others_from_replacing_our_folder(
    places: Scratch, owner: int, mode: int, words: str
) -> None:
    base = places.new_folder("shared")
    os.chown(base, owner, VICTIM)
    os.chmod(base, mode)
    found = settle(Candidate("SCRATCH", base, "persistent"))
    if words:
        assert (found["roots"], words in found["refused"][0][1]) == ({}, True), found
        assert os.listdir(base) == []
    else:
        assert set(found["roots"].values()) == {f"{base}/{NAME}"}


def test_root_does_not_put_its_files_into_a_users_home(places: Scratch) -> None:
    """As a sudo that keeps HOME leaves it: the user could put something else in place of what root makes there."""
    os.makedirs(f"{places.home}/.cache")
    os.chown(f"{places.home}/.cache", VICTIM, VICTIM)
    os.chmod(f"{places.home}/.cache", 0o755)
    facts = make_facts(uid=0, user=0, home=places.home, target_mounted=False)
    (own,) = (place for place in globals_places(facts) if place.label == "the user's cache directory")
    found = settle(own, uid=0)
    assert found["roots"] == {}
    assert f"belongs to uid {VICTIM}" in found["refused"][0][1]
    assert os.listdir(f"{places.home}/.cache") == []


def globals_places(facts: Any) -> list[Candidate]:
    """Return the candidates of an empty environment."""
    return list(places(facts, {}))


GROUP, OTHER_GROUP = 4711, 4712


@pytest.mark.parametrize("below", ["", "/mine", "/mine/deeper"])
@pytest.mark.parametrize(
    ("owner", "group", "mode", "loose"),
    [
        (NEIGHBOUR, GROUP, 0o2770, True),
        (NEIGHBOUR, GROUP, 0o3770, False),
        (VICTIM, GROUP, 0o770, True),
        (VICTIM, VICTIM, 0o770, False),  # its own group, as with a umask of 002
        (VICTIM, VICTIM, 0o757, True),
        (0, GROUP, 0o2775, True),
        (VICTIM, GROUP, 0o755, False),
    ],
)
def test_where_a_group_could_swap_our_folder_only_downloads_go(
    places: Scratch, owner: int, group: int, mode: int, loose: bool, below: str
) -> None:
    base = places.new_folder("project")
    if below:
        os.makedirs(base + below)
        for path in (f"{base}/mine", base + below):
            os.chown(path, VICTIM, VICTIM)
            os.chmod(path, 0o755)
    os.chown(base, owner, group)
    os.chmod(base, mode)
    found = settle(given(base + below), Candidate("next", places.shm, "memory"), groups=[GROUP])
    name = NAME if not below and (owner != VICTIM or mode & 0o022) else "sif-writable"
    own, safe = f"{base}{below}/{name}", f"{places.shm}/{NAME}"
    assert found["roots"]["data"] == own
    assert {found["roots"][kind] for kind in ("compiled", "config")} == {safe if loose else own}
    said = [problem for label, problem in found["refused"] if label == "SIF_WRITABLE_DIR"]
    words = f"keeps no code and no settings: others may write {base!r}, which has no sticky bit"
    assert [problem.startswith(words) for problem in said] == [True] * loose
    assert not loose or sorted(os.listdir(own)) == [MARKER, "data"]


@pytest.mark.parametrize(
    ("home", "owner", "group", "shut_off"),
    [
        (0o700, VICTIM, GROUP, True),
        (0o700, VICTIM, VICTIM, True),
        (0o2700, VICTIM, OTHER_GROUP, True),
        (0o750, VICTIM, VICTIM, True),  # its own group
        (0o740, VICTIM, OTHER_GROUP, True),  # they may list it, and not pass
        (0o704, VICTIM, GROUP, True),
        (0o750, VICTIM, GROUP, False),
        (0o710, VICTIM, GROUP, False),
        (0o750, VICTIM, OTHER_GROUP, False),  # who is in both groups can swap it, as the next test does
        (0o711, VICTIM, GROUP, False),
        (0o701, VICTIM, OTHER_GROUP, False),
        (0o755, VICTIM, GROUP, False),
        (0o770, NEIGHBOUR, VICTIM, False),  # who may open it at any time
    ],
)
@pytest.mark.parametrize("mode", [0o775, 0o2775, 0o777])
def test_a_folder_that_others_may_write_and_cannot_get_to_is_ones_own(
    places: Scratch, home: int, owner: int, group: int, mode: int, shut_off: bool
) -> None:
    """``~/.cache``, as a umask of 002 makes it, with a group that others are in, and one of them who tries."""
    base = _cache_of(places, home, owner, group, mode)
    found = settle(
        Candidate("cache", base, "persistent"), Candidate("next", places.shm, "memory"), groups=[VICTIM, GROUP]
    )
    own = f"{base}/{NAME}"
    assert {found["roots"][kind] for kind in ("compiled", "config")} == {own if shut_off else f"{places.shm}/{NAME}"}
    assert [label for label, _ in found["refused"]] == ["cache"] * (not shut_off)

    def swap() -> bool:
        with contextlib.suppress(OSError):
            os.rename(f"{base}/other", f"{base}/mine")
            return True
        return False

    swapped = [as_user(NEIGHBOUR, swap, groups) for groups in ([GROUP, OTHER_GROUP], [GROUP], [])]
    assert any(swapped) != shut_off


def _cache_of(places: Scratch, home: int, owner: int, group: int, mode: int) -> str:
    top = places.new_folder("home")
    os.makedirs(f"{top}/.cache/other")
    os.chown(f"{top}/.cache", VICTIM, GROUP)
    os.chmod(f"{top}/.cache", mode)
    os.chown(top, owner, group)
    os.chmod(top, home)
    return f"{top}/.cache"


def test_an_access_list_that_lets_another_user_through_counts(places: Scratch) -> None:
    or_skip(apt.ensure, "setfacl")
    base = _cache_of(places, 0o700, VICTIM, VICTIM, 0o2775)
    subprocess.run(["setfacl", "-m", f"u:{NEIGHBOUR}:x", os.path.dirname(base)], check=True)
    found = settle(Candidate("cache", base, "persistent"), Candidate("next", places.shm, "memory"), groups=[GROUP])
    assert found["roots"]["config"] == f"{places.shm}/{NAME}"


def test_what_is_mounted_in_a_home_may_have_another_way_to_it(places: Scratch) -> None:
    base, shared = _cache_of(places, 0o700, VICTIM, VICTIM, 0o755), places.new_folder("shared")
    os.chown(shared, VICTIM, GROUP)
    os.chmod(shared, 0o775)

    def work() -> dict[str, Any]:
        enter._unshare(enter._CLONE_NEWNS)
        enter._mount("none", "/", flags=enter._MS_REC | enter._MS_PRIVATE)
        enter._mount(shared, base, flags=enter._MS_BIND)
        return settle(Candidate("cache", base, "persistent"), Candidate("next", places.shm, "memory"), groups=[GROUP])

    assert as_user(0, work)["roots"]["config"] == f"{places.shm}/{NAME}"


@pytest.mark.parametrize("mode", [0o770, 0o777])
def test_a_directory_between_two_links_counts(places: Scratch, mode: int) -> None:
    """Whoever can replace the second link leads the first one elsewhere, with all that is imported through them."""
    shared = places.new_folder("project")
    os.symlink(shared, f"{places.home}/first")
    os.symlink(places.home, f"{shared}/second")
    for link in (f"{places.home}/first", f"{shared}/second"):
        os.lchown(link, VICTIM, VICTIM)
    os.chown(shared, VICTIM, GROUP)
    os.chmod(shared, mode)
    found = settle(given(f"{places.home}/first/second/cache"), Candidate("next", places.shm, "memory"), groups=[GROUP])
    assert found["roots"]["config"] == f"{places.shm}/{NAME}"
    assert f"others may write {shared!r}" in found["refused"][0][1]


def test_an_access_list_that_lets_another_user_write_counts(places: Scratch) -> None:
    or_skip(apt.ensure, "setfacl")
    base = places.new_folder("mine")
    os.chown(base, VICTIM, VICTIM)
    os.chmod(base, 0o700)
    subprocess.run(["setfacl", "-m", f"u:{NEIGHBOUR}:rwx", base], check=True)
    found = settle(given(base), Candidate("next", places.shm, "memory"))
    assert {found["roots"][kind] for kind in ("compiled", "config")} == {f"{places.shm}/{NAME}"}


# --- What is made.


@pytest.mark.parametrize("umask", [0, 0o002, 0o077])
def test_everything_on_the_way_is_private_whatever_the_umask(places: Scratch, umask: int) -> None:
    path = f"{places.tmp}/new/deep/cache"
    assert settle(given(path), umask=umask)["roots"]
    made = [f"{places.tmp}/new", *owned_by(VICTIM, f"{places.tmp}/new")]
    assert len(made) > 5
    for each in made:
        status = os.lstat(each)
        assert stat.S_IMODE(status.st_mode) & 0o077 == 0, each

    def look() -> list[str]:
        return [os.path.join(here, name) for here, _, names in os.walk(f"{places.tmp}/new") for name in names]

    assert as_user(NEIGHBOUR, look) == []


def test_a_folder_of_that_name_which_others_may_write_serves_nothing(places: Scratch) -> None:
    path = f"{places.home}/scratch"

    def prepare() -> None:
        for folder in ("data", "sif-writable/data"):
            os.makedirs(f"{path}/{folder}")
            os.chmod(f"{path}/{folder}", 0o777)
        os.chmod(f"{path}/sif-writable", 0o700)
        with open(f"{path}/sif-writable/{MARKER}", "w", encoding="utf-8") as file:
            file.write("exec\n")

    as_user(VICTIM, prepare)
    found = settle(given(path), Candidate("next", places.shm, "memory"))
    words = f"has '{path}/sif-writable/data', which can be written by other users"
    assert found["refused"] == [["SIF_WRITABLE_DIR", words]]
    assert found["roots"].pop("data") == f"{places.shm}/{NAME}"
    assert set(found["roots"].values()) == {f"{path}/sif-writable"}


# --- Somebody else is at it right now.


def test_a_neighbour_that_swaps_what_bears_the_name_gains_nothing(places: Scratch) -> None:
    """Two thousand settlements beside a process that does nothing but put things there and take them away."""
    path, loot = f"{places.tmp}/{NAME}", f"{places.var_tmp}/loot"

    def prepare() -> None:
        folder(loot, 0o777)
        folder(f"{loot}/forged", 0o777)
        with open(f"{loot}/forged/{MARKER}", "w", encoding="utf-8") as file:
            file.write("exec\n")

    def swap(number: int) -> None:
        way = number % 4
        if way == 0:
            os.symlink(loot, path)
            os.unlink(path)
        elif way == 1:
            os.rename(f"{loot}/forged", path)
            os.rename(path, f"{loot}/forged")
        elif way == 2:
            os.mkdir(path, 0o777)
            os.rmdir(path)
        else:
            os.mkfifo(path)
            os.unlink(path)

    def hammer() -> dict[str, int]:
        counts = {"own": 0, "refused": 0}
        while sum(counts.values()) < 2000 or min(counts.values()) < 10:  # both have had their turns
            storage = choose.choose_storage(
                [Candidate("tmp", places.tmp, "node")], make_facts(uid=VICTIM, user=VICTIM), {}
            )
            if not storage.slots:
                counts["refused"] += 1
                continue
            counts["own"] += 1
            status = os.lstat(path)
            assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (VICTIM, 0o700)
            assert storage.roots() == [path]
            shutil.rmtree(path)
        return counts

    as_user(NEIGHBOUR, prepare)
    with busy(NEIGHBOUR, swap):
        as_user(VICTIM, hammer)
    assert owned_by(VICTIM, loot) == []


def test_a_parent_that_is_swapped_while_it_is_made_gains_nothing(places: Scratch) -> None:
    top, loot = f"{places.tmp}/mine", f"{places.var_tmp}/loot"

    def swap(number: int) -> None:
        if number % 2:
            os.symlink(loot, top)
            os.unlink(top)
        else:
            os.mkdir(top, 0o777)
            os.chmod(top, 0o777)
            shutil.rmtree(top)

    def hammer() -> dict[str, int]:
        keep_to_the_places_given()
        counts = {"own": 0, "refused": 0}
        while sum(counts.values()) < 1000 or min(counts.values()) < 10:
            storage = choose.choose_storage([given(f"{top}/cache")], make_facts(uid=VICTIM, user=VICTIM), {})
            counts["own" if storage.slots else "refused"] += 1
            if storage.slots:
                assert not foreign_component(f"{top}/cache", VICTIM)
                assert os.lstat(top).st_uid == VICTIM
                shutil.rmtree(top)
        return counts

    as_user(NEIGHBOUR, lambda: folder(loot, 0o777))
    with busy(NEIGHBOUR, swap):
        as_user(VICTIM, hammer)
    assert owned_by(VICTIM, loot) == []


@pytest.mark.parametrize("looking", ["choose.way", "make.foreign_component"])
def test_a_link_that_is_not_there_just_when_it_is_looked_at_gains_nothing(
    places: Scratch, monkeypatch: pytest.MonkeyPatch, looking: str
) -> None:
    top, loot = f"{places.tmp}/mine", f"{places.var_tmp}/loot"

    def plant() -> None:
        as_user(NEIGHBOUR, lambda: os.symlink(loot, top))

    def look_away(path: str, uid: int, **how: bool) -> Any:
        os.unlink(top)
        try:
            return look(path, uid, **how)
        finally:
            plant()

    as_user(NEIGHBOUR, lambda: folder(loot, 0o777))
    plant()
    module = choose if looking == "choose.way" else make
    look = getattr(module, looking.rpartition(".")[2])
    monkeypatch.setattr(module, looking.rpartition(".")[2], look_away)
    monkeypatch.setattr(choose, "local_places", lambda: iter(()))
    gone = f"leads to nothing: {top!r} does not exist"
    if module is make:
        assert make.make_base(f"{top}/cache") == gone
    else:
        storage = choose.choose_storage([given(top)], make_facts(uid=0, user=0), {})
        assert [problem for _, problem in storage.refused] == [gone]
    assert os.listdir(loot) == []


# --- Seeds: what an image holds in a default location is copied, what a neighbour has put there is not.


def test_a_neighbours_cache_in_tmp_is_no_seed(places: Scratch) -> None:
    evil = f"{places.tmp}/torchinductor_user"

    def plant() -> None:
        os.mkdir(evil, 0o755)
        with open(f"{evil}/kernel.py", "w", encoding="utf-8") as file:
            file.write("raise SystemExit('mine now')\n")

    as_user(NEIGHBOUR, plant)
    environ = {"USER": "user", "TMPDIR": places.tmp}

    def work() -> list[str]:
        facts = make_facts(uid=VICTIM, user=VICTIM, home=places.home)
        storage = choose.choose_storage([Candidate("home", places.home, "persistent")], facts, environ)
        decision = environment.decide(facts, storage, environ)
        outcome = decision_.Outcome(facts, storage, decision)
        (inductor,) = (each for each in decision.redirects if each.variable == "TORCHINDUCTOR_CACHE_DIR")
        assert inductor.make, "it is no longer seeded, so this shows nothing"
        folders.make_redirect(inductor, outcome, environ)
        return os.listdir(inductor.folder)

    assert as_user(VICTIM, work) == []
