"""NVML is asked in a process of its own: what it says, and what becomes of it, however the driver behaves."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from tests.gpu.programs import CAUSE, THREADED

if TYPE_CHECKING:
    from tests.gpu.container import Container

HOST = os.uname().nodename


@pytest.mark.parametrize("before", ["", THREADED], ids=["fork", "fresh interpreter"])
@pytest.mark.parametrize("function", ["nvmlInitWithFlags", "nvmlDeviceGetHandleByIndex_v2", "nvmlShutdown"])
def test_a_driver_that_hangs_is_left_behind(room: Container, before: str, function: str) -> None:
    room.with_nv(f"{function}.delay 100000\n")
    start = time.monotonic()
    done = room.run(before + CAUSE, SIF_WRITABLE_GPU_TIMEOUT="1")
    assert time.monotonic() - start < 20
    assert done.stderr == (
        f"sif_writable: before 'import torch': NVML did not answer within 1 s (in {function}).\n"
        f"sif_writable: remedy: The driver or a GPU of node {HOST} hangs: tell its administrator, and leave the node "
        f"out (sbatch --exclude={HOST}). If GPUs are only slow to wake, raise SIF_WRITABLE_GPU_TIMEOUT (seconds).\n"
    )
    assert done.stdout == "no-answer\n"
    (pid,) = room.calls(function)
    while _runs(pid):  # it was killed, and nobody can wait for it
        assert time.monotonic() - start < 20
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


HELD = """
import os, subprocess, sys
os.set_inheritable(os.open("/etc/passwd", os.O_RDONLY), True)
observer = subprocess.Popen([sys.executable, "-c", OBSERVER, LOG])
from sif_writable.gpu import check
check.check("torch", os.environ)
observer.wait()
"""
OBSERVER = """
import os, sys, time
words = []
while not words:
    time.sleep(0.01)
    if os.path.exists(sys.argv[1]):
        with open(sys.argv[1]) as log:
            words = log.read().split()
pid = words[0]
with open(f"/proc/{pid}/stat") as stat:
    assert int(stat.read().rsplit(")", 1)[1].split()[1]) != os.getppid(), "it is a child of the job"
folder = f"/proc/{pid}/fd/"
print(*(name + ":" + os.readlink(folder + name).split("[")[0] for name in sorted(os.listdir(folder))))
"""


@pytest.mark.parametrize("before", ["", THREADED], ids=["fork", "fresh interpreter"])
def test_a_process_that_hangs_holds_nothing_of_the_job(room: Container, before: str) -> None:
    room.with_nv("nvmlInitWithFlags.delay 100000\n")
    program = before + HELD.replace("OBSERVER", repr(OBSERVER)).replace("LOG", repr(str(room.log)))
    done = room.run(program, SIF_WRITABLE_GPU_TIMEOUT="3")
    assert done.stdout == "0:/dev/null 1:pipe: 2:/dev/null\n", done.stderr


SIGNALLED = """
import os, signal, subprocess, sys
os.setpgrp()
signal.signal(signal.SIGUSR1, lambda *_: open("SAVED", "a").write("saved "))
words = [sys.executable, "-S", "-c", "import os, sys, time; time.sleep(0.7); os.killpg(int(sys.argv[1]), 10)"]
other = subprocess.Popen([*words, str(os.getpgrp())], start_new_session=True)
from sif_writable.gpu import check
check.check("torch", os.environ)
print(os.environ["SIF_WRITABLE_GPU_CHECKED"].split("|")[1])
"""


def test_the_programs_signal_handlers_run_in_the_program_alone(room: Container) -> None:
    """As Slurm warns a job, or Ctrl-C ends it: all processes of the group get the signal."""
    room.with_nv("nvmlInitWithFlags.delay 2000\n")
    saved = room.folder / "saved"
    done = room.run(SIGNALLED.replace("SAVED", str(saved)), SIF_WRITABLE_GPU_TIMEOUT="10")
    assert (done.stdout, done.stderr) == ("present\n", "")
    assert saved.read_text() == "saved "


NOTHING_LEFT = """
import os, signal
called = []
signal.signal(signal.SIGCHLD, lambda *_: called.append("for a child of ours"))
before = dict(os.environ), sorted(os.listdir("/proc/self/fd")), os.getcwd()
from sif_writable.gpu import check
check.enforce("torch", os.environ)
after = dict(os.environ), sorted(os.listdir("/proc/self/fd")), os.getcwd()
assert after[0].pop("SIF_WRITABLE_GPU_CHECKED")
assert before == after, (before, after)
assert len(os.listdir("/proc/self/task")) == THREADS
assert not called or THREADS > 1  # another thread gets the signal
with open("/proc/self/maps") as maps:
    assert "libnvidia" not in maps.read(), "NVML was loaded here"
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("nothing left")
"""


@pytest.mark.parametrize(("before", "threads"), [("", "1"), (THREADED, "2")], ids=["fork", "fresh interpreter"])
@pytest.mark.parametrize("delay", ["0", "100000"], ids=["answers", "hangs"])
def test_no_child_descriptor_variable_or_library_stays(room: Container, before: str, threads: str, delay: str) -> None:
    room.with_nv(f"nvmlInitWithFlags.delay {delay}\n")
    done = room.run(before + NOTHING_LEFT.replace("THREADS", threads), SIF_WRITABLE_GPU_TIMEOUT="1")
    assert done.stdout == "nothing left\n", done.stderr


DETAILS = """
from sif_writable.gpu.ask import ask
answer = ask(details=True)
print(answer.count, answer.driver, answer.version, answer.cuda, repr(answer.details_error), repr(answer.pending_call))
for one in answer.gpus:
    print(one.index, one.name, one.uuid, one.total, one.free, one.capability, one.mode, one.mig)
    for part in one.instances:
        print(part.uuid, part.total, part.free)
