"""What a warm start asks again: the identity of the image, and each question that a cold one has noted."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Callable

import pytest

from sif_writable import hanging, identity, seldom, warm
from sif_writable.redirects import remember
from sif_writable.system import filesystem, world

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("layout", ["lib/python{}.{}/site-packages", "lib/python3/dist-packages"])
@pytest.mark.parametrize("manifest", ["", "gpu: require\nstamp: 0123456789abcdef\n\nlate: x\n", "gpu: require\nstam"])
@pytest.mark.parametrize("labels", ["", '{"date": "1"}'])
def test_the_identity_is_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, layout: str, manifest: str, labels: str
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(identity, "LABELS", f"{tmp_path}/labels.json")
    read = warm._read
    monkeypatch.setattr(warm, "_read", lambda path: read(path.replace("/.singularity.d", str(tmp_path))))
    purelib = tmp_path / layout.format(*sys.version_info[:2])
    for name in ("a-1.dist-info", "b-2.egg-info", "c"):
        (purelib / name).mkdir(parents=True)
    (purelib / "a-1.dist-info" / "RECORD").write_text("x")
    if manifest:
        (purelib / identity.MANIFEST).write_text(manifest)
    if labels:
        (tmp_path / "labels.json").write_text(labels)
    text = identity.manifest_text(str(purelib))
    expected = identity.identity(str(purelib), identity.declared_in(text))
    assert warm.identity(str(purelib)) == (expected, text)
    (purelib / "d-3.dist-info").mkdir()
    os.utime(purelib, (2_000_000_000, 2_000_000_000))
    assert warm.identity(str(purelib))[0] != expected


def _as_file(place: Path) -> None:
    place.rmdir()
    place.touch()


def _as_link(place: Path) -> None:
    place.rename(f"{place}2")
    place.symlink_to(f"{place}2")


def _elsewhere(place: Path) -> None:
    link = place.parent.parent / "link"
    link.unlink()
    link.symlink_to("/")


CHANGES: dict[str, Callable[[Path], None]] = {
    "owner's bits": lambda place: place.chmod(0o500),
    "others may write on the way": lambda place: place.parent.chmod(0o777),
    "gone": os.rmdir,
    "a file": _as_file,
    "a link": _as_link,
    "a link elsewhere": _elsewhere,
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_noted_is_answered_as_then_until_something_changes(tmp_path: Path, change: str) -> None:
    place = tmp_path / "real" / "place"
    place.mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    world.note()
    filesystem.way(f"{tmp_path}/link/place", os.getuid())
    filesystem.unfit(str(place), uid=os.getuid())
    world.exists(f"{tmp_path}/nothing/there")
    world.text("/proc/self/uid_map")
    world.passwd_home()
    world.mounted_between(str(place), str(tmp_path))
    questions = world.noted()
    assert questions
    assert {kind for kind, *_ in questions} >= {warm.LSTAT, warm.ACCESS, warm.LINK, warm.SPACE, warm.USER}
    grouped = remember.grouped(questions)
    assert warm._same(grouped, warm.mounts()[1])
    CHANGES[change](place)
    assert not warm._same(grouped, warm.mounts()[1])


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("found", ["nothing", "a directory", "a link", "a link that leads nowhere"])
def test_what_is_there_need_not_lead_anywhere(tmp_path: Path, found: str, there: bool) -> None:
    place = tmp_path / "place"
    if found == "a directory":
        place.mkdir()
    elif found != "nothing":
        place.symlink_to(tmp_path if found == "a link" else "nowhere")
    assert warm._same([(warm.THERE, [(str(place), None, there)])], []) == (there == (found != "nothing"))
    assert warm._same([(warm.THERE, [(f"{place}/below", None, False)])], [])


def test_names_that_were_asked_for_are_marked_and_hardly_any_other() -> None:
    marks = remember.marks(b"ASKED_FOR_%d" % number for number in range(1000))
    assert len(warm.marked((b"ASKED_FOR_%d" % number for number in range(1000)), marks)) == 1000
    assert len(warm.marked((b"ANOTHER_%d" % number for number in range(1000)), marks)) < 50
    assert len(marks) == len(remember.marks([]))


@pytest.mark.parametrize("name", ["/dev/x", "", "0", "sif-writable"])
@pytest.mark.parametrize("options", ["rw,vers=4.2", "rw,name=with spaces", ""])
def test_what_is_mounted_may_have_any_name(monkeypatch: pytest.MonkeyPatch, name: str, options: str) -> None:
    table = f"{name} / overlay rw 0 0\nserver:/x /my\\040home nfs4 {options} 0 0\nx /y ext4 rw 0 0\n".encode()
    monkeypatch.setattr(warm, "_read", lambda _: (table, None))
    where, kinds = [b"/", b"/my\\040home", b"/y"], [b"overlay", b"nfs4", b"ext4"]
    assert warm.mounts() == (table, where, kinds)
    assert hanging.may_hang_in(where, kinds, warm.LOCAL) == {"/my home": hanging.REMOTE}
    assert seldom.is_in_layer(table) == (name == "sif-writable")


def test_what_cannot_be_asked_again_is_not_kept() -> None:
    world.note()
    world.once()
    assert world.noted() is None


@pytest.mark.parametrize(("works", "answers", "asked"), [(True, True, 0), (False, True, 1), (False, False, 1)])
def test_nobody_waits_for_a_place_that_is_not_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, works: bool, answers: bool, asked: int
) -> None:
    """HOME works, though nothing is in it yet, and a scratch on another machine is not used; or HOME does not work."""
    scratch, waited = tmp_path / "scratch", list[str]()

    def silent(path: str, _: str) -> bool:
        waited.append(path)
        return not answers

    if works:
        (tmp_path / "home").mkdir()
    scratch.mkdir()
    monkeypatch.setattr(sys, "prefix", f"{tmp_path}/none")
    monkeypatch.setattr(warm, "mounts", lambda: (b"", [os.fsencode(scratch)], [b"nfs4"]))
    monkeypatch.setattr(hanging, "timed_out", timed_out := list[str]())
    monkeypatch.setattr(hanging, "times_out", silent)
    data = {b"HOME": os.fsencode(tmp_path / "home"), b"SCRATCH": os.fsencode(scratch)}
    if works or not answers:
        with pytest.raises(TimeoutError):
            warm.find(data)
    else:
        assert warm.find(data) is None
    assert waited == [str(scratch)] * asked
    assert timed_out == ([] if answers else [str(scratch)])
    assert warm.start(data) == ""
