"""What a start costs as things grow: rows of the table of locations, files in storage, packages learned.

``python -m tests.benchmarks.growth [--rounds N] [--svg FILE]`` from the root of the repository; with ``--svg`` it needs
matplotlib. Each point is ``python -c 'import example'``, a module of site-packages, in a read-only environment whose
storage is warm and where packages get copies, against the same without the package, in turn. System calls are counted
besides (strace), but for those about memory. An address space laid out by chance moves both by about a tenth of a
millisecond.

At the end it is measured, within a process, what one import takes with no package learned and with 1,000, in turn: the
first one, which reads the list (processor time), and each further one, by what the finders take: what they find is not
executed.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import statistics
import sys
from typing import TYPE_CHECKING, Callable, NamedTuple

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tests.benchmarks import rounds
from tests.conftest import BY_COPY
from tests.lab import apt, environments, pythons, scratch
from tests.lab.plain_machine import WORK, PlainMachine
from tests.lab.store import ORDINARY_UID
from tests.lab.unavailable import LabUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.lab.scratch import Scratch

_BARE, _HOOKED, _ROUNDS = "/bare/bin/python", "/venv/bin/python", "/rounds.py"
_WORDS = ["-c", "import example"]
_STATE = "import sif_writable; print(sif_writable.state)"
_FURTHER = 200
"""Empty modules: one is imported, the others are looked up after it."""
_FIND = f"""
import sys, time
begin = time.process_time()
import further_0
first = time.process_time() - begin
finder, *_ = sys.meta_path
times = []
for number in range(1, {_FURTHER}):
    begin = time.perf_counter()
    assert finder.find_spec(f"further_{{number}}")
    times.append(time.perf_counter() - begin)
