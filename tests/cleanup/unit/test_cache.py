"""`sif-writable cache`: what is chosen, and what becomes of real storage with processes beside it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from sif_writable import aside, lease
from sif_writable.cleanup import policy, roots
from sif_writable.cleanup.contents import Contents, Image, Item, inspect_root
from sif_writable.cleanup.policy import DAY, KNOWN
from sif_writable.cleanup.request import remove
from sif_writable.report import cache as report
from sif_writable.report.text import Painter
from sif_writable.seldom import MARKER
from sif_writable.system.listing import names
from tests.lab import command_line
from tests.lab.store import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_800_000_000.0
THIS, OTHER = "0123456789abcdef", "fedcba9876543210"
ALL = policy.Reach(THIS, all_images=True)


def item(name: str, kind: str = "data", *, days: float = 0, size: int = 1, image: str = "", files: int = 1) -> Item:
    folder = {"data": "data", "lock": "locks", "leftover": "data"}.get(kind, f"image-{image}/{kind}")
    return Item(f"/s/{folder}/{name}", name, kind, folder, image, size, files, NOW - days * DAY, "")


def contents(*items: Item, idle: float = 100) -> list[Contents]:
    """Return storage whose images were all last used so many days ago."""
    images = {each.image: Image(each.image, "", "", NOW - idle * DAY) for each in items if each.image}
    return [Contents("/s", list(items), images, reads_recorded=True)]


def pruned(found: list[Contents], **options: object) -> list[str]:
    plan = policy.prune(found, reach=ALL, now=NOW, **options)  # type: ignore[arg-type]
    return sorted(removal.item.name for removal in plan.removals)


def test_by_age_go_downloads_caches_and_copies_but_never_settings_homes_or_sockets() -> None:
    found = contents(
        *(item(kind, kind, days=40, image=THIS) for kind in ("compiled", "packages", "config", "home", "runtime")),
        item("old", days=31),
        item("new", days=29),
    )
    assert pruned(found, older_than=30 * DAY) == ["compiled", "old", "packages"]


def test_dead_is_what_belongs_to_other_images_that_nobody_uses() -> None:
    found = contents(
        item("mine", "compiled", days=99, image=THIS),
        item("theirs", "compiled", days=99, image=OTHER),
        item("settings", "config", days=99, image=OTHER),
        item("home", "home", days=99, image=OTHER, files=0),
        item("shared", days=99),
        item(".new-x", "leftover", days=2),
        item(".new-y", "leftover", days=0.5),
        item("a.lock", "lock", days=2),
        item("b.lock", "lock", days=0.1),
    )
    assert pruned(found, dead=True) == [".new-x", "a.lock", "home", "settings", "theirs"]
    assert pruned(contents(item("theirs", "compiled", days=99, image=OTHER), idle=13), dead=True) == []


def test_copies_of_which_nobody_can_tell_stay_while_their_image_is_in_use() -> None:
    copies = item("packages", "packages", days=99, image=OTHER)._replace(problem="may be in use", unlocked=True)
    plan = policy.prune(contents(copies, idle=1), reach=ALL, now=NOW, older_than=DAY)
    assert plan.removals == []
    assert "may be in use, and its image was started 1 day ago. Remedy: " in plan.notes[0]
    assert pruned(contents(copies), older_than=DAY) == ["packages"]
    asked = policy.Reach(THIS, all_images=True, in_use=True)
    assert len(policy.prune(contents(copies, idle=1), reach=asked, now=NOW, older_than=DAY).removals) == 1


def test_empty_folders_are_counted_and_unrecorded_reads_are_reported() -> None:
    (found,) = contents(item("numba", "compiled", image=OTHER), item("empty", "compiled", size=0, files=0, image=OTHER))
    every = policy.Plan([policy.Removal(each, "asked for") for each in found.items], [])
    assert report.intended(every, [found]).endswith("  and 1 empty folder\n")
    few = policy.Plan(every.removals[:1], [])
    assert "empty folder" not in report.intended(few, [found])
    shown = report.Shown(OTHER, True, False)
    note = "this filesystem does not record reading: last use means last written"
    for recorded in (True, False):
        text = report.listing([found._replace(reads_recorded=recorded)], [], shown, NOW, Painter())
        assert (note in " ".join(text.split())) is not recorded


def test_what_cannot_be_removed_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def removed(name: str, kind: str = "lock") -> str:
        path = tmp_path / name
        thing = Item(str(path), name, kind, "", "", 1, 1, NOW, "")
        (done,) = remove([policy.Removal(thing, "old")], None)
        return done.problem

    (tmp_path / "link.lock").symlink_to("elsewhere")
    assert "link" in removed("link.lock")
    assert removed("gone.lock") == ""  # another cleanup was first
    (tmp_path / "old.lock").touch()
    with (tmp_path / "old.lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert removed("old.lock") == "is held by a process that runs"

    def without_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", without_locks)
        assert removed("old.lock") == ""  # its age decides
    copies = tmp_path / "packages"
    copies.mkdir()
    with (copies / lease.NAME).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert "is imported from by process" in removed("packages", "packages")
    assert sorted(os.listdir(tmp_path)) == ["link.lock", "packages"]
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # as where NFS keeps what is open
        (tmp_path / "open").mkdir()
        assert "what is in use of it remains in " in removed("open", "leftover")


def test_a_root_is_looked_at_once_and_what_lies_aside_in_it_is_a_leftover(tmp_path: Path) -> None:
    root = tmp_path / "sif-writable"
    root.mkdir(0o700)
    (root / MARKER).write_text("exec\n")
    aside.create(str(root), "x")
    image = root / f"image-{OTHER}"
    image.mkdir()
    aside.create(str(image), "y")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    seen, refused = roots.contents([str(root), f"{root}/.", str(tmp_path / "open")])
    assert [(each.root, [item.kind for item in each.items]) for each in seen] == [(str(root), ["leftover"] * 2)]
    assert [path for path, _ in refused] == [str(tmp_path / "open")]


def test_a_home_in_which_somebody_wrote_is_never_dead() -> None:
    assert pruned(contents(item("home", "home", days=99, image=OTHER, files=1)), dead=True) == []


def test_room_is_made_with_the_least_recently_used_and_never_with_what_is_in_use() -> None:
    found = contents(
        item("a", days=50, size=10), item("b", days=20, size=10), item("c", days=10, size=10), item("d", size=10)
    )
    assert pruned(found, max_size=25) == ["a", "b"]
    plan = policy.prune(found, reach=ALL, now=NOW, max_size=5)
    assert [removal.item.name for removal in plan.removals] == ["a", "b", "c"]
    assert "cache clear NAME" in plan.notes[0]
    assert pruned(found, max_size=100) == []
    everything = policy.prune(contents(item("a", days=50, size=10)), reach=ALL, now=NOW, max_size=0)
    assert ([removal.item.name for removal in everything.removals], everything.notes) == (["a"], [])
    assert pruned(found, older_than=30 * DAY, max_size=20) == ["a", "b"]


def test_what_has_a_mount_in_it_stays_and_is_named() -> None:
    found = contents(item("a", days=99)._replace(problem="has something mounted in it"))
    plan = policy.prune(found, reach=ALL, now=NOW, older_than=DAY, max_size=0)
    assert plan.removals == []
    assert plan.notes[0] == "/s/data/a stays: it has something mounted in it. Remedy: try again when that has ended."
    assert policy.clear(found, ["a"], reach=ALL, now=NOW)[0].removals == []


@pytest.mark.parametrize(
    ("name", "hits"),
    [
        ("numba", ["numba", "numba"]),
        (f"image-{THIS}", ["ipython", "numba"]),
        (f"image-{OTHER}/compiled/numba", ["numba"]),
        ("data/pip", ["pip"]),
        ("/s/data/pip", ["pip"]),
        ("torch", []),
    ],
)
def test_names(name: str, hits: list[str]) -> None:
    found = contents(
        item("numba", "compiled", image=THIS),
        item("ipython", "config", image=THIS),
        item("numba", "compiled", image=OTHER),
        item("pip"),
    )
    plan, unknown = policy.clear(found, [name], reach=ALL, now=NOW)
    assert sorted(removal.item.name for removal in plan.removals) == hits
    assert unknown == []
    unknown = policy.clear(found, ["nonesuch", "../etc"], reach=ALL, now=NOW)[1]
    assert unknown == ["there is no nonesuch in storage", "there is no ../etc in storage"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30d", 30 * DAY), ("12 h", 12 * 3600), ("2w", 14 * DAY), ("90min", 5400), ("1.5d", 1.5 * DAY), ("0d", 0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert policy.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "30m", "1y", "nand", "1e3d", "30d 2h"])
def test_what_is_no_duration(text: str) -> None:
    assert policy.parse_duration(text) is None


# --- Real storage.


class Store:
    """Storage of a user, and the command line on it."""

    def __init__(self, folder: Path) -> None:
        """Make the folders."""
        self.place = folder / "place"
        self.root = self.place / "sif-writable"
        self.home = folder / "home"
        self.place.mkdir(mode=0o700)
        self.home.mkdir()

    def environ(self, **more: str) -> dict[str, str]:
        """Return the environment of its processes."""
        own = {"PATH": os.environ["PATH"], "PYTHONPATH": REPOSITORY, "HOME": str(self.home)}
        return {**own, "SIF_WRITABLE": "on", "SIF_WRITABLE_DIR": str(self.place), **more}

    def run(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run the command line."""
        return command_line.run(words, self.environ(**more))

    def cache(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run the command on this storage alone."""
        return self.run("cache", *words, "--dir", str(self.root), **more)

    def image(self) -> Path:
        """Return the folder of the image."""
        (image,) = self.root.glob("image-*")
        return image

    def listed(self) -> dict[str, dict[str, object]]:
        """Return what is listed, by name."""
        model = json.loads(self.cache("list", "--json").stdout)
        return {entry["name"]: entry for root in model["roots"] for entry in root["entries"]}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return storage that a first start has made."""
    made = Store(tmp_path)
    assert made.run("status").returncode == 0
    return made


def age(path: Path, days: float) -> None:
    """Let everything below a path be that old; the time of the last change of state cannot be set."""
    for here, _, files in os.walk(path, topdown=False):
        for name in [*(os.path.join(here, name) for name in files), here]:
            os.utime(name, (time.time() - days * DAY,) * 2, follow_symlinks=False)


def test_list_shows_kind_size_files_use_and_image(store: Store) -> None:
    kernel = store.image() / f"compiled-{sys.implementation.cache_tag}" / "numba" / "k.nbi"
    kernel.parent.mkdir()
    kernel.write_bytes(b"x" * 5000)
    model = json.loads(store.cache("list", "--json").stdout)
    assert model["schema"] == 1
    (root,) = model["roots"]
    assert root["path"] == str(store.root)
    (image,) = root["images"]
    assert (image["identity"], image["this"], image["prefix"]) == (model["image"], True, sys.prefix)
    entry = store.listed()["numba"]
    assert (entry["kind"], entry["files"], entry["this_image"]) == ("compiled", 1, True)
    assert entry["size_bytes"] == 8192
    assert abs(float(str(entry["last_used"])) - time.time()) < 60
    (store.root / f"image-{OTHER}" / "config" / "empty").mkdir(parents=True)
    text = store.cache("list").stdout
    assert OTHER not in text  # nothing is in it
    assert "numba" in text
    assert "this image" in text
    assert str(store.root) in text


def test_list_shows_this_image_and_counts_the_others_unless_they_are_asked_for(store: Store) -> None:
    mine = store.image() / "config" / "ipython"
    mine.mkdir()
    (mine / "history.sqlite").write_text("x")
    for number in (1, 2):
        other = store.root / f"image-{number:016x}" / "config" / "ipython"
        other.mkdir(parents=True)
        (other / "history.sqlite").write_text("x" * 5000)
    listed = store.cache("list").stdout
    assert "ipython" in listed
    assert "1 file " in listed
    assert "  2 other images keep 16.0 KiB (add --all-images)\n" in listed
    assert f"image-{1:016x}" not in listed
    assert "lock" not in listed
    assert "\n  empty" not in listed
    listed = store.cache("list", "--all-images").stdout
    assert listed.count("another image, image-") == 2
    assert "other images keep" not in listed
    assert store.cache("list", "-q").stdout == f"{mine}\n"
    assert len(store.cache("list", "-q", "--all-images").stdout.splitlines()) == 3
    shutil.rmtree(store.root / f"image-{2:016x}")
    assert "  1 other image keeps 8.0 KiB (add --all-images)\n" in store.cache("list").stdout
    assert len(json.loads(store.cache("list", "--json").stdout)["roots"][0]["images"]) == 2  # all, as ever


def test_storage_that_holds_nothing_is_left_out(store: Store) -> None:
    assert store.cache("list").stdout == f"{store.root}  0 B\n  empty\n"  # it was named
    nothing = contents(item("empty", size=0, files=0))
    listed = report.listing(nothing, [], report.Shown(THIS, all_images=False), NOW, Painter())
    assert listed == "nothing is kept so far in /s\n"
    assert store.cache("prune", "--older-than", "0d").stdout == "nothing to remove\n"


@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_a_place_that_mkdir_has_made_is_listed_as_any_other(tmp_path: Path, mode: int) -> None:
    place = tmp_path / "sif-writable"
    place.mkdir()
    place.chmod(mode)
    store = Store(tmp_path)
    write = "import os; os.makedirs(os.environ['NUMBA_CACHE_DIR']); open(os.environ['NUMBA_CACHE_DIR'] + '/k', 'w')"
    environ = {**store.environ(), "SIF_WRITABLE_DIR": str(place)}
    environ["PYTHONPATH"] = os.path.join(REPOSITORY, "sif_writable", "hook") + ":" + REPOSITORY
    assert subprocess.run([sys.executable, "-c", write], env=environ, check=True).returncode == 0
    for options in ((), ("--dir", str(place))):
        done = store.run("cache", "list", *options, SIF_WRITABLE_DIR=str(place))
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"{place}  "), done
        assert "not looked into" not in done.stdout


