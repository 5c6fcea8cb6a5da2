"""Other environments of an image: each gets a copy of the package, prepares itself, and starts the hook."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
from typing import TYPE_CHECKING

import pytest

from sif_writable.commands import prepare
from sif_writable.image import deliver, environments
from sif_writable.image.environments import Environment
from tests.lab.store import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

NAME = "sif_writable-1.0.dist-info"
_STANDS_FOR_IT = "import os, sysconfig; os.mkdir(sysconfig.get_path('purelib') + '/prepared')"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a site-packages with the sources, as an installer leaves them; this interpreter sees it."""
    site = tmp_path / "installed"
    shutil.copytree(f"{REPOSITORY}/sif_writable", site / "sif_writable", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(f"{REPOSITORY}/sif_writable/hook/sif_writable.pth", site)
    (site / NAME).mkdir()
    (site / NAME / "METADATA").write_text("Metadata-Version: 2.1\nName: sif-writable\nVersion: 1.0\n")
    files = [path.relative_to(site) for path in site.rglob("*") if path.is_file()]
    (site / NAME / "RECORD").write_text("".join(f"{path},,\n" for path in files) + "../../../bin/sif-writable,,\n")
    monkeypatch.syspath_prepend(str(site))
    return site


@pytest.fixture
def other(tmp_path: Path) -> Environment:
    """Return an environment without the package."""
    prefix = str(tmp_path / "other")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", prefix], check=True)
    site = sysconfig.get_path("purelib", vars={"base": prefix, "platbase": prefix})
    version = "{}.{}.{}".format(*sys.version_info)
    return Environment(f"{prefix}/bin/python", version, "cpython", prefix, site, (site,), "")


def test_a_copy_starts_the_hook_where_pth_files_are_read(installed: Path, other: Environment) -> None:
    assert not deliver.starts_hook(other)
    assert deliver.install_into(other) == ""
    assert deliver.starts_hook(other)
    assert {"filelock", "platformdirs", "pynvml.py", "sif_writable.pth"} <= set(os.listdir(other.purelib))
    assert not os.path.exists(f"{other.prefix}/bin/sif-writable")
    for needed in ("filelock", "platformdirs"):  # what the environment has of its own is left alone
        shutil.rmtree(f"{other.purelib}/{needed}")
        with open(f"{other.purelib}/{needed}.py", "w", encoding="utf-8") as file:
            file.write("own = True\n")
    assert deliver.install_into(other) == ""
    assert not os.path.exists(f"{other.purelib}/filelock")
    shutil.rmtree(installed / NAME)
    assert deliver.install_into(other).startswith("sif-writable is not installed as a distribution here")


def test_what_cannot_be_copied_is_named(installed: Path, other: Environment) -> None:
    assert installed.is_dir()
    shutil.rmtree(other.purelib)
    with open(other.purelib, "w", encoding="utf-8"):
        pass
    assert deliver.install_into(other) == f"{other.purelib} is not a directory"


@pytest.mark.parametrize("hidden", [False, True])
def test_each_other_environment_prepares_itself(
    installed: Path,
    other: Environment,
    hidden: bool,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    old = other._replace(executable="/opt/old/bin/python", version="3.8.1", prefix="/opt/old", purelib="/opt/old/site")
    found = [old, other._replace(purelib=str(installed.parent / "nowhere")) if hidden else other]
    monkeypatch.chdir(REPOSITORY)  # where an interpreter finds the package, whatever its site-packages hold
    monkeypatch.setattr(environments, "found", lambda: (found, [("/opt/dead/bin/python", "says nothing")]))
    monkeypatch.setattr(prepare, "PURELIB", str(installed))
    parser = argparse.ArgumentParser()
    prepare.add(parser)
    given = parser.parse_args(["--gpu-min-memory=20GiB", "--packages=a"], argparse.Namespace(quiet=False))
    words = ["-m", "sif_writable", "prepare", "--inner", "--gpu-min-memory=20GiB", "--packages=a"]
    assert prepare._command(other, given) == [other.executable, *words]
    # What that does is tried in an image; here it would first compile all that it has got.
    monkeypatch.setattr(prepare, "_command", lambda environment, _: [environment.executable, "-c", _STANDS_FOR_IT])
    code = prepare._others(given)
    out, err = capfd.readouterr()
    assert "/opt/old/bin/python (cpython 3.8.1): sif-writable needs Python 3.9" in " ".join(out.split())
    assert "/opt/dead/bin/python says nothing" in " ".join(out.split())
    if hidden:
        assert code == 2
        assert f"{other.executable} (cpython {other.version}) does not start the hook: " in err
        return
    assert (code, err) == (0, ""), out
    assert os.path.exists(f"{other.purelib}/prepared")
    with open(installed / "sif_writable.manifest", encoding="utf-8") as manifest:
        assert f"interpreter: {other.executable} {other.version} {other.prefix}\n" in manifest.read()
