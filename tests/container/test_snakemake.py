"""A real Snakemake runs the workflow in container/ with a real Apptainer: the hook at work in a pipeline."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.conftest import or_skip
from tests.lab import wheels
from tests.lab.store import REPOSITORY
from tests.lab.unavailable import LabUnavailable

if TYPE_CHECKING:
    from subprocess import CompletedProcess

    from tests.lab.apptainer_root import Apptainer

SNAKEMAKE = ("snakemake==9.27.1",)
FILES = ("Snakefile", "snakemake-profile", "my_script.py")


class Workflow:
    """The files in a working directory, copied there as Snakefile says, with the test image."""

    def __init__(self, apptainer: Apptainer, sif: str) -> None:
        """Lay out what a user has."""
        self.apptainer = apptainer
        self.work = apptainer.places.work
        for name in FILES:
            source, copy = os.path.join(REPOSITORY, "container", name), os.path.join(self.work, name)
            (shutil.copytree if os.path.isdir(source) else shutil.copy)(source, copy)
        os.symlink(apptainer.inside(sif), os.path.join(self.work, "my.sif"))
        apptainer.places.new_folder("work/cache")
        asked = apptainer.beside(["python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"])
        if asked.returncode != 0:
            raise LabUnavailable("there is no python3 beside Apptainer to run Snakemake")
        # One of its dependencies is published as source.
        folder = wheels.installed("snakemake", SNAKEMAKE, asked.stdout.strip(), ("connection-pool==0.0.3",))
        self.env = {"PYTHONPATH": apptainer.inside(folder), "PYTHONDONTWRITEBYTECODE": "1"}

    def snakemake(self, *arguments: str) -> CompletedProcess[str]:
        """Run Snakemake on the workflow."""
        command = ["python3", "-m", "snakemake", *arguments]
        return self.apptainer.beside(command, env=self.env)

    def read(self, name: str) -> str:
        """Return the contents of a result."""
        with open(os.path.join(self.work, name), encoding="utf-8") as file:
            return file.read()


@pytest.fixture
def workflow(apptainer: Apptainer, sif: str) -> Workflow:
    """Return the workflow."""
    made: Workflow = or_skip(Workflow, apptainer, sif)
    return made


def test_lint_has_nothing_to_say(workflow: Workflow) -> None:
    done = workflow.snakemake("--lint")
    assert (done.returncode, done.stderr) == (0, "Congratulations, your workflow is in a good condition!\n"), done


def test_the_second_job_loads_what_the_first_one_compiled(workflow: Workflow) -> None:
    done = workflow.snakemake("--profile", "snakemake-profile", "--cores", "1")
    assert done.returncode == 0, done
    results = [workflow.read(f"squares-{number}.txt") for number in range(2)]
    compiled, loaded = "compiled into the cache", "loaded from the cache"
    assert sorted(results) in (
        [f"0 squared is 0: {compiled}\n", f"1 squared is 1: {loaded}\n"],
        [f"0 squared is 0: {loaded}\n", f"1 squared is 1: {compiled}\n"],
    )
    assert [workflow.read(f"squares-{number}.log") for number in range(2)] == ["", ""]
    kept = [name for _, _, names in os.walk(os.path.join(workflow.work, "cache")) for name in names]
    assert len([name for name in kept if name.endswith(".nbc")]) == 1