def test_looking_leaves_no_trace(store: Store) -> None:
    folder = store.image() / "config"
    (folder / "matplotlib").mkdir()
    os.utime(folder, (1, 1))
    store.cache("list", SIF_WRITABLE="off")
    assert names(str(folder))
    assert folder.stat().st_atime == 1


def test_only_what_is_ours_is_seen(store: Store) -> None:
    for name in ("results", "image-xyz", "image-0123456789abcdeg", "data/mine", "image-0123456789abcdef.txt"):
        (store.root / name).mkdir()
        (store.root / name / "precious").write_text("x")
    outside = store.place.parent / "outside"
    (outside / "pip").mkdir(parents=True)
    (outside / "pip" / "precious").write_text("x")
    (store.root / "data" / "uv").symlink_to(outside)
    shutil.rmtree(store.root / "run", ignore_errors=True)
    (store.root / "run").symlink_to(outside)
    (store.root / "image-fedcba9876543210").symlink_to(outside)
    seen = inspect_root(str(store.root), KNOWN)
    assert not {"mine", "precious", "pip"} & {entry.name for entry in seen.items}
    assert "fedcba9876543210" not in seen.images
    done = store.cache("prune", "--yes", "--older-than", "0d", "--dead", "--all-images")
    assert done.returncode == 0, done.stderr
    done = store.cache("clear", "--yes", "uv", "--all-images")
    assert done.returncode == 0, done.stderr
    assert not (store.root / "data" / "uv").is_symlink()  # the link is ours to take, what it leads to is not
    assert (outside / "pip" / "precious").exists()
    for name in ("results", "image-xyz", "image-0123456789abcdeg", "data/mine", "image-0123456789abcdef.txt"):
        assert (store.root / name / "precious").exists()


