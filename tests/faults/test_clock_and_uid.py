"""A clock that jumps, and a user id that changes between the start that made storage and the one that uses it."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from sif_writable import aside
from tests.conftest import NOT_RUN, or_skip
from tests.lab import apt, store
from tests.lab.environments import PYTHON
from tests.lab.unavailable import LabUnavailable

if TYPE_CHECKING:
    from tests.faults.conftest import Faulty
    from tests.lab.apptainer_root import Apptainer

_USE = "import failing, os; print(os.environ['MPLCONFIGDIR'].split('/sif-writable')[0])"
_CLOCKS = ("2090-01-01 00:00:00", "1970-01-02 00:00:00", "")
_LEFTOVER = aside.path("/var/tmp", "of-a-killed-process")


def _at(clock: str, *words: str) -> list[str]:
    return [*(["faketime", clock] if clock else []), PYTHON, *words]


def _other_clocks(faulty: Faulty) -> None:
    apt.ensure("faketime")
    tried = faulty.run(_at(_CLOCKS[0], "-c", "pass"), tmpfs=(), env={"SIF_WRITABLE": "off"})
    if "GLIBC_" in tried.stderr:
        raise LabUnavailable("this machine's libfaketime needs a newer C library than the Python of the tests has")


@pytest.mark.parametrize("times", ["2090-01-01", "1970-01-02"])
def test_a_clock_that_jumps(faulty: Faulty, times: str) -> None:
    """Wherever the clock is, and whatever times files have: starts work, and pruning takes no more than it may."""
    or_skip(_other_clocks, faulty)
    for clock in _CLOCKS:
        result = faulty.run(_at(clock, "-c", _USE), tmpfs=())
        assert (result.returncode, result.stdout, result.stderr) == (0, "/var/tmp\n", ""), (clock, result)
        storage = f"/var/tmp/sif-writable-{store.ORDINARY_UID}"
        # The data and its folders, as a clock that was wrong then has left them.
        script = f"find {storage} -exec touch -h -d {times} {{}} +"
        assert faulty.run(["sh", "-c", script], tmpfs=()).returncode == 0
        again = faulty.run(_at(clock, "-c", _USE), tmpfs=())
        assert (again.returncode, again.stdout, again.stderr) == (0, "/var/tmp\n", ""), (clock, again)
    before = faulty.run(["sh", "-c", f"find {storage} -type f | sort"], tmpfs=()).stdout
    for clock in ("1970-01-02 00:00:00", ""):  # all of it was used just now, as its times of change say
        pruned = faulty.run(
            _at(clock, "-m", "sif_writable", "cache", "prune", "--dead", "--all-images", "--older-than", "30d"),
            tmpfs=(),
        )
        assert (pruned.returncode, pruned.stderr) == (0, ""), pruned
        assert faulty.run(["sh", "-c", f"find {storage} -type f | sort"], tmpfs=()).stdout == before
    clock = _CLOCKS[0]  # for which all is old
    pruned = faulty.run(
        _at(clock, "-m", "sif_writable", "cache", "prune", "--all-images", "--older-than", "30d"), tmpfs=()
    )
    assert (pruned.returncode, pruned.stderr) == (0, ""), pruned
    final = faulty.run([PYTHON, "-c", _USE], tmpfs=())
    assert (final.returncode, final.stdout, final.stderr) == (0, "/var/tmp\n", ""), final


def test_leftovers_of_a_wrong_clock(faulty: Faulty) -> None:
    """What seems to come from the future may be another node's work, and stays; what seems old goes."""
    or_skip(_other_clocks, faulty)
    collect = "from sif_writable.storage.make import collect_leftovers as c; c('/var/tmp')"
    for clock, stays in (("1970-01-02 00:00:00", True), ("", True), ("2090-01-01 00:00:00", False)):
        os.makedirs(faulty.places.var_tmp + _LEFTOVER[8:], exist_ok=True)
        subprocess.run(["chown", str(store.ORDINARY_UID), faulty.places.var_tmp + _LEFTOVER[8:]], check=True)
        assert faulty.run(_at(clock, "-c", collect), tmpfs=(), env={"SIF_WRITABLE": "off"}).returncode == 0
        assert os.path.isdir(faulty.places.var_tmp + _LEFTOVER[8:]) == stays, clock


def test_storage_of_another_uid(faulty: Faulty) -> None:
    if os.getuid():
        pytest.skip(f"{NOT_RUN}only root can give files to another user")
    assert faulty.run([PYTHON, "-c", _USE], tmpfs=()).stdout == "/var/tmp\n"
    (root,) = (name for name in os.listdir(faulty.places.var_tmp) if name.startswith("sif-writable"))
    subprocess.run(["chown", "-R", "-h", "4321:4321", f"{faulty.places.var_tmp}/{root}"], check=True)
    for _ in range(2):
        result = faulty.run([PYTHON, "-c", _USE], tmpfs=())
        assert (result.returncode, result.stdout, result.stderr) == (0, "/tmp\n", ""), result
    status = faulty.run([PYTHON, "-m", "sif_writable", "status", "--no-gpu"], tmpfs=())
    assert "belongs to uid 4321" in " ".join(status.stdout.split())


def test_fakeroot_and_back(apptainer: Apptainer, sif: str) -> None:
    """Root of a user namespace and the user outside it are one: they share storage, and see the same files."""
    program = """
import json, os, sys
place = os.environ["NUMBA_CACHE_DIR"]
os.makedirs(place, exist_ok=True)
found = sorted(os.listdir(place))
open(f"{place}/{len(found)}", "w").close()
state = sys.modules["sif_writable"].state
print(json.dumps([os.geteuid(), state, place.partition("/.cache/")[2], found]))
"""
    reports = []
    for options in ([], ["--fakeroot"], [], ["--fakeroot"]):
        result = apptainer.exec(sif, ["python3", "-c", program], options=options)
        assert (result.returncode, result.stderr) == (0, ""), result
        reports.append(json.loads(result.stdout))
    assert [uid for uid, *_ in reports] == [store.ORDINARY_UID, 0] * 2
    assert {state for _, state, *_ in reports} == {"active"}
    assert len({place for _, _, place, _ in reports}) == 1
    assert [found for *_, found in reports] == [[], ["0"], ["0", "1"], ["0", "1", "2"]]
