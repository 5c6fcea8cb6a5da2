"""What the GPU check costs: its own time, in fresh interpreters, against bare nvmlInit + count + shutdown.

``python -m tests.benchmarks.gpu [ROUNDS]`` from the root of the repository. NVML is the library of tests/gpu, which
takes as long to initialise as the table says; tests/gpu/test_real_gpu.py prints the figures of a real one. Rounds are
interleaved. "More threads": NVML is asked in a fresh interpreter instead of a fork.
"""

from __future__ import annotations

import compileall
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.gpu import container

BARE = """
from time import perf_counter
start = perf_counter()
import ctypes
library = ctypes.CDLL("libnvidia-ml.so.1")
count = ctypes.c_uint()
assert not library.nvmlInitWithFlags(0)
assert not library.nvmlDeviceGetCount_v2(ctypes.byref(count))
assert not library.nvmlShutdown()
print(perf_counter() - start)
"""
PYNVML = """
from time import perf_counter
start = perf_counter()
import pynvml
pynvml.nvmlInit()
pynvml.nvmlDeviceGetCount()
pynvml.nvmlShutdown()
print(perf_counter() - start)
"""
CHECK = """
import os
import sif_writable.redirects.environment  # an activated process has it
from time import perf_counter
start = perf_counter()
from sif_writable.gpu import check
found = check.check("torch", os.environ)
print(perf_counter() - start)
assert found.problem.code == "present", found
"""
THREADED = "import threading, time\nthreading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n" + CHECK
QUIET = CHECK.replace('assert found.problem.code == "present", found', "assert found is None, found")

PROGRAMS = {
    "bare, ctypes": BARE,
    "bare, nvidia-ml-py": PYNVML,
    "check, one thread": CHECK,
    "check, more threads": THREADED,
}


def main() -> None:
    """Print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 21
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        room = container.Container(folder, container.build(folder))
        compileall.compile_dir(container.REPOSITORY / "sif_writable", quiet=2)  # as pip does
        print("milliseconds: median / minimum; in brackets their ratio to bare ctypes (on a busy machine: the minimum)")
        report("nobody expects one", measure(room, {"check": QUIET}, rounds))
        room.with_nv()
        for delay in (0, 5, 20, 50, 100):
            room.answer(f"nvmlInitWithFlags.delay {delay}\n")
            report(f"init takes {delay} ms", measure(room, PROGRAMS, rounds))


def measure(room: container.Container, programs: dict[str, str], rounds: int) -> dict[str, list[float]]:
    """Return the times of each program in seconds."""
    taken: dict[str, list[float]] = {name: [] for name in programs}
    for number in range(rounds + 1):
        for name, program in programs.items():
            done = room.run(program)
            if done.returncode:
                raise subprocess.CalledProcessError(done.returncode, name, done.stdout, done.stderr)
            if number:  # the first round writes bytecode
                taken[name].append(float(done.stdout))
    return taken


def report(title: str, taken: dict[str, list[float]]) -> None:
    """Print one block; the first program is what the others are compared with."""
    print(f"\n{title}")
    bare = next(iter(taken.values()))
    for name, times in taken.items():
        middle, least = statistics.median(times), min(times)
        ratios = f"[{middle / statistics.median(bare):.2f} / {least / min(bare):.2f}]"
        print(f"  {name:<20} {1000 * middle:7.1f} / {1000 * least:6.1f}  {ratios}")


if __name__ == "__main__":
    main()
