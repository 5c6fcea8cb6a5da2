"""Paths of the image that lie in no package: they are served where somebody declares them, and nowhere else."""

from __future__ import annotations

import json
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
        error, line = done.stderr[: len(plain.stderr)], done.stderr[len(plain.stderr) :]
        assert error == plain.stderr
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


BOTH = """
import json, os, subprocess, sys, time
import requests
SITE = os.path.dirname(requests.__path__[0])
with open("/proc/self/mountinfo") as file:
    table = [line.split() for line in file if " - overlay sif-writable " in line]
os.makedirs("/var/log/outsider", exist_ok=True)
for folder in ("/var/log/outsider", SITE + "/requests"):
    open(f"{folder}/by-{sys.argv[1]}", "w").close()
if sys.argv[1] == "first":
    open("/var/tmp/ready", "w").close()
    child = [sys.executable, "-c", sys.argv[2], "child", sys.argv[2]]
    subprocess.run(child, check=True)
    subprocess.run(["env", "-i", *child[:-2], "cleaned", ""], check=True)
    for _ in range(3000):
        if os.path.exists(SITE + "/requests/by-sibling"):
            break
        time.sleep(0.01)
    print(json.dumps([sorted(n for n in os.listdir(folder) if n.startswith("by-")) for folder in
                      ("/var/log/outsider", SITE + "/requests")] + [len({line[4] for line in table}), len(table)]))
"""


def test_a_layer_and_a_declared_path_are_in_one_process_its_children_and_shared_with_a_sibling(
    apptainer: Apptainer, sif: str
) -> None:
    """The sibling, which has declared nothing, is in the layer alone. What both wrote is kept when both have ended."""
    script = """
SIF_WRITABLE_OVERLAY_PATHS=/var/log/outsider python -c "$1" first "$1" &
while [ ! -e /var/tmp/ready ]; do sleep 0.01; done
python -c 'import requests as r, time; open(r.__path__[0] + "/by-sibling", "w").close(); time.sleep(1)
assert "by-first" in __import__("os").listdir(r.__path__[0])'; echo $?
wait
ls -d ~/.cache/sif-writable/image-*/layer/gen-*
"""
    done = apptainer.exec(sif, ["sh", "-c", script, "sh", BOTH])
    report, code, *generations = sorted(done.stdout.splitlines(), key=lambda line: "[0/".find(line[:1]))
    all_of_them = ["by-child", "by-cleaned", "by-first"]
    outside, inside, points, mounts = json.loads(report)
    assert (outside, inside, points) == (all_of_them, sorted([*all_of_them, "by-sibling"]), mounts), done
    assert (code, done.stderr) == ("0", "")
    assert len(generations) == 1  # whoever was the last one
    look = "import os, requests as r; print([os.path.exists(r.__path__[0] + '/by-' + n) for n in ('first', 'sibling')])"
    assert apptainer.exec(sif, ["python", "-c", look]).stdout == "[True, True]\n"


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