def test_this_image_in_the_chosen_storage_unless_more_is_said(store: Store) -> None:
    """Line 16: what a command reaches, and what it says of the rest before it does anything."""
    other = store.root / f"image-{OTHER}" / "compiled-cpython-311" / "numba"
    image = store.image()
    own = image / "compiled-cpython-311" / "numba"
    elsewhere = store.place.parent / "elsewhere"
    shutil.copytree(store.root, elsewhere / "sif-writable")
    beside = elsewhere / "sif-writable" / image.name / "compiled-cpython-311" / "numba"
    for folder in (own, other, beside, store.root / "data" / "pip"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "k").write_bytes(b"x" * 5000)
    done = store.run("cache", "prune", "--older-than", "0d")
    assert f"would remove 1 thing, 8.0 KiB, of 1 image in {store.root}:" in done.stdout
    assert f"  of {image.name}: {sys.prefix}\n  {own}  8.0 KiB, not used for " in done.stdout
    done = store.run("cache", "clear", "pip")
    assert done.returncode == 2
    assert f"pip is of all images ({store.root}/data/pip, 8.0 KiB). Remedy: add --all-images" in done.stderr
    done = store.run("cache", "clear", "--yes", "numba")
    assert done.returncode == 0, done
    assert "numba is of 1 other image" in " ".join(done.stdout.split())
    assert (own.exists(), (other / "k").exists(), (beside / "k").exists()) == (False, True, True)
    done = store.run("cache", "clear", "--yes", "--all-images", "numba", "pip")
    said = f"sif_writable: removing 2 things, 16.0 KiB, of 1 image and of what images share in {store.root}\n"
    assert (done.returncode, done.stderr) == (0, said)
    assert ((other / "k").exists(), (beside / "k").exists()) == (False, True)
    done = store.run("cache", "clear", "--yes", "numba", "--dir", str(elsewhere))
    assert (done.returncode, (beside / "k").exists()) == (0, False)


