"""What a task of an array job costs: ``python -m tests.benchmarks.array [--rounds N] [--at-a-time LIST]``.

Each task is an ``apptainer exec`` of a SIF on one shared storage: it imports numpy and five packages that write beside
themselves, and writes into HOME. The three ways take turns, so that whatever else the machine does hits all:

=======  ===========================================================================================================
way      what
=======  ===========================================================================================================
without  ``SIF_WRITABLE=off``: what cannot be written is passed over
warm     with the hook, and all that it makes is there
cold     with the hook, and the storage empty when they all start: one makes what is missing, the others wait for it
=======  ===========================================================================================================
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from typing import TYPE_CHECKING, NamedTuple

from tests.benchmarks import many
from tests.benchmarks.many import Specification
from tests.lab import apptainer_root, scratch
from tests.lab.apptainer_root import Apptainer
from tests.slurm import writers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.benchmarks.many import Times

WAYS = ("without", "warm", "cold")
LEAST = 8
"""Tasks of a batch, where fewer run at a time; a cold batch has no more tasks than meet the empty storage."""
_TASK = """
import contextlib, importlib, os
import numpy
for name in ("large", "open_import", "pathlib_import", "solo", "spacious.portion"):
    with contextlib.suppress(OSError):
        importlib.import_module(name)
settings = os.path.expanduser("~/.writer/settings")
if not os.path.exists(settings):
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(settings), exist_ok=True)
        open(settings, "w").close()
"""


class Batch(NamedTuple):
    """Some tasks that shared the machine."""

    way: str
    at_a_time: int
    times: Times

    @property
    def cpu(self) -> float:
        """Return the milliseconds of processor time for each task."""
        return self.times["cpu"] / len(self.times["tasks"]) * 1e3

    @property
    def elapsed(self) -> float:
        """Return the milliseconds for each task by the clock."""
        return self.times["elapsed"] / len(self.times["tasks"]) * 1e3


class Bench:
    """Runs batches of tasks."""

    def __init__(self, apptainer: Apptainer, image: str) -> None:
        """Take the way to start containers, and what to start."""
        self.apptainer = apptainer
        self.image = image
        self.warm = apptainer.places.new_folder("warm")
        for folder, name, text in (("work", "many.py", _source(many.__file__)), ("work", "task.py", _TASK)):
            with open(os.path.join(getattr(apptainer.places, folder), name), "w", encoding="utf-8") as file:
                file.write(text)
        self.batch("warm", 1, 1, 0)

    def batch(self, way: str, at_a_time: int, tasks: int, number: int) -> Batch:
        """Run one; cold ones have a storage of this number."""
        cold = way == "cold"
        name = f"cold-{at_a_time}-{number}"
        storage = self.apptainer.places.new_folder(name) if cold else self.warm
        bind = f"--bind={self.apptainer.inside(storage)}:{writers.STORAGE}"
        argv = [self.apptainer.runtime.program, "--silent", "exec", "--no-home", bind]
        argv += [self.apptainer.inside(self.image), "python", "task.py"]
        specification = json.dumps(Specification(argv=argv, tasks=tasks, at_a_time=at_a_time))
        env = {"SIF_WRITABLE": "off"} if way == "without" else {}
        result = self.apptainer.beside(["python3", "-I", "-S", "many.py", specification], env=env, timeout=3600)
        if result.returncode:
            raise SystemExit(f"{way}, {at_a_time} at a time: {result.stderr}")
        return Batch(way, at_a_time, json.loads(result.stdout))


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="batches of each kind, 2 or more (default: 7)")
    parser.add_argument("--at-a-time", default="1,4,16,64", help="how many tasks share the machine")
    parser.add_argument("--json", metavar="FILE", help="write all times there")
    arguments = parser.parse_args()
    if arguments.rounds < 2:
        parser.error("one round has no spread: --rounds 2 or more")
    found: list[Batch] = []
    with scratch.fresh() as places:
        bench = Bench(Apptainer(apptainer_root.find(), places), writers.image())
        for number in range(arguments.rounds):
            for at_a_time in map(int, arguments.at_a_time.split(",")):
                ways = WAYS[number % 3 :] + WAYS[: number % 3]
                sizes = {way: at_a_time if way == "cold" else max(LEAST, at_a_time) for way in ways}
                found += [bench.batch(way, at_a_time, sizes[way], number) for way in ways]
    print(table(found))
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump([batch._asdict() for batch in found], file)


def table(found: Sequence[Batch]) -> str:
    """Return the batches for people: milliseconds for each task, medians with the interquartile range."""
    head = ("at a time", "hook", "CPU", "more", "elapsed", "more", "slowest")
    lines = ["{:<11}{:<9}{:>16}{:>8}{:>18}{:>8}{:>9}".format(*head)]
    cores = len(os.sched_getaffinity(0))
    for at_a_time in dict.fromkeys(batch.at_a_time for batch in found):
        for way in WAYS:
            batches = _of(found, way, at_a_time)
            without = _of(found, "without", at_a_time)
            cpu, elapsed = [batch.cpu for batch in batches], [batch.elapsed for batch in batches]
            more = statistics.median(cpu) - statistics.median(batch.cpu for batch in without)
            longer = statistics.median(elapsed) - statistics.median(batch.elapsed for batch in without)
            alone = statistics.median(time for one in _of(found, "warm", 1) or batches for time in one.times["tasks"])
            slowest = statistics.median(max(batch.times["tasks"]) for batch in batches)
            share = slowest / alone / max(1.0, at_a_time / cores)
            lines.append(
                f"{at_a_time:<11}{way:<9}{_middle(cpu):>16}{more:>8.1f}{_middle(elapsed):>18}{longer:>8.1f}{share:>9.2f}"
            )
    return "\n".join([*lines, "", _EXPLANATION])


_EXPLANATION = """Milliseconds for each task, of the processor and by the clock: medians of all batches (interquartile
range), and how much more that is than without the hook. Slowest: the time of the slowest task of a batch, as a multiple
of that of a warm task alone and of how many tasks share a processor; below 1.5 is the aim."""


def _of(found: Sequence[Batch], way: str, at_a_time: int) -> list[Batch]:
    return [batch for batch in found if (batch.way, batch.at_a_time) == (way, at_a_time)]


def _middle(times: Sequence[float]) -> str:
    lower, middle, upper = statistics.quantiles(times, n=4)
    return f"{middle:.1f} ({upper - lower:.1f})"


def _source(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


if __name__ == "__main__":
    main()
