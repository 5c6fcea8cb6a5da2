"""Jobs in a control group: no further process, and memory that runs out at any moment of a cold start."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import NOT_RUN
from tests.lab import cgroup
from tests.lab.environments import PYTHON
from tests.lab.unavailable import LabUnavailable

if TYPE_CHECKING:
    import subprocess

    from tests.faults.conftest import Faulty

_ENTER = 'echo 0 > "$1" && shift && exec "$@"'
_USE = "import failing, declared; declared.use(); print('cured')"
_KILLED = (-9, 137)
_KEPT: dict[str, Any] = {"tmpfs": ()}


def _limited(faulty: Faulty, controller: str, limit: int, program: str) -> subprocess.CompletedProcess[str]:
    try:
        with cgroup.limited(controller, limit) as entry:
            return faulty.run(["sh", "-c", _ENTER, "sh", entry, PYTHON, "-c", program], **_KEPT)
    except LabUnavailable as why:
        pytest.skip(f"{NOT_RUN}{why}")


def _listing(faulty: Faulty) -> set[str]:
    """List what storage holds for later runs, and clear it away."""
    root = faulty.places.var_tmp
    found = {os.path.join(here, name)[len(root) :] for here, _, names in os.walk(root) for name in names}
    assert faulty.run(["sh", "-c", "rm -rf /var/tmp/sif-writable-*"], **_KEPT).returncode == 0
    return {path for path in found if ".new-" not in path and ".try-" not in path and "/locks/" not in path}


def test_a_job_that_may_have_one_process(faulty: Faulty) -> None:
    """No trial in a child can be made then; whatever needs none works."""
    result = _limited(faulty, "pids", 1, _USE)
    assert (result.returncode, result.stdout) == (0, "cured\n"), result
    refused = _limited(faulty, "pids", 1, "import os; os.fork()")
    assert "BlockingIOError" in refused.stderr


@pytest.mark.exact  # what measures coverage needs memory, too
def test_memory_that_ends_at_any_moment(faulty: Faulty) -> None:
    healthy = faulty.run([PYTHON, "-c", _USE], **_KEPT)
    assert (healthy.returncode, healthy.stdout) == (0, "cured\n"), healthy
    whole = _listing(faulty)
    killed = cured = 0
    for limit in range(4 << 20, 16 << 20, 1 << 19):
        result = _limited(faulty, "memory", limit, _USE)
        killed += result.returncode in _KILLED
        cured += result.stdout == "cured\n"
        assert result.returncode in (0, *_KILLED), (limit, result)
        again = faulty.run([PYTHON, "-c", _USE], **_KEPT)
        assert (again.returncode, again.stdout, again.stderr) == (0, "cured\n", ""), (limit, again)
        assert _listing(faulty) == whole, limit
    assert killed
    assert cured