print(first, sorted(times)[len(times) // 2])
"""
_MEMORY = ("brk", "mmap", "munmap", "mprotect", "mremap", "madvise")

_MORE_ROWS = """
ROWS += tuple(map(Row._make, [
    (f"GROWN_{{n}}_CACHE", ("data", "compiled")[n % 2], ("if_unwritable", "always")[n % 10 == 0],
     (f"CACHE/grown-{{n}}",), (), "dir", f"grown-{{n}}", "made for this benchmark")
    for n in range({more})
]))
"""


class Point(NamedTuple):
    """One size, and what a start costs there."""

    size: int
    bare: list[float]
    """Seconds."""
    hook: list[float]
    calls: int
    """System calls more than without the package."""

    @property
    def more(self) -> float:
        """Milliseconds more than without the package: the difference of the medians."""
        return 1e3 * (statistics.median(self.hook) - statistics.median(self.bare))


def main() -> None:
    """Measure, print the table, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60, help="starts of each program (default: 60)")
    parser.add_argument("--svg", metavar="FILE", help="draw it there")
    arguments = parser.parse_args()
    found = [python for python in pythons.found() if not python.debian]
    if not found:
        raise LabUnavailable("this machine has no CPython but Debian's")
    python = next((python for python in found if python.version == "3.11"), found[0])
    bare, hooked = environments.bare(python), environments.hooked(python)
    series: dict[str, list[Point]] = {}
    for name, sizes, grow in SERIES:
        for size in sizes:
            with scratch.fresh() as places:
                environment = environments.copy(hooked, os.path.join(places.folder, "venv"))
                machine = PlainMachine(places)
                point = measure(machine, bare, environment, size, grow, arguments.rounds)
            series.setdefault(name, []).append(point)
            ratio = statistics.median(point.hook) / statistics.median(point.bare)
            print(f"{name:<28}{size:>8}{point.calls:>6} calls{point.more:>7.2f} ms more, ratio {ratio:.3f}", flush=True)
    print(found_within(hooked, arguments.rounds))
    if arguments.svg:
        draw(series, arguments.svg)


def found_within(hooked: str, count: int) -> str:
    """Measure what one import takes, and what 1,000 learned packages add to it; return both as text."""
    times: dict[int, list[list[float]]] = {0: [], 1000: []}
    with scratch.fresh() as places, scratch.fresh() as none, scratch.fresh() as many:
        environment = environments.copy(hooked, os.path.join(places.folder, "venv"))
        for number in range(_FURTHER):
            with open(os.path.join(environments.packages(environment), f"further_{number}.py"), "wb"):
                pass
        machines = {0: PlainMachine(none), 1000: PlainMachine(many)}
        for turn in range(-3, count):
            for size, machine in machines.items():
                done = machine.run([_HOOKED, "-c", _FIND], venv=environment, env=BY_COPY)
                if done.returncode != 0:
                    raise RuntimeError(done.stderr[-2000:])
                if turn == -3:
                    learned(machine.places, environment, size)
                if turn >= 0:
                    times[size].append([1e6 * float(word) for word in done.stdout.split()])
    lines = []
    for name, least, most in zip(("first import", "each further one"), zip(*times[0]), zip(*times[1000])):
        more = statistics.median(most) - statistics.median(least)
        lines.append(f"{name:<28}{_middle(least)} us; with 1,000 packages learned {_middle(most)}, {more:.2f} us more")
    return "\n".join(lines)


def _middle(times: Sequence[float]) -> str:
    lower, middle, upper = statistics.quantiles(times, n=4)
    return f"{middle:.2f} ({upper - lower:.2f})"


def measure(
    machine: PlainMachine,
    bare: str,
    environment: str,
    size: int,
    grow: Callable[[Scratch, str, int], None],
    count: int,
) -> Point:
    """Measure one size."""
    binds = [f"{bare}:/bare:ro", f"{rounds.__file__}:{_ROUNDS}:ro"]

    def run(argv: Sequence[str]) -> str:
        result = machine.run(argv, venv=environment, binds=binds, env=BY_COPY, timeout=3600)
        if result.returncode != 0:
            raise RuntimeError(f"{argv[:3]} failed:\n{result.stderr[-2000:]}")
        return result.stdout

    def calls(python: str) -> int:
        trace = os.path.join(machine.places.work, "trace")
        run([apt.find("strace") or "strace", "-f", "-qq", "-o", f"{WORK}/trace", python, *_WORDS])
        with open(trace, encoding="utf-8", errors="replace") as file:
            return sum(not line.split(maxsplit=1)[1].startswith(_MEMORY) for line in file)

    if grow is rows:  # before storage is made, so that it knows them
        grow(machine.places, environment, size)
    run([_HOOKED, *_WORDS])
    if grow is not rows:
        grow(machine.places, environment, size)
    run([_HOOKED, *_WORDS])
    specification = rounds.Specification(
        check=[_HOOKED, "-c", _STATE],
        expected="active",
        programs={"bare": [_BARE, *_WORDS], "hook": [_HOOKED, *_WORDS]},
        rounds=count,
        answered_by="",
        discarded=3,
    )
    times = json.loads(run([_BARE, "-I", "-S", _ROUNDS, json.dumps(specification)]))
    more = calls(_HOOKED) - calls(_BARE)
    return Point(size, [each[0] for each in times["bare"]], [each[0] for each in times["hook"]], more)


def rows(places: Scratch, environment: str, size: int) -> None:
    """Let the table of locations have that many rows."""
    del places
    catalog = os.path.join(environments.packages(environment), "sif_writable", "redirects", "catalog.py")
    with open(catalog, encoding="utf-8") as file:
        text = file.read()
    known = text[text.index("ROWS:") : text.index("OPT_IN")].count('\n    ("')
    with open(catalog, "a", encoding="utf-8") as file:
        file.write(_MORE_ROWS.format(more=max(size - known, 0)))
    folder = os.path.dirname(catalog)
    for name in glob.glob(os.path.join(glob.escape(folder), "__pycache__", "catalog.*")):
        os.unlink(name)


def files(places: Scratch, environment: str, size: int) -> None:
    """Let downloads and object code consist of that many files, 100 in a folder."""
    del environment
    for number in range(size):
        folder = os.path.join(_storage(places)[0], "data", "cache", f"folder-{number // 100}")
        if number % 100 == 0:
            _make(folder)
        with open(os.path.join(folder, f"file-{number}"), "wb"):
            pass


def learned(places: Scratch, environment: str, size: int) -> None:
    """Let earlier runs have learned of that many packages."""
    del environment
    (path,) = glob.glob(os.path.join(glob.escape(_storage(places)[0]), "image-*", "packages-*", "learned"))
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(
            f"package\tgrown_{number}\t/venv/lib/python3/site-packages\tlearned\tmade for this benchmark\n"
            for number in range(size)
        )


SERIES: tuple[tuple[str, tuple[int, ...], Callable[[Scratch, str, int], None]], ...] = (
    ("rows of the table", (100, 300, 1000), rows),
    ("files in storage", (10, 1000, 100_000), files),
    ("packages learned", (0, 100, 1000), learned),
)


def _storage(places: Scratch) -> list[str]:
    return glob.glob(os.path.join(glob.escape(places.home), ".cache", "sif-writable"))


def _make(folder: str) -> None:
    os.makedirs(folder, 0o700)
    if os.getuid() == 0:
        os.chown(folder, ORDINARY_UID, ORDINARY_UID)


def draw(series: dict[str, list[Point]], path: str) -> None:
    """Write the plot."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "sif_writable", "font.size": 9})
    from matplotlib import pyplot as plt

    top = 1.25 * max(1e3 * statistics.median(point.hook) for points in series.values() for point in points)
    figure, panels = plt.subplots(1, len(series), figsize=(9, 2.8), sharey=True, layout="constrained")
    for panel, (name, points) in zip(panels, series.items()):
        ticks = range(len(points))
        for label, times, style in (
            ("with", [p.hook for p in points], "o-"),
            ("without", [p.bare for p in points], "s--"),
        ):
            middles = [1e3 * statistics.median(each) for each in times]
            quarters = [statistics.quantiles(each, n=4) for each in times]
            low = [middle - 1e3 * quarter[0] for middle, quarter in zip(middles, quarters)]
            high = [1e3 * quarter[2] - middle for middle, quarter in zip(middles, quarters)]
            panel.errorbar(ticks, middles, yerr=[low, high], fmt=style, capsize=3, label=f"{label} sif-writable")
        for tick, point in zip(ticks, points):
            text = f"{point.calls} calls"
            panel.annotate(
                text, (tick, 1e3 * statistics.median(point.hook)), (0, 9), textcoords="offset points", ha="center"
            )
        panel.set(title=name, xlim=(-0.4, len(points) - 0.6), ylim=(0, top))
        panel.set_xticks(ticks, [f"{point.size:,}" for point in points])
    panels[0].set_ylabel("start and first import, ms")
    panels[0].legend(loc="lower left", frameon=False)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
