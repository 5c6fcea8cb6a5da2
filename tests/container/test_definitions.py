"""sif-writable.def and ngc-pytorch.def, built by a real Apptainer as they are, but for the base and the packages."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.conftest import or_skip
from tests.lab import examples, image
from tests.lab.apptainer_root import Apptainer
from tests.lab.store import ORDINARY_UID, REPOSITORY, provide

if TYPE_CHECKING:
    from subprocess import CompletedProcess

    from tests.lab.apptainer_root import Runtime
    from tests.lab.scratch import Scratch

LIKE_NVIDIAS = """Bootstrap: localimage
From: {base}

%post
    set -e
    # Packages of pip's beside Debian's Python, and a constraint file that pins them.
    PIP_BREAK_SYSTEM_PACKAGES=1 pip install --quiet platformdirs filelock
    mkdir -p /etc/pip /opt/nvidia
    pip freeze --path /usr/local/lib/python3.*/dist-packages > /etc/pip/constraint.txt
    printf '#!/bin/bash\\necho "== PyTorch =="\\nexec "$@"\\n' > /opt/nvidia/nvidia_entrypoint.sh
    chmod +x /opt/nvidia/nvidia_entrypoint.sh
    ln -s python3 /usr/bin/python

%environment
    export PIP_CONSTRAINT=/etc/pip/constraint.txt NVIDIA_VISIBLE_DEVICES=all

%runscript
    exec /opt/nvidia/nvidia_entrypoint.sh "$@"
"""
"""What of NVIDIA's image matters here: who owns the packages, the constraint file, the variables, the entrypoint."""


class Builder:
    """A user's working directory with a definition file and the wheel."""

    def __init__(self, runtime: Runtime, places: Scratch, wheel: str) -> None:
        """Lay out what the first lines of the file ask for."""
        self.apptainer = Apptainer(runtime, places)
        self.places = places
        shutil.copy(wheel, places.work)

    def build(self, name: str, base: str, **arguments: str) -> CompletedProcess[str]:
        """Build the image as a folder, which is as good and takes less time."""
        shutil.copy(os.path.join(REPOSITORY, "container", name), self.places.work)
        values = {"BOOTSTRAP": "localimage", "BASE": self.apptainer.inside(base), **arguments}
        options = [word for item in values.items() for word in ("--build-arg", "=".join(item))]
        folders = {name: self.apptainer.inside(self.places.new_folder(name)) for name in ("tmp-of-build", "cache")}
        env = {"APPTAINER_TMPDIR": folders["tmp-of-build"], "APPTAINER_CACHEDIR": folders["cache"]}
        return self.apptainer.run(["build", "--sandbox", *options, "image", name], env=env, timeout=600)

    def exec(self, *argv: str, **env: str) -> CompletedProcess[str]:
        """Run a command in the image."""
        return self.apptainer.run(["--silent", "exec", "image", *argv], env=env)

    def left(self) -> list[str]:
        """Return what lies in the places of the machine that builds, but for the empty folder for sockets in /tmp."""
        found = []
        for top in (self.places.home, self.places.tmp, self.places.var_tmp):
            for here, _, names in os.walk(top):
                found += [os.path.join(here, name) for name in names]
        sockets = os.path.join(self.places.tmp, f"sif-writable-{ORDINARY_UID}", "")
        return sorted(path for path in found if not path.startswith(sockets))


@pytest.fixture
def builder(apptainer_runtime: Runtime, places: Scratch, wheel: str) -> Builder:
    """Return a working directory."""
    return Builder(apptainer_runtime, places, wheel)


def test_an_image_of_your_own(builder: Builder) -> None:
    base = or_skip(examples.base)
    done = builder.build("sif-writable.def", base, PACKAGES="hatchling")
    assert done.returncode == 0, done.stderr
    assert "PASS" in done.stdout + done.stderr  # `doctor` in %test
    assert builder.left() == []
    state = "import sif_writable, hatchling; print(sif_writable.state, hatchling.__file__.split('/lib/')[0])"
    assert builder.exec("python", "-c", state).stdout == "active /opt/venv\n"


def test_an_image_like_nvidias(builder: Builder) -> None:
    start = or_skip(examples.base)
    runtime = builder.apptainer.runtime
    definition = LIKE_NVIDIAS.format(base=runtime.inside(start))

    def make(path: str) -> None:
        image.build(runtime, definition, path, "--sandbox")

    base = provide("like-nvidias", (start, definition), make, kept=1)
    done = builder.build("ngc-pytorch.def", base)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert "PASS" in said
    assert "GPU: There is no" not in said  # the image expects one, and nobody asks while it is built
    assert builder.left() == []

    found = "import sif_writable; print(sif_writable.state, sif_writable.__file__.rpartition('/sif_writable/')[0])"
    done = builder.exec("python", "-c", found)
    state, folder = done.stdout.split()
    assert (state, folder[:23], folder[-14:]) == ("active", "/usr/local/lib/python3.", "/dist-packages")
    # Where it runs, the image's own variable counts; and its entrypoint still begins what `apptainer run` starts.
    assert "GPU" in builder.exec("sif-writable", "doctor").stdout
    banner = builder.apptainer.run(["--silent", "run", "image", "python", "-c", found])
    assert banner.stdout.splitlines() == ["== PyTorch ==", done.stdout.strip()]
