"""How a run of the tests ends: with all that was not run, and why."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.conftest import FLAGS
from tests.lab.store import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

TESTS = """
import pytest

@pytest.mark.parametrize("number", range(3))
def test_needs_a_machine(number):
    pytest.skip("not run: there is no mainframe")

@pytest.mark.skipif(True, reason="only on Sundays")
def test_marked():
    pass

def test_runs():
    pass
"""
INI = "[pytest]\ntestpaths = made\n"


def test_the_last_lines_name_each_test_that_was_not_run(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "test_made.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text(INI)
    own = {"PATH": os.environ["PATH"], "PYTHONPATH": REPOSITORY, "HOME": str(tmp_path)}

    def last(*arguments: str) -> list[str]:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=own, capture_output=True, text=True, check=False)
        assert "1 passed, 4 skipped" in done.stdout, done
        lines = done.stdout.splitlines()
        return [line for line in lines if line.startswith(("not run", "  ", "left out"))]

    not_run = ["not run: 4 tests", "  3 tests: there is no mainframe", "  1 test: only on Sundays"]
    assert last() == [*not_run, f"left out unless asked for: {', '.join(FLAGS)} (see --help)"]
    assert last("made", "-n", "2") == not_run  # a part was asked for, and others have run it
    assert last(*FLAGS) == not_run
