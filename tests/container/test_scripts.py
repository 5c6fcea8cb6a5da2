"""What people find at the top of each file; and the job script, where neither Slurm nor a GPU is needed to try it."""

from __future__ import annotations

import glob
import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.lab.store import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

CONTAINER = os.path.join(REPOSITORY, "container")
TO_COPY = (
    *("sif-writable.def", "ngc-pytorch.def", "slurm-array.sh", "Snakefile", "snakemake-profile/config.yaml"),
    *("main.nf", "nextflow.config", "Dockerfile", "kubernetes-pod.yaml"),
    *("attach-docker.sh", "attach-pod.yaml", "attach-pyxis.sh", "enroot-hook.sh"),
)
INSTALLING = ("sif-writable.def", "ngc-pytorch.def", "Dockerfile", *(f"examples/{n}.def" for n in ("bind", "files")))
PLACEHOLDER = r"\b(my_script\.py|my\.sif|my-image|my-job|my-attached-job|train\.py|IMAGE|STORAGE|MODULES|PACKAGES)\b"


def read(name: str) -> tuple[str, str]:
    """Return the comment at the top of a file, and all of it."""
    with open(os.path.join(CONTAINER, name), encoding="utf-8") as file:
        text = file.read()
    lines = text.split("\n")
    end = next(number for number, line in enumerate(lines) if not line.startswith(("#", "//")))
    return "\n".join(lines[:end]), text


@pytest.mark.parametrize("name", TO_COPY)
def test_what_is_to_be_filled_in_is_named_at_the_top(name: str) -> None:
    top, text = read(name)
    assert "fill in" in top
    named = top[top.index("fill in") :]
    used = set(re.findall(PLACEHOLDER, text[len(top) :]))
    assert sorted(each for each in used if each not in named) == []


def test_these_are_the_files() -> None:
    """A new file in the folder is looked at, too."""
    others = {"README.md", "demo", "examples", "my_script.py", "snakemake-profile", "test.def"}
    there = {os.path.basename(path) for path in glob.glob(os.path.join(CONTAINER, "*"))}
    assert there - others - {"__pycache__"} == {name for name in TO_COPY if "/" not in name}


@pytest.mark.parametrize("name", INSTALLING)
def test_where_sif_writable_comes_from_is_one_variable(name: str) -> None:
    _, text = read(name)
    assert len(re.findall(r"^ *(?:ARG )?SIF_WRITABLE=sif_writable-\*\.whl$", text, re.MULTILINE)) == 1
    assert len(re.findall(r"^(?:COPY|   ) [${ ]+SIF_WRITABLE[ }]+ /opt/src/$", text, re.MULTILINE)) == 1


def test_a_wheel_is_made_of_a_path() -> None:
    """A bare name would be asked for on the package index: there may be another project of that name."""
    made = []
    for name in ("../README.md", "README.md", *INSTALLING):
        made += re.findall(r"pip wheel (.*?)(?:`|  |\n)", read(name)[1])
    assert len(made) >= 6
    assert [
        words for words in made if not re.fullmatch(r"--no-deps --wheel-dir \. (\./sif_writable|\.\./\.\.)", words)
    ] == []


# --- The job script.

APPTAINER = """#!/bin/sh
echo "$@"
echo "require: ${SIF_WRITABLE_GPU:-}"
"""
"""It says how it was called: what a GPU changes can be seen without one."""


def job(folder: Path, **env: str) -> list[str]:
    """Run the script as Slurm does, and return how it called Apptainer."""
    program = folder / "bin" / "apptainer"
    if not program.exists():
        program.parent.mkdir()
        program.write_text(APPTAINER)
        program.chmod(0o755)
    shell = ["bash", "-c", 'module() { echo "module $*"; }; . "$0" "$@"', os.path.join(CONTAINER, "slurm-array.sh")]
    own = {"PATH": f"{program.parent}:{os.environ['PATH']}", "HOME": str(folder), "IMAGE": "my.sif", **env}
    done = subprocess.run([*shell, "python", "a b"], env=own, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_a_task_with_a_gpu_has_nv_and_asks_for_it(tmp_path: Path) -> None:
    storage = str(tmp_path / "storage")
    bind = f"--bind {storage}:/sif-writable my.sif python a b"
    assert job(tmp_path, STORAGE=storage) == [f"exec {bind}", "require: "]
    assert os.path.isdir(storage)
    for name in ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS"):
        assert job(tmp_path, STORAGE=storage, **{name: "0"}) == [f"exec --nv {bind}", "require: require"]
    lenient = job(tmp_path, STORAGE=storage, SLURM_JOB_GPUS="0,1", SIF_WRITABLE_GPU="warn")
    assert lenient == [f"exec --nv {bind}", "require: warn"]


def test_storage_and_modules_of_the_job(tmp_path: Path) -> None:
    scratch = str(tmp_path / "scratch")
    loaded, called, _ = job(tmp_path, SCRATCH=scratch, MODULES="gcc apptainer/1.4")
    assert loaded == "module load gcc apptainer/1.4"
    assert f"--bind {scratch}/sif-writable:/sif-writable" in called
    called, _ = job(tmp_path)
    assert f"--bind {tmp_path}/sif-writable:/sif-writable" in called
