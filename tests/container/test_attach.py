"""The files for images that nobody can rebuild, run with what stands for the engines."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.lab.attached import HOOK, POINT
from tests.lab.store import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

CONTAINER = os.path.join(REPOSITORY, "container")
ATTACHED = "~/sif-writable-attached"
RECORDING = """#!/bin/sh
if [ "$1" = image ]; then printf 'A=1\\n%s\\n' "$IMAGE_SAYS"; exit; fi
env | grep ^PYTHONPATH= || :
printf '%s\\n' "$@"
"""


def run(name: str, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a file in container/."""
    environ = {"PATH": os.environ["PATH"], **environ}
    command = [os.path.join(CONTAINER, name), *words]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


@pytest.fixture
def enroot(tmp_path: Path) -> dict[str, str]:
    """Return the variables that Enroot gives to its hooks, with a folder that is attached."""
    (tmp_path / "root" / "etc").mkdir(parents=True)
    (tmp_path / "attached" / "current").mkdir(parents=True)
    for name in ("environ", "mounts"):
        (tmp_path / name).write_text("BEFORE=1\n", encoding="utf-8")
    return {
        "ENROOT_ROOTFS": f"{tmp_path}/root",
        "ENROOT_ENVIRON": f"{tmp_path}/environ",
        "ENROOT_MOUNTS": f"{tmp_path}/mounts",
        "SIF_WRITABLE_ATTACHED": f"{tmp_path}/attached",
    }


@pytest.mark.parametrize(
    ("image", "hooks", "path"),
    [
        ("", "", HOOK),
        ("A=1\nPYTHONPATH=/opt/app:/b c\n", "", f"{HOOK}:/opt/app:/b c"),
        ("PYTHONPATH=/opt/app\n", "PYTHONPATH=/hook\n", f"{HOOK}:/hook"),
        ("PYTHONPATH=\nMY_PYTHONPATH=/no\n", f"PYTHONPATH={HOOK}\n", HOOK),
    ],
)
def test_the_hook_of_enroot(tmp_path: Path, enroot: dict[str, str], image: str, hooks: str, path: str) -> None:
    (tmp_path / "root" / "etc" / "environment").write_text(image, encoding="utf-8")
    with open(tmp_path / "environ", "a", encoding="utf-8") as file:
        file.write(hooks)
    done = run("enroot-hook.sh", **enroot)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "environ").read_text(encoding="utf-8") == f"BEFORE=1\n{hooks}PYTHONPATH={path}\n"
    mount = f"{tmp_path}/attached/current {POINT} x-create=dir,bind,ro,nosuid,nodev,private"
    assert (tmp_path / "mounts").read_text(encoding="utf-8") == f"BEFORE=1\n{mount}\n"


@pytest.mark.parametrize("off", [{"SIF_WRITABLE": "off"}, {"SIF_WRITABLE_ATTACHED": "/nowhere"}])
def test_the_hook_of_enroot_does_nothing_where_it_shall_not(
    tmp_path: Path, enroot: dict[str, str], off: dict[str, str]
) -> None:
    done = run("enroot-hook.sh", **{**enroot, **off})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert {(tmp_path / name).read_text(encoding="utf-8") for name in ("environ", "mounts")} == {"BEFORE=1\n"}


def stand_in(folder: Path, name: str) -> str:
    """Make a program that says how it was called; return a PATH with it."""
    program = folder / name
    program.write_text(RECORDING, encoding="utf-8")
    program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_pyxis_is_called_with_the_mount_and_the_variable(tmp_path: Path) -> None:
    path = stand_in(tmp_path, "srun")
    done = run("attach-pyxis.sh", "python", "a b.py", PATH=path, HOME="/home/me", IMAGE="x#y/z:1")
    assert done.stdout.splitlines() == [
        f"PYTHONPATH={HOOK}",
        "--container-image=x#y/z:1",
        f"--container-mounts=/home/me/sif-writable-attached/current:{POINT}",
        "--container-env=PYTHONPATH",
        "python",
        "a b.py",
    ]
    assert "IMAGE: names the image" in run("attach-pyxis.sh", PATH=path, HOME="/home/me").stderr


@pytest.mark.parametrize(("says", "value"), [("B=2", HOOK), ("PYTHONPATH=/opt/app:/b c", f"{HOOK}:/opt/app:/b c")])
def test_docker_gets_the_images_own_path_behind_ours(tmp_path: Path, says: str, value: str) -> None:
    path = stand_in(tmp_path, "docker")
    words = ("image", "python", "a b.py")
    missing = run("attach-docker.sh", *words, PATH=path, HOME=str(tmp_path))  # Docker makes an empty folder there
    assert (missing.returncode, missing.stdout) == (2, "")
    assert f'{ATTACHED}/current is not there. Remedy: sif-writable attach --dir "' in missing.stderr.replace(
        str(tmp_path), "~"
    )
    (tmp_path / "sif-writable-attached" / "current").mkdir(parents=True)
    done = run("attach-docker.sh", *words, PATH=path, HOME=str(tmp_path), IMAGE_SAYS=says)
    assert (done.returncode, done.stderr) == (0, "")
    assert "names the image to run" in run("attach-docker.sh", PATH=path, HOME=str(tmp_path)).stderr
    assert done.stdout.splitlines() == [
        *("run", "--rm", "--read-only", "--tmpfs", "/tmp:exec"),
        *("--volume", f"{tmp_path}/sif-writable-attached/current:{POINT}:ro"),
        *("--env", f"PYTHONPATH={value}", "image", "python", "a b.py"),
    ]
