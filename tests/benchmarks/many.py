"""Start many programs, some at a time, and time them: ``python3 many.py SPECIFICATION``, which is JSON.

It runs where the programs are, so it needs nothing but an interpreter. What it prints is JSON (`Times`).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TypedDict

_PR_SET_CHILD_SUBREAPER = 36


class Specification(TypedDict):
    """What to do."""

    argv: list[str]
    """The program; it inherits the environment."""
    tasks: int
    at_a_time: int


class Times(TypedDict):
    """What was measured, in seconds."""

    elapsed: float
    """From the start of the first task to the end of the last."""
    cpu: float
    """Of all tasks and whatever they have started."""
    tasks: list[float]
    """Each task from its start to its end."""


def main() -> None:
    """Do what the specification says."""
    specification: Specification = json.loads(sys.argv[1])
    # What a task leaves behind for a moment, as Apptainer its mount of the image, is counted as well.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def start(_: int) -> float:
        begin = time.perf_counter()
        done = subprocess.run(specification["argv"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
        if done.returncode:
            raise SystemExit(f"{specification['argv'][-1]} failed: {done.stderr.decode()[-2000:]}")
        return time.perf_counter() - begin

    begin, before = time.perf_counter(), _cpu()
    with ThreadPoolExecutor(specification["at_a_time"]) as pool:
        tasks = list(pool.map(start, range(specification["tasks"])))
    elapsed = time.perf_counter() - begin
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    times = Times(elapsed=elapsed, cpu=_cpu() - before, tasks=tasks)
    print(json.dumps(times))


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
