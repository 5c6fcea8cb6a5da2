"""What storage on a server is asked by starts: ``python -m tests.benchmarks.requests [--delay MS] [--plus] [...]``.

HOME lies on a FUSE server that counts each request and answers it a millisecond late (`tests/lab/counted.py`). The
starts of one line share a node that has not asked that server before. What it replied is kept for 30 seconds, as
network filesystems do, so that many of one node ask for little more than one. Ways:

========  ==========================================================================================================
way       what
========  ==========================================================================================================
warm      all that starts make is there
import    the same, and a module of the image is imported: one process makes the writable layer, the others join it
other     the same with a variable set that the kept plan was made without: all is decided anew, and nothing is made
follower  all is there but the kept plan: it is decided anew, and kept
cold      the storage is empty when they all start
copy      warm, without a layer: a package of 500 modules is imported from its writable copy
image     the same package is imported from the image
========  ==========================================================================================================

What 10,000 tasks ask is computed: as many lines as they take.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import statistics
import subprocess
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from tests.benchmarks import many
from tests.benchmarks.many import Specification
from tests.lab import counted, environments, pythons, scratch
from tests.lab.plain_machine import PlainMachine

if TYPE_CHECKING:
    from collections.abc import Sequence

WAYS = ("warm", "import", "other", "follower", "cold", "copy", "image")
MODULES = 500
PROGRAMS = {"import": "import example", "copy": "import large", "image": "import large"}
"""What an interpreter does that does not end at once."""
VARIABLES = {
    "other": {"MPLCONFIGDIR": "/tmp"},
    "copy": {"SIF_WRITABLE_OVERLAY": "off", "SIF_WRITABLE_PACKAGES": "large"},
    "image": {"SIF_WRITABLE_OVERLAY": "off"},
}
TASKS = 10_000
KINDS = (
    ("look up", ("lookup",)),
    ("attributes", ("getattr", "statfs", "readlink", "getxattr")),
    ("read", ("open", "read", "flush")),
    ("list", ("opendir", "readdir", "readdirplus")),
)
"""What the columns count; what is left changes something, or is a question of Python's about a file that it opened."""
_BARE, _MANY, _IMAGE = "/bare/bin/python", "/many.py", "/opt/example"


class Batch(NamedTuple):
    """Some starts at once."""

    way: str
    at_a_time: int
    kinds: Counter[str]
    """How many requests of each kind they made together."""
    elapsed: float
    """Seconds of a start, the median."""

    @property
    def all(self) -> float:
        """Return how many requests a start waited for."""
        return sum(count for kind, count in self.kinds.items() if kind not in counted.NOT_WAITED_FOR) / self.at_a_time

    def each(self, kinds: Sequence[str]) -> float:
        """Return how many requests of these kinds a start made."""
        return sum(self.kinds[kind] for kind in kinds) / self.at_a_time


class Bench:
    """Starts interpreters whose HOME is on a server."""

    def __init__(self, bare: str, environment: str, how: str) -> None:
        """Take an environment without and one with the package, and the last words of the server's command."""
        self.bare, self.environment, self.how = bare, environment, how

    def batch(self, machine: PlainMachine, way: str, at_a_time: int) -> Batch:
        """Start some, with what is in HOME as it is."""
        log = os.path.join(machine.places.folder, "requests")
        words = ["/venv/bin/python", "-c", PROGRAMS.get(way, "pass")]
        specification = json.dumps(Specification(argv=words, tasks=at_a_time, at_a_time=at_a_time))
        result = machine.run(
            [_BARE, "-I", "-S", _MANY, specification],
            venv=self.environment,
            binds=[f"{self.bare}:/bare:ro", f"{many.__file__}:{_MANY}:ro"],
            served=[f"{machine.places.home}:{scratch.HOME}:{log}:{self.how}"],
            env={"PYTHONPATH": _IMAGE, **VARIABLES.get(way, {})},
            timeout=600,
        )
        if result.returncode:
            raise SystemExit(f"{way}, {at_a_time} at a time: {result.stderr}")
        kinds = Counter(kind for kind, _, _ in counted.requests(log))
        os.unlink(log)
        return Batch(way, at_a_time, kinds, statistics.median(json.loads(result.stdout)["tasks"]))

    def measure(self, way: str, at_a_time: int) -> Batch:
        """Prepare HOME, and start some."""
        with scratch.fresh() as places:
            machine = PlainMachine(places)
            make_packages(machine.in_image(_IMAGE))
            for _ in range(0 if way == "cold" else 2):
                self.batch(machine, way if way in PROGRAMS else "warm", 1)
            if way == "follower":
                for path in glob.glob(f"{glob.escape(places.home)}/.cache/sif-writable/image-*/plan-*"):
                    os.unlink(path)
            return self.batch(machine, way, at_a_time)


def make_packages(folder: str) -> None:
    """Make a module and a package, with bytecode."""
    os.mkdir(f"{folder}/large")
    modules = [f"module_{number}" for number in range(MODULES - 1)]
    texts = {"example": "", "large/__init__": "".join(f"from large import {name}\n" for name in modules)}
    texts.update((f"large/{name}", f"NAME = {name!r}\n") for name in modules)
    for name, text in texts.items():
        with open(f"{folder}/{name}.py", "w", encoding="utf-8") as file:
            file.write(text)
    python = next(python for python in pythons.found() if not python.debian)
    subprocess.run([python.path, "-m", "compileall", "-q", folder], check=True)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delay", type=float, default=1.0, help="milliseconds of each request (default: 1)")
    parser.add_argument("--valid", type=float, default=30.0, help="seconds that answers are kept (default: 30)")
    parser.add_argument("--at-a-time", default="1,16,64", help="how many start at once (default: 1,16,64)")
    parser.add_argument("--plus", action="store_true", help="the server lists names with their attributes, as NFS does")
    parser.add_argument("--ways", default=",".join(WAYS), help="which of them (default: all)")
    arguments = parser.parse_args()
    python = next(python for python in pythons.found() if not python.debian)
    how = f"{arguments.delay}:{arguments.valid}{':plus' if arguments.plus else ''}"
    bench = Bench(environments.bare(python), environments.of_sources(python), how)
    sizes = [int(size) for size in arguments.at_a_time.split(",")]
    print(table([bench.measure(way, size) for way in arguments.ways.split(",") for size in sizes]))


def table(found: Sequence[Batch]) -> str:
    """Return the batches for people: requests of one start, means; milliseconds of one, medians."""
    form = "{:<10}{:>8}{:>10}" + "{:>12}" * len(KINDS) + "{:>9}{:>14}{:>7}"
    lines = [form.format("", "at once", "requests", *(title for title, _ in KINDS), "other", f"{TASKS:,} tasks", "ms")]
    for batch in found:
        columns = [batch.each(kinds) for _, kinds in KINDS]
        figures = [f"{number:.1f}" for number in (batch.all, *columns, batch.all - sum(columns))]
        both = f"{batch.all * TASKS:,.0f}", f"{batch.elapsed * 1e3:.0f}"
        lines.append(form.format(batch.way, batch.at_a_time, *figures, *both))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
