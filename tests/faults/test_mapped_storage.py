"""Storage that has come to map owners, and storage that does not count what is free: bindfs, and lies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from sif_writable.storage import choose, marker
from sif_writable.storage.candidates import Candidate
from sif_writable.storage.kinds import KINDS
from tests.conftest import NOT_RUN, or_skip
from tests.lab import apt
from tests.lab.decisions import make_facts

if TYPE_CHECKING:
    from pathlib import Path

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OTHER = 4711


def on_bindfs(tmp_path: Path, options: str, script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script where ./place, which is given, is the directory ./source as bindfs shows it."""
    if os.getuid() != 0:
        pytest.skip(f"{NOT_RUN}only root may mount FUSE filesystems here")
    or_skip(apt.ensure, "bindfs")
    for name in ("place", "source", "cache"):
        (tmp_path / name).mkdir(0o700)
    lines = ["mount --bind /var/cache /var/cache; mount -o remount,bind,ro /var/cache"]
    lines += [f"cd {tmp_path}", "mount -t tmpfs -o mode=0700 none source", f"bindfs {options} source place"]
    own = {"PATH": os.environ["PATH"], "PYTHONPATH": ROOT, "HOME": "/no/such/home"}
    places = {"SIF_WRITABLE_DIR": f"{tmp_path}/place", "XDG_CACHE_HOME": f"{tmp_path}/cache"}
    script = "; ".join(["set -e", *lines, f"tool='{sys.executable} -m sif_writable'", script, "umount place"])
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
        env={**own, **places, "SIF_WRITABLE": "on"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_storage_that_was_good_and_is_mapped_now(tmp_path: Path) -> None:
    """The folder is there and is ours; what is made in it now is not: each kind goes to the next place."""
    marked = "mkdir -m 700 source/sif-writable; echo exec > source/sif-writable/.sif-writable"
    done = on_bindfs(tmp_path, f"--create-for-user={OTHER}", f"{marked}; $tool status --json --no-gpu")
    folders = {entry["kind"]: entry["folder"] for entry in json.loads(done.stdout)["storage"]}
    assert {folders[kind].startswith(f"{tmp_path}/cache/sif-writable/") for kind in KINDS} == {True}


class _Lying:
    """What statvfs says of a filesystem that does not count what is free."""

    def __init__(self, true: os.statvfs_result, **lies: int) -> None:
        self.true, self.lies = true, lies

    def __getattr__(self, name: str) -> int:
        value: int = self.lies.get(name, getattr(self.true, name))
        return value


@pytest.mark.parametrize(
    "lies",
    [{"f_files": 1000000, "f_ffree": 0, "f_favail": 0}, {"f_blocks": 0, "f_bfree": 0, "f_bavail": 0}],
    ids=["inodes", "bytes"],
)
def test_nothing_free_is_believed_only_where_no_file_can_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lies: dict[str, int]
) -> None:
    true = os.statvfs
    monkeypatch.setattr(os, "statvfs", lambda path: _Lying(true(path), **lies))
    place = Candidate("x", str(tmp_path), "node")
    facts = make_facts(uid=os.geteuid(), user=os.geteuid())
    for _ in range(2):
        assert choose.choose_storage([place], facts, {}).slots["data"].root == f"{tmp_path}/sif-writable"
    assert marker.read_marker(f"{tmp_path}/sif-writable") == "exec uncounted"
    before = os.stat(f"{tmp_path}/sif-writable").st_mtime_ns
    choose.choose_storage([place], facts, {})
    assert os.stat(f"{tmp_path}/sif-writable").st_mtime_ns == before, "each start makes a file"


def test_a_filesystem_that_is_really_full_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true = os.statvfs
    monkeypatch.setattr(os, "statvfs", lambda path: _Lying(true(path), f_files=1000, f_favail=0))
    real = os.open

    def full(path: str, flags: int, *rest: int, **more: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(28, "No space left on device", path)
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", full)
    storage = choose.choose_storage(
        [Candidate("x", str(tmp_path), "node")], make_facts(uid=os.geteuid(), user=os.geteuid()), {}
    )
    assert "data" not in storage.slots
    assert [problem for place, problem in storage.refused if place.label == "x"] == ["has 0 inodes free, 64 are needed"]
    assert os.listdir(tmp_path) == []
