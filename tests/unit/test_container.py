"""Engines by their signs; the mount table; the image identity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sif_writable import facts
from sif_writable.facts import container, mounts

if TYPE_CHECKING:
    from pathlib import Path

SESSION_ROOT = (
    "1 0 0:40 / / rw,relatime - overlay overlay ro,lowerdir=/var/lib/apptainer/mnt/session/overlay-lowerdir\n"
)
PLAIN_ROOT = "1 0 0:40 / / rw,relatime - overlay overlay rw,lowerdir=/var/lib/docker/a,upperdir=/b,workdir=/c\n"


@pytest.mark.parametrize(
    ("environ", "files", "root_mount", "name", "image"),
    [
        ({"APPTAINER_CONTAINER": "/d/x.sif", "SINGULARITY_CONTAINER": "/d/x.sif"}, (), "", "Apptainer", "/d/x.sif"),
        ({"SINGULARITY_CONTAINER": "/d/x.sif", "SINGULARITY_COMMAND": "exec"}, (), "", "SingularityCE", "/d/x.sif"),
        ({"SINGULARITY_CONTAINER": "/d/x.sif", "SINGULARITY_NAME": "x.sif"}, (), "", "Singularity 3", "/d/x.sif"),
        ({"SINGULARITY_CONTAINER": "x.img", "SINGULARITY_NAME": "x.img"}, (), "", "Singularity 2", "x.img"),
        ({"CH_RUNNING": "Weird Al"}, (), "", "Charliecloud", ""),
        ({}, (".singularity.d",), SESSION_ROOT, "Apptainer or Singularity", ""),
        ({}, (".singularity.d", ".dockerenv"), PLAIN_ROOT, "Docker", ""),
        ({}, (".singularity.d",), PLAIN_ROOT, "unknown", ""),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, (".dockerenv",), PLAIN_ROOT, "Kubernetes", ""),
        ({}, ("run/.containerenv",), PLAIN_ROOT, "Podman", ""),
        ({"container": "podman"}, (), PLAIN_ROOT, "Podman", ""),
        ({"container": "lxc"}, (), PLAIN_ROOT, "none", ""),
        ({"container": "oci"}, (), PLAIN_ROOT, "unknown", ""),
        ({}, (), PLAIN_ROOT, "none", ""),
    ],
)
def test_engine(
    tmp_path: Path, environ: dict[str, str], files: tuple[str, ...], root_mount: str, name: str, image: str
) -> None:
    for file in (*files, "proc/self/mountinfo"):
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(root_mount)
    engine = container.engine(environ, root=str(tmp_path))
    assert (engine.name, engine.image) == (name, image)
    assert bool(engine.signs) is (name != "none")


def test_mount_table(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "1 0 0:1 / / rw - overlay overlay ro,lowerdir=/x\n"
        "2 1 0:2 / /data\\040set rw,nosuid shared:7 master:1 - nfs4 host:/export rw,vers=4\n"
        "3 1 0:3 / /data\\040set ro - tmpfs none rw\n"
        "broken line\n"
    )
    found = mounts.mounts(str(table))
    assert [mount.type for mount in found] == ["overlay", "nfs4", "tmpfs"]
    top = mounts.mount_of("/data set/x", found)
    assert top is not None
    assert (top.type, top.point) == ("tmpfs", "/data set")  # a later mount hides an earlier one
    root = mounts.mount_of("/data settlement", found)
    assert root is not None
    assert root.point == "/"
    assert mounts.mounts(str(tmp_path / "none")) == []


def test_identity_is_stable_and_moves_with_its_ingredients(tmp_path: Path) -> None:
    (tmp_path / "numpy-2.0.dist-info").mkdir()
    before = facts.identity(str(tmp_path))
    assert before == facts.identity(str(tmp_path))
    assert len(before) == 16
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "written_at_run_time").mkdir()
    assert facts.identity(str(tmp_path)) == before
    (tmp_path / "scipy-1.0.dist-info").mkdir()
    assert facts.identity(str(tmp_path)) != before
    names = [name for name, _ in facts.identity_ingredients(str(tmp_path))]
    assert names == ["prefix", "distributions", "installed"]  # no labels.json on a host


@pytest.mark.parametrize(
    ("home", "problem"),
    [
        ("", "is empty"),
        ("/", "is the root of the image"),
        ("x/y", "is not an absolute path"),
        ("/nowhere/at/all", "names a directory that does not exist"),
        ("/etc/passwd", "is not a directory"),
    ],
)
def test_home_problem(home: str, problem: str) -> None:
    assert facts.home_problem(home) == problem
    unset = (
        f"is not set, and {home} of the passwd entry {problem}" if home else "is not set, and this user has no passwd"
    )
    assert facts.home_problem(home, is_set=False).startswith(unset)
