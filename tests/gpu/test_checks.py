"""Every cause, as a job meets it: the real check and the real nvidia-ml-py, in child interpreters inside a container.

What the kernel and ``--nv`` would have put there is put there; only NVML's answers come from a library of ours, which
is loaded as libnvidia-ml.so.1 from the very places. Each row's message is compared in full.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from tests.gpu.container import NODES, NVML, VERSION

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.gpu.container import Container

    Arrange = Callable[[Container], None]

HOST = os.uname().nodename
LIBS = "/.singularity.d/libs"
IMPORT = "import os; from sif_writable.gpu import check; check.enforce('torch', os.environ)\n"
CAUSE = IMPORT + "print(os.environ['SIF_WRITABLE_GPU_CHECKED'].split('|')[1])\n"
NOT_THERE = "cannot open shared object file: No such file or directory"
LDCONFIG = "If it was, the host's ld cache lacks the driver: there, ldconfig -p must show libnvidia-ml.so.1."


def devices(room: Container) -> None:
    room.nodes(*NODES)
    room.driver()


def contained(room: Container) -> None:
    room.driver(gpus=4)


def wsl(room: Container) -> None:
    room.nodes("dxg")


def rocm(room: Container) -> None:
    room.nodes("kfd")


def rocm_for_cuda(room: Container) -> None:
    rocm(room)
    room.distributions("torch-2.4.0+cu124")


def empty_libs(room: Container) -> None:
    devices(room)
    room.mounts += ["--dir", LIBS]


def other_libs(room: Container) -> None:
    devices(room)
    room.file(f"{LIBS}/libGL.so.1")


def broken(room: Container) -> None:
    devices(room)
    room.file(f"{LIBS}/{NVML}", "This is no library. " * 10)


def stub(room: Container) -> None:
    room.with_nv()
    room.bind(room.nvml, f"/toolkit/stubs/{NVML}")
    room.environment["LD_LIBRARY_PATH"] = f"/toolkit/stubs:{LIBS}"


def own_library(room: Container) -> None:
    room.with_nv()
    room.bind(room.nvml, "/image/libnvidia-ml.so.470.82.01")
    room.link("libnvidia-ml.so.470.82.01", f"/image/{NVML}")
    room.environment["LD_LIBRARY_PATH"] = f"/image:{LIBS}"
    room.answer("nvmlInitWithFlags.code 18\n")


def without_module(room: Container) -> None:
    room.nodes(*NODES)
    room.bind(room.nvml, f"{LIBS}/{NVML}")
    room.answer("nvmlInitWithFlags.code 9\n")


def off_path(room: Container) -> None:
    room.with_nv()
    room.environment["LD_LIBRARY_PATH"] = ""


def old_driver(room: Container) -> None:
    room.nodes(*NODES)
    room.driver(VERSION.replace("535.104.05", "470.82.01"))
    room.bind(room.nvml, f"{LIBS}/{NVML}")
    room.distributions("torch-2.4.0", "nvidia_cuda_runtime_cu12-12.4.127")


def forward_compatible(room: Container) -> None:
    old_driver(room)
    room.file("/toolkit/compat/libcuda.so.550.54.15")
    room.link("libcuda.so.550.54.15", "/toolkit/compat/libcuda.so.1")
    room.environment["LD_LIBRARY_PATH"] = f"/toolkit/compat:{LIBS}"


def shadowed(room: Container) -> None:
    room.with_nv()
    room.file("/toolkit/compat/libcuda.so.470.82.01")
    room.link("libcuda.so.470.82.01", "/toolkit/compat/libcuda.so.1")
    room.environment["LD_LIBRARY_PATH"] = f"/toolkit/compat:{LIBS}"


def without_uvm(room: Container) -> None:
    room.nodes("nvidia0", "nvidiactl")
    room.driver()
    room.bind(room.nvml, f"{LIBS}/{NVML}")


def nvml(answers: str) -> Arrange:
    """Arrange a container with ``--nv`` in which NVML answers so."""

    def arrange(room: Container) -> None:
        room.with_nv()
        room.answer(answers)

    return arrange


def nothing(_: Container) -> None:
    """Leave the container without any sign of a GPU."""


WANT = {"SIF_WRITABLE_GPU": "warn"}
SLURM = {"SLURM_JOB_ID": "12", "SLURM_JOB_GPUS": "0"}
ASK = "Ask for 1 GPU where the job or the container is started"

# cause, what is arranged, variables, fact, remedy; no texts: the check is quiet
ROWS: list[tuple[str, Arrange, dict[str, str], str, str]] = [
    ("present", nvml(""), {}, "", ""),
    ("present", off_path, {}, "", ""),
    ("hidden", nvml(""), {**SLURM, "CUDA_VISIBLE_DEVICES": ""}, "", ""),
    ("rocm", rocm, WANT, "", ""),
    (
        "rocm",
        rocm_for_cuda,
        {"SIF_WRITABLE_GPU": "require"},
        "An AMD GPU (ROCm) is present (/dev/kfd), and no NVIDIA GPU, which torch-2.4.0+cu124 needs.",
        "Run it on a node with an NVIDIA GPU.",
    ),
    (
        "no-gpu",
        nothing,
        SLURM,
        (
            "There is no NVIDIA GPU on this node: no /dev/nvidia*, no /proc/driver/nvidia/version, although "
            "SLURM_JOB_GPUS=0 is set."
        ),
        "Ask Slurm for 1 GPU (--gres=gpu:1), in a partition that has them.",
    ),
    (
        "wsl",
        wsl,
        WANT,
        "This is WSL (/dev/dxg, no /dev/nvidia*), and the container has no libnvidia-ml.so.1.",
        (
            "Start the container with --nv; if that is not enough, add --bind /usr/lib/wsl and put /usr/lib/wsl/lib on "
            "LD_LIBRARY_PATH."
        ),
    ),
    (
        "contained",
        contained,
        WANT,
        "NVIDIA driver 535.104.05 runs on this node with 4 GPUs, but the container has no /dev/nvidiactl.",
        "Start the container with --nv, which brings the device files under --contain too: apptainer exec --nv ...",
    ),
    (
        "nv-missing",
        devices,
        {},
        (
            "The device files of 1 GPU are there, but the container has no driver library: /.singularity.d/libs does "
            "not exist."
        ),
        f"Start the container with --nv: apptainer exec --nv ... {LDCONFIG}",
    ),
    (
        "nv-missing",
        empty_libs,
        {},
        "The device files of 1 GPU are there, but the container has no driver library: /.singularity.d/libs is empty.",
        f"Start the container with --nv: apptainer exec --nv ... {LDCONFIG}",
    ),
    (
        "library-missing",
        other_libs,
        {},
        "The device files of 1 GPU are there, and /.singularity.d/libs holds 1 files, but no libnvidia-ml.so.1.",
        "--nv brings what the host's ld cache lists: there, ldconfig -p must show libnvidia-ml.so.1.",
    ),
    (
        "library-broken",
        broken,
        {},
        f"libnvidia-ml.so.1 is there but cannot be loaded: {LIBS}/{NVML}: invalid ELF header.",
        "Remove NVIDIA driver packages (such as libnvidia-compute) from the image; --nv brings the host's own.",
    ),
    (
        "stub",
        stub,
        {},
        "The loader takes /toolkit/stubs/libnvidia-ml.so.1, a stub that serves for linking only.",
        "Take /toolkit/stubs off LD_LIBRARY_PATH; --nv brings the real library.",
    ),
    (
        "driver-not-loaded",
        without_module,
        {},
        (
            f"The NVIDIA driver is not loaded on node {HOST}: no /proc/driver/nvidia/version "
            "(NVML code 9: Driver Not Loaded)."
        ),
        "A fault of the host: tell its administrator, and take another node.",
    ),
    (
        "mismatch",
        nvml("nvmlInitWithFlags.code 18\n"),
        {},
        (
            f"The NVIDIA library and the driver do not match: {LIBS}/{NVML} was loaded, driver 535.104.05 runs "
            "(NVML code 18: Driver/library version mismatch)."
        ),
        f"The host's driver was updated without a reboot: ask the administrator of node {HOST} to reload it.",
    ),
    (
        "mismatch",
        own_library,
        {},
        (
            "The NVIDIA library and the driver do not match: /image/libnvidia-ml.so.470.82.01 was loaded, driver "
            "535.104.05 runs (NVML code 18: Driver/library version mismatch)."
        ),
        (
            "The image brings its own copy: remove it (a package such as libnvidia-compute), or put "
            "/.singularity.d/libs first on LD_LIBRARY_PATH."
        ),
    ),
    (
        "no-permission",
        nvml("nvmlInitWithFlags.code 4\n"),
        {},
        "This process may not use the NVIDIA driver (nvmlInitWithFlags, NVML code 4: Insufficient Permissions).",
        f"{ASK}: the job does not own it, or the mode of /dev/nvidia* forbids it.",
    ),
    (
        "no-permission",
        nvml("count 2\nnvmlDeviceGetHandleByIndex_v2.code 4\n"),
        {},
        "This process may use none of the 2 GPUs here (NVML code 4: Insufficient Permissions).",
        f"{ASK}: the job does not own it, or the mode of /dev/nvidia* forbids it.",
    ),
    ("present", nvml("count 2\nnvmlDeviceGetHandleByIndex_v2.0.code 4\n"), {"CUDA_VISIBLE_DEVICES": "0"}, "", ""),
    (
        "cgroup",
        nvml("nvmlInitWithFlags.code 999\n"),
        SLURM,
        "The operating system blocks the NVIDIA control device (nvmlInitWithFlags, NVML code 999: Unknown Error).",
        (
            "Ask Slurm for 1 GPU (--gres=gpu:1): most often the device cgroup of the job withholds it. After a systemd "
            "reload on the host, start the container again."
        ),
    ),
    (
        "nvml-error",
        nvml("nvmlDeviceGetCount_v2.code 20\n"),
        {},
        "NVML refuses nvmlDeviceGetCount_v2 (NVML code 20: Insufficient Memory).",
        f"See whether nvidia-smi works on node {HOST} itself.",
    ),
    (
        "none-granted",
        nvml("count 0\n"),
        {},
        "The NVIDIA driver 535.104.05 answers, but shows no GPU to this process.",
        f"{ASK}: the job owns none.",
    ),
    (
        "lost",
        nvml("count 2\nnvmlDeviceGetHandleByIndex_v2.1.code 15\n"),
        {},
        f"GPU 1 of node {HOST} is lost (NVML code 15: GPU is lost).",
        f"A fault of the hardware: tell the administrator, and leave the node out (sbatch --exclude={HOST}).",
    ),
    ("present", nvml("count 2\nnvmlDeviceGetHandleByIndex_v2.1.code 15\n"), {"CUDA_VISIBLE_DEVICES": "0"}, "", ""),
    (
        "reset",
        nvml("nvmlDeviceGetHandleByIndex_v2.code 16\n"),
        {},
        f"GPU 0 of node {HOST} must be reset before it can be used (NVML code 16: GPU requires reset).",
        "Ask the administrator to reset it (nvidia-smi --gpu-reset -i 0), or take another node.",
    ),
    (
        "stale-visible",
        nvml("count 2\n"),
        {"CUDA_VISIBLE_DEVICES": "5"},
        "CUDA_VISIBLE_DEVICES=5 names 5, but NVML shows 2 GPUs (0 to 1).",
        "The value may come from another node or job: unset it, or name what is there. As it is, no GPU can be used.",
    ),
    (
        "stale-visible",
        nvml("count 2\ngpu0.uuid GPU-aaaa\ngpu1.uuid GPU-bbbb\n"),
        {"CUDA_VISIBLE_DEVICES": "GPU-bb,GPU-cc"},
        "CUDA_VISIBLE_DEVICES=GPU-bb,GPU-cc names GPU-cc, but NVML shows GPU-aaaa, GPU-bbbb.",
        (
            "The value may come from another node or job: unset it, or name what is there. As it is, only 1 GPU named "
            "before it can be used."
        ),
    ),
    (
        "stale-visible",
        nvml("gpu0.mig 1\ngpu0.instances 1\ngpu0.instance0.uuid MIG-aaaa\n"),
        {"CUDA_VISIBLE_DEVICES": "MIG-bbbb"},
        "CUDA_VISIBLE_DEVICES=MIG-bbbb names MIG-bbbb, but NVML shows MIG-aaaa.",
        "The value may come from another node or job: unset it, or name what is there. As it is, no GPU can be used.",
    ),
    (
        "present",
        nvml("gpu0.mig 1\ngpu0.instances 2\ngpu0.instance1.uuid MIG-aaaa\n"),
        {"CUDA_VISIBLE_DEVICES": "MIG-aaaa"},
        "",
        "",
    ),
    (
        "mig-empty",
        nvml("gpu0.mig 1\n"),
        {},
        "GPU 0 is in MIG mode and has no MIG instance that this process may use.",
        (
            "Ask for one in the job (Slurm: --gres=gpu:PROFILE:1), or have the administrator make one "
            "(nvidia-smi mig -cgi PROFILE -C)."
        ),
    ),
    (
        "driver-too-old",
        old_driver,
        {},
        (
            "Driver 470.82.01 is too old for the image's CUDA 12.4 (nvidia_cuda_runtime_cu12-12.4.127), which needs "
            "525.60.13 or newer."
        ),
        "Take a node with a newer driver, or an image built for CUDA 11 or older.",
    ),
    ("present", forward_compatible, {}, "", ""),
    (
        "shadowed",
        shadowed,
        {},
        (
            "LD_LIBRARY_PATH leads to /toolkit/compat/libcuda.so.1 (version 470.82.01), older than the driver that "
            "runs (535.104.05): CUDA refuses this with error 803."
        ),
        "Take /toolkit/compat off LD_LIBRARY_PATH.",
    ),
    (
        "uvm-missing",
        without_uvm,
        {},
        "A GPU is present, but /dev/nvidia-uvm is missing, without which CUDA cannot start.",
        (
            f"On node {HOST}, outside the container, run nvidia-modprobe -u -c=0 or any CUDA program once, then start "
            "the container again."
        ),
    ),
    (
        "too-few",
        nvml("count 2\n"),
        {**SLURM, "SIF_WRITABLE_GPU_COUNT": "4"},
        "2 GPUs visible, 4 demanded (SIF_WRITABLE_GPU_COUNT=4).",
        "Ask Slurm for 4 GPUs (--gres=gpu:4), or lower the demand.",
    ),
    (
        "too-little-memory",
        nvml(f"gpu0.name Tesla T4\ngpu0.total {15 << 30}\n"),
        {"SIF_WRITABLE_GPU_MIN_MEMORY": "20GiB"},
        "GPU 0 (Tesla T4) has 15.0 GiB of memory, 20.0 GiB are demanded (SIF_WRITABLE_GPU_MIN_MEMORY=20GiB).",
        "Take a node with larger GPUs, or lower the demand.",
    ),
    (
        "low-capability",
        nvml("gpu0.name Tesla V100\ngpu0.capability 70\n"),
        {"SIF_WRITABLE_GPU_MIN_CAPABILITY": "8.0"},
        "GPU 0 (Tesla V100) has compute capability 7.0, 8.0 is demanded (SIF_WRITABLE_GPU_MIN_CAPABILITY=8.0).",
        "Take a node with newer GPUs, or lower the demand.",
    ),
    (
        "present",
        nvml(""),
        {
            "SIF_WRITABLE_GPU_MIN_MEMORY": "40GiB",
            "SIF_WRITABLE_GPU_MIN_CAPABILITY": "8.0",
            "SIF_WRITABLE_GPU_COUNT": "1",
        },
        "",
        "",
    ),
    (
        "unchecked",
        nvml("nvmlDeviceGetMemoryInfo.code 3\nnvmlDeviceGetMemoryInfo_v2.code 3\n"),
        {"SIF_WRITABLE_GPU_MIN_MEMORY": "40GiB"},
        "The GPU could not be checked: NVML does not tell the memory of GPU 0 (NVIDIA A100-SXM4-40GB).",
        "Run sif-writable status to see what is known; SIF_WRITABLE_GPU=off leaves the check out.",
    ),
    (
        "bad-setting",
        nvml(""),
        {"SIF_WRITABLE_GPU_COUNT": "two"},
        "SIF_WRITABLE_GPU_COUNT='two' is not understood and counts as unset.",
        "Allowed: a whole number such as 2.",
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=[f"{number}-{row[0]}" for number, row in enumerate(ROWS)])
def test_every_cause_is_told_in_two_lines(room: Container, row: tuple[str, Arrange, dict[str, str], str, str]) -> None:
    cause, arrange, variables, fact, remedy = row
    arrange(room)
    done = room.run(CAUSE, **variables)
    lines = f"sif-writable: before 'import torch': {fact}\nsif-writable: remedy: {remedy}\n" if fact else ""
    if variables.get("SIF_WRITABLE_GPU") == "require":
        assert (done.stderr, done.stdout, done.returncode) == (lines, "", 1)
        return
    assert (done.stderr, done.stdout, done.returncode) == (lines, f"{cause}\n", 0)
    initialised = len(room.calls("nvmlInitWithFlags"))
    refused = "nvmlInitWithFlags.code" in (room.folder / "answers").read_text()
    assert initialised <= 1
    assert len(room.calls("nvmlShutdown")) == (0 if refused else initialised)


THREADED = "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"


@pytest.mark.parametrize("before", ["", THREADED], ids=["fork", "fresh interpreter"])
@pytest.mark.parametrize("function", ["nvmlInitWithFlags", "nvmlDeviceGetHandleByIndex_v2", "nvmlShutdown"])
def test_a_driver_that_hangs_is_left_behind(room: Container, before: str, function: str) -> None:
    nvml(f"{function}.delay 100000\n")(room)
    start = time.monotonic()
    done = room.run(before + CAUSE, SIF_WRITABLE_GPU_TIMEOUT="1")
    assert time.monotonic() - start < 20
    assert done.stderr == (
        f"sif-writable: before 'import torch': NVML did not answer within 1 s (in {function}).\n"
        f"sif-writable: remedy: The driver or a GPU of node {HOST} hangs: tell its administrator, and leave the node "
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


def test_a_stub_is_not_asked(room: Container) -> None:
    stub(room)
    assert room.run(CAUSE).stdout == "stub\n"
    assert not room.calls("nvmlInitWithFlags")


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
    nvml("nvmlInitWithFlags.delay 100000\n")(room)
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
    nvml("nvmlInitWithFlags.delay 2000\n")(room)
    saved = room.folder / "saved"
    done = room.run(SIGNALLED.replace("SAVED", str(saved)), SIF_WRITABLE_GPU_TIMEOUT="10")
    assert (done.stdout, done.stderr) == ("present\n", "")
    assert saved.read_text() == "saved "


NOTHING_LEFT = """
import os
before = dict(os.environ), sorted(os.listdir("/proc/self/fd")), os.getcwd()
from sif_writable.gpu import check
check.enforce("torch", os.environ)
after = dict(os.environ), sorted(os.listdir("/proc/self/fd")), os.getcwd()
assert after[0].pop("SIF_WRITABLE_GPU_CHECKED")
assert before == after, (before, after)
assert len(os.listdir("/proc/self/task")) == THREADS
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
    nvml(f"nvmlInitWithFlags.delay {delay}\n")(room)
    done = room.run(before + NOTHING_LEFT.replace("THREADS", threads), SIF_WRITABLE_GPU_TIMEOUT="1")
    assert done.stdout == "nothing left\n", done.stderr


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


