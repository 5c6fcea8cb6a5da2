"""Start programs in turn and time each from start to end: ``python3 rounds.py SPECIFICATION``, which is JSON.

It runs where the programs are, in an image too, so it needs nothing but an interpreter. What it prints is JSON: name to
pairs of seconds, by the clock and of the processor. Every round starts each program once, so that whatever else the
machine does hits all alike.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TypedDict


class Program(TypedDict):
    """What to start."""

    argv: list[str]
    environment: dict[str, str]


class Specification(TypedDict):
    """What to do."""

    programs: dict[str, Program]
    rounds: int
    discarded: int
    """Rounds at the start that are not counted."""


def main() -> None:
    """Do what the specification says."""
    specification: Specification = json.loads(sys.argv[1])
    programs = list(specification["programs"].items())
    times: dict[str, list[tuple[float, float]]] = {name: [] for name, _ in programs}
    for turn in range(specification["discarded"] + specification["rounds"]):
        first = turn % len(programs)
        for name, program in programs[first:] + programs[:first]:
            pair = start(program)
            if turn >= specification["discarded"]:
                times[name].append(pair)
    print(json.dumps(times))


def start(program: Program) -> tuple[float, float]:
    """Return the seconds that a program took, and those in which a processor worked for it."""
    begin = time.perf_counter()
    pid = os.posix_spawn(program["argv"][0], program["argv"], program["environment"])
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - begin
    if status:
        raise SystemExit(f"{program['argv']} ended with status {status}")
    return seconds, usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
