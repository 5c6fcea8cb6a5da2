"""The check is made once per process tree, when a GPU is expected, and costs little."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.gpu.programs import CAUSE, IMPORT

if TYPE_CHECKING:
    from tests.gpu.container import Container


TREE = """
import multiprocessing, os, subprocess, sys, threading
from sif_writable.gpu.check import enforce

def check():
    enforce("torch", os.environ)

if __name__ == "__main__":
    check()
    threads = [threading.Thread(target=check) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    pid = os.fork()
    if pid == 0:
        check()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    code = "import os; from sif_writable.gpu import check; check.enforce('torch', os.environ)"
    subprocess.run([sys.executable, "-c", code], check=True)
"""


def test_a_process_tree_asks_once_and_reports_once(room: Container) -> None:
    room.with_nv("count 0\n")
    done = room.run(TREE)
    assert done.returncode == 0, done.stderr
    assert len(room.calls("nvmlInitWithFlags")) == len(room.calls("nvmlShutdown")) == 1
    assert done.stderr.count("sif_writable: before 'import torch'") == 1


def test_threads_that_come_at_once_ask_once(room: Container) -> None:
    room.with_nv("count 0\nnvmlInitWithFlags.delay 300\n")
    done = room.run(TREE.replace("    check()\n    threads", "    threads"))
    assert done.returncode == 0, done.stderr
    assert len(room.calls("nvmlInitWithFlags")) == 1
    assert done.stderr.count("sif_writable: before 'import torch'") == 1


def test_a_fork_while_another_thread_asks_is_not_blocked(room: Container) -> None:
    room.with_nv("nvmlInitWithFlags.delay 1000\n")
    program = """
import os, threading, time
from sif_writable.gpu import check
thread = threading.Thread(target=check.check, args=("torch", os.environ))
thread.start()
time.sleep(0.3)
pid = os.fork()
if pid == 0:
    os._exit(check.check("torch", os.environ).problem.code != "present")
assert os.waitpid(pid, 0)[1] == 0
thread.join()
"""
    done = room.run(program, SIF_WRITABLE_GPU_TIMEOUT="100")  # a child that waits for the lock would outlast the run
    assert done.returncode == 0, done.stderr
    assert len(room.calls("nvmlInitWithFlags")) == 2, "parent and child did not know of each other"


def test_other_visible_devices_are_another_question(room: Container) -> None:
    room.with_nv("count 2\n")
    program = CAUSE + "os.environ['CUDA_VISIBLE_DEVICES'] = '7'\n" + CAUSE
    done = room.run(program)
    assert done.stdout == "present\nstale-visible\n"
    assert "CUDA_VISIBLE_DEVICES=7 names 7" in done.stderr


@pytest.mark.parametrize(
    ("variable", "asked"),
    [
        ("LD_LIBRARY_PATH", 2),
        ("SLURM_JOB_GPUS", 2),
        ("APPTAINER_CONTAINER", 2),
        ("SIF_WRITABLE_GPU_COUNT", 2),
        ("PATH", 1),
    ],
)
def test_what_may_change_the_answer_makes_it_another_question(room: Container, variable: str, asked: int) -> None:
    room.with_nv()
    room.run(CAUSE + f"os.environ['{variable}'] = '1'\n" + CAUSE)
    assert len(room.calls("nvmlInitWithFlags")) == asked


REQUIRE = """
import os
from sif_writable.gpu import check
from sif_writable.errors import GpuUnavailableError
for _ in range(2):
    try:
        check.enforce("torch", os.environ)
    except GpuUnavailableError as error:
        print(type(error).__name__, error.name, error.problem.code)
"""


def test_a_required_gpu_is_refused_each_time_but_asked_for_once(room: Container) -> None:
    room.with_nv("nvmlInitWithFlags.code 9\n")
    done = room.run(REQUIRE, SIF_WRITABLE_GPU="require")
    assert done.stdout == "GpuUnavailableExit torch driver-not-loaded\n" * 2
    assert done.stderr.count("sif_writable: before 'import torch': ") == 2
    assert len(room.calls("nvmlInitWithFlags")) == 1


def test_the_image_can_require_a_gpu(room: Container) -> None:
    declared = "import os; from sif_writable.gpu import check; check.enforce('torch', os.environ, DECLARED)"
    done = room.run(declared.replace("DECLARED", "{'SIF_WRITABLE_GPU': 'require'}"))
    assert done.stderr == (
        "sif_writable: before 'import torch': There is no NVIDIA GPU on this node: no /dev/nvidia*, no "
        "/proc/driver/nvidia/version, although the image declares gpu: require.\n"
        "sif_writable: remedy: Run it on a node with an NVIDIA GPU.\n"
    )


@pytest.mark.parametrize("policy", ["auto", "off"])
def test_nobody_is_bothered_where_nobody_expects_a_gpu(room: Container, policy: str) -> None:
    if policy == "off":
        room.with_nv("nvmlInitWithFlags.code 9\n")
    done = room.run(IMPORT + "print('SIF_WRITABLE_GPU_CHECKED' in os.environ)", SIF_WRITABLE_GPU=policy)
    assert (done.stdout, done.stderr) == ("False\n", "")
    assert not room.calls("nvmlInitWithFlags")


def test_the_check_loads_nothing_heavy(room: Container) -> None:
    """Every heavy import pays for it, also where nobody expects a GPU; typing alone took ten times the rest."""
    program = "import sys; own = set(sys.modules)\n" + IMPORT + "print(*sorted(set(sys.modules) - own))"
    loaded = set(room.run(program).stdout.split())
    assert "sif_writable.gpu.check" in loaded
    assert not loaded & {"sif_writable.gpu.ask", "sif_writable.gpu.diagnosis", "sif_writable.storage.choose"}
    assert not loaded & {
        "typing",
        "re",
        "enum",
        "json",
        "logging",
        "subprocess",
        "ctypes",
        "pynvml",
        "pathlib",
        "tempfile",
    }


def test_onnxruntime_matters_only_in_its_gpu_build(room: Container) -> None:
    room.with_nv("count 0\n")
    program = "import os; from sif_writable.gpu import check; print(check.check('onnxruntime', os.environ))\n"
    assert room.run(program).stdout == "None\n"
    room.distributions("onnxruntime_gpu-1.18.0")
    assert room.run(program).stdout.startswith("Diagnosis('fail', 'none-granted'")


def test_a_full_stderr_changes_no_exit_code_and_a_stream_of_the_program_gets_the_lines(room: Container) -> None:
    room.with_nv("count 0\n")
    done = room.run("import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 2)\n" + CAUSE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "none-granted\n", "")
    done = room.run("import io, sys; sys.stderr = io.StringIO()\n" + IMPORT + "print(sys.stderr.getvalue(), end='')")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == ["sif_writable", "sif_writable"]
