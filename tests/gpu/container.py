"""A container with the GPU parts that a test wants: a mount namespace made by bubblewrap, as root or not.

The files lie where the kernel and ``--nv`` put them, so the real code looks at real paths and loads a real library.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.lab import apt, measured
from tests.lab.unavailable import LabUnavailable

REPOSITORY = Path(__file__).parents[2]
NVML = "libnvidia-ml.so.1"
DRIVER = "535.104.05"
VERSION = f"""NVRM version: NVIDIA UNIX x86_64 Kernel Module  {DRIVER}  Sat Aug 19 01:15:15 UTC 2023
GCC version:  gcc version 11.4.0
"""
"""What /proc/driver/nvidia/version holds."""
NODES = ("nvidia0", "nvidiactl", "nvidia-uvm")


def missing() -> str:
    """Say what this machine lacks for these containers, or return an empty string."""
    try:
        apt.ensure("bwrap", "gcc", apt.HEADERS)
    except LabUnavailable as why:
        return str(why)
    trial = subprocess.run(["bwrap", "--ro-bind", "/", "/", "true"], check=False, capture_output=True, text=True)
    return f"bwrap does not work here: {trial.stderr.strip()}" if trial.returncode else ""


def build(folder: Path) -> Path:
    """Compile the library that speaks NVML's ABI, and return its path."""
    source = Path(__file__).with_name("fake_nvml") / "fake_nvml.c"
    library = folder / NVML
    options = ["-std=gnu17", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", f"-Wl,-soname,{NVML}"]
    subprocess.run(["cc", *options, "-o", str(library), str(source)], check=True)
    return library


class Container:
    """Arrange files in a folder, and run Python where they appear as a container would have them."""

    def __init__(self, folder: Path, nvml: Path) -> None:
        """:param folder: an empty folder for the parts; :param nvml: the library of :func:`build`."""
        self.folder = folder
        self.nvml = nvml
        self.mounts: list[str] = []
        self.log = folder / "calls"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LD_LIBRARY_PATH": "/.singularity.d/libs",
            "FAKE_NVML": str(folder / "answers"),
        }
        self.answer()

    def answer(self, text: str = "") -> None:
        """Let NVML answer so; the format is in fake_nvml.c."""
        (self.folder / "answers").write_text(f"log {self.log}\n{text}")

    def nodes(self, *names: str) -> None:
        """Put device files below /dev."""
        for name in names:
            self.mounts += ["--dev-bind", "/dev/null", f"/dev/{name}"]

    def driver(self, version: str = VERSION, gpus: int = 1) -> None:
        """Let a kernel driver run, with so many GPUs."""
        self.mounts += ["--tmpfs", "/proc/driver"]
        self.file("/proc/driver/nvidia/version", version)
        for number in range(gpus):
            self.mounts += ["--dir", f"/proc/driver/nvidia/gpus/0000:0{number}:00.0"]

    def file(self, path: str, content: str = "") -> None:
        """Put a file into the container."""
        source = self.folder / path.replace("/", "_")
        source.write_text(content)
        self.bind(source, path)

    def bind(self, source: Path, path: str) -> None:
        """Bind a file or a folder into the container."""
        self.mounts += ["--ro-bind", str(source), path]

    def link(self, target: str, path: str) -> None:
        """Put a symbolic link into the container."""
        self.mounts += ["--symlink", target, path]

    def distributions(self, *names: str) -> None:
        """Install distributions, as far as their names go."""
        for name in names:
            (self.folder / "packages" / f"{name}.dist-info").mkdir(parents=True)

    def with_nv(self, answers: str = "") -> None:
        """Arrange what ``--nv`` brings on a node with one GPU, where NVML answers so (:meth:`answer`)."""
        self.answer(answers)
        self.nodes(*NODES)
        self.driver()
        self.bind(self.nvml, f"/.singularity.d/libs/{NVML}")

    def run(self, program: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a Python program; its environment is the container's and what is given."""
        root: list[str] = ["--tmpfs", "/"]
        for entry in sorted(Path("/").iterdir()):
            if entry.is_symlink():
                root += ["--symlink", str(entry.readlink()), str(entry)]
            elif entry.name not in ("dev", "tmp", "proc", ".singularity.d"):
                root += ["--ro-bind", str(entry), str(entry)]
        root += ["--dev-bind", "/proc", "/proc", "--dev", "/dev", "--bind", "/tmp", "/tmp", "--dir", "/.singularity.d"]
        if measured.ON:
            root += ["--bind", measured.FOLDER, measured.FOLDER]
        path = f"{REPOSITORY}:{self.folder / 'packages'}"
        return subprocess.run(
            ["bwrap", *root, *self.mounts, sys.executable, "-c", program],
            env={**self.environment, "PYTHONPATH": path, **environment},
            timeout=60,
            check=False,
            input="",
            capture_output=True,
            text=True,
        )

    def calls(self, function: str) -> list[int]:
        """Return the pid of each call of an NVML function."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [int(line.split()[0]) for line in lines if line.endswith(f" {function}")]
