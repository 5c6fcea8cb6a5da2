"""What writable copies cost: ``python -m tests.benchmarks.copyup [--rounds N]``.

Each line compares two ways in the same read-only root, turn by turn, so that whatever else the machine does hits both;
the times are those of the import (or the copying) alone, medians; CPU time is less disturbed by what else runs.

=====================  ===============================================================================  =======
line                   compared                                                                         aim
=====================  ===============================================================================  =======
no copy needed         import numpy from the image: with our finder, against the same without           1.01
from the copy          import matplotlib from its copy, against the same from a writable environment    1.05
first copy             copying matplotlib up, against ``cp -a`` of it, in MB/s of what is copied        -
=====================  ===============================================================================  =======
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tests.lab import readonly_root, scratch
from tests.lab.environments import PYTHON, packages
from tests.lab.plain_machine import PlainMachine

if TYPE_CHECKING:
    from collections.abc import Mapping

_IMPORT = """
import sys, time
from sif_writable import importhook
if {bare}: importhook.remove()
start, cpu = time.perf_counter(), time.process_time()
import {name}
cpu, seconds = time.process_time() - cpu, time.perf_counter() - start
assert ('/tree/' in {name}.__file__) == {copied}, {name}.__file__
print(seconds, cpu)
"""
_COPY = """
import json, os, shutil, subprocess, sys, time
from sif_writable import importhook
from sif_writable.copies import provide as copyup
from sif_writable.copies.units import Unit, measure
unit = Unit('matplotlib', {packages!r}, 'matplotlib')
copies = importhook.install().copies; copies.wanted()
size = measure([unit], execute=True)
ours, theirs = [], []
for _ in range({rounds}):
    shutil.rmtree(copies.tree, ignore_errors=True); os.makedirs(copies.tree)
    start = time.perf_counter(); problem = copyup.make([unit], 'user', '', copies)
    ours.append(time.perf_counter() - start)
    assert not problem and copies.has(unit.path), problem
    subprocess.run(['rm', '-rf', copies.tree + '/cp'], check=True)
    start = time.perf_counter()
    subprocess.run(['cp', '-a', unit.path, copies.tree + '/cp'], check=True)
    theirs.append(time.perf_counter() - start)
print(json.dumps([size, ours, theirs]))
"""


class Way(NamedTuple):
    """One way to import."""

    environment: Mapping[str, str]
    writable: bool = False
    """The packages can be written."""
    copied: bool = False
    """The package comes from its copy."""
    bare: bool = False
    """Our finder is out of the way."""


class Bench:
    """Runs programs in one environment, shown read-only or writable."""

    def __init__(self, machine: PlainMachine, environment: str) -> None:
        """Take where to run, and what."""
        self.machine = machine
        self.environment = environment

    def run(self, code: str, env: Mapping[str, str], *, writable: bool = False) -> str:
        """Return what a program prints."""
        result = self.machine.run(
            [PYTHON, "-c", code], venv=self.environment, env=env, writable=writable, image=True, timeout=600
        )
        if result.returncode:
            raise SystemExit(f"it failed:\n{result.stdout}{result.stderr}")
        return result.stdout

    def imports(self, name: str, ways: Mapping[str, Way], rounds: int) -> dict[str, tuple[float, float]]:
        """Return the median seconds of an import and of its CPU time, by way."""
        times: dict[str, list[list[float]]] = {word: [] for word in ways}
        for turn in range(rounds + 2):  # the first two fill caches
            for word, way in list(ways.items())[:: 1 if turn % 2 else -1]:
                code = _IMPORT.format(name=name, copied=way.copied, bare=way.bare)
                said = self.run(code, way.environment, writable=way.writable)
                if turn > 1:
                    times[word].append([float(number) for number in said.split()[-2:]])
        return {
            word: (statistics.median(one for one, _ in found), statistics.median(cpu for _, cpu in found))
            for word, found in times.items()
        }


def main() -> None:
    """Measure, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40, help="imports of each kind (default: 40)")
    rounds = parser.parse_args().rounds
    off = {"SIF_WRITABLE": "off"}
    with scratch.fresh() as places:
        environment = readonly_root.venv()
        bench = Bench(PlainMachine(places), environment)
        found = bench.imports("numpy", {"with": Way({}), "without": Way({}, bare=True)}, rounds)
        _report("no copy needed", found["with"], found["without"], 1.01)
        ways = {
            "copy": Way({"SIF_WRITABLE_PACKAGES": "matplotlib"}, copied=True),
            "writable": Way(off, writable=True),
        }
        found = bench.imports("matplotlib", ways, rounds)
        _report("from the copy", found["copy"], found["writable"], 1.05)
        inside = "/venv" + packages(environment)[len(environment) :]
        said = bench.run(_COPY.format(packages=inside, rounds=max(3, rounds // 8)), {})
        (copied, linked, entries), ours, theirs = json.loads(said)
        mine, cp = (statistics.median(times) for times in (ours, theirs))
        speed = (copied + linked) / 1e6 / cp
        print(
            f"first copy: {copied / 1e6 / mine:.0f} MB/s ({copied / 1e6:.0f} MB in {entries} entries, "
            f"{mine * 1e3:.0f} ms; {linked / 1e6:.0f} MB are linked); cp -a: {speed:.0f} MB/s ({cp * 1e3:.0f} ms)"
        )


def _report(line: str, ours: tuple[float, float], theirs: tuple[float, float], aim: float) -> None:
    print(
        f"{line}: {ours[0] * 1e3:.2f} ms against {theirs[0] * 1e3:.2f} ms: {ours[0] / theirs[0]:.3f}; "
        f"CPU {ours[1] * 1e3:.2f} against {theirs[1] * 1e3:.2f}: {ours[1] / theirs[1]:.3f} (aim: {aim})"
    )


if __name__ == "__main__":
    main()
