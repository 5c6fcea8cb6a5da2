"""What counts as a refused write, and what a second try may do, in a real SIF."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from tests.conftest import BY_COPY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.lab.apptainer_root import Apptainer

RUNNER = """
import json, os, subprocess, sys
results = []
for code in json.loads(sys.argv[1]):
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    results.append([done.returncode, done.stdout, done.stderr])
print(json.dumps(results))
"""


class Done(NamedTuple):
    """How a program ended."""

    code: int
    out: str
    err: str


def run(apptainer: Apptainer, sif: str, programs: Sequence[str], **env: str) -> list[Done]:
    """Run programs one after the other, in one container."""
    result = apptainer.exec(sif, ["python", "-c", RUNNER, json.dumps(programs)], env={**BY_COPY, **env})
    assert result.returncode == 0, result
    return [Done(*each) for each in json.loads(result.stdout.splitlines()[-1])]


def test_errors_of_other_kinds_change_nothing(apptainer: Apptainer, sif: str) -> None:
    value = "import valuing; valuing.value('no number')"
    programs = [value, "import unlicensed", "import compiled"]
    where = "import valuing; print(valuing.__file__)"
    plain = run(apptainer, sif, programs, SIF_WRITABLE="off")
    *ours, last = run(apptainer, sif, [*programs, *programs, where])
    assert ours == plain * 2
    assert all(done.code == 1 and done.out.count("executed") == 1 for done in ours)
    assert last.out.split()[-1].startswith("/opt/venv/lib/")


def test_second_tries(apptainer: Apptainer, sif: str) -> None:
    programs = ["import early", "import registering", "import refusing", "from console.main import run; run()"]
    plain = run(apptainer, sif, programs, SIF_WRITABLE="off")
    early, registering, refusing, console = run(apptainer, sif, programs)
    assert early == Done(0, "executed early\n" * 2, "")
    assert (registering.code, registering.out) == (1, "executed registering\nbye\n")
    assert "This import is not tried again: it has registered something with atexit. To undo this: " in registering.err
    line, _, rest = refusing.err.partition("\n")
    assert (refusing.code, rest) == (1, plain[2].err)
    assert "is not used any more: the import of refusing failed with it too (KeyError:" in line
    assert (console.code, console.err) == (0, "")
    assert console.out.splitlines()[-1].startswith("ran /")
    assert "/tree/opt/venv/" in console.out.splitlines()[-1]
    early, registering, refusing, console = run(apptainer, sif, programs)
    assert early == Done(0, "executed early\n", "")
    assert registering == Done(0, "executed registering\nbye\n", "")
    assert (refusing.code, refusing.out) == (1, "executed refusing\n")
    assert console.out.count("executed console") == 1
