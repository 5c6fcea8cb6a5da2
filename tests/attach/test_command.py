"""What `attach` refuses and says at the command line."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.conftest import or_skip
from tests.lab import attached
from tests.lab.store import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

ENGINE = """#!/bin/sh
echo "$@" > {folder}/called
echo "${{APPTAINER_BIND-none}} ${{APPTAINERENV_PYTHONPATH-none}}" >> {folder}/called
{answer}
"""
FOUND = "echo 'sif-writable found: [[\"/opt/v/site-packages\"], [], []]'"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return where the folder is made once."""
    return str(tmp_path_factory.mktemp("attached") / "x")


def attach(place: Path, folder: str, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command, with the programs in a place; nothing is fetched."""
    command = [*attached.command([REPOSITORY, str(or_skip(attached.needed))]), "--dir", folder, *words]
    path = f"{place}/bin:/usr/bin:/bin"
    return subprocess.run(command, env={"PATH": path, **environ}, capture_output=True, text=True, check=False)


def engine(place: Path, answer: str) -> None:
    """Put something on PATH that answers as an engine."""
    (place / "bin").mkdir()
    program = place / "bin" / "apptainer"
    program.write_text(ENGINE.format(folder=place, answer=answer), encoding="utf-8")
    program.chmod(0o755)


def test_no_engine(tmp_path: Path) -> None:
    done = attach(tmp_path, f"{tmp_path}/x", "--image", "x.sif")
    assert not os.path.lexists(tmp_path / "x")
    assert (done.returncode, done.stdout) == (2, "")
    assert "x.sif cannot be looked into: neither apptainer nor singularity is on PATH. Remedy: " in done.stderr


@pytest.mark.parametrize(
    ("image", "answer", "words"),
    [
        ("none.sif", "", "none.sif does not exist. Remedy: "),
        (".", "exit 44", "has no Python 3.9 or newer"),
        (
            ".",
            "echo INFO >&2; echo 'FATAL: no such thing' >&2; exit 255",
            "apptainer said: FATAL: no such thing. Remedy",
        ),
        (".", "exit 7", "apptainer said: exit code 7."),
        (".", FOUND.replace("/opt", "/o,pt"), "has a comma in its path"),
    ],
)
def test_an_image_that_cannot_be_looked_into(tmp_path: Path, folder: str, image: str, answer: str, words: str) -> None:
    engine(tmp_path, answer)
    done = attach(tmp_path, folder, "--image", image)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_an_image_is_looked_into_without_what_is_meant_for_others(tmp_path: Path, folder: str) -> None:
    engine(tmp_path, FOUND)
    given = {"APPTAINER_BIND": "/data", "APPTAINERENV_PYTHONPATH": "/mine", "APPTAINER_CACHEDIR": "/c"}
    done = attach(tmp_path, folder, "--image", ".", "--shell", "fish", **given)
    assert done.returncode == 0, done
    pth = "sif_writable_attached.pth"
    binds = f"/data,{folder}/current:/sif-writable-attached"
    binds += f",{folder}/current/sif_writable/hook/{pth}:/opt/v/site-packages/{pth}"
    assert done.stdout.splitlines()[0] == f"set -gx APPTAINER_BIND '{binds}';"
    called = (tmp_path / "called").read_text(encoding="utf-8").splitlines()
    assert f"--bind {folder}/current:/sif-writable-attached . /bin/sh" in called[0]
    assert called[-1] == "none none"


def test_an_image_that_has_it_needs_nothing(tmp_path: Path, folder: str) -> None:
    have, old = '["/opt/v/sif_writable/__init__.py"]', '["/usr/bin/python3 (3.8)"]'
    engine(tmp_path, f"echo 'sif-writable found: [[], {have}, {old}]'")
    done = attach(tmp_path, folder, "--image", ".")
    assert (done.returncode, done.stdout) == (0, "")
    assert "/opt/v/sif_writable/__init__.py is in the image already" in done.stderr.replace("\n  ", " ")
    assert "/usr/bin/python3 (3.8) is left out" in done.stderr.replace("\n  ", " ")


@pytest.mark.parametrize(("words", "said"), [(("--image", "x", "--site"), "not allowed with"), (("--shell", "x"), "x")])
def test_bad_usage(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    done = attach(tmp_path, f"{tmp_path}/x", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert not os.path.lexists(tmp_path / "x")


def test_a_place_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    command = [*attached.command([REPOSITORY, str(or_skip(attached.needed))]), "--dir", f"{tmp_path}/file/x"]
    done = subprocess.run(command, env={"PATH": "/bin"}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{tmp_path}/file" in done.stderr
    assert "Remedy" in done.stderr


@pytest.mark.parametrize(
    ("option", "word", "said"),
    [
        ("--dir", "", "--dir '' names nothing. Remedy: give a path"),
        ("--dir", " ", "--dir ' ' names nothing. Remedy: give a path"),
        ("--dir", "~/x", "--dir '~/x' has a ~ that the shell left as it is. Remedy: write $HOME instead."),
        ("--dir", "/dev/null", "/dev/null is no directory. Remedy: name another directory by --dir"),
        ("--dir", "/proc/x", "/proc/x cannot be made there, so nothing can be attached. Remedy: another place"),
        ("--dir", "/nowhere/a\nb", "'/nowhere/a\\nb' has a line break in its path"),
        ("--image", "", "--image '' names nothing. Remedy: give a path"),
    ],
)
def test_a_path_that_makes_no_sense_is_refused_and_named(tmp_path: Path, option: str, word: str, said: str) -> None:
    done = attach(tmp_path, f"{tmp_path}/x", option, word, HOME=str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_an_administrator_learns_that_others_cannot_reach_the_folder(tmp_path: Path) -> None:
    home = tmp_path / "root"
    home.mkdir(mode=0o700)
    tmp_path.chmod(0o755)
    done = attach(tmp_path, str(home / "x"), "--site")
    assert done.returncode == 0, done
    said = done.stderr.replace("\n  ", " ")
    # Whatever is above: the outermost counts, which a temporary directory may be.
    assert " lets nobody else in, so other users' containers cannot bind the folder. Remedy: " in said
    assert "nobody else" not in attach(tmp_path, str(home / "x")).stderr