def test_a_process_tree_asks_once_and_tells_once(room: Container) -> None:
    nvml("count 0\n")(room)
    done = room.run(TREE)
    assert done.returncode == 0, done.stderr
    assert len(room.calls("nvmlInitWithFlags")) == len(room.calls("nvmlShutdown")) == 1
    assert done.stderr.count("sif-writable: before 'import torch'") == 1


def test_threads_that_come_at_once_ask_once(room: Container) -> None:
    nvml("count 0\nnvmlInitWithFlags.delay 300\n")(room)
    done = room.run(TREE.replace("    check()\n    threads", "    threads"))
    assert done.returncode == 0, done.stderr
    assert len(room.calls("nvmlInitWithFlags")) == 1
    assert done.stderr.count("sif-writable: before 'import torch'") == 1


def test_a_fork_while_another_thread_asks_is_not_blocked(room: Container) -> None:
    nvml("nvmlInitWithFlags.delay 1000\n")(room)
    program = """
import os, threading, time
from sif_writable.gpu import check
thread = threading.Thread(target=check.check, args=("torch", os.environ))
thread.start()
time.sleep(0.3)
pid = os.fork()
if pid == 0:
    os._exit(check.check("torch", os.environ).cause != "present")
assert os.waitpid(pid, 0)[1] == 0
thread.join()
"""
    done = room.run(program, SIF_WRITABLE_GPU_TIMEOUT="100")  # a child that waits for the lock would outlast the run
    assert done.returncode == 0, done.stderr
    assert len(room.calls("nvmlInitWithFlags")) == 2, "parent and child did not know of each other"


