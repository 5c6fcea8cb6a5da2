"""Filling new folders from what the image holds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sif_writable import aside
from sif_writable.redirects import seeding
from sif_writable.redirects.watch import Watch
from sif_writable.storage import publish as publishing
from sif_writable.storage.make import collect_leftovers
from sif_writable.storage.publish import bounded_lock, publish
from sif_writable.system import image_mounts


def tree(root: Path, files: dict[str, int]) -> Path:
    """Make files of these sizes in bytes."""
    for name, size in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
    return root


def read_only(root: Path) -> None:
    """Take the write permission off a tree's directories, as an image has it."""
    for directory, _, _ in os.walk(root):
        os.chmod(directory, 0o555)


@pytest.fixture
def as_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let access(2) answer from the mode bits even for root, whom it always allows."""
    real = os.access

    def access(path: str, mode: int) -> bool:
        if mode & os.W_OK and os.path.isdir(path) and not os.stat(path).st_mode & 0o200:
            return False
        return real(path, mode)

    monkeypatch.setattr(os, "access", access)


@pytest.mark.usefixtures("as_user")
def test_small_files_are_copied_and_large_ones_linked(tmp_path: Path) -> None:
    source = tree(
        tmp_path / "image", {"font.json": 10, "sub/weights.bin": seeding.SMALL_FILE + 1, "token": 5, "a.lock": 0}
    )
    os.utime(source / "font.json", ns=(1_000_000_000, 2_000_000_000))
    (source / "sub" / "snapshot").symlink_to("weights.bin")
    (source / "abs").symlink_to("/etc/hostname")
    read_only(source)
    target = tmp_path / "new"
    seeding.copy(str(source), str(target))
    assert not (target / "font.json").is_symlink()
    assert (target / "font.json").stat().st_mtime_ns == 2_000_000_000
    assert (target / "font.json").stat().st_mode & 0o200
    assert os.readlink(target / "sub" / "weights.bin") == str(source / "sub" / "weights.bin")
    assert os.readlink(target / "sub" / "snapshot") == "weights.bin"
    assert (target / "sub" / "snapshot").stat().st_size == seeding.SMALL_FILE + 1
    assert os.readlink(target / "token") == str(source / "token")
    assert not (target / "a.lock").exists()
    assert not (target / "sub").is_symlink()


@pytest.mark.usefixtures("as_user")
def test_a_seed_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeding, "ENTRIES", 3)
    monkeypatch.setattr(seeding, "COPY_TOTAL", 15)
    source = tree(tmp_path / "image", {"a": 10, "b": 10, "c/d": 1, "e/f": 1})
    read_only(source)
    seeding.copy(str(source), str(tmp_path / "new"))
    assert not (tmp_path / "new" / "a").is_symlink()
    assert (tmp_path / "new" / "b").is_symlink()
    assert (tmp_path / "new" / "e").is_symlink()
    assert (tmp_path / "new" / "e" / "f").is_file()


@pytest.fixture
def of_image(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list of what is the host's; all else is the image's own, wherever this runs."""
    bound: list[str] = []

    class Mounts:
        def is_image(self, path: str) -> bool:
            return not any(path == point or path.startswith(point + "/") for point in bound)

        def host_mounts_below(self, path: str) -> list[str]:
            return [point for point in bound if point.startswith(path + "/")]

    monkeypatch.setattr(image_mounts, "mounts", Mounts)
    return bound


@pytest.mark.usefixtures("as_user")
def test_small_files_of_the_images_home_are_copied_so_that_they_can_be_rewritten(
    tmp_path: Path, of_image: list[str]
) -> None:
    files = {".rc": 1, ".config/a/set.json": 9, "top.ini": 3, ".big": seeding.SMALL_FILE + 1, ".ssh/id": 1, ".netrc": 1}
    old = tree(tmp_path / "old", {**files, ".config/hf/token": 1, ".bound/rc": 1, ".file": 1, "data/x": 1})
    read_only(old)
    of_image += [str(old / ".bound"), str(old / ".file")]
    new = tmp_path / "new"
    new.mkdir()
    seeding.link_home(str(old), str(new))
    for name in (".rc", ".config/a/set.json", "top.ini"):
        assert not (new / name).is_symlink()
        (new / name).write_text("mine")
        assert (old / name).read_text() != "mine"
    for name in (".big", ".ssh/id", ".netrc", ".config/hf/token", ".bound", ".file", "data"):
        assert os.readlink(new / name) == str(old / name), name
    seeding.link_home(str(old), str(new), Watch())
    assert (new / ".rc").read_text() == "mine"
    assert sorted(os.listdir(new)) == sorted(os.listdir(old))


