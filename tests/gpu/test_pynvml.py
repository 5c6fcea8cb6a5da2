"""Whatever else bears the name pynvml in an image: the real old distributions, and a module that is something else."""

from __future__ import annotations

import os
import zipfile
from typing import TYPE_CHECKING

import pynvml
import pytest

from tests.conftest import or_skip
from tests.gpu.programs import CAUSE, THREADED
from tests.lab import wheels

if TYPE_CHECKING:
    from tests.gpu.container import Container

RELEASES = ("pynvml==11.4.1", "pynvml==11.5.3", "nvidia-ml-py==11.495.46")
UUID = "GPU-aaaa1111-2222-3333-4444-555555555555"
ANSWERS = f"gpu0.uuid {UUID}\ngpu0.name NVIDIA A100-SXM4-40GB\ngpu0.capability 80\n"
REQUIRE = {
    "SIF_WRITABLE_GPU": "require",
    "CUDA_VISIBLE_DEVICES": UUID[:12],
    "SIF_WRITABLE_GPU_MIN_MEMORY": "30GB",
    "SIF_WRITABLE_GPU_MIN_CAPABILITY": "8.0",
}
ALONE = "import sys; sys.path[:] = [p for p in sys.path if 'site-packages' not in p]\n"
"""The machine's own nvidia-ml-py is not seen."""


SILENT = """
class NVMLError(Exception): value = 1
def nvmlDeviceGetUUID(*_): raise NVMLError('Uninitialized')
nvmlDeviceGetName = nvmlDeviceGetMemoryInfo = nvmlDeviceGetUUID
"""


@pytest.fixture(params=["", THREADED], ids=["fork", "fresh interpreter"])
def before(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _install(room: Container, release: str) -> None:
    folder = str(or_skip(lambda: wheels.pinned("older-pynvml", RELEASES, (), kept=1)))
    start = release.replace("nvidia-ml-py", "nvidia_ml_py").replace("==", "-")
    (wheel,) = (name for name in os.listdir(folder) if name.startswith(f"{start}-"))
    with zipfile.ZipFile(os.path.join(folder, wheel)) as file:
        file.extractall(room.folder / "packages")


def _with_nvidia_ml_py(room: Container) -> None:
    with open(pynvml.__file__, encoding="utf-8") as file:
        (room.folder / "packages" / "pynvml.py").write_text(file.read())


def test_an_old_pynvml_beside_nvidia_ml_py_costs_no_job_its_gpu(room: Container, before: str) -> None:
    """NVIDIA's own images ship both, and the package comes before the file."""
    room.with_nv(ANSWERS)
    _install(room, "pynvml==11.4.1")
    _with_nvidia_ml_py(room)
    check = "import pynvml; assert pynvml.__file__.endswith('packages/pynvml/__init__.py')\n"
    done = room.run(before + check + CAUSE, **REQUIRE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "present\n", "")


@pytest.mark.parametrize("release", RELEASES)
def test_old_releases_alone_serve(room: Container, before: str, release: str) -> None:
    room.with_nv(ANSWERS)
    _install(room, release)
    done = room.run(ALONE + before + CAUSE, **REQUIRE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "present\n", "")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("raise ImportError('something else')\n", "is not nvidia-ml-py (ImportError: something else)"),
        ("", "is not nvidia-ml-py (AttributeError: module 'pynvml' has no attribute 'nvmlDeviceGetUUID')"),
        (
            SILENT,
            "does not answer (AttributeError: ",
        ),
    ],
    ids=["import", "empty", "no answers"],
)
@pytest.mark.parametrize("visible", [UUID, f"MIG-{UUID}/1/0", "MIG-cccc", "0"])
def test_what_could_not_be_asked_is_not_known_and_refuses_nobody(
    room: Container, text: str, why: str, visible: str
) -> None:
    room.with_nv("gpu0.mig 1\n" if visible.startswith("MIG-c") else "")
    (room.folder / "packages").mkdir()
    (room.folder / "packages" / "pynvml.py").write_text(text)
    done = room.run(CAUSE, **{**REQUIRE, "CUDA_VISIBLE_DEVICES": visible})
    assert (done.returncode, done.stdout) == (0, "unchecked\n"), done.stderr
    fact, remedy = done.stderr.splitlines()
    assert fact.startswith("sif_writable: before 'import torch': The GPU could not be checked: ")
    unknown = {"0": "memory", "MIG-cccc": "MIG instances"}.get(visible, "UUID")
    assert f"NVML does not report the {unknown} of GPU 0" in fact
    assert f"{room.folder}/packages/pynvml.py {why}" in fact
    assert remedy.startswith("sif_writable: remedy: ")


def test_status_says_what_is_not_known_and_doctor_only_warns(room: Container) -> None:
    room.with_nv()
    (room.folder / "packages").mkdir()
    (room.folder / "packages" / "pynvml.py").write_text("")
    program = "from sif_writable.commands.cli import main; main({words})"
    status = room.run(program.format(words=["status", "--verbose"]), **REQUIRE)
    folded = " ".join(status.stdout.split())
    assert f"not known: names, UUIDs and memory, since {room.folder}/packages/pynvml.py is not nvidia-ml-py" in folded
    assert "hidden by" not in folded
    doctor = room.run(program.format(words=["doctor", "--require-gpu"]), **REQUIRE)
    assert "WARN GPU: The GPU could not be checked" in " ".join(doctor.stdout.split())
    assert "FAIL GPU" not in doctor.stdout


def test_status_asks_nobody_where_the_user_has_switched_the_check_off(room: Container) -> None:
    room.with_nv()
    program = "from sif_writable.commands.cli import main; main({words})"
    status = room.run(program.format(words=["status"]), SIF_WRITABLE_GPU="off")
    assert "GPU NVML was not asked, as SIF_WRITABLE_GPU=off says." in " ".join(status.stdout.split())
    assert not room.calls("nvmlInitWithFlags")
    required = room.run(program.format(words=["doctor", "--require-gpu"]), SIF_WRITABLE_GPU="off")
    assert "PASS GPU: A GPU is present" in required.stdout
    assert room.calls("nvmlInitWithFlags")
