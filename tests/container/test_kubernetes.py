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


@pytest.mark.parametrize("mode", [0o777, 0o2777], ids=["emptyDir", "emptyDir, fsGroup"])
def test_an_init_container_attaches_what_the_other_image_lacks(squashfs_root: SquashfsRoot, mode: int) -> None:
    """As attach-pod.yaml has it, in directories of this image, whose /usr/bin/python3 knows nothing of us."""
    volume = os.path.join(squashfs_root.places.folder, "volume")
    os.mkdir(volume)
    os.chown(volume, 0, ORDINARY_UID if mode & 0o2000 else 0)
    os.chmod(volume, mode)
    env = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    done = squashfs_root.run(
        ["/opt/venv/bin/sif-writable", "attach", "--dir", "/mnt/sif-writable"],
        home="/",
        passwd=False,
        env=env,
        binds=[f"{volume}:/mnt"],
        writable=("/tmp",),
    )
    assert done.returncode == 0, done
    hook = "/srv/sif-writable/current/sif_writable/hook"
    done = squashfs_root.run(
        ["/usr/bin/python3", "-m", "sif_writable", "status", "--json", "--no-gpu"],
        home="/",
        passwd=False,
        env={**env, "PYTHONPATH": hook},
        binds=[f"{volume}:/srv:ro"],
        writable=("/tmp",),
    )
    assert (done.returncode, done.stderr) == (0, "")
    model = json.loads(done.stdout)
    assert (model["hook"]["active"], model["root"]["prefix"], model["root"]["writable"]) == (True, "/usr", False)
    version = os.path.realpath(f"{volume}/sif-writable/current")[len(volume) :]
    assert model["hook"]["how"] == f"/srv{version}/sif_writable/hook/sitecustomize.py"
    assert [name for name in os.listdir(volume + version) if name in ("platformdirs", "pynvml.py", "needs-3.11")]
