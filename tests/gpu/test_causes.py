"""Every cause, as a job meets it: the real check and the real nvidia-ml-py, in child interpreters inside a container.

What the kernel and ``--nv`` would have put there is put there; only NVML's answers come from a library of ours, which
is loaded as libnvidia-ml.so.1 from the very places. Each row's message is compared in full.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.gpu.container import NODES, NVML, VERSION
from tests.gpu.programs import CAUSE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.gpu.container import Container

    Arrange = Callable[[Container], None]

HOST = os.uname().nodename
LIBS = "/.singularity.d/libs"
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
    return lambda room: room.with_nv(answers)


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
        "The device files of 1 GPU are there, and /.singularity.d/libs holds 1 file, but no libnvidia-ml.so.1.",
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
        "The GPU could not be checked: NVML does not report the memory of GPU 0 (NVIDIA A100-SXM4-40GB).",
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
def test_every_cause_has_two_lines(room: Container, row: tuple[str, Arrange, dict[str, str], str, str]) -> None:
    cause, arrange, variables, fact, remedy = row
    arrange(room)
    done = room.run(CAUSE, **variables)
    lines = f"sif_writable: before 'import torch': {fact}\nsif_writable: remedy: {remedy}\n" if fact else ""
    if variables.get("SIF_WRITABLE_GPU") == "require":
        assert (done.stderr, done.stdout, done.returncode) == (lines, "", 1)
        return
    assert (done.stderr, done.stdout, done.returncode) == (lines, f"{cause}\n", 0)
    initialised = len(room.calls("nvmlInitWithFlags"))
    refused = "nvmlInitWithFlags.code" in (room.folder / "answers").read_text()
    assert initialised <= 1
    assert len(room.calls("nvmlShutdown")) == (0 if refused else initialised)


def test_a_stub_is_not_asked(room: Container) -> None:
    stub(room)
    assert room.run(CAUSE).stdout == "stub\n"
    assert not room.calls("nvmlInitWithFlags")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make device files")
def test_the_library_of_root_makes_the_device_files(room: Container) -> None:
    """Seen with driver 580: root has a GPU in a container whose /dev was empty, once NVML or CUDA was initialised."""
    contained(room)
    room.bind(room.nvml, f"{LIBS}/{NVML}")
    assert room.run(CAUSE, **WANT).stdout == "present\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make device files")
def test_where_that_fails_the_cause_stays(room: Container) -> None:
    contained(room)
    room.bind(room.nvml, f"{LIBS}/{NVML}")
    room.answer("nvmlInitWithFlags.code 999\n")
    done = room.run(CAUSE, **{**WANT, "SIF_WRITABLE_GPU": "warn"})
    assert (done.stdout, len(room.calls("nvmlInitWithFlags"))) == ("contained\n", 1)
