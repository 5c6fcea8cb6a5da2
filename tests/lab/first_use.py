"""What users meet first in an environment, whoever has laid it out: the hook runs, and what packages write is kept."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.lab import scratch
from tests.lab.environments import PYTHON
from tests.lab.hooked import DECIDED, STATE, answer, question
from tests.lab.writing_image import Image
from tests.layer.conftest import Box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.lab.plain_machine import PlainMachine
    from tests.lab.scratch import Scratch

_QUIET = {"PYTHONWARNINGS": "ignore::ResourceWarning"}
"""Debug builds warn of files that the small packages leave open."""
_CHILD = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', sys.argv[1]]).returncode)"


def works(places: Scratch, environment: str, *, writable: Sequence[str] = (), layer: bool = True) -> PlainMachine:
    """Start interpreters in an image with that environment; its small packages write by copy and in a layer.

    :param writable: further directories that a layer makes writable; :param layer: whether there can be one.
    :returns: the machine that they ran on.
    """
    image = Image(places, environment)
    for decided in (True, False):  # cold, then by what was kept
        found = answer(image.machine.run([PYTHON, "-c", question(f"({STATE}, {DECIDED})")], venv=environment))
        assert found == ("active", decided), (found, decided)
    child = image.machine.run([PYTHON, "-c", _CHILD, question(STATE)], venv=environment)
    assert answer(child) == "inherited"
    assert image.says("import open_import", env=_QUIET) == "made\n"
    failed = image.run("import open_use; open_use.use()", env=_QUIET)
    assert (failed.returncode, "open_use writes into its own directory" in failed.stderr) == (1, True), failed
    assert image.says("import open_use; open_use.use()", env=_QUIET) == "made\n"
    for words in (["status"], ["doctor"], ["cache", "list"]):
        done = image.run(argv=["-m", "sif_writable", *words])
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done
    traced = image.run(argv=["-m", "sif_writable", "trace", "--", PYTHON, "-c", "print(6 * 7)"], env=_QUIET)
    assert (traced.returncode, traced.stdout[:3], traced.stderr, "Error" in traced.stdout) == (0, "42\n", "", False), (
        traced
    )
    if layer:
        with scratch.fresh() as others:
            _works_in_a_layer(Box(others, environment), writable)
    else:
        report = image.run(argv=["-m", "sif_writable", "doctor"], env={"SIF_WRITABLE_OVERLAY": ""}).stdout
        assert "posix_spawn" in report, report
    return image.machine


def _works_in_a_layer(box: Box, writable: Sequence[str]) -> None:
    news = [os.path.join(folder, "new") for folder in writable]
    program = f"import open_use, mkdir_use; open_use.use(); mkdir_use.use(); [open(n, 'x').close() for n in {news}]"
    look = f"import os, open_use; open_use.use(); print([os.path.exists(name) for name in {news}])"
    hook = {"SIF_WRITABLE": "", **_QUIET}
    first = box.shell(f'{PYTHON} -c "{program}"', env=hook)
    assert (first.returncode, first.stdout, first.stderr) == (0, "made\nmade\n", ""), first
    second = box.shell(f'{PYTHON} -c "{look}"', env=hook)
    assert (second.returncode, second.stdout) == (0, f"{[True for _ in news]}\n"), second
