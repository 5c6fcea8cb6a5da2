"""Images of our own `%post` lines: the packages of the test image, the present sif-writable, and what a test adds."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from tests.lab import apptainer_root, image, scratch, wheels
from tests.lab.apptainer_root import Apptainer
from tests.lab.store import provide

if TYPE_CHECKING:
    import subprocess

_DEFINITION = """Bootstrap: localimage
From: {base}

%files
    {wheels} /wheels

%post
    set -e
    export PATH="/opt/venv/bin:$PATH"
    pip install --quiet --disable-pip-version-check --no-index --no-deps --find-links /wheels sif-writable
    rm -rf /wheels
{post}

%environment
    export PATH="/opt/venv/bin:$PATH"
"""

OUTPUT = ".output"
"""The output of a build lies beside its image, under the same name and this."""


class Built(NamedTuple):
    """An image, and what its build said."""

    path: str
    output: str
    """Standard output and error of the build."""


def built(post: str) -> Built:
    """Return an image with these lines at the end of its `%post`."""
    runtime = apptainer_root.find()
    base, wheel = image.without_sif_writable(), wheels.project_wheel()

    def make(path: str) -> None:
        result = build(base, wheel, post, path)
        if result.returncode:
            raise RuntimeError(f"building failed:\n{result.stdout}\n{result.stderr}")
        with open(path + OUTPUT, "w", encoding="utf-8") as file:
            file.write(result.stdout + result.stderr)

    path = provide("built.sif", (runtime, base, wheel, _DEFINITION, post, OUTPUT), make)
    with open(path + OUTPUT, encoding="utf-8") as file:
        return Built(path, file.read())


def build(base: str, wheel: str, post: str, path: str) -> subprocess.CompletedProcess[str]:
    """Build an image at a path, and return what Apptainer said; without success nothing is there."""
    with scratch.fresh() as places:
        apptainer = Apptainer(apptainer_root.find(), places)
        with open(os.path.join(places.work, "definition"), "w", encoding="utf-8") as file:
            sources = {"base": apptainer.inside(base), "wheels": apptainer.inside(os.path.dirname(wheel))}
            file.write(_DEFINITION.format(post=post.strip(), **sources))
        environment = {
            "APPTAINER_TMPDIR": apptainer.inside(places.var_tmp),
            "APPTAINER_CACHEDIR": apptainer.inside(places.new_folder("cache")),
        }
        options = ["--mksquashfs-args", "-comp zstd -Xcompression-level 1"]
        result = apptainer.run(["build", *options, "made.sif", "definition"], env=environment, timeout=900)
        if result.returncode == 0:
            os.rename(os.path.join(places.work, "made.sif"), path)
        return result
