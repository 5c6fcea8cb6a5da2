"""What contributors meet: the workflows and forms are well formed, and what CONTRIBUTING says is true."""

from __future__ import annotations

import glob
import os
import re
import subprocess
import sys

import pytest

from tests.conftest import LONG, or_skip
from tests.lab import wheels
from tests.lab.store import REPOSITORY

GITHUB = os.path.join(REPOSITORY, ".github")
SCHEMAS = {
    ".github/workflows/*.yml": "vendor.github-workflows",
    ".github/ISSUE_TEMPLATE/*.yml": "vendor.github-issue-forms",
}


@pytest.fixture(scope="module")
def checker() -> str:
    """Return the folder with check-jsonschema, which knows the schemas of these files."""
    return str(or_skip(wheels.installed, "schemas", ("check-jsonschema==0.37.4",), "{}.{}".format(*sys.version_info)))


def check(checker: str, schema: str, path: str) -> int:
    """Check a file and return the exit code."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, path]
    own = {"PATH": os.environ["PATH"], "PYTHONPATH": checker}
    return subprocess.run(command, env=own, capture_output=True, text=True, check=False).returncode


def test_workflows_and_forms_follow_their_schemas(checker: str, tmp_path: os.PathLike[str]) -> None:
    for pattern, schema in SCHEMAS.items():
        paths = [path for path in glob.glob(os.path.join(REPOSITORY, pattern)) if not path.endswith("config.yml")]
        assert len(paths) >= 2
        for path in paths:
            assert check(checker, schema, path) == 0, path
            with open(path, encoding="utf-8") as file:
                text = file.read()
            broken = os.path.join(tmp_path, os.path.basename(path))
            with open(broken, "w", encoding="utf-8") as file:
                file.write(re.sub(r"^( +(?:- )?)(runs-on|type):", r"\1x\2:", text, flags=re.MULTILINE))
            assert check(checker, schema, broken) == 1, path


def test_workflows_run_no_strangers_text_and_leave_no_credentials(tmp_path: os.PathLike[str]) -> None:
    folder = or_skip(wheels.installed, "zizmor", ("zizmor==1.32.0",), "{}.{}".format(*sys.version_info))
    words = [os.path.join(folder, "bin", "zizmor"), "--offline", "--no-progress"]
    texts = {}
    for path in glob.glob(os.path.join(GITHUB, "workflows", "*.yml")):
        with open(path, encoding="utf-8") as file:
            texts[path] = file.read()
    for wrong, instead in (
        (r" +with:\n +persist-credentials: false\n", ""),
        (r"run: tests/run", "run: echo ${{ github.event.head_commit.message }}"),
    ):
        with open(os.path.join(tmp_path, "broken.yml"), "w", encoding="utf-8") as file:
            file.write(re.sub(wrong, instead, texts[os.path.join(GITHUB, "workflows", "long.yml")]))
        broken = subprocess.run([*words, file.name], capture_output=True, text=True, check=False)
        assert broken.returncode > 10, broken  # a finding of that weight
    done = subprocess.run([*words, *texts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_workflow_runs_on_every_version_that_is_promised() -> None:
    with open(os.path.join(REPOSITORY, "pyproject.toml"), encoding="utf-8") as file:
        promised = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', file.read())
    with open(os.path.join(GITHUB, "workflows", "tests.yml"), encoding="utf-8") as file:
        (listed,) = re.findall(r"python: \[(.*)\]", file.read())
    assert set(promised) <= set(re.findall(r"3\.\d+", listed))


def test_actions_are_pinned() -> None:
    for path in glob.glob(os.path.join(GITHUB, "workflows", "*.yml")):
        with open(path, encoding="utf-8") as file:
            used = re.findall(r"uses: (\S+)(.*)", file.read())
        assert used
        for action, comment in used:
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), action
            assert re.fullmatch(r"  # v\d+\.\d+\.\d+", comment), action


def test_each_folder_of_tests_is_explained() -> None:
    with open(os.path.join(REPOSITORY, "tests", "README.md"), encoding="utf-8") as file:
        rows = re.findall(r"^\| (`[a-z`/, *]+`) \|", file.read(), flags=re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([a-z]+)/`", row)}
    folders = {entry.name for entry in os.scandir(os.path.join(REPOSITORY, "tests")) if entry.is_dir()}
    assert {name for name in folders if name.isidentifier() and not name.startswith("__")} <= named


def test_the_files_that_take_long_are_there() -> None:
    assert [path for path in LONG if not os.path.exists(os.path.join(REPOSITORY, path))] == []


def test_what_contributing_names_is_there() -> None:
    with open(os.path.join(GITHUB, "CONTRIBUTING.md"), encoding="utf-8") as file:
        named = set(re.findall(r"`((?:tests|README|CHANGELOG)[\w./-]*)", file.read()))
    assert {"tests/run", "tests/hook/test_budget.py"} <= named
    assert [name for name in named if not os.path.exists(os.path.join(REPOSITORY, name))] == []


def test_the_house_is_drawn_as_it_stands() -> None:
    """Each folder and each top-level module of the package has its line, and no other."""
    with open(os.path.join(GITHUB, "CONTRIBUTING.md"), encoding="utf-8") as file:
        drawn = file.read().partition("\nsif_writable/\n")[2].partition("\ncontainer/ ")[0]
    named = {name for line in drawn.splitlines() for name in re.findall(r"([a-z_]+(?:\.py|/))(?= )", f"{line} ")}
    package = os.path.join(REPOSITORY, "sif_writable")
    there = {os.path.basename(path) for path in glob.glob(f"{package}/*.py")} - {"__main__.py"}
    there |= {f"{os.path.basename(path)}/" for path in glob.glob(f"{package}/[a-z]*") if os.path.isdir(path)}
    assert named == there
    for folder, line in re.findall(r"^  (\w+)/ (.*)", drawn, re.MULTILINE):
        for name in re.findall(r"`(\w+)`", line):
            assert os.path.exists(f"{package}/{folder}/{name}.py"), (folder, name)