def test_outside_an_image_nothing_is_this_one(store: Store) -> None:
    for words, said in (
        (("clear", "numba"), "name it with --dir DIR, or add --everywhere"),
        (("prune", "--older-than", "0d", "--everywhere"), "add --all-images, or run it in the image"),
    ):
        done = store.run("cache", *words, SIF_WRITABLE="off")
        assert (done.returncode, said in done.stderr) == (2, True)


def test_a_root_that_is_open_to_others_is_refused(store: Store) -> None:
    (store.image() / "config" / "matplotlib").mkdir()
    os.chmod(store.root, 0o777)
    done = store.cache("clear", "--yes", "matplotlib")
    assert "is open to other users" in done.stderr
    assert (store.image() / "config" / "matplotlib").is_dir()
    link = store.place.parent / "link"
    os.chmod(store.root, 0o700)
    link.symlink_to(store.root)
    done = store.run("cache", "clear", "--yes", "matplotlib", "--dir", str(link))
    assert "is a symbolic link" in done.stderr
    assert (store.image() / "config" / "matplotlib").is_dir()


def test_a_cleared_folder_that_processes_expect_is_put_back_empty(store: Store) -> None:
    folder = store.image() / "config" / "matplotlib"
    folder.mkdir()
    (folder / "fontlist.json").write_text("{}")
    pip = store.root / "data" / "pip"
    pip.mkdir()
    (pip / "wheel").write_text("x")
    done = store.cache("clear", "--yes", "matplotlib", "pip", "--all-images")
    assert done.returncode == 0, done.stderr
    assert os.listdir(folder) == []
    assert not pip.exists()
    assert store.run("status").returncode == 0


