"""Engines by their signs; the mount table; the image identity."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

import sif_writable
from sif_writable.identity import identity_ingredients
from sif_writable.system import container, mounts, surroundings
from sif_writable.system import image as image_

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
        (
            {"SINGULARITY_CONTAINER": "b", "SINGULARITY_NAME": "x.sif", "SINGULARITY_ENVIRONMENT": "/env"},
            (),
            "",
            "Singularity 3",
            "b",
        ),
        (  # --oci
            {"SINGULARITY_CONTAINER": "/tmp/bundle-1/b", "SINGULARITY_NAME": "docker://alpine"},
            (),
            PLAIN_ROOT,
            "SingularityCE",
            "docker://alpine",
        ),
        ({"SHIFTER_IMAGE": "alpine:3", "SHIFTER_RUNTIME": "1"}, (), PLAIN_ROOT, "Shifter", "alpine:3"),
        ({}, (".lock",), f"{PLAIN_ROOT}2 1 0:9 /x/.lock /.lock rw - ext4 /dev/vda rw\n", "Enroot", ""),
        ({"container": "firejail"}, (".dockerenv",), PLAIN_ROOT, "Firejail", ""),
        ({"container": "systemd-nspawn"}, (), PLAIN_ROOT, "systemd-nspawn", ""),
        ({"CH_RUNNING": "Weird Al"}, (), "", "Charliecloud", ""),
        ({}, ("ch",), PLAIN_ROOT, "Charliecloud", ""),
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


def test_a_sign_that_has_leaked_to_a_host_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sif_writable, "in_container", lambda _: False)
    monkeypatch.setenv("APPTAINER_CONTAINER", "/x.sif")
    engine = container.engine(os.environ)
    assert (engine.name, engine.image) == ("none", "")
    assert "/ is the host's" in engine.signs[0]


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


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the site-packages of an environment without labels, in which numpy is installed."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    site = tmp_path / "lib" / f"python3.{sys.version_info[1]}" / "site-packages"
    _install(site, "numpy-2.0", "numpy/__init__.py,sha256=0,1\n")
    return site


def _install(site: Path, name: str, record: str) -> None:
    (site / f"{name}.dist-info").mkdir(parents=True, exist_ok=True)
    (site / f"{name}.dist-info" / "RECORD").write_text(record, encoding="utf-8")
    os.utime(site / f"{name}.dist-info" / "RECORD", (1000, 1000))
    os.utime(site, (1000, 1000))


def test_identity_is_stable_and_moves_with_its_ingredients(site: Path) -> None:
    before = image_.identity(str(site))
    assert before == image_.identity(str(site))
    assert len(before) == 16
    os.utime(site, (1000, 1000.9))  # an image keeps whole seconds
    assert image_.identity(str(site)) == before
    _install(site, "scipy-1.0", "")
    more = image_.identity(str(site))
    assert more != before
    (site / "numpy" / "written").mkdir(parents=True)  # what programs write beside packages is no other image
    os.utime(site, (1000, 1001))
    assert image_.identity(str(site)) == more
    os.utime(site / "scipy-1.0.dist-info" / "RECORD", (1000, 1001))
    assert image_.identity(str(site)) != more
    names = [name for name, _ in identity_ingredients(str(site))]
    assert names == ["prefix", str(site), "records"]  # no labels.json on a host


def test_a_prefix_whose_name_is_no_text_has_an_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = tmp_path / os.fsdecode(b"env-\xfc")
    monkeypatch.setattr(sys, "prefix", str(prefix))
    site = prefix / "lib" / f"python3.{sys.version_info[1]}" / "site-packages"
    _install(site, "numpy-2.0", "")
    assert len(image_.identity(str(site))) == 16


def test_a_rebuild_with_new_code_under_the_same_version_is_another_image(site: Path) -> None:
    before = image_.identity(str(site))
    _install(site, "numpy-2.0", "numpy/__init__.py,sha256=0,1\nnumpy/new.py,sha256=0,1\n")
    assert image_.identity(str(site)) != before


def test_identity_is_the_images_wherever_this_package_was_loaded_from(site: Path, tmp_path: Path) -> None:
    """A bind on PYTHONPATH says nothing of the image, not even by a stamp that lies beside it."""
    own = image_.identity(str(site))
    bound = tmp_path.parent / "bound"
    bound.mkdir(exist_ok=True)
    for place in (bound, tmp_path / "bound"):
        place.mkdir(exist_ok=True)
        one = image_.identity(str(place), {"stamp": ["abc"]})
        assert one == image_.identity(str(place)) == image_.identity("/elsewhere")
        _install(site, "pandas-2.0", "x")
        assert image_.identity(str(place), {"stamp": ["abc"]}) != one
        shutil.rmtree(site / "pandas-2.0.dist-info")
        os.utime(site, (1000, 1000))
    assert image_.identity(str(site)) == own


@pytest.mark.parametrize(
    ("place", "library"),
    [
        ("local/lib/{}/site-packages", "lib64/{}/site-packages"),  # Fedora, Rocky: dnf's numpy, pip's sif-writable
        ("local/lib/{}/site-packages", "local/lib64/{}/site-packages"),
        ("lib/{}/site-packages", "local/lib64/{}/site-packages"),
        ("elsewhere", "lib64/{}/site-packages"),
        ("lib/python3/dist-packages", "local/lib/{}/dist-packages"),  # Debian: its own package, pip's others
        ("local/lib/{}/dist-packages", "lib/python3/dist-packages"),
    ],
)
def test_packages_count_in_each_directory_of_a_system_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, library: str
) -> None:
    version = f"python3.{sys.version_info[1]}"
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "platlibdir", "lib64" if "64" in library else "lib")
    site, own = tmp_path / library.format(version), str(tmp_path / place.format(version))
    _install(site, "numpy-2.0", "numpy/__init__.py,sha256=0,1\n")
    before = image_.identity(own)
    _install(site, "numpy-2.0", "numpy/__init__.py,sha256=0,1\nnumpy/new.py,sha256=0,1\n")
    assert image_.identity(own) != before


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
    assert surroundings.home_problem(home) == problem
    unset = (
        f"is not set, and {home} of the passwd entry {problem}" if home else "is not set, and this user has no passwd"
    )
    assert surroundings.home_problem(home, is_set=False).startswith(unset)
