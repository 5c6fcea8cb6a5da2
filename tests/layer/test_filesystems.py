"""Generations on other filesystems than a disk's: without links, without modes, of a server in user space."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.conftest import NOT_RUN, or_skip
from tests.lab import apt, store
from tests.layer.node import publish_here

UNSHARED = ["unshare", "--mount", "--propagation", "private"]
MOUNTS = {
    "tmpfs": "mount -t tmpfs none storage",
    "no links, modes, or times": "mount -t tmpfs none storage; export REFUSED=link,fchmod,utime",
    "overlay": "mount -t tmpfs none up; mkdir up/u up/w up/l; "
    "mount -t overlay -o lowerdir=up/l,upperdir=up/u,workdir=up/w none storage",
    "bindfs that keeps no modes": "mount -t tmpfs none up; bindfs --chmod-ignore --perms=u=rwX:go= up storage",
}


@pytest.mark.parametrize("kind", MOUNTS)
def test_generations_on(kind: str, tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip(f"{NOT_RUN}only root may mount these filesystems here")
    if kind.startswith("bindfs"):
        or_skip(apt.ensure, "bindfs")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as plain:
        expected = publish_here(Path(plain))
    for name in ("storage", "up"):
        (tmp_path / name).mkdir(0o700)
    program = (
        "import json, sys; from pathlib import Path; from tests.layer.node import publish_here\n"
        "print(json.dumps(publish_here(Path(sys.argv[1]))))"
    )
    script = f'set -e; cd {tmp_path}; {MOUNTS[kind]}; "$@"; umount storage'
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
            "sh",
            sys.executable,
            "-c",
            program,
            tmp_path,
        ],
        env={"PATH": f"{os.environ['PATH']}:{apt.SYSTEM_PATH}", "PYTHONPATH": store.REPOSITORY},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == expected
    assert expected["numbers"] == [1, 2, 3, 4]
    assert (expected["left"], expected["aside"]) == ([], ["data-of-theirs", "index"])
