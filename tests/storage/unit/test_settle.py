"""Choosing storage among real directories: in order, with reasons, and never somebody else's."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sif_writable import DIR
from sif_writable.cleanup.roots import below
from sif_writable.redirects.earlier import take_over
from sif_writable.seldom import MARKER
from sif_writable.storage import candidates, choose, unserved
from sif_writable.storage import marker as marker_
from sif_writable.storage.candidates import Candidate
from sif_writable.storage.kinds import KINDS
from sif_writable.storage.make import make_base
from sif_writable.storage.roots import is_for_us, make_root
from sif_writable.storage.unserved import unmet
from sif_writable.system import container
from tests.lab.decisions import make_facts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sif_writable.storage.chosen import Storage

UID = os.geteuid()
STICKY = 0o1777


def settle(*places: Candidate, **facts: object) -> Storage:
    """Settle on one of these places, as this user."""
    return choose.choose_storage(places, make_facts(uid=UID, user=UID, **facts), {}, take_over)


def problems(storage: Storage) -> dict[str, str]:
    """Map the label of each refused place to the sentence."""
    return {place.label: problem for place, problem in storage.refused}


def test_the_first_good_place_takes_every_kind_and_later_ones_are_not_even_looked_at(tmp_path: Path) -> None:
    looked = []

    def places() -> Iterator[Candidate]:
        for name in ("a", "b"):
            (tmp_path / name).mkdir(0o700)
            looked.append(name)
            yield Candidate(name, str(tmp_path / name), "node")

    storage = choose.choose_storage(places(), make_facts(uid=UID, user=UID), {})
    assert set(storage.slots) == set(KINDS)
    assert set(storage.roots()) == {str(tmp_path / "a" / "sif-writable")}
    assert looked == ["a"]
    assert storage.slots["data"].folder == str(tmp_path / "a" / "sif-writable" / "data")
    assert storage.slots["config"].folder == str(tmp_path / "a" / "sif-writable" / "image-0123456789abcdef" / "config")
    for root, folders, files in os.walk(tmp_path / "a" / "sif-writable"):
        for name in folders:
            assert stat.S_IMODE(os.lstat(os.path.join(root, name)).st_mode) == 0o700
        assert [name for name in files if name not in (MARKER, "image.txt")] == []
    assert marker_.read_marker(str(tmp_path / "a" / "sif-writable")) == "exec"


def test_a_second_start_finds_what_the_first_one_made(tmp_path: Path) -> None:
    place = Candidate("a", str(tmp_path), "node")
    first = settle(place)
    (tmp_path / "sif-writable" / "data" / "numba").mkdir()
    before = {path: os.lstat(path).st_mtime_ns for path, _, _ in os.walk(tmp_path)}
    second = settle(place)
    assert [slot.folder for slot in second.all()] == [slot.folder for slot in first.all()]
    assert second.slots["data"].present == {"numba"}
    assert before == {path: os.lstat(path).st_mtime_ns for path, _, _ in os.walk(tmp_path)}


def test_where_others_can_write_too_the_folder_is_per_user_and_private(tmp_path: Path) -> None:
    tmp_path.chmod(STICKY)
    storage = settle(Candidate("shared", str(tmp_path), "node"))
    root = tmp_path / f"sif-writable-{UID}"
    assert storage.slots["data"].root == str(root)
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    os.chmod(root, 0o750)
    assert problems(settle(Candidate("shared", str(tmp_path), "node")))["shared"] == (
        f"has {str(root)!r}, which is open to other users (mode 0750, safe is 0700)"
    )


@pytest.mark.parametrize("given", [True, False])
def test_a_damaged_folder_of_ours_is_named_with_what_mends_it(tmp_path: Path, given: bool) -> None:
    root = tmp_path / "sif-writable"
    place = Candidate("home", str(tmp_path), "persistent", given=given)

    def refusal() -> tuple[str, str]:
        storage = settle(place)
        return storage.refused[0][1], unserved.remedy(storage, place)

    settle(place)
    os.chmod(root, 0o777)
    chmod = f"chmod 0700 {str(root)!r}, or name another directory"
    assert refusal()[0].startswith(f"has {str(root)!r}, which is open to other users (mode 0777, ")
    assert refusal()[1] == chmod
    os.chmod(root, 0o700)
    shutil.rmtree(root / "data")
    (root / "data").touch()
    assert refusal() == (f"has '{root}/data', which is not a directory", unserved.RENAME)
    shutil.rmtree(root)
    root.touch()
    assert refusal() == (f"has {str(root)!r}, which is not a directory", unserved.RENAME)
    root.unlink()
    root.symlink_to("/nowhere")
    assert refusal()[0].startswith(f"has {str(root)!r}, which is a symbolic link, ")
    root.unlink()
    root.mkdir(0o700)
    (root / "notes.txt").touch()
    assert refusal() == (f"has {str(root)!r}, which is not empty and has no mark of ours", unserved.RENAME)
    for base, cure in (
        ("/nowhere/of/mine", "bind it (apptainer exec --bind /nowhere), or name another directory"),
        ("/proc/nowhere", unserved.REMEDY),
        (" ", "unset SIF_WRITABLE_DIR, or write the whole path of a directory"),
        ("a/b", 'write the whole path, such as SIF_WRITABLE_DIR="$PWD/a/b"'),
        ("/dev/null", unserved.REMEDY),
    ):
        wrong = Candidate(DIR, base, "persistent", given=True)  # which root could make
        assert unserved.remedy(settle(wrong), wrong) == cure
    assert unserved.named(DIR, " ") == "SIF_WRITABLE_DIR=' '"
    full = Candidate("scratch", "/proc/nowhere", "node")
    storage = settle(full)
    assert unserved.remedy(storage, full) == ""  # nobody asked for it


def test_without_a_sticky_bit_others_could_replace_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = tmp_path / "private" / "shared"
    shared.mkdir(parents=True)
    shared.parent.chmod(0o700)  # which lets nobody else through
    shared.chmod(0o777)
    root = shared / f"sif-writable-{UID}"
    storage = settle(Candidate("shared", str(shared), "node"))
    assert (storage.refused, set(storage.roots())) == ([], {str(root)})
    os.rename(root, shared / "away")
    monkeypatch.setattr("sif_writable.system.access.is_shut_off", lambda *_: False)
    storage = settle(Candidate("shared", str(shared), "node"))
    assert storage.slots == {}
    assert "no sticky bit" in problems(storage)["shared"]
    assert os.listdir(shared) == ["away"]
    assert settle(Candidate("given", str(shared), "persistent", given=True)).slots["data"].root == str(root)


def given(path: Path) -> Candidate:
    return Candidate("SIF_WRITABLE_DIR", str(path), "persistent", given=True, make=True)


def roots(place: Candidate) -> set[str]:
    """Return the storage roots that a start settles on, but for the one of sockets."""
    storage = settle(place)
    return {storage.slots[kind].root for kind in KINDS}


def test_a_given_place_gets_one_folder_of_ours_in_it(tmp_path: Path) -> None:
    place = tmp_path / "mine" / "new"
    for _ in range(2):
        assert roots(given(place)) == {str(place / "sif-writable")}
    assert os.listdir(place) == ["sif-writable"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in (place, place / "sif-writable")} == {0o700}


@pytest.mark.parametrize("base", ["cache", "./cache", "../cache", "~/cache"])
def test_a_place_that_is_not_absolute_is_refused_with_what_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: str
) -> None:
    monkeypatch.chdir(tmp_path)
    environ = {DIR: base}
    facts = make_facts(uid=UID, user=UID, home=str(tmp_path))
    storage = choose.choose_storage(candidates.places(facts, environ), facts, environ)
    problem = unmet(storage)
    assert problem is not None
    assert problem.text.startswith(f"{DIR}={base} is not an absolute path, so it would be another place in each ")
    assert problem.remedy == f'write the whole path, such as {DIR}="$PWD/{base}".'
    assert os.listdir(tmp_path) == [".cache"]


@pytest.mark.parametrize("there", ["nothing", "empty", "lost+found", "marked"])
def test_a_given_place_that_bears_our_name_is_our_folder_itself(tmp_path: Path, there: str) -> None:
    place = tmp_path / "sif-writable"
    if there == "marked":
        settle(given(place))
        (place / "of-the-user").mkdir()
    elif there != "nothing":
        place.mkdir(0o755)
        if there == "lost+found":
            (place / "lost+found").mkdir(0o700)
    for _ in range(2):
        assert roots(given(place)) == {str(place)}
    place.chmod(0o700)
    assert roots(Candidate("cache", str(tmp_path), "persistent")) == {str(place)}


@pytest.mark.parametrize("name", ["sif-writable", "cache"])
def test_starts_at_the_same_moment_agree(tmp_path: Path, name: str) -> None:
    """In what is empty at first, where each sees what the others are just making."""
    for number in range(3):
        place = tmp_path / str(number) / name
        place.mkdir(parents=True, mode=0o700)
        ready, go = os.pipe()
        answer, writable = os.pipe()
        children = []
        for _ in range(8):
            children.append(os.fork())
            if children[-1] == 0:
                try:
                    os.close(go)
                    os.read(ready, 1)
                    os.write(writable, "".join(f"{root}\n" for root in roots(given(place))).encode())
                finally:
                    os._exit(0)
        os.close(ready)
        os.close(writable)
        os.close(go)
        with open(answer) as file:
            assert set(file.read().split()) == {str(place if name == "sif-writable" else place / "sif-writable")}
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8


def test_what_we_marked_is_our_folder_whatever_its_name(tmp_path: Path) -> None:
    settle(given(tmp_path / "sif-writable"))
    os.rename(tmp_path / "sif-writable", tmp_path / "cache")
    assert roots(given(tmp_path / "cache")) == {str(tmp_path / "cache")}


@pytest.mark.parametrize("marked", [False, True])
def test_a_link_of_ones_own_to_our_folder_is_looked_through(tmp_path: Path, marked: bool) -> None:
    (tmp_path / "disk").mkdir(0o700)
    (tmp_path / "sif-writable").symlink_to("disk")
    if marked:
        (tmp_path / "disk").rmdir()
        os.rename(roots(given(tmp_path / "x")).pop(), tmp_path / "disk")
    for _ in range(2):
        assert roots(given(tmp_path / "sif-writable")) == {str(tmp_path / "disk")}


@pytest.mark.parametrize(
    "names", [("README",), ("data",), ("data", ".new-results"), (".try-2",), ("image-mine", "data")]
)
def test_our_name_alone_makes_nothing_ours(tmp_path: Path, names: tuple[str, ...]) -> None:
    theirs = tmp_path / "sif-writable"
    for name in names:
        (theirs / name).mkdir(parents=True)
    theirs.chmod(0o700)
    assert roots(given(theirs)) == {str(theirs / "sif-writable")}
    shutil.rmtree(theirs / "sif-writable")
    storage = settle(Candidate("cache", str(tmp_path), "persistent"))
    assert storage.slots == {}
    assert "which is not empty and has no mark of ours" in problems(storage)["cache"]
    assert sorted(os.listdir(theirs)) == sorted(names)


def test_what_a_layer_left_in_a_folder_of_the_users_does_not_take_it_from_storage(tmp_path: Path) -> None:
    (tmp_path / "sif-writable" / "layers" / "image-mine").mkdir(parents=True, mode=0o700)
    for path in (tmp_path / "sif-writable", tmp_path / "sif-writable" / "layers"):
        path.chmod(0o700)
    place = Candidate("cache", str(tmp_path), "persistent")
    assert settle(place).slots == {}  # it may be anybody's
    (tmp_path / "sif-writable" / "layers" / MARKER).touch()
    assert roots(place) == {str(tmp_path / "sif-writable")}


def test_a_mark_that_a_cleaner_of_old_files_took_away_is_made_again(tmp_path: Path) -> None:
    place = given(tmp_path)
    settle(place)
    marker = tmp_path / "sif-writable" / MARKER
    marker.unlink()
    assert roots(place) == {str(tmp_path / "sif-writable")}
    assert marker.read_text().endswith(marker_.OURS + "\n")


def test_a_failure_that_passes_leaves_the_mark_but_no_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "sif-writable"
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
        assert roots(given(place)) == {str(place)}
    assert (marker_.read_marker(str(place)), marker_.read_marker(str(place), ours=True)) == ("", marker_.UNTRIED)
    assert roots(given(place)) == {str(place)}
    assert marker_.read_marker(str(place)) == "exec"


def earlier(place: Path) -> None:
    """Make what the version before kept in a place that was given, beside the user's own."""
    image = place / "image-00112233445566aa"
    for path, text in {
        MARKER: "exec\n",
        "data/torch/hub/checkpoints/weights.pth": "x" * 10,
        "data/not-ours/precious": "x",
        "data/.new-experiment/precious": "x",
        "image-00112233445566aa/config/matplotlib/matplotlibrc": "backend: agg\n",
        "image-00112233445566aa/compiled-x/numba/k": "x",
        "image-00112233445566aa/home/.tool/history": "ls\n",
        ".new-results/precious": "x",
        "locks/pipeline.lock": "",
    }.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_text(text)
    (image / "image.txt").write_text("image: /my.sif\nprefix: /venv\n")
    for here, _, _ in os.walk(place):
        os.chmod(here, 0o700)