def test_what_a_session_has_is_made_again_with_its_links(store: Store) -> None:
    style = store.home / ".config" / "matplotlib" / "stylelib"
    style.mkdir(parents=True)
    folder = store.image() / "config" / "matplotlib"
    done = store.cache("clear", "--yes", "matplotlib")
    assert done.returncode == 0, done.stderr
    assert os.readlink(folder / "stylelib") == str(style)


@pytest.mark.parametrize(
    "words", [("clear", "pip", "--all-images"), ("prune", "--all-images", "--older-than", "0d")], ids=["clear", "prune"]
)
@pytest.mark.parametrize("option", [(), ("--dry-run",)], ids=["by default", "as asked"])
def test_without_yes_nothing_is_removed(store: Store, words: tuple[str, ...], option: tuple[str, ...]) -> None:
    (store.root / "data" / "pip").mkdir()
    (store.root / "data" / "pip" / "wheel").write_text("x" * 100)
    words = (*words, "--all-images", *option)
    done = store.cache(*words)
    assert done.returncode == 0
    assert str(store.root / "data" / "pip") in done.stdout
    assert done.stdout.splitlines()[-1] == "nothing was removed, this was a dry run; add --yes to remove it"
    result = json.loads(store.cache(*words, "--json").stdout)
    assert result["dry_run"]
    assert str(store.root / "data" / "pip") in [entry["path"] for entry in result["would_remove"]]
    assert (store.root / "data" / "pip" / "wheel").exists()
    done = store.cache(*words[: len(words) - len(option)], "--yes")
    assert (done.returncode, "dry run" in done.stdout) == (0, False)
    assert not (store.root / "data" / "pip").exists()


