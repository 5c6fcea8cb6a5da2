"""In a real image: a running program keeps its copies, other images keep their things, and old images leave little."""

from __future__ import annotations

import json
import os
import shlex
import time
from typing import TYPE_CHECKING

from sif_writable.cleanup.policy import DAY
from tests.conftest import BY_COPY

if TYPE_CHECKING:
    from tests.lab.apptainer_root import Apptainer

PYTHON = "/opt/venv/bin/python"
COPIED = {"APPTAINERENV_SIF_WRITABLE_PACKAGES": "pyparsing", **BY_COPY}
_LATE = """
import pyparsing, sys
print("/tree/" in pyparsing.__file__, flush=True)
sys.stdin.readline()
import pyparsing.testing, pyparsing.common
print("done")
"""
# A program in one container, and our command in three others, one of them with pids of its own.
_BESIDE = f"""
run() {{ apptainer --silent exec "$@"; }}
say() {{ "$@" >said 2>&1; echo "$?:" $(cat said); }}
mkfifo wait
run $SIF {PYTHON} -c {shlex.quote(_LATE)} <wait >out & exec 5>wait
until [ -s out ]; do sleep 0.05; done
say run $SIF sif-writable cache clear --yes packages-cpython-311
say run --pid $SIF sif-writable cache prune --yes --older-than 0min
echo go >&5; exec 5>&-; wait $!
echo $? $(cat out)
say run --bind labels:/.singularity.d/labels.json:ro $SIF sif-writable cache clear --yes packages-cpython-311
say run $SIF sif-writable cache clear --yes packages-cpython-311
"""


def test_a_program_in_one_container_keeps_its_copies_from_another(apptainer: Apptainer, sif: str) -> None:
    _build(apptainer, 1)
    program = f'SIF={shlex.quote(apptainer.inside(sif))}\napptainer() {{ {apptainer.runtime.program} "$@"; }}\n'
    done = apptainer.beside(["bash", "-c", program + _BESIDE], env=COPIED)
    cleared, pruned, program, other, after = done.stdout.splitlines()
    assert cleared.startswith("1:"), done
    assert "packages-cpython-311 stays: it is imported from by process " in cleared
    assert pruned.startswith("1:")
    assert "packages-cpython-311 stays: it is imported from by" in pruned
    assert program == "0 True done"
    assert other.startswith("2:")  # another image does not reach it unless it says so
    assert "packages-cpython-311 is of 1 other image" in other
    assert other.count("Remedy: add --all-images") == 1
    assert after.startswith("0: removed 1 thing")


def _build(apptainer: Apptainer, number: int) -> list[str]:
    """Let the image say that it was built once more; return the options to run that build."""
    with open(os.path.join(apptainer.places.work, "labels"), "w", encoding="utf-8") as file:
        json.dump({"org.label-schema.build-date": f"build {number}"}, file)
    return ["--bind", "labels:/.singularity.d/labels.json:ro"]


def test_of_three_rebuilds_the_last_keeps_its_copy(apptainer: Apptainer, sif: str) -> None:
    words = [PYTHON, "-c", "import pyparsing; open(pyparsing.__path__[0] + '/own.db', 'a').close()"]
    for number in range(3):
        done = apptainer.exec(sif, words, options=_build(apptainer, number), env=COPIED)
        assert (done.returncode, done.stderr) == (0, "")
    root = f"{apptainer.places.home}/.cache/sif-writable"
    before = _files(root)
    then = time.time() - 61 * DAY
    for path in before:
        if "/plan-" in path or path.endswith(("/lease", "/own.db", "/housekeeping", "/used")):
            os.utime(path, (then, then))
    status = ["sh", "-c", f"{PYTHON} -c 'import pyparsing' && sif-writable status --json --no-gpu"]
    for _ in range(5):  # on a busy machine a round may not come to its end in a second
        done = apptainer.exec(sif, status, options=_build(apptainer, 3), env=COPIED)
        assert (done.returncode, done.stderr) == (0, "")
        after = _files(root)
        if not [path for path in after if "-gone-" in path or (path.endswith("/plan-cpython-311") and path in before)]:
            break
        os.utime(f"{root}/locks/housekeeping", (then, then))
        for path in {path for path in after if "/plan-" in path}.difference(before):
            os.unlink(path)
    assert len([path for path in before if path.endswith("/pyparsing/core.py")]) == 3
    assert len([path for path in after if path.endswith("/pyparsing/core.py")]) == 1
    assert len([path for path in after if path.endswith("/own.db")]) == 3
    (usage,) = json.loads(done.stdout)["usage"]
    assert (usage["images"], usage["limit_bytes"], usage["warning"]) == (4, 10 << 30, None)
    assert usage["written_files"] >= 3


def _files(root: str) -> list[str]:
    return [os.path.join(here, name) for here, _, names in os.walk(root) for name in names]
