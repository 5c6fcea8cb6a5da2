"""What kubernetes-pod.yaml asks for, without a cluster: a read-only root, no name, and volumes as kubelet does them."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.lab.store import ORDINARY_UID

if TYPE_CHECKING:
    from tests.lab.squashfs_root import SquashfsRoot


@pytest.mark.parametrize("mode", [0o777, 0o2777, 0o2775], ids=["emptyDir", "emptyDir, fsGroup", "claim, fsGroup"])
def test_a_volume_at_the_mount_point_is_used(squashfs_root: SquashfsRoot, mode: int) -> None:
    volume = os.path.join(squashfs_root.places.folder, "volume")
    os.mkdir(volume)
    os.chown(volume, 0, ORDINARY_UID if mode & 0o2000 else 0)
    os.chmod(volume, mode)
    done = squashfs_root.run(
        ["/opt/venv/bin/sif-writable", "status", "--json", "--no-gpu"],
        home="/",
        passwd=False,
        env={"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
        binds=[f"{volume}:/sif-writable"],
        writable=("/tmp",),
    )
    assert (done.returncode, done.stderr) == (0, "")
    model = json.loads(done.stdout)
    assert (model["hook"]["active"], model["root"]["writable"]) == (True, False)
    own = f"/sif-writable/sif-writable-{ORDINARY_UID}"
    assert {entry["kind"]: entry["folder"] for entry in model["storage"]}["data"] == f"{own}/data"
    assert model["home"]["value"].startswith(f"{own}/image-")
    assert [note for note in model["notes"] if "SIF_WRITABLE" in note] == []
