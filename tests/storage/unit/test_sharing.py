"""The shared folder of a place, by functions: made once, with a default access list; and which locations lead there."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

import pytest

from sif_writable.redirects import decide, folders
from sif_writable.redirects.decision import Outcome
from sif_writable.seldom import MARKER
from sif_writable.storage import choose, layout, sharing
from sif_writable.storage.candidates import Candidate
from sif_writable.storage.chosen import Storage
from tests.lab.decisions import Ground, make_facts

if TYPE_CHECKING:
    from pathlib import Path

UID = os.geteuid()
SHARE = {"SIF_WRITABLE_SHARE": "data"}


def chosen(base: Path) -> Storage:
    """Return the storage of a user who gives this place and wants to share."""
    place = Candidate("SIF_WRITABLE_DIR", str(base), "persistent", given=True)
    return choose.choose_storage([place], make_facts(uid=UID, user=UID), SHARE)


def shared_by(base: Path, status: os.stat_result | None = None, loose: str = "") -> Storage:
    """Return storage that shares a place, or says why not."""
    storage = Storage()
    place = Candidate("SIF_WRITABLE_DIR", str(base), "persistent", given=True)
    sharing.share(place, status or base.stat(), loose, storage)
    return storage


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Return a directory that its group may write, and nobody else."""
    folder = tmp_path / "group"
    folder.mkdir()
    folder.chmod(0o2770)
    return folder


@pytest.mark.parametrize("lists", [True, False])
def test_it_is_made_once_and_found_again(base: Path, monkeypatch: pytest.MonkeyPatch, *, lists: bool) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    if not lists:
        monkeypatch.setattr(os, "setxattr", refuse)
    folder = base / layout.SHARED
    for _ in range(2):
        storage = chosen(base)
        assert (storage.shared and storage.shared.folder, storage.unshared) == (str(folder), None)
        assert (folder / MARKER).is_file()
        assert stat.S_IMODE(folder.stat().st_mode) & 0o2777 == 0o2770
    assert sharing.inherits(str(folder)) in ((True, False) if lists else (False,))
    assert [name for name in os.listdir(base) if name.startswith(".")] == []


def test_locations_lead_there_unless_somebody_has_them_alone(base: Path) -> None:
    storage, facts = chosen(base), make_facts(uid=UID, user=UID)
    for folder in ("seaborn", "scikit-image"):
        os.makedirs(f"{storage.folder('data')}/{folder}")
    (base / "x").touch()
    os.rename(base / "x", f"{storage.folder('data')}/seaborn/kept")
    storage = chosen(base)
    ground = Ground(writable=("/home/u/.cache/huggingface/hub",))
    decision = decide.decide(facts, storage, ground, SHARE)
    values = {redirect.variable: redirect.value for redirect in decision.redirects}
    shared = f"{base}/{layout.SHARED}/"
    assert not values["HF_HUB_CACHE"].startswith(shared)  # of HOME
    assert not values["SEABORN_DATA"].startswith(shared)  # kept before
    assert not values["TORCH_HOME"].startswith(shared)  # code
    assert values["SKIMAGE_DATADIR"] == f"{shared}scikit-image"
    (redirect,) = (each for each in decision.redirects if each.variable == "SKIMAGE_DATADIR")
    assert (redirect.shared, redirect.make) == (True, True)
    folders.make_redirect(redirect, Outcome(facts, storage, decision), SHARE)
    assert stat.S_IMODE(os.stat(redirect.folder).st_mode) & 0o2777 == 0o2770


@pytest.mark.parametrize(("mode", "why"), [(0o2777, "by everybody"), (0o700, "by its group")])
def test_a_place_of_another_mode_is_not_shared(base: Path, mode: int, why: str) -> None:
    base.chmod(mode)
    storage = chosen(base)
    assert storage.shared is None
    assert storage.unshared is not None
    assert why in str(storage.unshared)
    assert not (base / layout.SHARED).exists()


def test_a_place_below_what_others_may_write_is_not_shared(base: Path) -> None:
    assert "lies in '/loose'" in str(shared_by(base, loose="/loose").unshared)
    assert shared_by(base, loose=str(base)).shared is not None  # its group may


def test_a_place_that_is_gone_is_not_shared(base: Path) -> None:
    status = base.stat()
    base.rmdir()
    storage = shared_by(base, status)
    assert storage.shared is None
    assert f"{base} is not shared: it does not exist" in str(storage.unshared)


def test_a_folder_gets_the_group_of_its_place_or_is_not_made(base: Path) -> None:
    base.chmod(0o770)  # what is made there has this user's own group
    other = base.stat().st_gid + 4321
    status = os.stat_result((*base.stat()[:5], other, *base.stat()[6:10]))
    storage = shared_by(base, status)
    if UID == 0:
        assert (base / layout.SHARED).stat().st_gid == other
        assert storage.shared is not None
    else:
        assert os.listdir(base) == []
        assert "is not shared" in str(storage.unshared)


def test_nothing_is_left_of_a_folder_that_cannot_be_shared(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", refuse)
    assert "is not shared: it " in str(shared_by(base).unshared)
    assert os.listdir(base) == []


def test_another_one_of_the_group_may_be_faster(base: Path) -> None:
    folder = base / layout.SHARED
    folder.mkdir()
    (folder / MARKER).touch()
    sharing._make(str(folder), str(base), base.stat().st_gid)
    assert os.listdir(base) == [layout.SHARED]
    assert os.listdir(folder) == [MARKER]


def test_a_folder_in_what_is_gone_stays_as_it_was(base: Path) -> None:
    facts, storage = make_facts(uid=UID, user=UID), chosen(base)
    decision = decide.decide(facts, storage, Ground(), SHARE)
    (redirect,) = (each for each in decision.redirects if each.variable == "SKIMAGE_DATADIR")
    os.rename(base, f"{base}-moved")
    outcome = Outcome(facts, storage, decision)
    folders.make_redirect(redirect, outcome, SHARE)
    assert redirect not in decision.redirects
    assert "SKIMAGE_DATADIR stays as it was: " in str(outcome.failed[0])


def test_a_folder_without_our_mark_is_not_used(base: Path) -> None:
    (base / layout.SHARED).mkdir()
    assert "no mark of ours" in str(chosen(base).unshared)
    (base / layout.SHARED / MARKER).touch()
    (base / layout.SHARED).chmod(0o755)
    assert "of mode 0755" in str(chosen(base).unshared)
    (base / layout.SHARED).rename(base / "elsewhere")
    (base / layout.SHARED).symlink_to("elsewhere")
    assert "which is no directory" in str(chosen(base).unshared)
