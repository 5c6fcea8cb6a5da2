"""What the user has at a default location is offered by links, in the layouts that packages really have."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from sif_writable import seldom
from sif_writable.redirects import decision, folders, links, seeding, watch
from sif_writable.redirects.decision import Decision, Redirect
from sif_writable.redirects.watch import MOST, Watch
from tests.lab.decisions import make_facts, make_storage
from tests.lab.users import VICTIM, as_user, needs_two_users

if TYPE_CHECKING:
    from pathlib import Path

LAYOUTS = {
    "TORCH_HOME": (3, "hub/checkpoints/resnet18-f37072fd.pth", "hub/checkpoints/new.pth"),
    "HF_HUB_CACHE": (1, "models--a--b/snapshots/0f/config.json", "models--c--d/refs/main"),
    "HF_DATASETS_CACHE": (2, "squad/plain_text/0.0.0/train.arrow", "squad/other/0.0.0/train.arrow"),
    "STANZA_RESOURCES_DIR": (3, "en/tokenize/combined.pt", "en/pos/combined.pt"),
    "SCIKIT_LEARN_DATA": (1, "cal_housing_py3.pkz", "covertype.pkz"),
    "KAGGLEHUB_CACHE": (3, "models/owner/name/1/model.bin", "models/owner/other/1/model.bin"),
    "TEMPLATEFLOW_HOME": (4, "tpl-MNI/cohort-1/mask.nii.gz", "tpl-MNI/cohort-1/new.nii.gz"),
    "KERAS_HOME": (1, "keras.json", "models/weights.h5"),
    "IPYTHONDIR": (1, "profile_default/startup/00.py", "extensions/x.py"),
}
"""Variable to levels, a file that the user has, and one that a program makes where the location moved to."""


class Folder:
    """A default location, and the folder that stands in for it."""

    def __init__(self, path: Path, levels: int = 1, variable: str = "TORCH_HOME") -> None:
        """Make both."""
        self.old, self.new = path / "home" / ".cache" / "thing", path / "storage" / "data" / "thing"
        self.old.mkdir(parents=True)
        self.new.mkdir(parents=True)
        self.redirect = Redirect(variable, str(self.new), "data", str(self.new), "")
        self.redirect.sources = ((str(self.old), levels),)
        storage = make_storage()
        storage.slots["data"].root = str(path / "storage")
        self.outcome = decision.Outcome(make_facts(home=str(path / "home"), uid=os.geteuid()), storage, Decision())
        self.outcome.decision.redirects = [self.redirect]

    def offer(self) -> Watch:
        """Do what a start does with a folder that is there; return what it noted."""
        self.outcome.watch = None
        links.provide(self.outcome, {})
        assert self.outcome.failed == []
        return links.watch_of(self.outcome)


def write(path: Path, text: str = "old") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("variable", LAYOUTS)
def test_what_the_user_has_is_found_and_what_is_new_goes_to_the_new_place(tmp_path: Path, variable: str) -> None:
    levels, had, made = LAYOUTS[variable]
    folder = Folder(tmp_path, levels)
    write(folder.old / had)
    folder.offer()
    assert (folder.new / had).read_text() == "old"
    write(folder.new / made, "new")
    assert not (folder.old / made).exists()


def test_a_revision_of_a_model_stays_with_the_others(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    write(folder.old / "models--a--b" / "blobs" / "12ab")
    (folder.old / "models--a--b" / "snapshots" / "0f").mkdir(parents=True)
    (folder.old / "models--a--b" / "snapshots" / "0f" / "config.json").symlink_to("../../blobs/12ab")
    write(folder.old / ".locks" / "x.lock")
    folder.offer()
    assert (folder.new / "models--a--b" / "snapshots" / "0f" / "config.json").read_text() == "old"
    assert os.listdir(folder.new) == ["models--a--b"]
    write(folder.new / "models--a--b" / "blobs" / "34cd", "new")
    assert (folder.old / "models--a--b" / "blobs" / "34cd").exists()


def test_what_comes_later_is_offered_and_what_goes_is_not(tmp_path: Path) -> None:
    folder = Folder(tmp_path, 3)
    first = write(folder.old / "hub" / "checkpoints" / "a.pth")
    folder.offer()
    write(folder.old / "hub" / "checkpoints" / "b.pth")
    write(folder.old / "hub" / "owner_repo_main" / "hubconf.py")
    first.unlink()
    folder.offer()
    assert os.listdir(folder.new / "hub" / "checkpoints") == ["b.pth"]
    assert (folder.new / "hub" / "owner_repo_main" / "hubconf.py").read_text() == "old"


def test_what_the_new_place_has_wins_and_directories_are_merged(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    write(folder.new / "huggingface" / "token", "mine")
    write(folder.new / "huggingface" / "deep" / "er" / "x", "mine")
    folder.offer()
    write(folder.old / "huggingface" / "token", "other")
    write(folder.old / "huggingface" / "stored_tokens", "old")
    write(folder.old / "huggingface" / "deep" / "er" / "y", "old")
    folder.offer()
    there = folder.new / "huggingface"
    assert [(there / name).read_text() for name in ("token", "stored_tokens", "deep/er/y")] == ["mine", "old", "old"]


def test_a_link_that_leads_nowhere_is_made_anew(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    (folder.new / "a").symlink_to("/nowhere")
    (folder.new / "kept").symlink_to("/nowhere")
    write(folder.old / "a")
    folder.offer()
    assert (folder.new / "a").read_text() == "old"
    assert os.readlink(folder.new / "kept") == "/nowhere"  # not one of ours


def test_the_storage_itself_is_not_linked_into_itself(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.outcome.storage.slots["data"].root = str(folder.old / "deep" / "sif-writable")
    write(folder.old / "deep" / "sif-writable" / ".sif-writable")
    write(folder.old / "other")
    folder.offer()
    assert os.listdir(folder.new) == ["other"]
    folder.new.joinpath("other").unlink()
    folder.new.rmdir()
    folder.new.symlink_to(folder.old)  # the user has joined them himself
    folder.offer()
    assert sorted(os.listdir(folder.old)) == ["deep", "other"]


def test_two_starts_at_once_do_not_disturb_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(tmp_path)
    write(folder.old / "a")
    real = os.symlink

    def slower(source: str, target: str) -> None:
        real(source, target)
        real(source, target)

    monkeypatch.setattr(os, "symlink", slower)
    folder.offer()
    assert (folder.new / "a").read_text() == "old"


def test_a_folder_that_cannot_be_filled_serves_as_it_is_and_no_plan_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(tmp_path)
    write(folder.old / "a")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "symlink", full)
    links.provide(folder.outcome, {})
    assert folder.outcome.decision.redirects == [folder.redirect]
    assert "not all that has come since is found" in folder.outcome.failed[0].text
    assert not links.watch_of(folder.outcome).whole


# --- Single files.


@pytest.mark.parametrize("again", [False, True], ids=["from the first start on", "later"])
def test_a_token_is_found_whenever_it_comes(tmp_path: Path, *, again: bool) -> None:
    folder = Folder(tmp_path, variable="XDG_CACHE_HOME")
    folder.redirect.sources, folder.redirect.linking = (), True
    token, place = tmp_path / "home" / ".cache" / "huggingface" / "token", folder.new / "huggingface" / "token"
    if again:
        folder.offer()
        assert not place.parent.exists()
    write(token)
    folder.offer()
    assert os.readlink(place) == str(token)
    token.unlink()
    folder.offer()
    assert not os.path.lexists(place)  # so that a new one can be written there
    write(place, "new")
    write(token)
    folder.offer()
    assert place.read_text() == "new"


# --- What is noted.


def test_a_start_asks_only_for_times_as_long_as_nothing_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(tmp_path, 3)
    write(folder.old / "hub" / "checkpoints" / "a.pth")
    monkeypatch.setattr(watch, "_YOUNG", -1)
    noted = folder.offer().noted()
    assert [path for path, _, _ in noted] == [str(folder.old / part) for part in ("", "hub", "hub/checkpoints")]
    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", None)
        assert seldom.unchanged_since(noted)
    write(folder.old / "hub" / "checkpoints" / "x.lock")
    assert seldom.unchanged_since(noted)  # another time, the same names
    write(folder.old / "hub" / "checkpoints" / "b.pth")
    assert not seldom.unchanged_since(noted)


def test_a_directory_that_has_just_changed_is_asked_by_its_names(tmp_path: Path) -> None:
    noting = Watch()
    noting.names(str(tmp_path))
    ((_, changed, _),) = noted = noting.noted()
    assert changed == 0  # it may change again within the same tick of its filesystem's clock
    assert seldom.unchanged_since(noted)
    write(tmp_path / "a")
    assert not seldom.unchanged_since(noted)


def test_a_time_that_is_set_back_does_not_deceive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_YOUNG", -1)
    noting, before = Watch(), os.stat(tmp_path).st_mtime_ns
    noting.names(str(tmp_path))
    write(tmp_path / "a")
    os.utime(tmp_path, ns=(before, before))  # as rsync -a and cp -a do
    assert not seldom.unchanged_since(noting.noted())


def test_what_is_gone_has_changed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    noting = Watch()
    noting.names(str(tmp_path / "a"))
    (tmp_path / "a").rmdir()
    assert not seldom.unchanged_since(noting.noted())


def test_what_is_noted_is_bounded(tmp_path: Path) -> None:
    noting = Watch()
    for number in range(MOST):
        (tmp_path / str(number) / "deep").mkdir(parents=True)
        noting.names(str(tmp_path / str(number) / "deep"))
    noting.names(str(tmp_path))
    noted = noting.noted()
    assert len(noted) == MOST
    assert noted[0][0] == str(tmp_path)
    assert seldom.unchanged_since(noted)


def test_what_packages_download_into_home_is_kept_where_other_images_look(tmp_path: Path) -> None:
    """HOME is repaired for one image alone; keras has no variable that would not move its settings, too."""
    old, root = tmp_path / "home", tmp_path / "storage"
    (old / "nltk_data").mkdir(parents=True)
    (root / "data").mkdir(parents=True, mode=0o700)
    homes = []
    for image in ("one", "two"):
        storage = make_storage()
        for slot in storage.slots.values():
            slot.root = str(root)
        storage.slots["data"].folder = str(root / "data")
        outcome = decision.Outcome(make_facts(home=str(old), uid=os.geteuid()), storage, Decision())
        outcome.decision.home = str(root / image / "home")
        (root / image).mkdir()
        folders.make_home(outcome)
        assert not outcome.failed
        homes.append(root / image / "home")
    (homes[0] / ".keras/datasets/mnist.npz").write_text("digits")
    (homes[0] / ".keras/keras.json").write_text("torch")
    assert (homes[1] / ".keras/datasets/mnist.npz").read_text() == "digits"
    assert not (homes[1] / ".keras/keras.json").exists()
    assert os.readlink(homes[1] / "nltk_data") == str(old / "nltk_data"), "what the user has there comes first"
    (homes[1] / ".insightface/models").unlink()  # as where downloads could not be kept when the home was made
    (homes[1] / ".keras/models").unlink()  # or where they were kept elsewhere
    (homes[1] / ".keras/models").symlink_to("/no/such/sif-writable/data/keras/models")
    (root / "data/keras/datasets/mnist.npz").unlink()
    (root / "data/keras/datasets").rmdir()
    (root / "data/insightface").mkdir(exist_ok=True)
    theirs = homes[1] / "nltk_data"
    theirs.unlink()
    theirs.symlink_to("/scratch/me/data/nltk")  # a program's own
    outcome.decision.home_made = True
    links.provide(outcome, {})
    assert os.readlink(theirs) == "/scratch/me/data/nltk"
    for name, folder in ((".insightface/models", "insightface/models"), (".keras/models", "keras/models")):
        assert os.readlink(homes[1] / name) == str(root / "data" / folder)
    assert (homes[1] / ".keras/datasets").is_dir(), "what somebody has removed is made again"


def test_what_may_not_be_looked_into_stays_as_it_is_named(tmp_path: Path) -> None:
    needs_two_users(in_lab=False)
    behind = "/proc/1/root/x"
    assert as_user(VICTIM, lambda: seeding.real_path(behind)) == behind
    assert as_user(VICTIM, lambda: seeding.contents("/proc/1/fd")) == {}
    assert (links._names(f"{tmp_path}/gone"), links._is_directory(f"{tmp_path}/gone")) == ([], False)
