"""What writable copies cost: ``python -m tests.benchmarks.copyup [--rounds N]``.

Each line compares two ways in the same read-only root, turn by turn, so that whatever else the machine does hits both;
the times are those of the import (or the copying) alone, medians.

=====================  ===============================================================================  =======
line                   compared                                                                         aim
=====================  ===============================================================================  =======
no copy needed         import numpy from the image: with the hook, against SIF_WRITABLE=off             1.01
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
from typing import TYPE_CHECKING

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tests.lab import readonly_root, scratch
from tests.lab.environments import PYTHON, packages
from tests.lab.plain_machine import PlainMachine

if TYPE_CHECKING:
    from collections.abc import Mapping

_IMPORT = """
import sys, time
start = time.perf_counter(); import {name}; seconds = time.perf_counter() - start
assert ('/tree/' in {name}.__file__) == {copied}, {name}.__file__
print(seconds)
"""
_COPY = """
import json, os, shutil, subprocess, sys, time
from sif_writable import importhook
from sif_writable.act import copyup
from sif_writable.facts.packages import Unit, measure
unit = Unit('matplotlib', {packages!r}, 'matplotlib')
finder = importhook.finder(); finder.wanted()
size = measure([unit], execute=True)
ours, theirs = [], []
for _ in range({rounds}):
    shutil.rmtree(finder.tree, ignore_errors=True); os.makedirs(finder.tree)
    start = time.perf_counter(); problem = copyup.make([unit], 'user', ''); ours.append(time.perf_counter() - start)
    assert not problem and finder.has(unit.path), problem
    subprocess.run(['rm', '-rf', finder.tree + '/cp'], check=True)
    start = time.perf_counter()
    subprocess.run(['cp', '-a', unit.path, finder.tree + '/cp'], check=True)
    theirs.append(time.perf_counter() - start)
print(json.dumps([size, ours, theirs]))
"""


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

    def imports(
        self, name: str, ways: Mapping[str, tuple[Mapping[str, str], bool, bool]], rounds: int
    ) -> dict[str, float]:
        """Return the median seconds of an import, by way: (environment, environment is writable, from the copy)."""
        times: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(rounds + 2):  # the first two fill caches
            for way, (env, writable, copied) in list(ways.items())[:: 1 if turn % 2 else -1]:
                said = self.run(_IMPORT.format(name=name, copied=copied), env, writable=writable)
                if turn > 1:
                    times[way].append(float(said.split()[-1]))
        return {way: statistics.median(found) for way, found in times.items()}


def main() -> None:
    """Measure, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40, help="imports of each kind (default: 40)")
    rounds = parser.parse_args().rounds
    off = {"SIF_WRITABLE": "off"}
    with scratch.fresh() as places:
        environment = readonly_root.venv()
        bench = Bench(PlainMachine(places), environment)
        found = bench.imports("numpy", {"with": ({}, False, False), "without": (off, False, False)}, rounds)
        _tell("no copy needed", found["with"], found["without"], 1.01)
        ways = {
            "copy": ({"SIF_WRITABLE_PACKAGES": "matplotlib"}, False, True),
            "writable": (off, True, False),
        }
        found = bench.imports("matplotlib", ways, rounds)
        _tell("from the copy", found["copy"], found["writable"], 1.05)
        inside = "/venv" + packages(environment)[len(environment) :]
        said = bench.run(_COPY.format(packages=inside, rounds=max(3, rounds // 8)), {})
        (copied, linked, entries), ours, theirs = json.loads(said)
        mine, cp = (statistics.median(times) for times in (ours, theirs))
        speed = (copied + linked) / 1e6 / cp
        print(
            f"first copy: {copied / 1e6 / mine:.0f} MB/s ({copied / 1e6:.0f} MB in {entries} entries, "
            f"{mine * 1e3:.0f} ms; {linked / 1e6:.0f} MB are linked); cp -a: {speed:.0f} MB/s ({cp * 1e3:.0f} ms)"
        )


def _tell(line: str, seconds: float, against: float, aim: float) -> None:
    print(f"{line}: {seconds * 1e3:.2f} ms against {against * 1e3:.2f} ms: {seconds / against:.3f} (aim: {aim})")


if __name__ == "__main__":
    main()
