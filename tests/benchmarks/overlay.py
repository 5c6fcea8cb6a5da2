"""What an overlay costs: ``python -m tests.benchmarks.overlay [--rounds N] [--no-image]``.

Each line compares two ways turn by turn, so that whatever else the machine does hits both; times are medians of the
import alone, by the clock and of the processor, the last two lines those of entering.

=====================  ===============================================================================  =======
line                   compared                                                                         aim
=====================  ===============================================================================  =======
one package            import matplotlib with an overlay over it, against a writable environment        1.03
one package in a SIF   the same against the image without an overlay (squashfs by FUSE)                 1.03
beside a graft         import matplotlib with new paths in the prefix made writable                     1.01
read-only              import matplotlib from the read-only environment, no overlay: what the rest is   -
entering, first        the trial in a child included: what the first start of a boot pays               -
entering               what every other start pays                                                      -
=====================  ===============================================================================  =======
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from typing import TYPE_CHECKING, Callable

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tests.lab import apptainer_root, image, readonly_root, scratch
from tests.lab.apptainer_root import Apptainer
from tests.lab.environments import PYTHON
from tests.lab.plain_machine import PlainMachine
from tests.lab.unavailable import LabUnavailable

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping

    Run = Callable[[str, Mapping[str, str], bool], subprocess.CompletedProcess[str]]

_PROGRAM = """
import json, os, sys, time
wanted = {wanted}
entering = 0.0
# Loaded in every way, since much of it is what matplotlib needs, too.
from sif_writable import importhook
from sif_writable.overlay import enter as overlay, kernel
from sif_writable.overlay.decide import Wanted
if wanted:
    begin = time.perf_counter()
    site = os.path.dirname(os.path.dirname(overlay.__file__)).rpartition("/")[0]
    paths = [path.replace("SITE", site).replace("PREFIX", sys.prefix) for path in wanted]
    problem = overlay.serve([Wanted(path, "") for path in paths], os.environ,
                            os.path.dirname(importhook.folder()))
    assert not problem and all(not done.note for done in overlay.entered), (problem, overlay.entered)
    entering = time.perf_counter() - begin
begin, cpu = time.perf_counter(), time.process_time()
import matplotlib, matplotlib.pyplot
print(json.dumps([time.perf_counter() - begin, entering, time.process_time() - cpu]))
"""
PACKAGE, GRAFT = ["SITE/matplotlib"], ["PREFIX/share/new", "PREFIX/lib/new"]


def measure(run: Run, ways: Mapping[str, tuple[list[str], Mapping[str, str], bool]], rounds: int) -> dict[str, float]:
    """Return the median seconds of the import, by way: (wanted, environment, writable); entering as ``entering``."""
    names = [name for way in ways for name in (way, f"{way}, cpu")]
    times: dict[str, list[float]] = {name: [] for name in (*names, "entering", "entering, first")}
    for turn in range(rounds + 2):  # the first two fill caches
        for way, (wanted, env, writable) in list(ways.items())[:: 1 if turn % 2 else -1]:
            done = run(_PROGRAM.format(wanted=wanted), env, writable)
            if done.returncode:
                raise SystemExit(f"it failed:\n{done.stdout}{done.stderr}")
            seconds, entering, cpu = json.loads(done.stdout.splitlines()[-1])
            if wanted and turn == 0:
                times["entering, first"].append(entering)
            if turn > 1:
                times[way].append(seconds)
                times[f"{way}, cpu"].append(cpu)
                if wanted:
                    times["entering"].append(entering)
    return {way: statistics.median(found) for way, found in times.items()}


def main() -> None:
    """Measure, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="imports of each kind (default: 30)")
    parser.add_argument("--no-image", action="store_true", help="leave out the SIF")
    arguments = parser.parse_args()
    with scratch.fresh() as places:
        environment, machine = readonly_root.venv(), PlainMachine(places)

        def run(code: str, env: Mapping[str, str], writable: bool) -> subprocess.CompletedProcess[str]:
            return machine.run([PYTHON, "-c", code], venv=environment, env=env, writable=writable, timeout=600)

        ways: dict[str, tuple[list[str], Mapping[str, str], bool]] = {
            "overlay": (PACKAGE, {}, False),
            "graft": (GRAFT, {}, False),
            "writable": ([], {"SIF_WRITABLE": "on"}, True),
            "read-only": ([], {}, False),
        }
        found = measure(run, ways, arguments.rounds)
        _report("one package", found, "overlay", "writable", 1.03)
        _report("beside a graft", found, "graft", "writable", 1.01)
        _report("read-only", found, "read-only", "writable", 1.01)
        _report_entering(found)
    if not arguments.no_image:
        try:
            _in_image(arguments.rounds)
        except LabUnavailable as why:
            print(f"not measured in a SIF: {why}")


def _in_image(rounds: int) -> None:
    sif = image.sif()
    with scratch.fresh() as places:
        apptainer = Apptainer(apptainer_root.find(), places)

        def run(code: str, env: Mapping[str, str], _writable: bool) -> subprocess.CompletedProcess[str]:
            return apptainer.exec(sif, ["/opt/venv/bin/python", "-c", code], env=env)

        found = measure(
            run, {"overlay": (PACKAGE, {}, False), "graft": (GRAFT, {}, False), "bare": ([], {}, False)}, rounds
        )
        _report("one package in a SIF", found, "overlay", "bare", 1.03)
        _report("beside a graft in a SIF", found, "graft", "bare", 1.01)
        _report_entering(found)


def _report(line: str, found: Mapping[str, float], way: str, against: str, aim: float) -> None:
    seconds, other = found[way], found[against]
    ratio, cpu = seconds / other, found[f"{way}, cpu"] / found[f"{against}, cpu"]
    print(f"{line}: {seconds * 1e3:.1f} ms against {other * 1e3:.1f} ms: {ratio:.3f}, cpu {cpu:.3f} (aim: {aim})")


def _report_entering(found: Mapping[str, float]) -> None:
    print(f"entering: {found['entering'] * 1e3:.1f} ms; the first time {found['entering, first'] * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