@pytest.mark.usefixtures("as_user")
def test_what_is_copied_of_a_home_is_bounded(
    tmp_path: Path, of_image: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert of_image == []
    monkeypatch.setattr(seeding, "HOME_TOTAL", 15)
    old = tree(tmp_path / "old", {".a": 10, ".b": 10, ".c": 5})
    (tmp_path / "new").mkdir()
    seeding.link_home(str(old), str(tmp_path / "new"))
    assert [(tmp_path / "new" / name).is_symlink() for name in (".a", ".b", ".c")] == [False, True, False]
    (tmp_path / "baked").mkdir()
    seeding.link_home(str(old), str(tmp_path / "baked"), copies=False)  # a builder's HOME is not baked
    assert (tmp_path / "baked" / ".a").is_symlink()


@pytest.mark.usefixtures("as_user")
def test_what_comes_later_in_a_home_is_found_and_what_goes_is_not(tmp_path: Path, of_image: list[str]) -> None:
    old, new = tree(tmp_path / "old", {".config/git/config": 1, ".netrc": 1}), tmp_path / "new"
    of_image += [str(old)]
    new.mkdir()
    read_only(old)
    seeding.link_home(str(old), str(new))
    tree(new, {".config/git/mine": 1, ".mine": 1})
    os.chmod(old, 0o755)
    os.chmod(old / ".config" / "git", 0o755)
    tree(old, {".config/git/ignore": 1, ".pypirc": 1, ".cache/huggingface/token": 1})
    (old / ".netrc").unlink()
    read_only(old)
    watch = Watch()
    seeding.link_home(str(old), str(new), watch)
    assert os.readlink(new / ".config" / "git" / "ignore") == str(old / ".config" / "git" / "ignore")
    assert os.readlink(new / ".cache" / "huggingface" / "token") == str(old / ".cache" / "huggingface" / "token")
    assert sorted(os.listdir(new)) == [".cache", ".config", ".mine", ".pypirc"]
    assert sorted(os.listdir(new / ".config" / "git")) == ["config", "ignore", "mine"]
    assert {str(old), str(old / ".config" / "git")} <= {path for path, _, _ in watch.noted()}


@pytest.mark.usefixtures("as_user")
def test_a_home_is_linked_so_that_settings_are_found_and_new_ones_can_be_made(
    tmp_path: Path, of_image: list[str]
) -> None:
    old = tree(tmp_path / "old", {".ssh/id": 1, ".config/git/config": 1, ".netrc": 1, "data/big": 1})
    of_image += [str(old)]
    (old / ".cache" / "bound").mkdir(parents=True)
    read_only(old)
    os.chmod(old / ".cache" / "bound", 0o755)
    new = tmp_path / "new"
    new.mkdir()
    seeding.link_home(str(old), str(new))
    assert os.readlink(new / ".netrc") == str(old / ".netrc")
    assert os.readlink(new / ".config" / "git" / "config") == str(old / ".config" / "git" / "config")
    (new / ".config" / "other").mkdir()
    assert os.readlink(new / "data") == str(old / "data")
    assert os.readlink(new / ".cache" / "bound") == str(old / ".cache" / "bound")  # writes reach the bind


def test_publish_is_all_or_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "kind" / "name"
    folder.parent.mkdir()

    def fails(aside: str) -> None:
        tree(tmp_path / "kind" / os.path.basename(aside), {"half": 1})
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        publish(str(folder), fails, lock_below=str(tmp_path))
    assert os.listdir(folder.parent) == []

    def works(aside: str) -> None:
        (tmp_path / "kind" / os.path.basename(aside) / "whole").write_text("1")

    publish(str(folder), works, lock_below=str(tmp_path))
    assert os.listdir(folder) == ["whole"]
    publish(str(folder), fails, lock_below=str(tmp_path))  # another process was first: nothing is built
    assert os.listdir(folder) == ["whole"]


def test_a_link_that_others_put_back_is_replaced_all_the_same(tmp_path: Path) -> None:
    """An audit hook sees each step before it is made, so it can do at that instant what another process might."""
    program = f"""
import os, sys
from sif_writable.storage.publish import publish
folder, image = {str(tmp_path / "pkg")!r}, {str(tmp_path)!r}
relinked = []
def neighbour(event, arguments):
    if event == "os.rename" and arguments[1] == folder and len(relinked) < 5 and not os.path.lexists(folder):
        relinked.append(1)
        os.symlink(image, folder)
os.symlink(image, folder)
sys.addaudithook(neighbour)
publish(folder, lambda aside: open(aside + "/whole", "w").close(), lock_below=image, over_link=True)
assert len(relinked) == 5 and not os.path.islink(folder), relinked
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert os.listdir(tmp_path / "pkg") == ["whole"]
    assert sorted(os.listdir(tmp_path)) == ["locks", "pkg"]


def test_a_folder_that_another_process_put_over_the_link_serves(tmp_path: Path) -> None:
    (tmp_path / "pkg").symlink_to(tmp_path)

    def fill(aside: str) -> None:
        (tmp_path / "pkg").unlink()
        (tmp_path / "pkg").mkdir()
        (tmp_path / "pkg" / "theirs").touch()
        (tmp_path / os.path.basename(aside) / "ours").touch()

    publish(str(tmp_path / "pkg"), fill, lock_below=str(tmp_path), over_link=True)
    assert os.listdir(tmp_path / "pkg") == ["theirs"]
    assert sorted(os.listdir(tmp_path)) == ["locks", "pkg"]


def test_a_lock_that_is_not_to_be_had_only_costs_its_bound(tmp_path: Path) -> None:
    entered = []
    with bounded_lock(str(tmp_path), "x", seconds=0.1), bounded_lock(str(tmp_path), "x", seconds=0.1):
        entered.append(1)
    with bounded_lock(str(tmp_path / "file" / "below"), "x"):
        entered.append(2)
    (tmp_path / "plain").write_text("")
    with bounded_lock(str(tmp_path / "plain"), "x"):
        entered.append(3)
    assert entered == [1, 2, 3]


def test_leftovers_of_killed_processes_are_collected_and_nothing_that_only_looks_like_them(tmp_path: Path) -> None:
    folders = ("", "/data", "/image-1", "/image-1/config", "/image-1/compiled-cpython-311", "/image-1/packages-x")
    old = [aside.path(f"{tmp_path}{folder}", "hub") for folder in folders]
    old.append(aside.path(str(tmp_path), begin=aside.TRY))
    fresh = aside.path(f"{tmp_path}/data", "other")
    elsewhere = [aside.path(f"{tmp_path}{folder}", "hub") for folder in ("/data/torch", "/mine")]
    like_ours = (
        "/.new-results",
        "/.try-2",
        "/data/.new-experiment",
        "/image-1/.new-x-1-ab",
        "/data/.new-run-20241105-1a2b3c4d",
        "/data/.try-20241105-0123456789abcdef",
        "/data/.new-1-0123456789abcdef.sif_writable.txt",
        "/data/new-1-0123456789abcdef.sif_writable",
        "/data/.new-x-0123456789abcdef.sif_writable",
    )
    user = [f"{tmp_path}{name}" for name in like_ours]
    for path in (*old, fresh, *elsewhere, *user):
        tree(Path(path), {"half": 1})
        os.utime(path, (0, 0))
    old.append(aside.path(str(tmp_path), "file"))
    Path(old[-1]).touch()
    os.utime(old[-1], (0, 0))
    os.utime(fresh)
    collect_leftovers(str(tmp_path))
    assert [path for path in old if os.path.lexists(path)] == []
    assert [path for path in (fresh, *elsewhere, *user) if not os.path.lexists(path)] == []


def test_a_link_that_is_put_back_each_time_is_left_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "MAX_RELINKED", 0)  # as if another process had been faster so many times
    (tmp_path / "new").mkdir()
    (tmp_path / "folder").symlink_to("elsewhere")
    with pytest.raises(NotADirectoryError):
        publishing._rename_over_link(f"{tmp_path}/new", f"{tmp_path}/folder")
    assert sorted(os.listdir(tmp_path)) == ["folder", "new"]


def test_names_aside_are_random_bounded_and_known_again(tmp_path: Path) -> None:
    made = {aside.path(str(tmp_path), what) for what in ("", "a", "a-b", "ä" * 255, "x" * 255) for _ in range(3)}
    assert len(made) == 15
    for path in made:
        os.mkdir(path)
        assert aside.is_ours(os.path.basename(path))
    descriptor, path = aside.create(str(tmp_path), "file", mode=0o640)
    os.close(descriptor)
    assert os.stat(path).st_mode & 0o777 == 0o640
    assert aside.is_ours(os.path.basename(path))


def test_a_file_that_cannot_be_read_is_offered_as_it_is(tmp_path: Path) -> None:
    """It may be back when it is needed. This one is an ordinary file, and reading its beginning is an input error."""
    target = str(tmp_path / "mem")
    seeding._place("/proc/self/mem", target, os.lstat("/proc/self/mem"), seeding._Budget(1 << 20, 10), 2)
    assert os.readlink(target) == "/proc/self/mem"
