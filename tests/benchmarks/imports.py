"""Import a module in fresh processes, some ways in turn, and time it: ``python3 imports.py SPECIFICATION``, as JSON.

It runs where the interpreters are, in an image too, so it needs nothing but an interpreter. What it prints is JSON: way
to :class:`Times`. Every round starts each way once, so that whatever else the machine does hits all alike.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TypedDict

PROGRAM = """
import time
begin, cpu = time.perf_counter_ns(), time.process_time_ns()
import {module}
end, used = time.perf_counter_ns(), time.process_time_ns() - cpu
import sys
made, entered = ["sif_writable.layer." + name in sys.modules for name in ("make", "enter")]
print(begin, end, used, made, entered, flush=True)
last = time.perf_counter_ns()
print(last, flush=True)
"""
HOLD = "import sys; import {module}; print(flush=True); sys.stdin.read()"
"""Stays in the layer for as long as others are to join it."""
DISCARDED = 2


class Way(TypedDict):
    """One way to start the interpreter."""

    env: dict[str, str]
    """Set besides what is inherited."""
    joins: bool
    """Whether another process holds a layer."""
    layer: str
    """What must have happened: ``made``, ``joined``, or empty."""


class Specification(TypedDict):
    """What to do."""

    python: str
    module: str
    ways: dict[str, Way]
    rounds: int
    at_once: int
    """So many processes at the same time instead, and the time until the last has ended; 0: one after the other."""


class Times(TypedDict):
    """What was measured, in seconds."""

    imported: list[float]
    cpu: list[float]
    exited: list[float]
    """From the end of the program to when its parent knows."""
    all: list[float]
    """From the start of the first of many to the end of the last."""


def main() -> None:
    """Do what the specification says."""
    specification: Specification = json.loads(sys.argv[1])
    found = {name: empty() for name in specification["ways"]}
    for turn in range(DISCARDED + specification["rounds"]):
        ways = list(specification["ways"].items())
        for name, way in ways[:: 1 if turn % 2 else -1]:
            round_of(specification, way, found[name] if turn >= DISCARDED else empty())
    print(json.dumps(found))


def empty() -> Times:
    """Return what has no times yet."""
    return Times(imported=[], cpu=[], exited=[], all=[])


def round_of(specification: Specification, way: Way, times: Times) -> None:
    """Start one way once, or many times at once."""
    python, module = specification["python"], specification["module"]
    environ = {**os.environ, **way["env"]}
    holder = None
    if way["joins"]:
        hold = [python, "-c", HOLD.format(module=module)]
        holder = subprocess.Popen(hold, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert holder.stdout is not None
        holder.stdout.readline()
    argv = [python, "-c", PROGRAM.format(module=module)]
    begin = time.perf_counter()
    started = [
        subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE) for _ in range(specification["at_once"] or 1)
    ]
    for process in started:
        text = process.communicate()[0]
        end = time.perf_counter_ns()
        first, after, cpu, made, entered, last = text.split()
        was = "made" if made == b"True" else "joined" if entered == b"True" else ""
        if process.returncode or (not specification["at_once"] and was != way["layer"]):
            raise SystemExit(f"{way} was {was!r}, and ended with status {process.returncode}")
        times["imported"].append((int(after) - int(first)) / 1e9)
        times["cpu"].append(int(cpu) / 1e9)
        times["exited"].append((end - int(last)) / 1e9)
    times["all"].append(time.perf_counter() - begin)
    if holder is not None:
        holder.communicate()


if __name__ == "__main__":
    main()
