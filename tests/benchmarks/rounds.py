"""Start programs in turn and time each from start to end: ``python3 rounds.py SPECIFICATION``, which is JSON.

It runs where the programs are, in an image too, so it needs nothing but an interpreter. What it prints is JSON: name to
pairs of seconds, by the clock and of the processor. Every round starts each program once, so that whatever else the
machine does hits all alike.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TypedDict


class Specification(TypedDict):
    """What to do."""

    check: list[str]
    """A command that says which situation this is; its first start makes what later ones find."""
    expected: str
    programs: dict[str, list[str]]
    """Name to command. They inherit the environment."""
    answered_by: str
    """What is said to answer for the storage of the session (``hanging.REMOTE`` or ``hanging.FUSE``), or empty."""
    rounds: int
    discarded: int
    """Rounds at the start that are not counted."""


def main() -> None:
    """Do what the specification says."""
    specification: Specification = json.loads(sys.argv[1])
    if specification["answered_by"]:
        version, rest = os.environ["SIF_WRITABLE_SESSION"][0], os.environ["SIF_WRITABLE_SESSION"].partition(";")[2]
        os.environ["SIF_WRITABLE_SESSION"] = f"{version}{specification['answered_by']};{rest}"
    for _ in range(2):
        was = subprocess.run(specification["check"], stdout=subprocess.PIPE, check=True).stdout.decode().strip()
    if was != specification["expected"]:
        raise SystemExit(f"{specification['check'][0]} says {was!r}, {specification['expected']!r} was to be measured")
    programs = list(specification["programs"].items())
    times: dict[str, list[tuple[float, float]]] = {name: [] for name, _ in programs}
    for turn in range(specification["discarded"] + specification["rounds"]):
        first = turn % len(programs)
        for name, argv in programs[first:] + programs[:first]:
            pair = start(argv)
            if turn >= specification["discarded"]:
                times[name].append(pair)
    print(json.dumps(times))


def start(argv: list[str]) -> tuple[float, float]:
    """Return the seconds that a program took, and those in which a processor worked for it."""
    begin = time.perf_counter()
    pid = os.posix_spawn(argv[0], argv, os.environ)
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - begin
    if status:
        raise SystemExit(f"{argv} ended with status {status}")
    return seconds, usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
