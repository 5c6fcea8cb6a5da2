"""What is mounted at the bind target: somebody's directory, or only a piece of the image."""

from __future__ import annotations

import os
import sys

import pytest

from sif_writable import TARGET, mounted

UNDERLAY = [
    "260 210 0:45 /underlay / ro,nosuid - tmpfs tmpfs rw",
    "262 260 0:46 /usr /usr ro,nosuid - fuse.squashfuse_ll squashfuse_ll ro",
    "263 260 0:46 /sif-writable /sif-writable ro,nosuid - fuse.squashfuse_ll squashfuse_ll ro",
]
"""Apptainer's underlay: a mount for each directory of the image."""
SANDBOX = [
    "260 210 0:45 /underlay / ro,nosuid - tmpfs tmpfs rw",
    "262 260 8:2 /images/x/usr /usr ro,nosuid - xfs /dev/sda2 rw",
    "263 260 8:2 /images/x/sif-writable /sif-writable ro,nosuid - xfs /dev/sda2 rw",
]
BOUND = "264 263 8:2 /me/sif-writable /sif-writable rw,nosuid - xfs /dev/sda2 rw"
ROWS: dict[str, tuple[bool, list[str], tuple[int, int, int]]] = {
    "nothing": (False, UNDERLAY[:1], (45, 45, 45)),
    "another filesystem": (True, [], (45, 46, 47)),
    "the image's own directory": (False, UNDERLAY, (45, 46, 46)),
    "that of a sandbox": (False, SANDBOX, (45, 82, 82)),
    "a bind over it": (True, [*SANDBOX, BOUND], (45, 82, 82)),
    "a bind over it, of another name": (True, [*SANDBOX, BOUND.replace("/me/sif-writable", "/me/x")], (45, 82, 82)),
    "a bind beside a sandbox": (True, [SANDBOX[0].replace("0:45 /underlay", "8:2 /images/x"), BOUND], (82, 82, 82)),
}
"""What the table says, and on which filesystems the root, the interpreter and the target are."""


@pytest.mark.parametrize("name", ROWS)
def test_what_is_at_the_bind_target(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    expected, table, devices = ROWS[name]
    of = dict(zip(("/", sys.base_prefix, TARGET), devices))
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_: True)
        patch.setattr(os, "stat", lambda path: os.stat_result((0o40755, 2, of[path], 2, 0, 0, 0, 0, 0, 0)))
        patch.setattr(mounted, "_mount_table", lambda: "\n".join(table).encode())
        found = mounted.mounted_at(TARGET)
    assert found is expected