def test_other_visible_devices_are_another_question(room: Container) -> None:
    nvml("count 2\n")(room)
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
    nvml("")(room)
    room.run(CAUSE + f"os.environ['{variable}'] = '1'\n" + CAUSE)
    assert len(room.calls("nvmlInitWithFlags")) == asked


def test_no_more_gpus_are_woken_than_are_visible(room: Container) -> None:
    nvml("count 8\n")(room)
    assert room.run(CAUSE, CUDA_VISIBLE_DEVICES="1,0").stdout == "present\n"
    assert len(room.calls("nvmlDeviceGetHandleByIndex_v2")) == 2


REQUIRE = """
import os
from sif_writable.gpu import check
from sif_writable.errors import GpuUnavailableError
for _ in range(2):
    try:
        check.enforce("torch", os.environ)
    except GpuUnavailableError as error:
        print(type(error).__name__, error.name, error.diagnosis.cause)
"""


def test_a_required_gpu_is_refused_each_time_but_asked_for_once(room: Container) -> None:
    nvml("nvmlInitWithFlags.code 9\n")(room)
    done = room.run(REQUIRE, SIF_WRITABLE_GPU="require")
    assert done.stdout == "GpuUnavailableExit torch driver-not-loaded\n" * 2
    assert done.stderr.count("sif-writable: before 'import torch': ") == 2
    assert len(room.calls("nvmlInitWithFlags")) == 1


