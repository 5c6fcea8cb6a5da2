"""What a start asks for and notes, where default locations are odd or gone, and what it says of a place."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from sif_writable import DIR, child, session
from sif_writable.errors import Problem
from sif_writable.redirects import environment, links, seeding, sharing
from sif_writable.redirects.decision import Decision, Outcome, Redirect
from sif_writable.redirects.locations import Locations
from sif_writable.redirects.remember import Asked
from sif_writable.storage.candidates import Candidate
from sif_writable.storage.chosen import Slot
from tests.lab.decisions import make_facts, make_storage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("every", [iter, dict.keys, dict.values, dict.items], ids=["iter", "keys", "values", "items"])
def test_an_environment_that_is_asked_for_everything_is_noted(every: Callable[[Any], Any]) -> None:
    asked = Asked({"A": "1", "B": "2"})
    assert asked["A"] == asked.get("A") == "1"
    assert "C" not in asked
    assert (asked.names, asked.every) == ({"A", "C"}, False)
    ways: dict[Any, Callable[[], Any]] = {
        iter: asked.__iter__,
        dict.keys: asked.keys,
        dict.values: asked.values,
        dict.items: asked.items,
    }
    assert list(ways[every]()) == list(every({"A": "1", "B": "2"}))
    assert asked.every


def test_on_which_filesystem_a_location_lies(tmp_path: Path) -> None:
    device = tmp_path.stat().st_dev
    (tmp_path / "loop").symlink_to("loop")
    found = Locations(str(tmp_path))
    assert found.lies_on(f"{tmp_path}/to/be/made", device)
    assert not found.lies_on(f"{tmp_path}/to/be/made", device + 1)
    assert not found.lies_on("relative", device)
    assert not found.lies_on("", device)
    assert not found.lies_on(f"{tmp_path}/loop", device)  # nobody knows


def outcome_of(tmp_path: Path) -> Outcome:
    """Return one with downloads in a folder."""
    return Outcome(make_facts(home=str(tmp_path), uid=os.geteuid()), make_storage(), Decision())


def test_what_another_image_left_is_offered_from_its_subfolder(tmp_path: Path) -> None:
    image = tmp_path / "image-0123456789abcdef"
    (image / "data-thing" / "inner" / "model").mkdir(parents=True)
    data = tmp_path / "data"
    (data / "thing").mkdir(parents=True)
    (data / "thing@0123456789abcdef").write_text(f"{image.name}/data-thing")
    (data / "thing@fedcba9876543210").write_text("/etc")  # not as we write it
    redirect = Redirect("THING_HOME", f"{data}/thing", "data", f"{data}/thing", "")
    redirect.subfolder = "inner"
    (tmp_path / "loop").symlink_to("loop")
    names = (f"{data}/thing@0123456789abcdef", f"{data}/thing@fedcba9876543210", f"{tmp_path}/loop/x")
    redirect.sources = tuple((name, 1) for name in names)
    offered = links.Links(redirect, outcome_of(tmp_path), {})
    assert offered.any()
    offered.make(f"{data}/thing")
    assert os.listdir(data / "thing" / "inner") == ["model"]
    assert os.path.realpath(data / "thing" / "inner" / "model") == str(image / "data-thing" / "inner" / "model")


def test_a_directory_of_very_many_is_linked_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "MANY", 2)
    for name in ("many/a", "many/b", "few/a"):
        (tmp_path / "old" / name).mkdir(parents=True)
    redirect = Redirect("THING_HOME", "", "data", f"{tmp_path}/new", "")
    redirect.sources = ((f"{tmp_path}/old", 2),)
    links.Links(redirect, outcome_of(tmp_path), {}).make(f"{tmp_path}/new")
    assert (tmp_path / "new" / "many").is_symlink()
    assert not (tmp_path / "new" / "few").is_symlink()
    assert (tmp_path / "new" / "few" / "a").is_symlink()


def test_a_link_that_another_process_has_removed_is_gone(tmp_path: Path) -> None:
    links._unlink(f"{tmp_path}/gone")
    (tmp_path / "link").symlink_to("nowhere")
    links._unlink(f"{tmp_path}/link")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("case", ["nothing", "not shared", "hangs", "refused", "loose"])
def test_what_is_said_of_a_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    storage = make_storage()
    monkeypatch.setattr(environment, "timed_out", ["/hangs"] if case == "hangs" else [])
    monkeypatch.setattr(session, "said", "", raising=False)
    for name in (session.REFUSED, session.SAID):
        monkeypatch.setenv(name, "")
    place = Candidate(DIR, "/given", "persistent", given=True)
    if case in ("not shared", "refused"):
        storage.unshared = Problem("not-shared", "/given is not shared.", "Look.")
    if case == "refused":
        storage.refused.append((place, "cannot be written"))
    elif case == "loose":
        place = Candidate("/sif-writable", "/loose/given", "persistent", given=True)
        storage.loose.append((place, "/loose"))
        storage.refused.append((place, "keeps no code"))
    outcome = Outcome(make_facts(), storage, Decision())
    environment._report(storage, outcome)
    environment._report(storage, outcome)
    said = capsys.readouterr().err
    words = {"nothing": "", "not shared": "is not shared", "hangs": "/hangs", "refused": "cannot be written"}
    assert words.get(case, "/loose") in said
    assert bool(said) == (case != "nothing")
    assert ("cannot be written" in os.environ[session.REFUSED]) == (case == "refused")
    assert ("is not shared" in said) == (case in ("not shared", "refused"))


def test_where_a_group_shares_is_handed_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(child.SHARED_IN, "")
    storage, decision = make_storage(), Decision()
    environment._hand_down_shared(decision, storage)
    place = Candidate(DIR, "/given", "persistent", given=True)
    storage.shared = Slot("/given", place, "/given/shared", frozenset())
    redirect = Redirect("SEABORN_DATA", "/given/shared/seaborn", "data", "/given/shared/seaborn", "")
    decision.redirects = [redirect]
    environment._hand_down_shared(decision, storage)
    assert os.environ[child.SHARED_IN] == ""
    redirect.shared = True
    environment._hand_down_shared(decision, storage)
    assert os.environ[child.SHARED_IN] == "/given/shared"


def test_links_to_what_is_gone_go_unless_another_process_was_faster(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for folder in (source, target):
        folder.mkdir()
    for name in ("gone", "there", "mine"):
        (target / name).symlink_to(source / name if name != "mine" else "/elsewhere")
    (source / "there").touch()
    there = {**seeding.contents(str(target)), "vanished": "link"}
    seeding.drop_dangling(str(source), str(target), there, [])
    assert sorted(os.listdir(target)) == ["mine", "there"]
    assert seeding.contents(f"{tmp_path}/nothing") == {}


def test_what_does_not_answer_for_a_moment_is_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    (source / "folder").mkdir(parents=True)
    for name in ("a", "b", "c"):
        (source / name).write_text(name)
    real = os.lstat

    def lstat(path: str) -> os.stat_result:
        if path == f"{source}/a":
            raise OSError(5, "Input/output error")
        if path == f"{source}/b":
            raise FileNotFoundError(2, "No such file or directory")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "lstat", lstat)
        entries = seeding._entries(str(source), f"{tmp_path}/target", seeding._Budget(1 << 20, 10))
    assert [(name, status is None) for name, status in entries] == [("a", True), ("c", False), ("folder", False)]
    (tmp_path / "target").mkdir()
    for _ in range(2):  # and once more, where it is there
        seeding._place(f"{source}/a", f"{tmp_path}/target/a", None, seeding._Budget(1 << 20, 10), 1)
    assert os.readlink(tmp_path / "target" / "a") == f"{source}/a"
    (tmp_path / "target" / "folder").symlink_to(source / "folder")
    (tmp_path / "target" / "c").write_text("mine")
    for name in ("folder", "c"):
        path = f"{source}/{name}"
        seeding._place(path, f"{tmp_path}/target/{name}", os.lstat(path), seeding._Budget(1 << 20, 10), 1)
    assert (tmp_path / "target" / "c").read_text() == "mine"
    assert (tmp_path / "target" / "folder").is_symlink()


def test_downloads_are_shared_only_beside_their_own_place() -> None:
    storage, decision = make_storage(), Decision()
    redirect = Redirect("SEABORN_DATA", "/s/data/seaborn", "data", "/s/data/seaborn", "")
    decision.redirects = [redirect]
    sharing.share(decision, storage)
    place = Candidate("other", "/other", "persistent", given=True)
    storage.shared = Slot("/other", place, "/other/shared", frozenset())
    sharing.share(decision, storage)
    assert redirect.folder == "/s/data/seaborn"
    assert not redirect.shared
