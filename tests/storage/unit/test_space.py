"""When room runs short, what of, and what helps at which kind of place."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sif_writable.storage.shortage import BYTES, INODES, QUOTA, complaint, lacking, remedy, short_of
from sif_writable.storage.space import (
    DISK,
    HOME,
    MEMORY,
    OVERLAY,
    SESSION,
    Space,
    _kind_of_root,
    overlay_is_read_only,
    room_at,
)
from sif_writable.system.mounts import Mount
from tests.lab.store import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB, GIB = 1 << 20, 1 << 30


def space(free: int, total: int, free_inodes: int = 0, inodes: int = 0, kind: str = DISK) -> Space:
    """Return room as it may be seen."""
    return Space("/place", kind, "ext4", total, free, inodes, free_inodes)


@pytest.mark.parametrize(
    ("room", "downloads", "short"),
    [
        (space(300 * MIB, GIB), True, []),
        (space(255 * MIB, GIB), True, [BYTES]),
        (space(60 * MIB, 64 * MIB), True, [BYTES]),  # no download fits in
        (space(60 * MIB, 64 * MIB), False, []),  # and who made it of that size knows
        (space(31 * MIB, 64 * MIB), False, [BYTES]),  # before storage refuses it, at 16 MiB
        (space(127 * MIB, 512 * MIB), False, [BYTES]),
        (space(200 * MIB, 512 * MIB), False, []),
        (space(255 * MIB, 100 * GIB), False, [BYTES]),
        (space(300 * MIB, 100 * GIB), False, []),
        (space(GIB, GIB, 999, 10**6), True, [INODES]),
        (space(GIB, GIB, 999, 10**6), False, [INODES]),
        (space(GIB, GIB, 1000, 10**6), True, []),
        (space(GIB, GIB, 500, 1000), False, []),
        (space(GIB, GIB, 249, 1000), False, [INODES]),
        (space(GIB, GIB, 127, 192), False, [INODES]),
        (space(0, 64 * MIB, 0, 192), True, [BYTES, INODES]),
        (space(GIB, GIB, 0, 0), True, []),  # btrfs counts no inodes
    ],
)
def test_what_runs_short(room: Space, downloads: bool, short: list[str]) -> None:
    assert lacking(room, downloads=downloads) == short


@pytest.mark.parametrize(
    ("room", "number", "lack"),
    [
        (space(0, GIB, 10, 100), errno.ENOSPC, BYTES),
        (space(GIB // 2, GIB, 0, 100), errno.ENOSPC, INODES),
        (space(GIB // 2, GIB, 20, 100), errno.ENOSPC, INODES),  # the rest of what was begun is gone again
        (space(100, GIB, 0, 100), errno.ENOSPC, BYTES),  # XFS makes inodes as there is space
        (space(0, GIB), errno.ENOSPC, BYTES),
        (space(GIB, GIB, 100, 100), errno.EDQUOT, QUOTA),
    ],
)
def test_what_an_error_has_run_short_of(room: Space, number: int, lack: str) -> None:
    assert short_of(room, number) == lack


@pytest.mark.parametrize(
    ("kind", "lack", "words"),
    [
        (OVERLAY, BYTES, ["apptainer overlay create --size 240 new.img", "e2fsck -f o.img and resize2fs o.img 240M"]),
        (OVERLAY, INODES, ["resize2fs o.img 240M", "mkfs.ext3 -N 10000 -d D"]),
        (SESSION, BYTES, ["--bind DIR:/sif-writable", "--overlay o.img"]),
        (MEMORY, INODES, ["--bind DIR:/sif-writable"]),
        (HOME, BYTES, ["SIF_WRITABLE_DIR=$SCRATCH/", "cache prune --all-images --max-size 1GiB --yes"]),
        (HOME, QUOTA, ["SIF_WRITABLE_DIR=$SCRATCH/"]),
        (DISK, BYTES, ["cache prune", "SIF_WRITABLE_DIR"]),
        (DISK, INODES, ["small files", "SIF_WRITABLE_DIR"]),
    ],
)
def test_each_kind_of_place_has_its_remedy(kind: str, lack: str, words: list[str]) -> None:
    advice = remedy(space(0, 120 * MIB - 5, 0, 192, kind), lack)
    assert [word for word in words if word not in advice] == []


@pytest.fixture
def on_disk() -> Iterator[Path]:
    """Make a folder that lies in memory on no machine: /tmp does on some, since Debian 13."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        yield Path(folder)


def test_kinds_of_real_places(on_disk: Path) -> None:
    home = on_disk / "home"
    (home / "below").mkdir(parents=True)
    environ = {"HOME": str(home)}
    seen = room_at(str(home / "below"), environ)
    assert seen is not None
    assert (seen.kind, seen.free > 0, seen.total >= seen.free) == (HOME, True, True)
    elsewhere = room_at(str(on_disk), environ)
    assert elsewhere is not None
    assert elsewhere.kind == DISK
    memory = room_at("/dev/shm", environ)
    assert memory is not None
    assert memory.kind == MEMORY
    assert room_at(str(on_disk / "nothing"), environ) is None


