"""PYTHONPATH is for every Python of an image: those that we do not run on are left alone, without a word."""

from __future__ import annotations

import ast
import glob
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.conftest import NOT_RUN
from tests.lab.store import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

HOOK = os.path.join(REPOSITORY, "sif_writable", "hook")
READ_BY_ALL = ("sitecustomize.py", "sif_writable_image_path.py")
NEW = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.Nonlocal, ast.AsyncFunctionDef, ast.YieldFrom, ast.Await)
ASK = (
    "import sys; print(getattr(sys, 'witness', 0), 'sif_writable' in sys.modules, "
    "'sif_writable_attached' in sys.modules)"
)
RESTORE = """
import os, sys
sys.path.insert(0, sys.argv[1])
import sif_writable_image_path as image
image.FOLDER = sys.argv[2]
image.restore("/ours")
print(os.environ["PYTHONPATH"])
"""


def interpreter(version: str) -> str:
    """Return an interpreter of that version, or skip the test."""
    pyenv = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    found = glob.glob(f"{glob.escape(pyenv)}/versions/{version}.*/bin/python") or glob.glob(f"/usr/bin/python{version}")
    if not found:
        pytest.skip(f"{NOT_RUN}this machine has no Python {version}")
    return found[0]


@pytest.mark.parametrize("name", READ_BY_ALL)
def test_what_every_python_reads_is_written_in_what_all_of_them_know(name: str) -> None:
    with open(f"{HOOK}/{name}", encoding="ascii") as file:  # 2.7 takes no other letters
        tree = ast.parse(file.read(), feature_version=(3, 4))
    for node in ast.walk(tree):
        assert not isinstance(node, NEW), ast.unparse(node)
        if isinstance(node, ast.FunctionDef):
            every = [*node.args.args, *node.args.kwonlyargs, *node.args.posonlyargs]
            assert node.returns is None
            assert not any(argument.annotation for argument in every)
            assert not node.args.kwonlyargs
        if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            assert not any(isinstance(element, ast.Starred) for element in node.elts), ast.unparse(node)


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.7", "3.8"])
def test_an_older_python_runs_the_next_sitecustomize_and_nothing_of_ours(version: str, tmp_path: Path) -> None:
    python = interpreter(version)
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.witness = getattr(sys, 'witness', 0) + 1\n")
    (tmp_path / "90-environment.sh").write_bytes(b"# \xc3\xbc \xff\nexport PYTHONPATH=/own:$PYTHONPATH\n")

    def run(*words: str, path: str) -> str:
        environ = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C", "SIF_WRITABLE": "on"}
        done = subprocess.run([python, *words], env=environ, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.strip()

    again = tmp_path / "again"
    again.symlink_to(HOOK)
    words = ("1", "False", "False")
    assert run("-c", ASK, path=f"{HOOK}:{tmp_path}").strip("()").replace(",", "").split() == [*words]
    assert run("-c", ASK, path=f"{HOOK}:{again}:{HOOK}:{tmp_path}").strip("()").replace(",", "").split() == [*words]
    assert run("-c", ASK, path=HOOK).strip("()").replace(",", "").split() == ["0", *words[1:]]
    assert run("-c", RESTORE, HOOK, str(tmp_path), path="/ours:/sif-writable-attached/host:/hosts") == "/ours:/own"
    with open(f"{HOOK}/sif_writable_attached.pth", encoding="ascii") as file:
        line = file.read().replace("/sif-writable-attached/sif_writable/hook", HOOK)
    assert HOOK in line
    assert run("-c", f"{line}\nprint('sif_writable_attached' in sys.modules)", path="/nowhere") == "False"
