"""Paths of the image that lie in no package: they are served where somebody declares them, and nowhere else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.conftest import BY_COPY

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


@pytest.mark.parametrize(
    ("program", "path", "env"),
    [(LINES, "/opt/venv/share/outside", BY_COPY), (USE, "/var/log/outsider", BY_COPY), (USE, "/var/log/outsider", {})],
)
def test_undeclared_it_fails_as_without_us_with_a_sentence(
    apptainer: Apptainer, sif: str, program: str, path: str, env: dict[str, str]
) -> None:
    folder = packages(apptainer.places.new_folder("packages"))
    plain = run(apptainer, sif, folder, program, SIF_WRITABLE="off")
    for _ in range(2):
        done = run(apptainer, sif, folder, program, **env)
        assert (done.returncode, done.stdout) == (plain.returncode, plain.stdout) == (1, "")
        told, line = done.stderr[: len(plain.stderr)], done.stderr[len(plain.stderr) :]
        assert told == plain.stderr
        assert line.startswith(f"sif_writable: {path} cannot be written")
        assert line.count("\n") == 1
        assert f"--bind DIRECTORY:{path}" in line


def test_what_lies_in_the_environment_needs_no_declaration_where_there_is_a_layer(
    apptainer: Apptainer, sif: str
) -> None:
    folder = packages(apptainer.places.new_folder("packages"))
    for expected in ("1\n", "2\n"):
        done = run(apptainer, sif, folder, LINES)
        assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")


def test_declared_it_works_at_the_first_run_and_is_there_at_the_next(apptainer: Apptainer, sif: str) -> None:
    folder = packages(apptainer.places.new_folder("packages"))
    declared = {"SIF_WRITABLE_OVERLAY_PATHS": "/opt/venv/share/outside:/var/log/outsider"}
    for expected in ("1\n", "2\n"):
        for program in (LINES, USE):
            done = run(apptainer, sif, folder, program, **declared)
            assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")


def test_without_user_namespaces_too(squashfs_root: SquashfsRoot) -> None:
    folder = packages(squashfs_root.places.new_folder("packages"))
    done = squashfs_root.run(
        ["python", "-c", LINES],
        binds=[f"{folder}:/data:ro"],
        env={"PYTHONPATH": "/data", "CH_RUNNING": "1"},
        userns=False,
    )
    assert done.returncode == 1
    assert "sif_writable: /opt/venv/share/outside cannot be written" in done.stderr
    assert "--bind DIRECTORY:/opt/venv/share/outside" in done.stderr
