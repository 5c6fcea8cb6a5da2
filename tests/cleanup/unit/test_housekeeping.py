"""What belongs to an image goes by itself, in time and within the limit; what programs wrote stays."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from typing import TYPE_CHECKING

import pytest

from sif_writable import seldom
from sif_writable.cleanup import contents, housekeeping, policy, removal
from sif_writable.cleanup.measure import Bound
from sif_writable.cleanup.policy import DAY, Limit
from sif_writable.report import usage
from sif_writable.storage import layout, leases
from sif_writable.storage.candidates import Candidate
from sif_writable.storage.chosen import Slot, Storage
from sif_writable.storage.kinds import COMPILED
from sif_writable.system.mounts import Mount

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
NO_LIMIT = Limit(1 << 60, 1 << 60)
ENOUGH = 60.0, 1 << 20


@pytest.mark.parametrize(
    ("text", "allowed", "understood"),
    [
        ("", Limit(10 << 30, 100_000), True),
        ("20GiB", Limit(20 << 30, 100_000), True),
        (" 5G , 50000 ", Limit(5 << 30, 50_000), True),
        ("0", None, True),  # as everywhere, zero switches off
        ("off", None, True),
        ("OFF", None, True),
        ("plenty", Limit(10 << 30, 100_000), False),
        ("5GiB,many", Limit(10 << 30, 100_000), False),
        ("5GiB,-1", Limit(10 << 30, 100_000), False),
        ("1,2,3", Limit(10 << 30, 100_000), False),
        ("-5GiB", Limit(10 << 30, 100_000), False),
    ],
)
def test_limits(text: str, allowed: Limit | None, understood: bool) -> None:
    found, note = policy.limit({"SIF_WRITABLE_MAX": text})
    assert (found, note == "") == (allowed, understood)
    assert understood or f"SIF_WRITABLE_MAX={text!r} is not understood" in note


class Images:
    """A storage root with images that were used so many days ago."""

    def __init__(self, root: Path) -> None:
        """Take an empty folder."""
        self.root = root
        self.now = time.time()

    def add(self, digit: str, days: float, size: int = MIB, files: int = 1) -> str:
        """Make the folder of an image with compiled files, a copy, settings, empty folders and a home of links."""
        image = self.root / f"image-{digit * 16}"
        folder = image / "compiled-cpython-311" / "numba"
        folder.mkdir(parents=True)
        for number in range(files):
            (folder / f"k{number}").write_bytes(b"x" * (size // files))
        module = image / "packages-cpython-311" / "tree" / "venv" / "pkg.py"
        module.parent.mkdir(parents=True)
        module.write_text("value = 1")
        records = image / "packages-cpython-311" / "records"
        records.mkdir()
        (records / "pkg").write_text(f"9 {module.stat().st_mtime_ns} venv/pkg.py\n")
        (image / "config" / "matplotlib").mkdir(parents=True)
        (image / "home").mkdir()
        (image / "home" / ".ssh").symlink_to("/etc")
        (image / "image.txt").write_text("image: /i.sif\n")
        (image / "plan-cpython-311").write_text("plan")
        self.age(digit, days)
        return image.name

    def age(self, digit: str, days: float) -> None:
        """Let an image have been used so many days ago."""
        then = self.now - days * DAY
        image = self.root / f"image-{digit * 16}"
        for path in (*image.glob("plan-*"), *image.glob("packages-*/lease"), *image.glob("compiled-*/*/*")):
            os.utime(path, (then, then))

    def tidy(self, allowed: Limit = NO_LIMIT, this: str = "", bound: Bound | None = None) -> bool:
        """Do a round."""
        return housekeeping.tidy(str(self.root), this, allowed, bound or Bound(*ENOUGH), self.now)

    def there(self) -> str:
        """Return the digits of the images that still have compiled files."""
        return "".join(sorted(path.parent.name[6] for path in self.root.glob("image-*/compiled-*")))


@pytest.fixture
def images(tmp_path: Path) -> Images:
    """Return an empty root."""
    return Images(tmp_path)


def test_a_mark_of_use_is_renewed_once_a_day(tmp_path: Path) -> None:
    place = Candidate("", str(tmp_path), "persistent", given=True)
    storage = Storage()
    storage.image = Slot(str(tmp_path), place, str(tmp_path), frozenset())
    housekeeping.mark_used(storage, "")
    mark = tmp_path / layout.USED
    for then, renewed in ((time.time() - DAY / 2, False), (time.time() - 2 * DAY, True), (time.time() + 2 * DAY, True)):
        os.utime(mark, (then, then))
        housekeeping.mark_used(storage, "")
        assert (abs(mark.stat().st_mtime - then) > 1) is renewed
    os.unlink(mark)
    (tmp_path / "plan").touch()
    housekeeping.mark_used(storage, f"{tmp_path}/plan")  # which says so itself
    assert not mark.exists()


def test_the_folder_of_layers_of_an_idle_image_goes_unless_something_is_kept_there(images: Images) -> None:
    for digit, names in (("a", ("trial", "lock", "container-x")), ("b", ("trial", "mine"))):
        folder = images.root / images.add(digit, days=99) / layout.LAYERS
        folder.mkdir()
        for name in names:
            (folder / name).touch()
            os.utime(folder / name, (1, 1))
    images.tidy()
    left = [path.parent.name[6] for path in images.root.glob(f"image-*/{layout.LAYERS}")]
    assert left == ["b"]


def test_after_sixty_days_and_never_this_one(images: Images) -> None:
    for digit, days in (("a", 0.0), ("b", 59), ("c", 61), ("d", 400), ("e", 400)):
        images.add(digit, days)
    assert images.tidy(this=f"image-{'e' * 16}")
    assert images.there() == "abe"
    assert sorted(path.name[6] for path in images.root.iterdir()) == ["a", "b", "e"]  # nothing of the others is left
    assert os.listdir(images.root / f"image-{'e' * 16}" / "config") == ["matplotlib"]


@pytest.mark.parametrize(
    ("allowed", "stay"),
    [
        (Limit(100 * MIB, 1000), "abcde"),
        (Limit(int(4.9 * MIB), 1000), "abcd"),  # without the least recently used it fits
        (Limit(int(3.5 * MIB), 1000), "abc"),
        (Limit(1, 1000), "ab"),  # what was used within 14 days stays, however much it is
        (Limit(100 * MIB, 40), "abc"),  # files, links and folders count
        (Limit(100 * MIB, 0), "ab"),
    ],
)
def test_the_least_recently_used_goes_beyond_the_limit(images: Images, allowed: Limit, stay: str) -> None:
    for digit, days in (("a", 0.0), ("b", 13), ("c", 15), ("d", 20), ("e", 30)):
        images.add(digit, days)
    assert images.tidy(allowed)
    assert images.there() == stay


def test_what_programs_wrote_stays_and_is_counted(images: Images) -> None:
    image = images.root / images.add("c", 100)
    (image / "config" / "ipython").mkdir()
    (image / "config" / "ipython" / "history").write_text("mine")
    (image / "home" / "notes").write_text("mine")
    (image / "data-torch").mkdir()
    (image / "data-torch" / "weights").write_text("mine")
    tree = image / "packages-cpython-311" / "tree" / "venv"
    (tree / "own.db").write_text("mine")
    (tree / "pkg.py").write_text("value = 2")
    (tree / "__pycache__").mkdir()
    (tree / "__pycache__" / "pkg.cpython-311.pyc").write_text("bytecode")
    old = images.now - 100 * DAY
    for path in (tree / "own.db", tree / "pkg.py"):
        os.utime(path, (old, old))
    assert images.tidy()
    left = sorted(str(path.relative_to(image)) for path in image.rglob("*") if path.is_file())
    assert left == [
        "config/ipython/history",
        "data-torch/weights",
        "home/notes",
        "image.txt",
        "packages-cpython-311/records/written",
        "packages-cpython-311/written/venv/own.db",
        "packages-cpython-311/written/venv/pkg.py",
    ]
    assert not (image / "config" / "matplotlib").exists()
    found = usage._of(str(images.root), Limit(1, 1))
    assert (found["images"], found["written_files"], found["complete"]) == (1, 5, True)
    assert "programs wrote" in usage.words(found)
    assert usage.words(usage._of(str(images.root), None)).endswith("nothing goes by itself (SIF_WRITABLE_MAX=off)")
    assert found["warning"]
    assert "keep more than what they may" in found["warning"]["text"]
    (seen,) = contents.inspect_root(str(images.root), policy.KNOWN).images.values()
    assert seen.used <= images.now  # that something was removed is no use
    assert images.tidy()
    assert sorted(str(path.relative_to(image)) for path in image.rglob("*") if path.is_file()) == left


def test_a_killed_removal_takes_nothing_of_the_next_copy(images: Images) -> None:
    folder = images.root / images.add("c", 100) / "packages-cpython-311"
    tree = folder / "tree" / "venv"
    shutil.copytree(folder / "tree", folder / "removing")
    (tree / "own.db").write_text("mine")
    for _ in range(2):
        gone, problem = removal.remove_copies(str(folder), keep_written=True)
        assert (removal.delete(gone), problem) == (True, "")
        (mine,) = folder.rglob("own.db")
        assert mine.read_text() == "mine"
    assert not tree.exists()


def test_a_link_to_a_folder_that_a_program_made_outlives_the_copy(tmp_path: Path) -> None:
    folder, models = tmp_path / "packages-cpython-311", tmp_path / "models"
    for each in (folder / "tree" / "venv" / "pkg", folder / "records", models):
        each.mkdir(parents=True)
    (folder / "tree" / "venv" / "pkg" / "models").symlink_to(models)
    gone, problem = removal.remove_copies(str(folder), keep_written=True)
    assert (removal.delete(gone), problem) == (True, "")
    assert os.readlink(folder / "written" / "venv" / "pkg" / "models") == str(models)
    assert not (folder / "removing").exists()


def test_what_is_leased_or_was_written_lately_stays(images: Images) -> None:
    leased, written = images.root / images.add("a", 400), images.root / images.add("b", 400)
    (written / "compiled-cpython-311" / "numba" / "new").write_text("x")  # by a session that has run for so long
    with open(leased / "packages-cpython-311" / "lease", "w", encoding="utf-8") as lease:
        fcntl.flock(lease, fcntl.LOCK_SH)
        images.age("a", 400)
        assert images.tidy(Limit(0, 0))
        assert images.there() == "ab"
    assert images.tidy(Limit(0, 0))
    assert images.there() == "b"


@pytest.mark.parametrize(
    ("kind", "options", "reach"),
    [
        ("ext4", "rw", True),
        ("tmpfs", "rw", True),
        ("nfs4", "rw,vers=4.2,local_lock=none,addr=10.0.0.1", True),
        ("nfs", "rw,vers=3,nolock,local_lock=all", False),
        ("nfs", "rw,vers=3,local_lock=flock", False),
        ("lustre", "rw,flock,lazystatfs", True),
        ("lustre", "rw,localflock", False),
        ("lustre", "rw,lazystatfs", False),
        ("ceph", "rw", True),
        ("beegfs", "rw,cfgFile=/etc/beegfs/beegfs-client.conf", False),
        ("gpfs", "rw", False),
        ("fuse.sshfs", "rw", False),
    ],
)
def test_whether_locks_reach_all_nodes(kind: str, options: str, reach: bool) -> None:
    assert leases.locks_reach_all_nodes(Mount("/m", kind, "server:/x", options)) == reach


def test_a_round_has_bounds_and_the_next_one_goes_on(images: Images) -> None:
    for digit in "abc":
        images.add(digit, 400, files=80)
    rounds = 1
    while not images.tidy(bound=Bound(60, 120)):
        rounds += 1
        assert rounds < 50
    assert rounds > 2
    assert list(images.root.iterdir()) == []


@pytest.mark.parametrize("bound", [Bound(60, 100), Bound(0, 1 << 20)], ids=["entries", "time"])
def test_counting_that_did_not_end_says_so(images: Images, monkeypatch: pytest.MonkeyPatch, bound: Bound) -> None:
    images.add("a", 0, files=200)
    assert not images.tidy(bound=bound)
    monkeypatch.setattr(usage, "Bound", lambda *_: bound)
    found = usage._of(str(images.root), Limit(MIB, 1000))
    assert not found["complete"]
    assert "at least" in usage.words(found)


def _start(images: Images, this: str, **environ: str) -> None:
    storage = Storage()
    storage.slots[COMPILED] = Slot(str(images.root), Candidate("", "", ""))
    housekeeping.keep_in_bounds(storage, this * 16, environ)


def test_an_image_without_a_plan_in_this_place_says_itself_that_it_is_used(images: Images) -> None:
    """Compiled files go to another place than settings, where those are on a filesystem without exec."""
    image = images.root / images.add("a", 61)
    elsewhere = images.root / "elsewhere" / image.name
    elsewhere.mkdir(parents=True)
    plan = elsewhere / "plan-cpython-311"
    plan.write_text("plan")
    storage = Storage()
    place = Candidate("", "", "")
    storage.slots[COMPILED] = Slot(str(images.root), place, str(image / "compiled-cpython-311"))
    storage.image = Slot(str(elsewhere.parent), place, str(elsewhere))
    for path in image.glob("plan-*"):
        path.unlink()
    housekeeping.mark_used(storage, str(plan))
    assert (os.listdir(elsewhere), (image / "used").exists()) == ([plan.name], True)
    old = images.now - 61 * DAY
    for path in (image / "used", plan):
        os.utime(path, (old, old))
    (elsewhere.parent / seldom.MARKER).touch()
    assert seldom.use(str(elsewhere.parent), f"{image.name}/{plan.name}", str(image / "used"))  # a warm start
    assert images.tidy()
    assert images.there() == "a"
    os.utime(image / "used", (old, old))
    assert images.tidy()
    assert not image.exists()


def test_once_a_day_by_one_process_and_not_at_all_when_switched_off(images: Images) -> None:
    images.add("a", 0)
    images.add("b", 61)
    _start(images, "a", SIF_WRITABLE_MAX="off")
    assert images.there() == "ab"
    _start(images, "a")
    assert images.there() == "ab"  # it was asked for today
    stamp = images.root / housekeeping.STAMP
    os.utime(stamp, (1, 1))
    with open(stamp, encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        _start(images, "a")
        assert images.there() == "ab"
    _start(images, "a")
    assert images.there() == "a"
    assert abs(stamp.stat().st_mtime - time.time()) < 60


def test_a_round_that_did_not_end_is_gone_on_with_soon(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    images.add("a", 0)
    images.add("b", 61, files=200)
    monkeypatch.setattr(housekeeping, "ENTRIES", 30)
    _start(images, "a")
    assert images.there() == "ab"
    again = (images.root / housekeeping.STAMP).stat().st_mtime + DAY - time.time()
    assert abs(again - housekeeping.AGAIN) < 60


@pytest.mark.parametrize(
    ("days", "limit"), [(61, "1GiB"), (30, "1GiB,300"), (30, "1MiB")], ids=["by age", "by number", "by size"]
)
def test_what_cannot_be_counted_in_one_round_goes_in_the_end(
    images: Images, monkeypatch: pytest.MonkeyPatch, days: float, limit: str
) -> None:
    """The limit is 100,000 files, and a round looks at 50,000: an image alone may have more than that."""
    images.add("a", 0, files=100)
    images.add("b", days, files=200)
    images.add("c", days + 1, files=200)
    monkeypatch.setattr(housekeeping, "ENTRIES", 60)
    for _ in range(12):
        stamp = images.root / housekeeping.STAMP
        if stamp.exists():
            assert stamp.stat().st_mtime < time.time() - DAY + 2 * housekeeping.AGAIN or images.there() == "a"
            os.utime(stamp, (1, 1))
        _start(images, "a", SIF_WRITABLE_MAX=limit)
    assert images.there() == "a"
    assert stamp.stat().st_mtime > time.time() - 60
    assert stamp.stat().st_size - len(housekeeping._WORDS) <= housekeeping.DOUBLINGS


@pytest.mark.parametrize(("days", "stays"), [(30, True), (61, False)])
def test_beyond_the_limit_a_session_of_weeks_keeps_its_home_and_its_folders(
    images: Images, days: float, stays: bool
) -> None:
    image = images.root / images.add("b", days)
    (image / "home").mkdir(exist_ok=True)
    assert images.tidy(Limit(1, 1))
    assert images.there() == ""
    assert ((image / "home" / ".ssh").is_symlink(), (image / "config" / "matplotlib").is_dir()) == (stays, stays)
