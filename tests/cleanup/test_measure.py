"""What lies in storage is counted, and is this user's to remove, whatever filesystem it lies on."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.conftest import NOT_RUN
from tests.lab.store import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

_PROGRAM = """
import json, os, subprocess
from sif_writable.cleanup.measure import measure
from sif_writable.report.status import _size
assert os.stat("merged").st_dev != os.stat("merged/data/mine").st_dev
def look():
    found = measure("merged/data", [], None, None)
    measured.append([found.files, found.size > 0, found.problem, _size("merged/data", None)[0] == found.size])
measured = []
look()
subprocess.run("mount -t tmpfs none merged/data/folder".split(), check=True)
look()
print(json.dumps(measured))
"""


def test_storage_in_an_overlay_of_two_filesystems(tmp_path: Path) -> None:
    """There a file has another device number than its directory (the kernel's overlayfs.rst, "Inode properties")."""
    steps = [
        f"cd {tmp_path}; mkdir lower upper merged",
        "mount -t tmpfs none lower; mkdir -p lower/data/folder; echo x > lower/data/seed",
        "mount -t tmpfs none upper; mkdir upper/upper upper/work",
        "mount -t overlay -o userxattr,lowerdir=lower,upperdir=upper/upper,workdir=upper/work none merged",
        'echo x > merged/data/mine; exec "$0" -c "$1"',
    ]
    script = "; ".join(["set -e", *steps])
    words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, sys.executable, _PROGRAM]
    done = subprocess.run(words, env={"PYTHONPATH": REPOSITORY}, capture_output=True, text=True, check=False)
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"{NOT_RUN}overlays cannot be mounted here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[2, True, "", True], [2, True, "has something mounted in it", True]]