def test_what_an_earlier_version_kept_is_found_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "engine", lambda _: container.Engine("Apptainer", (), "/my.sif"))
    earlier(tmp_path)
    for here, _, names in os.walk(tmp_path):
        for name in names:
            os.utime(f"{here}/{name}", (0, 0))
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    storage = settle(given(tmp_path))
    root = tmp_path / "sif-writable"
    assert {storage.slots[kind].root for kind in KINDS} == {str(root)}
    os.rename(tmp_path, f"{tmp_path}-elsewhere")  # as where it is bound to another path
    assert Path(f"{tmp_path}-elsewhere/sif-writable/data/torch/hub/checkpoints/weights.pth").read_text() == "x" * 10
    os.rename(f"{tmp_path}-elsewhere", tmp_path)
    assert storage.slots["data"].present == {"torch"}
    settings = Path(storage.slots["config"].folder) / "matplotlib" / "matplotlibrc"
    assert (settings.read_text(), settings.is_symlink()) == ("backend: agg\n", False)
    assert not (root / "image-00112233445566aa").exists()
    for path, changed in before.items():
        assert path.lstat().st_mtime_ns == changed
    assert below(str(tmp_path)) == [str(root)]


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_what_others_could_have_put_there_is_not_taken_over(tmp_path: Path, mode: int) -> None:
    earlier(tmp_path)
    os.chmod(tmp_path / "data", mode)
    storage = settle(given(tmp_path))
    assert storage.slots["data"].present == set()