def test_the_image_can_require_a_gpu(room: Container) -> None:
    declared = "import os; from sif_writable.gpu import check; check.enforce('torch', os.environ, DECLARED)"
    done = room.run(declared.replace("DECLARED", "{'SIF_WRITABLE_GPU': 'require'}"))
    assert done.stderr == (
        "sif-writable: before 'import torch': There is no NVIDIA GPU on this node: no /dev/nvidia*, no "
        "/proc/driver/nvidia/version, although SIF_WRITABLE_GPU=require is set.\n"
        "sif-writable: remedy: Run it on a node with an NVIDIA GPU.\n"
    )


@pytest.mark.parametrize("policy", ["auto", "off"])
def test_nobody_is_bothered_where_nobody_expects_a_gpu(room: Container, policy: str) -> None:
    if policy == "off":
        nvml("nvmlInitWithFlags.code 9\n")(room)
    done = room.run(IMPORT + "print('SIF_WRITABLE_GPU_CHECKED' in os.environ)", SIF_WRITABLE_GPU=policy)
    assert (done.stdout, done.stderr) == ("False\n", "")
    assert not room.calls("nvmlInitWithFlags")


def test_the_check_loads_nothing_heavy(room: Container) -> None:
    """Every heavy import pays for it, also where nobody expects a GPU; typing alone took ten times the rest."""
    program = "import sys; own = set(sys.modules)\n" + IMPORT + "print(*sorted(set(sys.modules) - own))"
    loaded = set(room.run(program).stdout.split())
    assert "sif_writable.gpu.check" in loaded
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
    nvml("count 0\n")(room)
    program = "import os; from sif_writable.gpu import check; print(check.check('onnxruntime', os.environ))\n"
    assert room.run(program).stdout == "None\n"
    room.distributions("onnxruntime_gpu-1.18.0")
    assert room.run(program).stdout.startswith("Diagnosis('none-granted'")


