"""The GPU check in a real SIF: the hook waits for a heavy import, and asks NVML where ``--nv`` puts its library."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.gpu import container
from tests.lab.unavailable import LabUnavailable

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.lab.apptainer_root import Apptainer

ANSWERS = f"""count 2
driver {container.DRIVER}
nvml 12.{container.DRIVER}
cuda 12020
gpu0.name NVIDIA A100-SXM4-40GB
gpu0.uuid GPU-11111111-2222-3333-4444-555555555555
gpu0.total 42949672960
gpu0.free 42000000000
gpu0.capability 80
gpu1.name NVIDIA A100-SXM4-40GB
gpu1.uuid GPU-66666666-7777-8888-9999-000000000000
gpu1.total 42949672960
gpu1.free 41000000000
gpu1.capability 80
log /parts/calls
"""
NV_MISSING = "but the container has no NVIDIA driver library"


class Node:
    """A GPU node as the container sees it: device files, and with ``--nv`` the driver's library."""

    def __init__(self, apptainer: Apptainer, sif: str, library: Path) -> None:
        """Put the parts beside the container, and a package that takes torch's name."""
        self.apptainer = apptainer
        self.sif = sif
        self.parts = apptainer.places.new_folder("parts")
        shutil.copy(library, self.parts)
        for name, text in {
            "libnvidia-ml.conf": ANSWERS,
            "node": "",
            "torch.py": "print('torch is imported')\n",
        }.items():
            with open(os.path.join(self.parts, name), "w", encoding="utf-8") as file:
                file.write(text)
        with open(os.path.join(self.parts, "calls"), "w", encoding="utf-8"):
            pass
        os.chmod(os.path.join(self.parts, "calls"), 0o666)

    def run(self, *argv: str, nv: bool, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the image on this node, with or without the driver's library."""
        seen = self.apptainer.inside(self.parts)
        options = ["--bind", f"{seen}:/parts"]
        if nv:
            for name in (container.NVML, "libnvidia-ml.conf"):
                options += ["--bind", f"{seen}/{name}:/.singularity.d/libs/{name}"]
        env = {"PYTHONPATH": "/parts", **env}
        try:
            return self.apptainer.exec(self.sif, argv, options=options, env=env, devices=container.NODES)
        except LabUnavailable as why:
            pytest.skip(f"not run: {why}")

    def calls(self) -> list[str]:
        """Return what was called of NVML, and forget it."""
        path = os.path.join(self.parts, "calls")
        with open(path, encoding="utf-8") as file:
            names = [line.split()[1] for line in file]
        os.truncate(path, 0)
        return names


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the library that speaks NVML's ABI."""
    if not shutil.which("cc"):
        pytest.skip("not run: there is no C compiler")
    return container.build(tmp_path_factory.mktemp("fake_nvml"))


@pytest.fixture
def node(apptainer: Apptainer, sif: str, library: Path) -> Node:
    """Return a GPU node of its own for a test."""
    return Node(apptainer, sif, library)


def test_with_nv_the_import_goes_on_in_silence_and_nvml_is_asked_once_and_shut_down(node: Node) -> None:
    program = "import sys; before = list(sys.meta_path); import torch, subprocess; "
    program += "subprocess.run([sys.executable, '-c', 'import torch'], check=True)"
    done = node.run("python", "-c", program, nv=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "torch is imported\n" * 2, "")
    calls = node.calls()
    assert calls.count("nvmlInitWithFlags") == 1
    assert calls.count("nvmlShutdown") == 1


def test_nothing_is_asked_at_interpreter_start_or_by_a_light_import(node: Node) -> None:
    done = node.run("python", "-c", "import json, kivy", nv=True)
    assert done.returncode == 0
    assert node.calls() == []


def test_without_nv_two_lines_come_before_the_import(node: Node) -> None:
    done = node.run("python", "-c", "import torch", nv=False)
    assert (done.returncode, done.stdout) == (0, "torch is imported\n")
    fact, remedy = done.stderr.splitlines()
    assert fact.startswith("sif_writable: before 'import torch': ")
    assert "--nv" in remedy


def test_a_job_that_requires_its_gpu_ends_before_the_import(node: Node) -> None:
    optional = """
import importlib.util
print(importlib.util.find_spec("torch") is not None)  # as transformers asks
try:
    import torch
except Exception:
    print("on the CPU")
"""
    done = node.run("python", "-c", optional, nv=False, SIF_WRITABLE_GPU="require")
    assert (done.returncode, done.stdout) == (1, "True\n")
    fact, remedy = done.stderr.splitlines()
    assert fact.startswith("sif_writable: before 'import torch': ")
    assert "--nv" in remedy
    done = node.run("python", "-c", optional, nv=True, SIF_WRITABLE_GPU="require")
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\ntorch is imported\n", "")


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("SIF_WRITABLE_GPU_COUNT", "3", "2 GPUs visible, 3 demanded"),
        ("SIF_WRITABLE_GPU_MIN_MEMORY", "80GiB", "80.0 GiB"),
        ("SIF_WRITABLE_GPU_MIN_CAPABILITY", "9.0", "8.0"),
    ],
)
def test_demands(node: Node, variable: str, value: str, words: str) -> None:
    done = node.run("python", "-c", "import torch", nv=True, SIF_WRITABLE_GPU="require", **{variable: value})
    assert done.returncode == 1
    assert words in done.stderr.splitlines()[-2]


def test_status_lists_the_gpus_and_doctor_judges_them(node: Node) -> None:
    done = node.run("sif-writable", "status", "--json", nv=True, CUDA_VISIBLE_DEVICES="1")
    gpu = json.loads(done.stdout)["gpu"]
    assert [(device["name"], device["visible"]) for device in gpu["devices"]] == [
        ("NVIDIA A100-SXM4-40GB", False),
        ("NVIDIA A100-SXM4-40GB", True),
    ]
    assert (gpu["driver"], gpu["highest_cuda"]) == (container.DRIVER, "12.2")
    text = node.run("sif-writable", "status", "--verbose", nv=True, CUDA_VISIBLE_DEVICES="1").stdout
    assert "0: NVIDIA A100-SXM4-40GB, 39.1 GiB of 40.0 GiB free, capability 8.0" in text
    assert node.run("sif-writable", "doctor", "--require-gpu", nv=True).returncode == 0
    failed = node.run("sif-writable", "doctor", "--require-gpu", nv=False)
    assert failed.returncode == 1
    assert "FAIL GPU: " in failed.stdout
    assert node.run("sif-writable", "doctor", nv=False).returncode == 0


def test_the_image_declares_demands_and_heavy_modules(node: Node) -> None:
    declares = "gpu: require\ngpu-count: 3\nheavy: sheavy\n"
    manifest = os.path.join(node.parts, "manifest")
    for name, text in {"manifest": declares, "sheavy.py": "print('imported')\n"}.items():
        with open(os.path.join(node.parts, name), "w", encoding="utf-8") as file:
            file.write(text)
    place = f"{node.apptainer.inside(manifest)}:/opt/venv/lib/python3.11/site-packages/sif_writable.manifest"
    done = node.run("python", "-c", "import sheavy", nv=True, APPTAINER_BIND=place)
    assert done.returncode == 1
    assert "2 GPUs visible, 3 demanded" in done.stderr.splitlines()[-2]
    weaker = node.run("python", "-c", "import sheavy", nv=True, APPTAINER_BIND=place, SIF_WRITABLE_GPU_COUNT="2")
    assert (weaker.returncode, weaker.stdout) == (0, "imported\n")