@pytest.mark.parametrize("plant", ["symlink", "file", "fifo", "dangling"])
def test_what_another_user_planted_is_refused_and_named(tmp_path: Path, plant: str) -> None:
    tmp_path.chmod(STICKY)
    (tmp_path / "victim").mkdir(0o700)
    name = tmp_path / f"sif-writable-{UID}"
    if plant == "file":
        name.write_text("")
    elif plant == "fifo":
        os.mkfifo(name)
    else:
        name.symlink_to(tmp_path / {"symlink": "victim", "dangling": "nothing"}[plant])
    (tmp_path / "good").mkdir(0o700)
    storage = settle(Candidate("shared", str(tmp_path), "node"), Candidate("good", str(tmp_path / "good"), "node"))
    words = {"symlink": "is a symbolic link", "dangling": "is a symbolic link"}.get(plant, "is not a directory")
    assert words in problems(storage)["shared"]
    assert set(storage.roots()) == {str(tmp_path / "good" / "sif-writable")}
    assert os.listdir(tmp_path / "victim") == []


@pytest.mark.skipif(UID != 0, reason="only root can make a directory of another user")
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(STICKY)
    name = tmp_path / f"sif-writable-{UID}"
    name.mkdir(0o700)
    os.chown(name, 4321, 4321)
    assert "belongs to uid 4321" in problems(settle(Candidate("shared", str(tmp_path), "node")))["shared"]


