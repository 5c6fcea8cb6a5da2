"""What an image makes of PYTHONPATH by its scripts, read from their text."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.lab.store import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

HOOK = os.path.join(REPOSITORY, "sif_writable", "hook")
SCRIPTS = ("10-docker2singularity.sh", "90-environment.sh", "91-environment.sh")
UNDERSTOOD = [
    ["export PYTHONPATH=/opt/app"],
    ["PYTHONPATH=/opt/app; export PYTHONPATH"],
    ['export PYTHONPATH="/opt/a b:/c"'],
    ["export PYTHONPATH='/opt/app' # ours"],
    ['export PYTHONPATH="${PYTHONPATH:-"/opt/docker"}"'],
    ['export PYTHONPATH="${PYTHONPATH:-"/opt/docker"}"', "export PYTHONPATH=/opt/app:$PYTHONPATH"],
    ['export PYTHONPATH="${PYTHONPATH:-/opt/docker}"', "", 'export PYTHONPATH="${PYTHONPATH}:/late"'],
    ["export PYTHONPATH=/opt/app${PYTHONPATH:+:$PYTHONPATH}", "export PYTHONPATH=/more${PYTHONPATH:+:${PYTHONPATH}}"],
    ["export PYTHONPATH=$APP_HOME/lib:${APP_HOME}/more"],
    ["# export PYTHONPATH=/not", "export MY_PYTHONPATH=/not"],
    ["export PATH=/x:$PATH"],
    [],
]
NOT_UNDERSTOOD = ["export PYTHONPATH=$(pwd)/lib", "export PYTHONPATH=`pwd`", "export PYTHONPATH=${A:-/x}:/y"]


def own_path(folder: Path, scripts: list[str]) -> tuple[list[str], str]:
    """Return what the module reads from these scripts."""
    for name, text in zip(SCRIPTS, scripts):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    spec = importlib.util.spec_from_file_location("image_path", f"{HOOK}/sif_writable_image_path.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: tuple[list[str], str] = module.own_path(str(folder))
    return found


@pytest.mark.parametrize("scripts", UNDERSTOOD)
def test_it_is_what_a_shell_makes_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scripts: list[str]) -> None:
    monkeypatch.setenv("APP_HOME", "/srv/app")
    found, strange = own_path(tmp_path, scripts)
    sourced = "".join(f". {tmp_path}/{name}\n" for name, _ in zip(SCRIPTS, scripts))
    shell = subprocess.run(
        ["sh", "-c", f'{sourced}printf %s "${{PYTHONPATH-}}"'],
        env={"APP_HOME": "/srv/app", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (found, strange) == ([path for path in shell.stdout.split(":") if path], "")


@pytest.mark.parametrize("script", NOT_UNDERSTOOD)
def test_what_is_not_understood_is_said(tmp_path: Path, script: str) -> None:
    assert own_path(tmp_path, [script]) == ([], f"{tmp_path}/{SCRIPTS[0]}")


@pytest.mark.parametrize(
    ("rest", "own", "expected"),
    [
        ("", ["/app"], [":/app", ["H", "/app", "L"]]),
        ("", [], ["", ["H", "L"]]),
        (":/sif-writable-attached/host:/a:/b", [], [":/a:/b", ["H", "/a", "/b", "L"]]),
        (":/sif-writable-attached/host:/a:/b", ["/app", "/b"], [":/app:/b", ["H", "/app", "/b", "L"]]),
    ],
)
def test_the_images_own_takes_the_place_of_the_hosts(rest: str, own: list[str], expected: list[object]) -> None:
    program = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); import sif_writable_image_path as image\n"
        "image.own_path = lambda folder: (eval(sys.argv[2]), '')\n"
        "sys.path[:] = [*os.environ['PYTHONPATH'].split(':'), 'L']\n"
        "image.restore('H'); print([os.environ['PYTHONPATH'][1:], sys.path])"
    )
    words = [sys.executable, "-I", "-S", "-c", f"import os; os.environ['PYTHONPATH'] = 'H{rest}'\n{program}"]
    done = subprocess.run([*words, HOOK, repr(own)], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == (repr(expected), "")


@pytest.mark.parametrize("to", ["2>&1", "2>&-", "2> /dev/full"])
def test_the_path_is_put_back_whether_it_can_be_said_or_not(to: str) -> None:
    program = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); import sif_writable_image_path as image\n"
        "image.own_path = lambda folder: (['/app'], '/strange.sh')\n"
        "try: image.restore('H')\n"
        "except OSError: pass  # the caller's to catch\n"
        "print(os.environ['PYTHONPATH'])"
    )
    words = f'"{sys.executable}" -I -S -c "$PROGRAM" {HOOK}'
    environ = {"PROGRAM": f"import os; os.environ['PYTHONPATH'] = 'H'\n{program}"}
    done = subprocess.run(["sh", "-c", f"{words} {to}"], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("H:/app\n")
    assert done.stdout.startswith("sif_writable: /strange.sh sets PYTHONPATH in a way that") == (to == "2>&1")