"""
ANSWERS = """
count 2
driver 550.54.15
nvml 12.550.54.15
cuda 12040
gpu0.name NVIDIA H100 80GB HBM3
gpu0.uuid GPU-aaaa
gpu0.total 85520809984
gpu0.free 85000000000
gpu0.capability 90
gpu0.mode 3
gpu1.mig 1
gpu1.instances 1
gpu1.instance0.uuid MIG-bbbb
gpu1.instance0.total 10737418240
gpu1.instance0.free 10000000000
nvmlDeviceGetComputeMode.1.code 3
"""


@pytest.mark.parametrize("before", ["", THREADED], ids=["fork", "fresh interpreter"])
def test_details_come_through_nvidia_ml_py(room: Container, before: str) -> None:
    room.with_nv(ANSWERS)
    done = room.run(before + DETAILS)
    assert done.stdout.splitlines() == [
        "2 550.54.15 12.550.54.15 12.4 '' ''",
        "0 NVIDIA H100 80GB HBM3 GPU-aaaa 85520809984 85000000000 (9, 0) exclusive process False",
        "1 NVIDIA A100-SXM4-40GB GPU-00000001-0000-0000-0000-000000000000 42949672960 42949672960 (8, 0)  True",
        "MIG-bbbb 10737418240 10000000000",
    ], done.stderr


@pytest.mark.parametrize("before", ["", THREADED], ids=["fork", "fresh interpreter"])
def test_a_library_that_crashes_takes_only_its_own_process_along(room: Container, before: str) -> None:
    room.with_nv()
    room.log = room.folder / "missing" / "log"  # the library aborts when it cannot write its log
    room.answer()
    done = room.run(before + CAUSE)
    assert done.stdout == "unchecked\n"
    assert done.stderr == (
        "sif_writable: before 'import torch': The GPU could not be checked: the process that asks NVML died in "
        "nvmlInitWithFlags.\n"
        "sif_writable: remedy: Run sif-writable status to see what is known; SIF_WRITABLE_GPU=off leaves the "
        "check out.\n"
    )


def test_an_interpreter_that_cannot_be_started_is_reported(room: Container) -> None:
    room.with_nv()
    done = room.run(THREADED + "import sys; sys.executable = '/does/not/exist'\n" + CAUSE)
    assert "could not be started (No such file or directory)" in done.stderr
    assert done.stdout == "unchecked\n"


def test_an_mpi_process_is_not_forked(room: Container) -> None:
    room.with_nv()
    room.bind(room.nvml, "/image/libmpi.so.40")
    program = """
import ctypes, os
ctypes.CDLL("/image/libmpi.so.40")
forks = []
os.register_at_fork(before=lambda: forks.append(1))
"""
    assert room.run(program + CAUSE + "print(len(forks))").stdout == "present\n0\n"
    assert room.run(program.replace("ctypes.CDLL", "str") + CAUSE + "print(len(forks))").stdout == "present\n1\n"


def test_no_more_gpus_are_woken_than_are_visible(room: Container) -> None:
    room.with_nv("count 8\n")
    assert room.run(CAUSE, CUDA_VISIBLE_DEVICES="1,0").stdout == "present\n"
    assert len(room.calls("nvmlDeviceGetHandleByIndex_v2")) == 2


def test_a_module_of_the_working_directory_does_not_answer_for_nvml(room: Container) -> None:
    room.with_nv("count 2\n")
    (room.folder / "pynvml.py").write_text("open('/dev/tty', 'w')\nraise SystemExit('not asked for')\n")
    program = (
        f"import os, sys; os.chdir({str(room.folder)!r}); from sif_writable.gpu.ask import ask;"
        " answer = ask(details=True); print(answer.count, repr(answer.details_error), repr(answer.not_asked))"
    )
    assert room.run(program).stdout == "2 '' ''\n"
