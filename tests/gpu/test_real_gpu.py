"""The same check against a real driver and a real GPU; its figures and texts are printed (``pytest -s``)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    not os.path.exists("/dev/nvidiactl"), reason="no NVIDIA GPU on this machine: /dev/nvidiactl is not there"
)


def run(program: str, **environment: str) -> str:
    """Run a program in a fresh interpreter and return what it prints; what it says on stderr is passed on."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SIF_WRITABLE")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**kept, "PYTHONPATH": str(REPOSITORY), **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    print(done.stdout, done.stderr, sep="")
    assert done.returncode == 0, done.stderr
    return done.stdout


TIMED = """
import os
from time import perf_counter
from sif_writable.gpu import check, demands
for word in ("cold", "warm", "warm"):
    start = perf_counter()
    found = check.examine("", os.environ, demands.read(os.environ, {}))
    print(f"check, {word}: {1000 * (perf_counter() - start):.1f} ms")
print(*found.problem, sep=" | ")
"""


def test_the_gpu_is_found_present() -> None:
    assert run(TIMED).splitlines()[-1].startswith("present | A GPU is present: ")


def test_it_agrees_with_bare_nvml() -> None:
    count = run("import pynvml; pynvml.nvmlInit(); print(pynvml.nvmlDeviceGetCount()); pynvml.nvmlShutdown()")
    assert run("from sif_writable.gpu.ask import ask; print(ask().count)") == count


DETAILS = """
from sif_writable.gpu.ask import ask
answer = ask(details=True)
print("driver", answer.driver, "NVML", answer.version, "CUDA", answer.cuda, answer.details_error)
for one in answer.gpus:
    print(one.index, one.name, one.uuid, one.total, one.free, one.capability, one.mode, one.mig, len(one.instances))
    assert one.name and one.uuid.startswith("GPU-") and one.capability and one.mode
"""


def test_details_are_read() -> None:
    run(DETAILS)


def test_a_device_number_out_of_range_is_named() -> None:
    assert "stale-visible | CUDA_VISIBLE_DEVICES=99 names 99" in run(TIMED, CUDA_VISIBLE_DEVICES="99")


def test_more_than_is_there_is_refused() -> None:
    assert "too-few | " in run(TIMED, SIF_WRITABLE_GPU_COUNT="4096")
    assert "too-little-memory | " in run(TIMED, SIF_WRITABLE_GPU_MIN_MEMORY="1024TiB")


BARE = """
from time import perf_counter
start = perf_counter()
import ctypes
library = ctypes.CDLL("libnvidia-ml.so.1")
count = ctypes.c_uint()
library.nvmlInitWithFlags(0), library.nvmlDeviceGetCount_v2(ctypes.byref(count)), library.nvmlShutdown()
print(f"bare nvmlInit + count + shutdown: {1000 * (perf_counter() - start):.1f} ms")
"""


def test_the_figures_are_printed() -> None:
    for _ in range(3):
        run(BARE)
        run(TIMED)