def test_what_a_process_has_mounted_stays_until_it_ends(store: Store) -> None:
    image = store.image()
    kept = image / "overlay" / "var-log" / "graft"
    kept.mkdir(parents=True)
    (kept / "log").write_text("x")
    words = ("clear", "--yes", f"{image.name}/overlay")
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    mounted = f"mount --bind {shlex.quote(str(kept))} /mnt && echo in && read end"
    command = ["unshare", *user, "--mount", "--propagation", "private", "sh", "-c", mounted]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        problem = f"is mounted by process {other.pid}, and stays until that ends"
        assert store.listed()["overlay"]["problem"] == problem
        done = store.cache(*words)
        assert problem in " ".join(done.stdout.split())
        # One that has come since it was looked at.
        seen = inspect_root(str(store.root), KNOWN)
        free = [seen._replace(items=[i._replace(problem="") for i in seen.items])]
        chosen, _ = policy.clear(free, words[2:], reach=ALL, now=time.time())
        assert [entry.problem for entry in remove(chosen.removals, None)] == [problem]
        assert (kept / "log").exists()
        other.communicate("\n")
    done = store.cache(*words)
    assert (done.returncode, os.path.lexists(image / "overlay")) == (0, False)


def test_dead_images_go_whole_and_locks_that_are_held_stay(store: Store) -> None:
    from filelock import FileLock

    dead = store.root / "image-fedcba9876543210"
    (dead / "compiled-cpython-311" / "numba").mkdir(parents=True)
    (dead / "compiled-cpython-311" / "numba" / "k").write_text("x")
    (dead / "config" / "ipython").mkdir(parents=True)
    (dead / "home").mkdir()
    (dead / "home" / ".ssh").symlink_to("/etc")
    (dead / "image.txt").write_text("image: /old.sif\nprefix: /opt/venv\n")
    locks = store.root / "locks"
    locks.mkdir(exist_ok=True)
    (locks / "stale.lock").write_text("")
    contents = inspect_root(str(store.root), KNOWN)
    assert contents.images["fedcba9876543210"].name == "/old.sif"
    with FileLock(str(locks / "held.lock")):
        # The change of a file's state cannot be dated back, so the question is asked in a month.
        later = time.time() + 30 * DAY
        plan = policy.prune(
            [contents, inspect_root(str(store.root), KNOWN)],
            reach=policy.Reach("", all_images=True),
            now=later,
            dead=True,
        )
        removals = [removal for removal in plan.removals if removal.item.image in ("", "fedcba9876543210")]
        done = {entry.item.name: entry.problem for entry in remove(removals, None)}
    assert done["held.lock"] == "is held by a process that runs"
    assert done["stale.lock"] == ""
    assert (locks / "held.lock").exists()
    assert not (locks / "stale.lock").exists()
    assert not dead.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("prune",), "--older-than TIME, --max-size SIZE or --dead"),
        (("prune", "--older-than", "30"), "such as 12h, 30d or 2w"),
        (("prune", "--max-size", "lots"), "such as 500MiB or 20G (powers of 1024) or 20GB"),
        (("clear", "nonesuch"), "there is no nonesuch in storage; "),
        (("clear",), "NAME"),
        ((), "ACTION"),
        (("clear", "--yes", "--dry-run", "pip"), "not allowed with"),
    ],
)
def test_bad_usage(store: Store, words: tuple[str, ...], said: str) -> None:
    done = store.run("cache", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_place_without_storage_is_reported(tmp_path: Path) -> None:
    store = Store(tmp_path)
    done = store.run("cache", "list", "--dir", str(tmp_path / "home"), SIF_WRITABLE="off")
    assert done.returncode == 2
    assert "Remedy" in done.stderr
    done = store.run("cache", "list", SIF_WRITABLE="off", SIF_WRITABLE_DIR="")
    assert done.returncode == 0


_BUSY = """
import os, sys, time
folder = os.environ["MPLCONFIGDIR"]
kernels = os.environ["NUMBA_CACHE_DIR"]
rounds = 0
os.makedirs(folder, exist_ok=True)
while not os.path.exists(sys.argv[1]):
    try:
        os.makedirs(kernels, exist_ok=True)
    except FileExistsError:  # it was there for mkdir and was gone for the check that follows: once in 10,000 removals
        continue
    for where in (folder, kernels):
        path = f"{where}/f-{os.getpid()}"
        for _ in range(100):
            try:
                with open(path + ".new", "w") as file:
                    file.write("x" * 1000)
                os.rename(path + ".new", path)
                with open(path) as file:
                    assert file.read() == "x" * 1000
                break
            except FileNotFoundError:  # taken away under us: a package makes it once more
                try:
                    os.makedirs(kernels, exist_ok=True)
                except FileExistsError:  # as above
                    pass
    rounds += 1
    if rounds == 1:
        print("busy", flush=True)
    time.sleep(0.001)  # busy with storage, not with a processor that others want, too
print(rounds)
"""


def test_processes_beside_it_survive(store: Store, tmp_path: Path) -> None:
    environ = {**store.environ(), "PYTHONPATH": os.path.join(REPOSITORY, "sif_writable", "hook") + ":" + REPOSITORY}
    enough = tmp_path / "enough"
    busy = [
        subprocess.Popen([sys.executable, "-c", _BUSY, str(enough)], env=environ, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    try:
        for process in busy:
            assert process.stdout
            assert process.stdout.readline() == "busy\n"
        for _ in range(20):
            done = store.cache("clear", "--yes", "matplotlib", "numba")
            assert done.returncode == 0, (done.stdout, done.stderr)
    finally:
        enough.touch()
    for process in busy:
        out, _ = process.communicate()
        assert process.returncode == 0
        assert int(out) > 10
    assert not [name for _, _, files in os.walk(store.root) for name in files if "gone" in name]


def test_two_cleanups_at_once(store: Store) -> None:
    for number in range(50):
        (store.root / "data" / "pip" / str(number)).mkdir(parents=True)
    words = [sys.executable, "-m", "sif_writable", "cache", "clear", "--yes", "pip", "--all-images", "--dir"]
    both = [subprocess.Popen([*words, str(store.root)], env=store.environ()) for _ in range(4)]
    assert [process.wait() for process in both] == [0] * 4
    assert not (store.root / "data" / "pip").exists()
