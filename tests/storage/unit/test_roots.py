"""Storage roots that are damaged or odd, marks that are none, and leases of which nothing is known."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

import pytest

from sif_writable import lease
from sif_writable.seldom import MARKER
from sif_writable.storage import leases, marker, roots

if TYPE_CHECKING:
    from pathlib import Path

UID = os.geteuid()


@pytest.mark.parametrize("kind", ["nothing", "a folder", "a pipe", "a link", "an old file"])
def test_what_is_no_mark_of_ours_says_nothing(tmp_path: Path, kind: str) -> None:
    path = tmp_path / MARKER
    if kind == "a folder":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a link":
        (tmp_path / "other").write_text("exec\n")
        path.symlink_to("other")
    elif kind == "an old file":
        path.write_bytes(b"exec of something\xff\n")
    assert marker.read_marker(str(tmp_path)) == marker.Marker()
    assert marker.read_marker(str(tmp_path), ours=True) == marker.Marker()


def test_a_root_that_a_filesystem_gives_to_others_is_not_used(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir(0o700)
    problem, _ = roots._try_root(str(root), uid=UID + 1, foreign_mode=0o022, made=True)
    assert str(UID) in problem
    root.chmod(0o770)
    opened, _ = roots._try_root(str(root), uid=UID, foreign_mode=0o022, made=True)
    assert "0770" in opened or "770" in opened
    root.rmdir()
    gone, _ = roots._try_root(str(root), uid=UID, foreign_mode=0o022, made=True)
    assert "does not exist" in gone


def test_who_uses_a_folder_of_copies(tmp_path: Path) -> None:
    assert leases.in_use(str(tmp_path)) is None  # who makes a copy takes its lease first
    path = tmp_path / lease.NAME
    path.symlink_to("elsewhere")
    assert leases.in_use(str(tmp_path)) is None  # removing it will say why it fails
    path.unlink()
    with path.open("w") as file:
        assert leases.in_use(str(tmp_path)) is None
        assert "maybe on another node" in leases._used_by(file.fileno())
        fcntl.flock(file, fcntl.LOCK_SH)
        problem = leases.in_use(str(tmp_path))
        assert problem is not None
        assert problem.code == leases.IN_USE
