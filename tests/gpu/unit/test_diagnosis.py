"""From GPU facts and demands to one cause: every cause is a row, and its two lines are compared in full."""

from __future__ import annotations

import pytest

from sif_writable import sizes
from sif_writable.gpu import demands
from sif_writable.gpu.ask import Failure, Gpu, Instance, Nvml
from sif_writable.gpu.signs import Libcuda
from tests.gpu.unit.answers import NV, UUIDS, card, diagnose, evidence, nvml

MISSING = "cannot open shared object file: No such file or directory"

NO_GPU = {"nodes": (), "driver": "", "gpus": 0, "libs": ()}
NOT_LOADED = {"path": "", "count": None, "load_errors": [("libnvidia-ml.so.1", f"libnvidia-ml.so.1: {MISSING}")]}
MIG = Instance("MIG-cccc3333", 5 << 30, 5 << 30)
DISTRIBUTION = "/usr/lib/x86_64-linux-gnu"
CDI_NVML = f"{DISTRIBUTION}/libnvidia-ml.so.535.104.05"
ALL_ON_ONE = "4 GPUs where the job or the container is started"

OLD = "/image/pynvml.py is not nvidia-ml-py (ImportError: old)"
# NVML's answer, variables, what is not known: two GPUs are demanded in vain if it is taken for a no.
UNKNOWN: list[tuple[Nvml, dict[str, str], str]] = [
    (
        nvml(Gpu(0), details_error=OLD),
        {"CUDA_VISIBLE_DEVICES": "GPU-aaaa"},
        f"CUDA_VISIBLE_DEVICES=GPU-aaaa names GPU-aaaa, and NVML does not report the UUID of GPU 0: {OLD}",
    ),
    (
        nvml(card(), card(1, 15, "GPU is lost", uuid="")),
        {"CUDA_VISIBLE_DEVICES": "GPU-aaaa,GPU-bbbb"},
        "CUDA_VISIBLE_DEVICES=GPU-aaaa,GPU-bbbb names GPU-bbbb, and NVML does not report the UUID of GPU 1",
    ),
    (
        nvml(card(uuid="")),
        {"CUDA_VISIBLE_DEVICES": "MIG-GPU-aaaa1111-0000/1/0"},
        (
            "CUDA_VISIBLE_DEVICES=MIG-GPU-aaaa1111-0000/1/0 names MIG-GPU-aaaa1111-0000/1/0, and NVML does not report "
            "the UUID of GPU 0"
        ),
    ),
    (
        nvml(card(mig=True, instances=[MIG], complete=False)),
        {"CUDA_VISIBLE_DEVICES": "MIG-dddd"},
        "CUDA_VISIBLE_DEVICES=MIG-dddd names MIG-dddd, and NVML does not report the MIG instances of GPU 0",
    ),
    (
        nvml(card(mig=True, complete=False)),
        {},
        "2 GPUs demanded (SIF_WRITABLE_GPU_COUNT=2), and NVML does not report the MIG instances of GPU 0",
    ),
]

