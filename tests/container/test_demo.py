"""The demonstration: what it says before it begins, its verdict, and how to remove all that it has made."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from tests.lab import demo, store
from tests.lab.store import REPOSITORY

if TYPE_CHECKING:
    import pytest

    from tests.lab.apptainer_root import Apptainer


def test_it_says_first_what_it_installs_and_where(tmp_path: os.PathLike[str]) -> None:
    script = 'source tests/lab/setup.sh; command() { return 1; }; say_what_comes; echo "later: $LAB_INSTALLS"'
    own = {"PATH": os.environ["PATH"], "SIF_WRITABLE_LAB": f"{tmp_path}/here"}
    done = subprocess.run(
        ["bash", "-euc", script], cwd=REPOSITORY, env=own, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "three minutes" in done.stdout
    assert f"{tmp_path}/here" in done.stdout
    assert os.listdir(tmp_path) == []
    with open(os.path.join(REPOSITORY, "container", "demo"), encoding="utf-8") as file:
        words = [line.split()[0] for line in file if line.strip()]
    assert words.index("say_what_comes") < words.index("make_venv")


def test_the_verdict_counts_what_failed_without(
    apptainer: Apptainer, sif: str, capsys: pytest.CaptureFixture[str]
) -> None:
    programs = {"beside itself": "import early", "fails anyway": "1 / 0", "works": "import numpy; print('fine')"}

    def run(program: str, **env: str) -> subprocess.CompletedProcess[str]:
        return apptainer.exec(sif, ["python", "-c", program], env=env)

    verdict = demo.show(run, programs)
    assert verdict == (["beside itself", "fails anyway"], ["beside itself"], [])
    assert str(verdict) == "1 of 2 imports cured"
    printed = capsys.readouterr().out
    assert printed.count("FAILED OSError: [Errno 30] Read-only file system") == 1
    assert printed.count("FAILED ZeroDivisionError") == 3
    assert printed.count("ok     fine") == 3
    assert str(demo.Verdict(["a"], ["a"], ["b"])) == "1 of 1 imports cured, and b broken"


def test_progress_and_removal(
    tmp_path: os.PathLike[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = str(tmp_path)
    monkeypatch.setattr(store, "LAB", lab)
    monkeypatch.setattr(store, "watchers", [demo._progress])
    for _ in range(2):
        store.provide("base", "of a test", os.mkdir)
    what = "the base of the image, Debian 12"
    assert capsys.readouterr().out == f"  making {what} ...\n  made   {what} (0 s)\n"
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setenv("LAB_INSTALLS", "mmdebstrap")
    assert demo.removal() == f"rm -rf {lab}; apt-get remove mmdebstrap"
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    assert demo.removal() == f"chmod -R u+rwX {lab}; rm -rf {lab}"
