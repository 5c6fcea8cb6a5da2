"""What `doctor` says of the writable layer, and what `status` says of it in few lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sif_writable.cleanup import layers
from sif_writable.cleanup.contents import Contents, Item
from sif_writable.layer import full, trial
from sif_writable.report import layer, layer_checks
from sif_writable.report.layer_checks import Machine, findings, machine

if TYPE_CHECKING:
    from pathlib import Path

    from sif_writable.report.model import Layer

STATE: Layer = {
    "inside": False,
    "hides": "",
    "over": [],
    "why": "",
    "place": "",
    "in_memory": False,
    "filesystem": "",
    "free_bytes": 0,
    "pending": None,
    "folder": "/s/layer",
    "number": 0,
    "bytes": 0,
    "files": 0,
    "node": "",
    "written": [],
    "overridden": [],
    "set_aside": [],
    "keep": "new",
}
GOOD = Machine("6.1.0-13-amd64", 10_000, apparmor=False)
REFUSED: Layer = {**STATE, "why": "a user namespace cannot be made here: Operation not permitted"}


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SIF_WRITABLE_OVERLAY", "SIF_WRITABLE_KEEP", "PMI_RANK", "KRB5CCNAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"max_user_namespaces": "0\n"}, (0, False)),
        ({"max_user_namespaces": "15000\n"}, (15000, False)),
        ({"max_user_namespaces": "15000\n", "userns_clone": "0\n"}, (0, False)),
        ({"restrict_unprivileged_userns": "1\n"}, (-1, True)),
        ({}, (-1, False)),
    ],
)
def test_the_machine_is_looked_at(files: dict[str, str], expected: tuple[int, bool]) -> None:
    found = machine(lambda path: next((text for name, text in files.items() if path.endswith(name)), ""))
    assert (found.users, found.apparmor) == expected


@pytest.mark.parametrize(
    ("seen", "kind", "words"),
    [
        (GOOD._replace(kernel="5.10.0-28-amd64"), "ext4", "a kernel from 5.11 on"),
        (GOOD._replace(users=0), "ext4", "sysctl user.max_user_namespaces=10000"),
        (GOOD._replace(apparmor=True), "ext4", "AppArmor profile with the rule `userns,`"),
        (GOOD, "nfs4", "bind a directory of a local disk: --bind DIR:/var/tmp (btrfs, ext2, ext3, ext4, tmpfs, xfs)"),
        (GOOD, "ext4", ""),
        (GOOD._replace(proc=False), "", "start it with /proc mounted (Apptainer: without --no-mount proc)"),
    ],
)
def test_a_refusal_is_reported_with_its_remedy(
    seen: Machine, kind: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "filesystem", lambda _: kind)
    (found,) = findings(REFUSED, seen, ["/var/tmp/x"], ())
    assert REFUSED["why"] in found.text
    assert f"kernel {seen.kernel}" in found.text
    assert ("get copies instead" if seen.proc else "nor are there copies") in found.text
    assert (found.good, words in found.remedy) == (not words, True)


@pytest.mark.parametrize("variable", [("SIF_WRITABLE_OVERLAY", "off"), ("PMI_RANK", "0"), ("KRB5CCNAME", "KEYRING:x")])
def test_where_there_shall_be_none_nothing_is_to_be_done(
    variable: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*variable)
    (found,) = findings(REFUSED, GOOD._replace(users=0), ["/var/tmp/x"], ())
    assert (found.good, found.remedy) == (True, "")


def test_little_room_is_reported_before_it_is_used_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state: Layer = {**STATE, "over": ["/v"], "place": str(tmp_path), "filesystem": "ext4"}
    assert [found.good for found in findings(state, GOOD, [], ())] == [True]
    monkeypatch.setattr(layer_checks, "LOW_BYTES", 1 << 62)
    good, low = findings(state, GOOD, [], ())
    assert (good.good, low.good) == (True, False)
    assert f"what programs write lies in {tmp_path}, which has " in low.text
    assert low.remedy


def test_five_lines_say_all_of_a_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    state: Layer = {
        **STATE,
        "inside": True,
        "over": ["/v"],
        "place": "/p",
        "filesystem": "xfs",
        "free_bytes": 1 << 30,
        "pending": {"folder": "/p/upper-1", "bytes": 10, "files": 2, "written": ["a", "b"]},
        "number": 7,
        "bytes": 2048,
        "files": 1,
        "written": list("abcdefg"),
        "overridden": ["/v/x"],
        "set_aside": ["/s/layer/set-aside/6-a", "/s/layer/set-aside/7-b"],
    }
    where, *others = layer.lines(state)
    assert where.startswith("programs can write in /v: what they write is theirs, and the image stays as it is; while")
    assert where.endswith(" they run it lies in /p (xfs, 1.0 GiB free)")
    assert others == [
        "this process is in a layer",
        "not kept yet: 10 B in 2 files in /p/upper-1; by a, b",
        "kept: 2.0 KiB in 1 file in /s/layer/gen-7; by a, b, c, d, e and 2 more",
        "in place of files of the image: /v/x; set aside: /s/layer/set-aside/6-a and 1 more",
    ]
    memory = layer.lines({**state, "in_memory": True})[0]
    assert memory.endswith("it lies in memory, up to 1.0 GiB: what is killed before it is kept is lost")
    (found,) = findings({**state, "in_memory": True}, GOOD, [], ())
    assert found.good
    assert "it lies in memory, up to 1.0 GiB" in found.text
    assert layer.lines(state, verbose=True)[3].endswith("by a, b, c, d, e, f, g")
    odd = layer.lines({**state, "overridden": ["/v/new\nline", "/v/caf\udce9", "/v/é"]})[4]
    assert odd.startswith(r"in place of files of the image: /v/new\nline, /v/caf\udce9, /v/é;")
    monkeypatch.setenv("SIF_WRITABLE_OVERLAY", "OFF")
    first, second, *_ = layer.lines({**state, "why": "SIF_WRITABLE_OVERLAY=off"})
    assert first == "none: SIF_WRITABLE_OVERLAY=off"
    assert "cannot take a program out of the one that it was started in" in second
    assert layer.lines({**STATE, "keep": "none"}) == ["none was needed yet; SIF_WRITABLE_KEEP=none"]
    assert layer.brief(state) == (
        "programs can write in /v; this process is in one; not kept yet: 10 B in 2 files; kept: 2.0 KiB in 1 file, by "
        "a, b, c, d, e and 2 more"
    )
    assert layer.lines({**STATE, "number": 3})[1] == "kept: nothing any more, as /s/layer/gen-3 says"


def left(kind: str, name: str, **more: object) -> Item:
    """Return something that layers have left."""
    return Item(f"/s/layers/{name}", name, kind, "", "", 2048, 1, 0.0, "")._replace(**more)  # type: ignore[arg-type]


def test_what_layers_have_left_is_reported() -> None:
    items = [
        left(layers.UPPER, "upper-1", written=2),
        left(layers.UPPER, "upper-2", written=1),
        left(layers.UPPER, "upper-3", problem="is in use"),
        left(layers.UPPER, "upper-4"),
        left(layers.REPLICA, "gen-1-x"),
        left(layers.SET_ASIDE, "7-b"),
    ]
    found = list(layer_checks._leftovers([Contents("/s", items, {}, reads_recorded=True)]))
    waiting, copies, gone, aside = [(each.good, each.text) for each in found]
    assert waiting[0]
    assert waiting[1].startswith("3 files of containers that have ended are in /s/layers/upper-1 and 1 more: the next")
    assert copies == (True, "1 copy of generations for this machine, 2.0 KiB, in /s/layers/gen-1-x")
    assert gone == (True, "1 layer without anything to keep, 2.0 KiB, in /s/layers/upper-4")
    assert aside[0] is False
    assert found[-1].remedy.endswith("sif-writable cache clear 7-b --yes")


def test_a_generation_that_was_superseded_just_now_is_not_reported(tmp_path: Path) -> None:
    assert layer._contents(str(tmp_path), 3) is None


def test_what_helps_where_there_is_little_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "sif-writable-7" / "layers" / "image-x"
    place.mkdir(parents=True)
    remedy = layer_checks.full_remedy(str(place), few=False)
    assert remedy.startswith(f"free some of {tmp_path}, or bind a directory of a larger local disk")
    monkeypatch.setattr(layer_checks, "room_at", lambda *_: None)  # it is gone
    assert list(layer_checks._room(str(place))) == []
    assert layer_checks.full_remedy(str(place), few=False) == (
        "bind a directory with more room: --bind DIR:/sif-writable"
    )


def test_what_helps_where_a_layer_runs_full_depends_on_where_it_lies() -> None:
    in_storage = full.words("/s/sif-writable/image-x/layer/upper-1", "inodes")
    assert "has no inodes left" in in_storage
    assert in_storage.endswith("Remedy: bind a directory of a larger disk: --bind DIR:/sif-writable")
    memory = full.words("/var/tmp/sif-writable-7/layers/image-x/memory-1", "space")
    assert memory.endswith("bind a directory of a local disk, which then takes its place: --bind DIR:/var/tmp")
    beside = full.words("/var/tmp/sif-writable-7/layers/image-x/upper-1", "quota")
    assert "its quota is used up" in beside
    assert beside.endswith("free some of /var/tmp, or bind a directory of a larger local disk: --bind DIR:/var/tmp")