# code, severity, evidence, NVML's answer, SIF_WRITABLE_GPU* and other variables, fact, remedy
ROWS = [
    (
        "present",
        "ok",
        {},
        nvml(card()),
        {},
        "A GPU is present: 1 of 1 GPU visible, driver 535.104.05.",
        "",
    ),
    (
        "bad-setting",
        "warn",
        {},
        nvml(card()),
        {"SIF_WRITABLE_GPU": "requre"},
        "SIF_WRITABLE_GPU='requre' is not understood and counts as unset.",
        "Allowed: auto, require, warn, off.",
    ),
    (
        "bad-setting",
        "warn",
        {},
        nvml(card()),
        {"SIF_WRITABLE_GPU": "require", "SIF_WRITABLE_GPU_MIN_MEMORY": "20 gigs"},
        "SIF_WRITABLE_GPU_MIN_MEMORY='20 gigs' is not understood and counts as unset.",
        f"Allowed: {sizes.FORMS}.",
    ),
    (
        "hidden",
        "info",
        {},
        nvml(card()),
        {"CUDA_VISIBLE_DEVICES": ""},
        'GPUs are hidden from this process on purpose: CUDA_VISIBLE_DEVICES="".',
        "To use them, unset CUDA_VISIBLE_DEVICES or give it device numbers such as 0.",
    ),
    (
        "hidden",
        "fail",
        {},
        nvml(card()),
        {"CUDA_VISIBLE_DEVICES": "NoDevFiles", "SIF_WRITABLE_GPU": "require"},
        'GPUs are hidden from this process on purpose: CUDA_VISIBLE_DEVICES="NoDevFiles".',
        "To use them, unset CUDA_VISIBLE_DEVICES or give it device numbers such as 0.",
    ),
    (
        "hidden",
        "info",
        NO_GPU,
        nvml(),
        {"NVIDIA_VISIBLE_DEVICES": "void"},
        "GPUs are hidden from this container on purpose: NVIDIA_VISIBLE_DEVICES=void.",
        "To use them, start the container with NVIDIA_VISIBLE_DEVICES=all.",
    ),
    (
        "rocm",
        "info",
        {**NO_GPU, "nodes": ("kfd",)},
        nvml(),
        {"SIF_WRITABLE_GPU": "require"},
        "An AMD GPU (ROCm) is present (/dev/kfd), and no NVIDIA GPU.",
        "Nothing to do for a ROCm build: only NVIDIA GPUs are checked here.",
    ),
    (
        "rocm",
        "fail",
        {**NO_GPU, "nodes": ("kfd",), "cuda": "12.4", "cuda_from": "torch-2.4.0+cu124"},
        nvml(),
        {"SIF_WRITABLE_GPU": "require"},
        "An AMD GPU (ROCm) is present (/dev/kfd), and no NVIDIA GPU, which torch-2.4.0+cu124 needs.",
        "Run it on a node with an NVIDIA GPU.",
    ),
    (
        "no-gpu",
        "info",
        NO_GPU,
        nvml(),
        {},
        "There is no NVIDIA GPU on this node: no /dev/nvidia*, no /proc/driver/nvidia/version.",
        "Run it on a node with an NVIDIA GPU.",
    ),
    (
        "no-gpu",
        "fail",
        NO_GPU,
        nvml(),
        {"SLURM_JOB_ID": "12", "SLURM_JOB_GPUS": "0,1"},
        (
            "There is no NVIDIA GPU on this node: no /dev/nvidia*, no /proc/driver/nvidia/version, although "
            "SLURM_JOB_GPUS=0,1 is set."
        ),
        "Ask Slurm for 1 GPU (--gres=gpu:1), in a partition that has them.",
    ),
    (
        "contained",
        "fail",
        {"nodes": (), "libs": None, "gpus": 4},
        nvml(),
        {"SIF_WRITABLE_GPU": "require"},
        "NVIDIA driver 535.104.05 runs on this node with 4 GPUs, but the container has no /dev/nvidiactl.",
        "Start the container with --nv, which brings the device files under --contain too: apptainer exec --nv ...",
    ),
    (
        "wsl",
        "fail",
        {"nodes": ("dxg",), "driver": "", "gpus": 0, "libs": ()},
        nvml(**NOT_LOADED),
        {},
        "This is WSL (/dev/dxg, no /dev/nvidia*), and the container has no libnvidia-ml.so.1.",
        (
            "Start the container with --nv; if that is not enough, add --bind /usr/lib/wsl and put /usr/lib/wsl/lib on "
            "LD_LIBRARY_PATH."
        ),
    ),
    (
        "present",
        "ok",
        {"nodes": ("dxg",), "driver": "", "gpus": 0, "libs": ()},
        nvml(card(), path="/usr/lib/wsl/lib/libnvidia-ml.so.1"),
        {},
        "A GPU is present: 1 of 1 GPU visible.",
        "",
    ),
    (
        "nv-missing",
        "fail",
        {"libs": ()},
        nvml(**NOT_LOADED),
        {},
        "The device files of 1 GPU are there, but the container has no driver library: /.singularity.d/libs is empty.",
        (
            "Start the container with --nv: apptainer exec --nv ... If it was, the host's ld cache lacks the driver: "
            "there, ldconfig -p must show libnvidia-ml.so.1."
        ),
    ),
    (
        "library-missing",
        "fail",
        {"libs": (), "mounted": (f"{DISTRIBUTION}/libcuda.so.535.104.05", CDI_NVML)},
        nvml(**NOT_LOADED),
        {"NVIDIA_VISIBLE_DEVICES": "void"},
        (
            "The device files of 1 GPU are there, and the driver's libraries are mounted in "
            f"{DISTRIBUTION}, but the loader does not find them."
        ),
        (f"Put {DISTRIBUTION} first on LD_LIBRARY_PATH."),
    ),
    (
        "library-missing",
        "fail",
        {"libs": None, "mounted": (f"{DISTRIBUTION}/libcuda.so.535.104.05",)},
        nvml(**NOT_LOADED),
        {"NVIDIA_VISIBLE_DEVICES": "all"},
        (
            "The device files of 1 GPU are there, and the driver's libraries are mounted in "
            f"{DISTRIBUTION}, but libnvidia-ml.so is not among them."
        ),
        "Start the container with NVIDIA_DRIVER_CAPABILITIES=compute,utility.",
    ),
    (
        "nv-missing",
        "fail",
        {"libs": None, "nodes": ("nvidia0", "nvidia1", "nvidiactl")},
        nvml(**NOT_LOADED),
        {},
        (
            "The device files of 2 GPUs are there, but the container has no driver library: /.singularity.d/libs does "
            "not exist."
        ),
        (
            "Start the container with --nv: apptainer exec --nv ... If it was, the host's ld cache lacks the driver: "
            "there, ldconfig -p must show libnvidia-ml.so.1."
        ),
    ),
    (
        "library-missing",
        "fail",
        {"libs": ("libGL.so.1", "libcuda.so.1")},
        nvml(**NOT_LOADED),
        {},
        "The device files of 1 GPU are there, and /.singularity.d/libs holds 2 files, but no libnvidia-ml.so.1.",
        "--nv brings what the host's ld cache lists: there, ldconfig -p must show libnvidia-ml.so.1.",
    ),
    (
        "library-broken",
        "fail",
        {},
        nvml(path="", load_errors=[("libnvidia-ml.so.1", f"libdep.so.7: {MISSING}")]),
        {},
        f"libnvidia-ml.so.1 is there but cannot be loaded: libdep.so.7: {MISSING}.",
        "Remove NVIDIA driver packages (such as libnvidia-compute) from the image; --nv brings the host's own.",
    ),
    (
        "stub",
        "fail",
        {},
        nvml(path="/usr/local/cuda/lib64/stubs/libnvidia-ml.so.1"),
        {},
        "The loader takes /usr/local/cuda/lib64/stubs/libnvidia-ml.so.1, a stub that serves for linking only.",
        "Take /usr/local/cuda/lib64/stubs off LD_LIBRARY_PATH; --nv brings the real library.",
    ),
    (
        "driver-not-loaded",
        "fail",
        {"driver": ""},
        nvml(failure=Failure("nvmlInitWithFlags", 9, "Driver Not Loaded")),
        {},
        "The NVIDIA driver is not loaded on node n7: no /proc/driver/nvidia/version (NVML code 9: Driver Not Loaded).",
        "A fault of the host: tell its administrator, and take another node.",
    ),
    (
        "mismatch",
        "fail",
        {},
        nvml(failure=Failure("nvmlInitWithFlags", 18, "Driver/library version mismatch")),
        {},
        (
            f"The NVIDIA library and the driver do not match: {NV} was loaded, driver 535.104.05 runs "
            "(NVML code 18: Driver/library version mismatch)."
        ),
        "The host's driver was updated without a reboot: ask the administrator of node n7 to reload it.",
    ),
    (
        "mismatch",
        "fail",
        {"libs": (), "mounted": (CDI_NVML,)},
        nvml(failure=Failure("nvmlInitWithFlags", 18, "Driver/library version mismatch"), path=CDI_NVML),
        {"NVIDIA_VISIBLE_DEVICES": "void"},
        (
            f"The NVIDIA library and the driver do not match: {CDI_NVML} was loaded, driver 535.104.05 runs "
            "(NVML code 18: Driver/library version mismatch)."
        ),
        "The host's driver was updated without a reboot: ask the administrator of node n7 to reload it.",
    ),
    (
        "mismatch",
        "fail",
        {},
        nvml(
            failure=Failure("nvmlInitWithFlags", 18, "Driver/library version mismatch"),
            path="/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.470.82.01",
        ),
        {},
        (
            "The NVIDIA library and the driver do not match: /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.470.82.01 was "
            "loaded, driver 535.104.05 runs (NVML code 18: Driver/library version mismatch)."
        ),
        (
            "The image brings its own copy: remove it (a package such as libnvidia-compute), or put "
            "/.singularity.d/libs first on LD_LIBRARY_PATH."
        ),
    ),
    (
        "no-permission",
        "fail",
        {},
        nvml(failure=Failure("nvmlInitWithFlags", 4, "Insufficient Permissions")),
        {"SLURM_JOB_ID": "12"},
        "This process may not use the NVIDIA driver (nvmlInitWithFlags, NVML code 4: Insufficient Permissions).",
        "Ask Slurm for 1 GPU (--gres=gpu:1): the job does not own it, or the mode of /dev/nvidia* forbids it.",
    ),
    (
        "no-permission",
        "fail",
        {},
        nvml(card(0, 4, "Insufficient Permissions"), card(1, 4, "Insufficient Permissions")),
        {},
        "This process may use none of the 2 GPUs here (NVML code 4: Insufficient Permissions).",
        (
            "Ask for 1 GPU where the job or the container is started: the job does not own it, or the mode of "
            "/dev/nvidia* forbids it."
        ),
    ),
    (
        "cgroup",
        "fail",
        {},
        nvml(failure=Failure("nvmlInitWithFlags", 17, "The operating system has blocked the request")),
        {"SLURM_JOB_ID": "12"},
        (
            "The operating system blocks the NVIDIA control device (nvmlInitWithFlags, NVML code 17: The operating "
            "system has blocked the request)."
        ),
        (
            "Ask Slurm for 1 GPU (--gres=gpu:1): most often the device cgroup of the job withholds it. After a systemd "
            "reload on the host, start the container again."
        ),
    ),
    (
        "nvml-error",
        "fail",
        {},
        nvml(failure=Failure("nvmlDeviceGetCount_v2", 20, "Insufficient Memory")),
        {},
        "NVML refuses nvmlDeviceGetCount_v2 (NVML code 20: Insufficient Memory).",
        "See whether nvidia-smi works on node n7 itself.",
    ),
    (
        "none-granted",
        "fail",
        {},
        nvml(),
        {"SLURM_JOB_ID": "12"},
        "The NVIDIA driver 535.104.05 answers, but shows no GPU to this process.",
        "Ask Slurm for 1 GPU (--gres=gpu:1): the job owns none.",
    ),
    (
        "lost",
        "fail",
        {},
        nvml(card(), card(1, 15, "GPU is lost")),
        {},
        "GPU 1 of node n7 is lost (NVML code 15: GPU is lost).",
        "A fault of the hardware: tell the administrator, and leave the node out (sbatch --exclude=n7).",
    ),
    (
        "reset",
        "fail",
        {},
        nvml(card(0, 16, "GPU requires reset")),
        {},
        "GPU 0 of node n7 must be reset before it can be used (NVML code 16: GPU requires reset).",
        "Ask the administrator to reset it (nvidia-smi --gpu-reset -i 0), or take another node.",
    ),
    (
        "nvml-error",
        "fail",
        {},
        nvml(card(0, 11, "An IRQ issue")),
        {},
        "NVML refuses the handle of GPU 0 (NVML code 11: An IRQ issue).",
        "See whether nvidia-smi works on node n7 itself.",
    ),
    (
        "stale-visible",
        "fail",
        {},
        nvml(card(), card(1)),
        {"CUDA_VISIBLE_DEVICES": "3"},
        "CUDA_VISIBLE_DEVICES=3 names 3, but NVML shows 2 GPUs (0 to 1).",
        "The value may come from another node or job: unset it, or name what is there. As it is, no GPU can be used.",
    ),
    (
        "stale-visible",
        "warn",
        {},
        nvml(card()),
        {"CUDA_VISIBLE_DEVICES": "0,1"},
        "CUDA_VISIBLE_DEVICES=0,1 names 1, but NVML shows 1 GPU (0).",
        (
            "The value may come from another node or job: unset it, or name what is there. As it is, only 1 GPU named "
            "before it can be used."
        ),
    ),
    (
        "stale-visible",
        "fail",
        {},
        nvml(card(), card(1)),
        {"CUDA_VISIBLE_DEVICES": "GPU-cccc"},
        f"CUDA_VISIBLE_DEVICES=GPU-cccc names GPU-cccc, but NVML shows {UUIDS[0]}, {UUIDS[1]}.",
        "The value may come from another node or job: unset it, or name what is there. As it is, no GPU can be used.",
    ),
    (
        "stale-visible",
        "fail",
        {},
        nvml(card(mig=True, instances=[MIG])),
        {"CUDA_VISIBLE_DEVICES": "MIG-dddd4444"},
        "CUDA_VISIBLE_DEVICES=MIG-dddd4444 names MIG-dddd4444, but NVML shows MIG-cccc3333.",
        "The value may come from another node or job: unset it, or name what is there. As it is, no GPU can be used.",
    ),
    *(
        (
            "unchecked",
            "warn",
            {},
            answer,
            {"SIF_WRITABLE_GPU": "require", "SIF_WRITABLE_GPU_COUNT": "2", **environ},
            f"The GPU could not be checked: {unknown}.",
            "Run sif-writable status to see what is known; SIF_WRITABLE_GPU=off leaves the check out.",
        )
        for answer, environ, unknown in UNKNOWN
    ),
    (
        "uvm-missing",
        "fail",
        {"nodes": ("nvidia0", "nvidiactl")},
        nvml(Gpu(0), details_error=OLD),
        {"CUDA_VISIBLE_DEVICES": "GPU-aaaa"},
        "A GPU is present, but /dev/nvidia-uvm is missing, without which CUDA cannot start.",
        (
            "On node n7, outside the container, run nvidia-modprobe -u -c=0 or any CUDA program once, then start the "
            "container again."
        ),
    ),
    (
        "stale-visible",
        "fail",
        {},
        nvml(card()),
        {"CUDA_VISIBLE_DEVICES": "0,0"},
        "CUDA_VISIBLE_DEVICES=0,0 names a device twice, and CUDA then shows none.",
        "Name each device once.",
    ),
    (
        "mig-empty",
        "fail",
        {},
        nvml(card(mig=True)),
        {},
        "GPU 0 is in MIG mode and has no MIG instance that this process may use.",
        (
            "Ask for one in the job (Slurm: --gres=gpu:PROFILE:1), or have the administrator make one "
            "(nvidia-smi mig -cgi PROFILE -C)."
        ),
    ),
    (
        "driver-too-old",
        "fail",
        {"driver": "470.82.01", "cuda": "12.4", "cuda_from": "torch-2.4.0+cu124"},
        nvml(card()),
        {},
        "Driver 470.82.01 is too old for the image's CUDA 12.4 (torch-2.4.0+cu124), which needs 525.60.13 or newer.",
        "Take a node with a newer driver, or an image built for CUDA 11 or older.",
    ),
    (
        "driver-too-old",
        "fail",
        {
            "driver": "470.82.01",
            "cuda": "12.4",
            "cuda_from": "CUDA_VERSION",
            "compat": (Libcuda("/usr/local/cuda/compat/libcuda.so.1", "550.54.15"),),
        },
        nvml(card()),
        {},
        "Driver 470.82.01 is too old for the image's CUDA 12.4 (CUDA_VERSION), which needs 525.60.13 or newer.",
        (
            "Take a node with a newer driver, or an image built for CUDA 11 or older; on data-centre GPUs "
            "/usr/local/cuda/compat first on LD_LIBRARY_PATH also helps."
        ),
    ),
    (
        "present",
        "ok",
        {
            "driver": "470.82.01",
            "cuda": "12.4",
            "cuda_from": "CUDA_VERSION",
            "libcuda": Libcuda("/usr/local/cuda/compat/libcuda.so.1", "550.54.15"),
        },
        nvml(card()),
        {},
        "A GPU is present: 1 of 1 GPU visible, driver 470.82.01.",
        "",
    ),
    (
        "shadowed",
        "fail",
        {"libcuda": Libcuda("/usr/local/cuda/compat/libcuda.so.1", "470.82.01")},
        nvml(card()),
        {},
        (
            "LD_LIBRARY_PATH leads to /usr/local/cuda/compat/libcuda.so.1 (version 470.82.01), older than the driver "
            "that runs (535.104.05): CUDA refuses this with error 803."
        ),
        "Take /usr/local/cuda/compat off LD_LIBRARY_PATH.",
    ),
    (
        "uvm-missing",
        "fail",
        {"nodes": ("nvidia0", "nvidiactl")},
        nvml(card()),
        {},
        "A GPU is present, but /dev/nvidia-uvm is missing, without which CUDA cannot start.",
        (
            "On node n7, outside the container, run nvidia-modprobe -u -c=0 or any CUDA program once, then start the "
            "container again."
        ),
    ),
    (
        "too-few",
        "fail",
        {},
        nvml(card(), card(1)),
        {"SIF_WRITABLE_GPU_COUNT": "4"},
        "2 GPUs visible, 4 demanded (SIF_WRITABLE_GPU_COUNT=4).",
        f"Ask for {ALL_ON_ONE}, or lower the demand.",
    ),
    (
        "too-little-memory",
        "fail",
        {},
        nvml(card(name="Tesla T4", total=15 << 30)),
        {"SIF_WRITABLE_GPU_MIN_MEMORY": "20GiB"},
        "GPU 0 (Tesla T4) has 15.0 GiB of memory, 20.0 GiB are demanded (SIF_WRITABLE_GPU_MIN_MEMORY=20GiB).",
        "Take a node with larger GPUs, or lower the demand.",
    ),
    (
        "too-little-memory",
        "fail",
        {},
        nvml(card(name="A100", total=40 << 30, mig=True, instances=[MIG])),
        {"SIF_WRITABLE_GPU_MIN_MEMORY": "20GiB", "CUDA_VISIBLE_DEVICES": "MIG-cccc3333"},
        (
            "The MIG instance MIG-cccc3333 of GPU 0 (A100) has 5.0 GiB of memory, 20.0 GiB are demanded "
            "(SIF_WRITABLE_GPU_MIN_MEMORY=20GiB)."
        ),
        "Take a node with larger GPUs, or lower the demand.",
    ),
    (
        "low-capability",
        "fail",
        {},
        nvml(card(name="Tesla V100", capability=(7, 0))),
        {"SIF_WRITABLE_GPU_MIN_CAPABILITY": "8.0"},
        "GPU 0 (Tesla V100) has compute capability 7.0, 8.0 is demanded (SIF_WRITABLE_GPU_MIN_CAPABILITY=8.0).",
        "Take a node with newer GPUs, or lower the demand.",
    ),
    (
        "unchecked",
        "warn",
        {},
        nvml(card(), details_error=OLD),
        {"SIF_WRITABLE_GPU_MIN_MEMORY": "1GiB"},
        f"The GPU could not be checked: NVML does not report the memory of GPU 0: {OLD}.",
        "Run sif-writable status to see what is known; SIF_WRITABLE_GPU=off leaves the check out.",
    ),
    (
        "unchecked",
        "warn",
        {},
        nvml(not_asked="the process that asks NVML died in nvmlInitWithFlags"),
        {},
        "The GPU could not be checked: the process that asks NVML died in nvmlInitWithFlags.",
        "Run sif-writable status to see what is known; SIF_WRITABLE_GPU=off leaves the check out.",
    ),
    (
        "no-answer",
        "fail",
        {},
        nvml(timed_out=10.0, pending_call="nvmlDeviceGetHandleByIndex_v2"),
        {},
        "NVML did not answer within 10 s (in nvmlDeviceGetHandleByIndex_v2).",
        (
            "The driver or a GPU of node n7 hangs: tell its administrator, and leave the node out (sbatch "
            "--exclude=n7). If GPUs are only slow to wake, raise SIF_WRITABLE_GPU_TIMEOUT (seconds)."
        ),
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=[f"{number}-{row[0]}" for number, row in enumerate(ROWS)])
def test_every_cause_has_its_two_lines(
    row: tuple[str, str, dict[str, object], Nvml, dict[str, str], str, str],
) -> None:
    code, severity, seen, answer, environ, fact, remedy = row
    wanted = demands.read(environ, {})
    found = diagnose(evidence(**{"environ": environ, **seen}), answer, wanted)
    assert (found.severity, *found.problem) == (severity, code, fact, remedy)


def test_no_text_says_that_cuda_works() -> None:
    for *_, fact, remedy in ROWS:
        assert "works" not in fact
        assert "CUDA works" not in remedy