DETAILS = """
from sif_writable.gpu import signs as gpu
answer = gpu.ask(details=True)
print(answer.count, answer.driver, answer.version, answer.cuda, repr(answer.blind), repr(answer.asking))
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
    nvml(ANSWERS)(room)
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
        "sif-writable: before 'import torch': The GPU could not be checked: the process that asks NVML died in "
        "nvmlInitWithFlags.\n"
        "sif-writable: remedy: Run sif-writable status to see what is known; SIF_WRITABLE_GPU=off leaves the "
        "check out.\n"
    )


def test_an_interpreter_that_cannot_be_started_is_told(room: Container) -> None:
    nvml("")(room)
    done = room.run(THREADED + "import sys; sys.executable = '/does/not/exist'\n" + CAUSE)
    assert "could not be started (No such file or directory)" in done.stderr
    assert done.stdout == "unchecked\n"


def test_an_mpi_process_is_not_forked(room: Container) -> None:
    nvml("")(room)
    room.bind(room.nvml, "/image/libmpi.so.40")
    program = """
import ctypes, os
ctypes.CDLL("/image/libmpi.so.40")
forks = []
os.register_at_fork(before=lambda: forks.append(1))
"""
    assert room.run(program + CAUSE + "print(len(forks))").stdout == "present\n0\n"
    assert room.run(program.replace("ctypes.CDLL", "str") + CAUSE + "print(len(forks))").stdout == "present\n1\n"
