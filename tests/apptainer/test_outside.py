"""Paths of the image that lie in no package: the hook makes them writable by itself, where namespaces allow it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess

    from tests.lab.apptainer_root import Apptainer
    from tests.lab.squashfs_root import SquashfsRoot

AT_IMPORT = """import os, sys
os.makedirs(sys.prefix + '/share/outside', exist_ok=True)
with open(sys.prefix + '/share/outside/db', 'a') as file:
    file.write('line\\n')
"""
AT_USE = """import os
def use():
    os.makedirs('/var/log/outsider', exist_ok=True)
    with open('/var/log/outsider/log', 'a') as file:
        file.write('line\\n')
"""
LINES = "import outside, sys; print(len(open(sys.prefix + '/share/outside/db').readlines()))"
USE = "import outsider; outsider.use(); print(len(open('/var/log/outsider/log').readlines()))"


def packages(folder: str) -> str:
    """Make two packages that write outside their own directories, for a read-only bind at /data."""
    for name, text in (("outside", AT_IMPORT), ("outsider", AT_USE)):
        os.makedirs(os.path.join(folder, name), exist_ok=True)
        with open(os.path.join(folder, name, "__init__.py"), "w", encoding="utf-8") as file:
            file.write(text)
    return folder


def run(apptainer: Apptainer, sif: str, folder: str, program: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a program in the image, with the packages read-only at /data."""
    options = ["--bind", f"{apptainer.inside(folder)}:/data:ro"]
    return apptainer.exec(sif, ["python", "-c", program], options=options, env={"PYTHONPATH": "/data", **env})


def test_a_write_at_import_works_at_the_first_run_and_is_there_at_the_next(apptainer: Apptainer, sif: str) -> None:
    folder = packages(apptainer.places.new_folder("packages"))
    for expected in ("1\n", "2\n"):
        done = run(apptainer, sif, folder, LINES)
        assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")


def test_a_write_at_first_use_works_at_the_second_run(apptainer: Apptainer, sif: str) -> None:
    folder = packages(apptainer.places.new_folder("packages"))
    first = run(apptainer, sif, folder, USE)
    assert first.returncode == 1
    assert "Read-only file system: '/var/log/outsider'" in first.stderr
    second = run(apptainer, sif, folder, USE)
    assert (second.returncode, second.stdout) == (0, "1\n")
    third = run(apptainer, sif, folder, USE)
    assert third.stdout == "2\n"


@pytest.mark.parametrize("env", [{"SIF_WRITABLE_OVERLAY": "off"}, {"PMI_RANK": "0"}], ids=["off", "MPI"])
def test_where_it_may_not_be_done_status_says_what_cures_it(
    apptainer: Apptainer, sif: str, env: dict[str, str]
) -> None:
    folder = packages(apptainer.places.new_folder("packages"))
    assert run(apptainer, sif, folder, LINES, **env).returncode == 1
    status = apptainer.exec(sif, ["sif-writable", "status", "--no-gpu"], env=env)
    assert "/share/outside" in status.stdout
    assert "--bind" in status.stdout


def test_without_user_namespaces_too(squashfs_root: SquashfsRoot) -> None:
    folder = packages(squashfs_root.places.new_folder("packages"))
    done = squashfs_root.run(
        ["python", "-c", LINES],
        binds=[f"{folder}:/data:ro"],
        env={"PYTHONPATH": "/data", "CH_RUNNING": "1"},
        userns=False,
    )
    assert done.returncode == 1
    status = squashfs_root.run(["sif-writable", "status", "--no-gpu"], env={"CH_RUNNING": "1"}, userns=False)
    assert "/share/outside" in status.stdout
    assert "bind" in status.stdout
