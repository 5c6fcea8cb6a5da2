"""The images that tests run: a real SIF, built as a user would build it, and its filesystem for the kernel to mount."""

from __future__ import annotations

import mmap
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import TYPE_CHECKING

from tests.lab import apptainer_root, apt, debian, measured, scratch, wheels, writers
from tests.lab.apptainer_root import Apptainer, Runtime
from tests.lab.store import LAB, REPOSITORY, digest_of_files, provide
from tests.lab.unavailable import LabUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFINITION = os.path.join(REPOSITORY, "container", "test.def")
_COMPRESSION = "-comp zstd -Xcompression-level 3"


def sif() -> str:
    """Return the SIF with the present sif-writable in it."""
    runtime, packages, wheel = _parts()

    def make(path: str) -> None:
        folder = f"{path}.wheels"
        os.mkdir(folder)
        shutil.copy(wheel, folder)
        requirements = " ".join(("sif-writable", *writers.wheels(folder), *_measuring(folder)))
        _build(runtime, path, BOOTSTRAP="localimage", BASE=packages, WHEELS=folder, REQUIREMENTS=requirements)
        shutil.rmtree(folder)

    return provide("test.sif", (packages, wheel, writers.FILES, _definition(), *measured.RECIPE), make)


def _measuring(folder: str) -> list[str]:
    """Write the wheel that lets the interpreters of an image be measured, where they are; return its name."""
    if measured.ON:
        writers.wheel(folder, "lab_coverage", measured.files())
    return ["lab_coverage"] if measured.ON else []


def larger(*requirements: str, name: str = "larger") -> str:
    """Return the SIF with further packages in it; only the newest of a name is kept."""
    runtime, packages, wheel = _parts()
    more = wheels.download(f"wheelhouse-{name}", requirements)

    def make(path: str) -> None:
        folder = f"{path}.wheels"
        shutil.copytree(more, folder)
        shutil.copy(wheel, folder)
        words = " ".join(("sif-writable", *requirements))
        _build(runtime, path, BOOTSTRAP="localimage", BASE=packages, WHEELS=folder, REQUIREMENTS=words)
        shutil.rmtree(folder)

    return provide(f"{name}.sif", (packages, wheel, more, requirements), make, kept=1)


def without_sif_writable() -> str:
    """Return the same image before sif-writable was installed, as a tree that Apptainer runs too (a sandbox)."""
    _, packages, _ = _parts()
    return packages


def squashfs(image: str) -> str:
    """Return a SIF's filesystem for the kernel to mount, as `FILE:OFFSET`.

    Everything in it is root's, as in an image that root built: an ordinary user who builds is root in a namespace.
    """
    if os.getuid() != 0:
        raise LabUnavailable("only root can mount a squashfs by the kernel")
    apt.ensure("mount")
    return f"{image}:{_squashfs_offset(image)}"


def _parts() -> tuple[Runtime, str, str]:
    """Get what an image is built from, at once: it is mostly waiting for mirrors."""
    with ThreadPoolExecutor() as pool:
        runtime = pool.submit(apptainer_root.find)
        wheelhouse = pool.submit(wheels.wheelhouse)
        wheel = pool.submit(wheels.project_wheel)
        start = pool.submit(base)
        packages = _packages(runtime.result(), start.result(), wheelhouse.result())
        return runtime.result(), packages, wheel.result()


def base(*more: str) -> tuple[str, str]:
    """Return what images start from: bootstrap agent and source; `more` Debian packages are there if they can be."""
    if os.getuid() == 0:
        return "localimage", debian.base_tree(*more)
    return "docker", "python:3.11-slim-bookworm"


def _packages(runtime: Runtime, base: tuple[str, str], wheelhouse: str) -> str:
    """Return the image without sif-writable, as a tree: what stays the same while the code changes."""
    agent, source = base
    requirements = " ".join((*wheels.PACKAGES, *wheels.DEPENDENCIES, *measured.PACKAGES))

    def make(path: str) -> None:
        _build(runtime, path, "--sandbox", BOOTSTRAP=agent, BASE=source, WHEELS=wheelhouse, REQUIREMENTS=requirements)
        measured.mount_point(path)

    return provide("packages", (base, wheelhouse, _definition()), make)


def _build(runtime: Runtime, path: str, *options: str, **values: str) -> None:
    """Build the definition file; the values are its build arguments."""
    seen = {name: runtime.inside(value) if value.startswith(LAB) else value for name, value in values.items()}
    arguments = [argument for name, value in seen.items() for argument in ("--build-arg", f"{name}={value}")]
    with open(DEFINITION, encoding="utf-8") as file:
        build(runtime, file.read(), path, *options, *arguments, online=values["BOOTSTRAP"] == "docker")


def build(
    runtime: Runtime,
    definition: str,
    path: str,
    *options: str,
    online: bool = False,
    beside: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Build an image at a path with Apptainer, as the ordinary user; return what that said.

    :param online: it depends on what others serve.
    :param beside: what lies beside the definition file: name, and the path of a file or a folder to copy.
    """
    with scratch.fresh() as places:
        apptainer = Apptainer(runtime, places)
        for name, source in beside.items():
            copy = shutil.copytree if os.path.isdir(source) else shutil.copy
            copy(source, os.path.join(places.work, name))
        with open(os.path.join(places.work, "definition"), "w", encoding="utf-8") as file:
            file.write(definition)
        environment = {
            "APPTAINER_TMPDIR": apptainer.inside(places.var_tmp),
            "APPTAINER_CACHEDIR": apptainer.inside(places.new_folder("cache")),
        }
        command = ["build", "--mksquashfs-args", _COMPRESSION, *options, "image", "definition"]
        result = apptainer.run(command, env=environment, timeout=1800)
        if result.returncode == 0:
            os.rename(os.path.join(places.work, "image"), path)
            return result.stdout + result.stderr
        if online:
            raise LabUnavailable(f"could not build an image: {result.stderr.strip()[-500:]}")
        raise RuntimeError(f"building {path} failed:\n{result.stdout}\n{result.stderr}")


def _definition() -> str:
    return digest_of_files([DEFINITION])


def _squashfs_offset(image: str) -> int:
    """Find where the filesystem starts in a SIF: its parts are aligned to 4096 bytes."""
    with open(image, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return next(offset for offset in range(0, len(content), 4096) if content[offset : offset + 4] == b"hsqs")