def test_a_planted_marker_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("exec\n")
    (tmp_path / MARKER).symlink_to("elsewhere")
    assert marker_.read_marker(str(tmp_path)) == ""
    (tmp_path / MARKER).unlink()
    (tmp_path / MARKER).write_text("no word of ours " * 100)
    assert marker_.read_marker(str(tmp_path)) == ""


@pytest.mark.parametrize("path", ["/with:colon", "/with\nbreak", "/proc/nothing", "/etc/passwd/x", "/" + "x" * 100_000])
def test_paths_that_cannot_serve_are_refused_in_words(path: str) -> None:
    storage = settle(Candidate("SIF_WRITABLE_DIR", path, "persistent", given=True, make=True))
    assert storage.slots == {}
    assert problems(storage)["SIF_WRITABLE_DIR"]


def test_the_small_session_tmpfs_comes_last(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as small:
        facts = make_facts(uid=UID, user=UID, session_device=os.stat(small).st_dev)
        places = Candidate("small", small, "node"), Candidate("better", str(tmp_path), "node")
        storage = choose.choose_storage(places, facts, {"TMPDIR": "/chosen"})
        assert set(storage.roots()) == {str(tmp_path / "sif-writable")}
        assert not storage.small
        alone = choose.choose_storage(places[:1], facts, {})
        assert {alone.slots[kind].root for kind in KINDS} == {small + "/sif-writable"}
        assert (alone.small, alone.roomy) == (True, False)


@pytest.mark.parametrize("named", ["", "TEMP", "PMIX_RANK"])
def test_temporary_files_leave_the_small_tmpfs_unless_somebody_chose_a_place(named: str) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        facts = make_facts(uid=UID, user=UID, session_device=-1)
        environ = {named: "/chosen"} if named else {}
        storage = choose.choose_storage([Candidate("room", folder, "node")], facts, environ)
        assert storage.roomy is not bool(named)
        assert storage.folder("runtime") == ("" if named else f"{folder}/sif-writable/run")


def test_a_place_with_a_long_path_or_little_room_does_not_serve_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = make_facts(uid=UID, user=UID, session_device=-1)
    monkeypatch.setattr(choose, "local_places", lambda: iter([Candidate("memory", "/nowhere", "memory")]))
    long = tmp_path / ("a" * 40)
    long.mkdir(0o700)
    storage = choose.choose_storage([Candidate("long", str(long), "node")], facts, {})
    assert not storage.roomy
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        monkeypatch.setattr(choose, "ROOM", 1 << 62)
        storage = choose.choose_storage([Candidate("full", folder, "node")], facts, {})
        assert not storage.roomy


def test_with_no_place_at_all_nothing_is_chosen() -> None:
    storage = settle(Candidate("x", "/proc/nothing", "node"))
    assert storage.all() == []
    assert problems(storage) == {"x": "does not exist"}


def test_a_base_that_cannot_be_made_names_the_cause(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    problem = make_base(str(tmp_path / "file" / "below"))
    assert problem == f"does not exist and cannot be made: '{tmp_path}/file/below' has a part that is not a directory"


def test_a_root_that_cannot_be_made_names_the_cause(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    problem, marker = make_root(f"{tmp_path}/file/sif-writable", uid=UID, foreign_mode=0o077)
    assert (problem, marker) == ("has a part that is not a directory", "")
    assert os.listdir(tmp_path) == ["file"]
    for name, is_ours in (("gone/sif-writable", False), ("file", False), ("file/sif-writable", False)):
        assert is_for_us(f"{tmp_path}/{name}") is is_ours
