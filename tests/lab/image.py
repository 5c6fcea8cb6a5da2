"""The images that tests run: a real SIF, built as a user would build it, and its filesystem for the kernel to mount."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

from tests.lab import apptainer_root, apt, debian, scratch, wheels
from tests.lab.apptainer_root import Apptainer, Runtime
from tests.lab.store import LAB, REPOSITORY, digest_of_files, provide
from tests.lab.unavailable import LabUnavailable

DEFINITION = os.path.join(REPOSITORY, "container", "test.def")
_COMPRESSION = "-comp zstd -Xcompression-level 3"


def sif() -> str:
    """Return the SIF with the present sif-writable in it."""
    runtime, packages, wheel = _parts()

    def make(path: str) -> None:
        folder = os.path.dirname(wheel)
        _build(runtime, path, BOOTSTRAP="localimage", BASE=packages, WHEELS=folder, REQUIREMENTS="sif-writable")

    return provide("test.sif", (packages, wheel, _definition()), make)


def without_sif_writable() -> str:
    """Return the same image before sif-writable was installed, as a tree that Apptainer runs too (a sandbox)."""
    _, packages, _ = _parts()
    return packages


def squashfs() -> str:
    """Return the SIF's filesystem as a squashfs file in which everything is root's, as in an image that root built."""
    if os.getuid() != 0:
        raise LabUnavailable("only root can mount a squashfs by the kernel")
    apt.ensure("mksquashfs", "mount")
    image = sif()

    def make(path: str) -> None:
        # A mount namespace of its own, so that nothing stays mounted however this ends.
        script = (
            'mount -t squashfs -o "loop,ro,offset=$1" "$2" /mnt'
            ' && mksquashfs /mnt "$3" -all-root -comp zstd -Xcompression-level 1 -quiet -no-progress'
        )
        arguments = [str(_squashfs_offset(image)), image, path]
        subprocess.run(["unshare", "--mount", "sh", "-c", script, "sh", *arguments], check=True)

    return provide("test.sqfs", image, make)


def _parts() -> tuple[Runtime, str, str]:
    """Get what an image is built from, at once: it is mostly waiting for mirrors."""
    with ThreadPoolExecutor() as pool:
        runtime = pool.submit(apptainer_root.find)
        wheelhouse = pool.submit(wheels.wheelhouse)
        wheel = pool.submit(wheels.project_wheel)
        base = pool.submit(_base)
        packages = _packages(runtime.result(), base.result(), wheelhouse.result())
        return runtime.result(), packages, wheel.result()


def _base() -> tuple[str, str]:
    """Return what images start from: bootstrap agent and source."""
    if os.getuid() == 0:
        return "localimage", debian.base_tree()
    return "docker", "python:3.11-slim-bookworm"


def _packages(runtime: Runtime, base: tuple[str, str], wheelhouse: str) -> str:
    """Return the image without sif-writable, as a tree: what stays the same while the code changes."""
    agent, source = base
    requirements = " ".join((*wheels.PACKAGES, *wheels.DEPENDENCIES))

    def make(path: str) -> None:
        _build(runtime, path, "--sandbox", BOOTSTRAP=agent, BASE=source, WHEELS=wheelhouse, REQUIREMENTS=requirements)

    return provide("packages", (base, wheelhouse, _definition()), make)


def _build(runtime: Runtime, path: str, *options: str, **values: str) -> None:
    """Build the definition file with Apptainer as the ordinary user; the values fill its blanks."""
    with scratch.fresh() as places:
        apptainer = Apptainer(runtime, places)
        made = os.path.join(places.work, "image")
        shutil.copy(DEFINITION, places.work)
        seen = {name: apptainer.inside(value) if value.startswith(LAB) else value for name, value in values.items()}
        arguments = [argument for name, value in seen.items() for argument in ("--build-arg", f"{name}={value}")]
        environment = {
            "APPTAINER_TMPDIR": apptainer.inside(places.var_tmp),
            "APPTAINER_CACHEDIR": apptainer.inside(places.new_folder("cache")),
        }
        command = ["build", "--mksquashfs-args", _COMPRESSION, *options, *arguments, apptainer.inside(made), "test.def"]
        result = apptainer.run(command, env=environment, timeout=900)
        if result.returncode == 0:
            os.rename(made, path)
        elif values["BOOTSTRAP"] == "docker":
            raise LabUnavailable(f"could not build on {values['BASE']}: {result.stderr.strip()[-500:]}")
        else:
            raise RuntimeError(f"building {path} failed:\n{result.stdout}\n{result.stderr}")


def _definition() -> str:
    return digest_of_files([DEFINITION])


def _squashfs_offset(image: str) -> int:
    """Find where the filesystem starts in a SIF: its parts are aligned to 4096 bytes."""
    with open(image, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return next(offset for offset in range(0, len(content), 4096) if content[offset : offset + 4] == b"hsqs")