def test_a_read_only_overlay_is_seen_in_the_mount_of_the_root() -> None:
    session = "/var/lib/apptainer/mnt/session"
    lower = f"lowerdir={session}/overlay-lowerdir:{session}/rootfs"
    shared = f"ro,lowerdir={session}/overlay-images/0/upper:{session}/rootfs"
    assert overlay_is_read_only([Mount("/", "overlay", "overlay", shared)])
    assert not overlay_is_read_only([Mount("/", "overlay", "overlay", f"ro,{lower}")])
    writable = f"rw,{lower},upperdir={session}/overlay-images/0/upper,workdir={session}/overlay-images/0/work"
    assert not overlay_is_read_only([Mount("/", "overlay", "overlay", writable)])
    assert not overlay_is_read_only([Mount("/", "ext4", "/dev/sda", "rw")])


def test_a_complaint_names_path_cause_and_remedy(tmp_path: Path) -> None:
    quota = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
    assert str(complaint(quota, "/x/y", str(tmp_path))).startswith("/x/y is over this user's disk quota. Remedy: ")
    assert str(complaint(OSError(errno.EROFS, "x"), "/x/y", str(tmp_path))) == "/x/y is on a read-only filesystem"


def on_tmpfs(tmp_path: Path, options: str, script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script with a named place on a tmpfs of its own, $D."""
    (tmp_path / "place").mkdir()
    (tmp_path / "home").mkdir()
    mounts = f"D={tmp_path}/place; mount -t tmpfs none /var/cache; mount -t tmpfs -o {options},mode=0700 none $D"
    script = f"set -e; {mounts}; {script}"
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    own = {"PATH": os.environ["PATH"], "PYTHONPATH": REPOSITORY, "HOME": f"{tmp_path}/home"}
    done = subprocess.run(
        ["unshare", *user, "--mount", "--propagation", "private", "sh", "-c", script],
        env={**own, "SIF_WRITABLE": "on", "SIF_WRITABLE_DIR": f"{tmp_path}/place"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize(
    ("size", "full", "words"),
    [
        ("size=24m", "", ["WARN space: storage:", "of 24.0 MiB free", "--bind DIR:/sif-writable"]),
        ("size=300m,nr_inodes=600", "", ["of 600 inodes free"]),
        ("size=300m,nr_inodes=60000", "head -c 100000000 /dev/zero > $D/x", ["of 300 MiB free"]),
        ("size=300m,nr_inodes=60000", "", ["PASS space: enough bytes and inodes are free"]),
    ],
    ids=["small", "few inodes", "nearly full", "enough"],
)
def test_doctor_and_status_warn_before_storage_is_full(tmp_path: Path, size: str, full: str, words: list[str]) -> None:
    both = "from sif_writable.commands.cli import main; main(['doctor']); main(['status', '--no-gpu'])"
    done = on_tmpfs(tmp_path, size, f'{full or ":"}; {sys.executable} -c "{both}"')
    folded = " ".join(done.stdout.split())
    assert [word for word in words if word not in folded] == []
    assert ("nearly full:" in folded) == ("PASS" not in words[0])


def test_a_named_place_with_room_for_settings_and_none_for_downloads(tmp_path: Path) -> None:
    done = on_tmpfs(tmp_path, "size=64m", f"{sys.executable} -m sif_writable status --no-gpu")
    words = "MiB free, 256 MiB are needed (for data files); using /"
    assert re.search(
        rf"{tmp_path}/place has 6\d\.\d {re.escape(words)}\S+/sif-writable\S* for those. Remedy: ", done.stderr
    )
    assert f"{tmp_path}/place/sif-writable/image-" in done.stdout


def test_doctor_writes_since_numbers_do_not_show_a_quota(on_disk: Path) -> None:
    doctor = f"{sys.executable} -m sif_writable doctor"
    # No file may grow: as with a quota that is used up, there is room, and nothing can be written.
    done = on_tmpfs(on_disk, "size=300m", f"{doctor} >/dev/null || true; ulimit -f 0; {doctor} | cat || true")
    folded = " ".join(done.stdout.split())
    assert f"WARN space: storage: {on_disk}/place/sif-writable/image-" in folded
    assert "fails with: File too large remedy: bind a directory of a disk: --bind DIR:/sif-writable" in folded
    assert f"WARN space: HOME: {on_disk}/home fails with: File too large remedy: SIF_WRITABLE_DIR=$SCRATCH/" in folded


def test_what_makes_a_root_writable_is_known_by_its_numbers(tmp_path: Path) -> None:
    home = os.statvfs(tmp_path)
    size, inodes, device = home.f_blocks * home.f_frsize, home.f_files, os.stat(tmp_path).st_dev
    for total, other, kind in ((64 << 20, device, SESSION), (size, -1, DISK), (size + 1, -1, OVERLAY)):
        assert _kind_of_root(total, inodes, other, str(tmp_path)) == kind
    assert _kind_of_root(size + 1, inodes, device, "/no/such/home") == OVERLAY
