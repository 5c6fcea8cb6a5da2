"""A directory that the user gave, with his own files in it, and one that a group could change: in a real image."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.conftest import NOT_RUN
from tests.lab.store import ORDINARY_UID

if TYPE_CHECKING:
    from tests.lab.apptainer_root import Apptainer

PYTHON = "/opt/venv/bin/python"
NAMES = ("NUMBA_CACHE_DIR", "MPLCONFIGDIR", "TORCH_HOME")
VALUES = f"import json, os; print(json.dumps([os.environ[name] for name in {NAMES!r}]))"
OF_THE_USER = (
    ".new-results/a", ".new-results/deep/b", ".try-2/c", "data/.new-experiment/d", "data/torch/checkpoint.pth",
    "data/huggingface/hub/model", "locks/pipeline.lock", "locks/home.lock", "run/socket",
    "image-0123456789abcdef/config/x", "packages-cpython-311/pkg/__init__.py", "sif-writable.txt",
)  # fmt: skip


def _folder(apptainer: Apptainer, name: str) -> str:
    return apptainer.places.new_folder(name)


def test_what_the_user_has_in_a_given_place_is_never_touched(apptainer: Apptainer, sif: str) -> None:
    place = _folder(apptainer, "project")
    for name in OF_THE_USER:
        os.makedirs(os.path.dirname(f"{place}/{name}"), exist_ok=True)
        with open(f"{place}/{name}", "w", encoding="utf-8") as file:
            file.write("precious")
    for here, folders, files in os.walk(place, topdown=False):
        for name in (*folders, *files, "."):
            os.utime(f"{here}/{name}", (1_000_000_000, 1_000_000_000))
            if os.getuid() == 0:
                os.chown(f"{here}/{name}", ORDINARY_UID, ORDINARY_UID)
    script = f"""set -e
    {PYTHON} -c "$1"; {PYTHON} -c "$1"
    sif-writable cache list
    sif-writable cache prune --all-images --older-than 1d --dead --max-size 0 --yes
    sif-writable cache clear --all-images torch --yes
    {PYTHON} -c "$1" """
    options = ["--bind", f"{apptainer.inside(place)}:/data"]
    done = apptainer.exec(sif, ["sh", "-c", script, "sh", VALUES], options=options, env={"SIF_WRITABLE_DIR": "/data"})
    assert (done.returncode, done.stderr) == (0, "")
    numba, matplotlib, torch = json.loads(done.stdout.splitlines()[0])
    assert (numba.startswith("/data/sif-writable/image-"), torch) == (True, "/data/sif-writable/data/torch")
    assert matplotlib.startswith("/data/sif-writable/image-")
    there = sorted(
        os.path.relpath(f"{here}/{name}", place)
        for here, folders, files in os.walk(place)
        for name in (*files, *(folder for folder in folders if not os.listdir(f"{here}/{folder}")))
        if not here.startswith(f"{place}/sif-writable")
    )
    assert there == sorted(OF_THE_USER)
    assert "precious" not in done.stdout
    assert not [line for line in done.stdout.splitlines() if "/data/" in line and "/data/sif-writable" not in line]


def test_where_a_group_could_swap_our_folder_no_code_goes_and_doctor_says_so(apptainer: Apptainer, sif: str) -> None:
    if os.getuid() != 0:
        pytest.skip(f"{NOT_RUN}only root can give a directory to another group")
    place = _folder(apptainer, "shared")
    os.chown(place, ORDINARY_UID, 4711)
    os.chmod(place, 0o2770)
    options = ["--bind", f"{apptainer.inside(place)}:/data"]
    script = f"""{PYTHON} -c "$1"; sif-writable doctor 2>/dev/null; echo $?"""
    env = {"SIF_WRITABLE_DIR": "/data"}
    done = apptainer.exec(sif, ["sh", "-c", script, "sh", VALUES], options=options, env=env)
    values, _, doctor = done.stdout.partition("\n")
    numba, matplotlib, torch = json.loads(values)
    home = f"{apptainer.home}/.cache/sif-writable/image-"
    assert (numba.startswith(home), matplotlib.startswith(home)) == (True, True)
    assert torch == f"/data/sif-writable-{ORDINARY_UID}/data/torch"
    cause = "keeps no code and no settings: others may write '/data', which has no sticky bit"
    remedy = "chmod g-w,o-w or chmod +t '/data', or name another directory"
    assert done.stderr.count("\n") == 1
    assert cause in done.stderr
    assert done.stderr.endswith(f"Remedy: {remedy}.\n")
    folded = " ".join(doctor.split())
    assert "WARN storage: SIF_WRITABLE_DIR=/data " + cause in folded
    assert f"remedy: {remedy}" in folded
    assert "PASS storage" not in folded
    bound = ["--bind", f"{apptainer.inside(place)}:/sif-writable"]
    done = apptainer.exec(sif, [PYTHON, "-c", VALUES], options=bound)
    assert done.stderr.startswith(f"sif_writable: the bind at /sif-writable {cause.replace('/data', '/sif-writable')}")
    assert json.loads(done.stdout)[0].startswith(home)
    os.chmod(place, 0o3770)  # with the sticky bit only the directory's owner could, who is the user
    done = apptainer.exec(sif, [PYTHON, "-c", VALUES], options=options, env=env)
    assert done.stderr == ""
    assert {path.split("/")[2] for path in json.loads(done.stdout)} == {f"sif-writable-{ORDINARY_UID}"}


@pytest.mark.parametrize("home", [0o700, 0o750])
def test_a_cache_directory_that_a_group_may_write_but_not_get_to_keeps_everything(
    apptainer: Apptainer, sif: str, home: int
) -> None:
    """What a umask of 002 makes, with a group that others are in; whether they get there is up to HOME."""
    if os.getuid() != 0:
        pytest.skip(f"{NOT_RUN}only root can give a directory to another group")
    cache = f"{apptainer.places.home}/.cache"
    os.mkdir(cache)
    os.chown(cache, ORDINARY_UID, 4711)
    os.chmod(cache, 0o775)
    os.chown(apptainer.places.home, ORDINARY_UID, 4711)
    os.chmod(apptainer.places.home, home)
    done = apptainer.exec(sif, [PYTHON, "-c", "import os; print(os.environ['NUMBA_CACHE_DIR'])"])
    assert (done.returncode, done.stderr) == (0, "")
    own = f"{apptainer.home}/.cache/sif-writable-{ORDINARY_UID}/image-"
    assert done.stdout.startswith(own) == (home == 0o700), done
