"""Programs that enter an overlay inside an image, and two ways to run them: a real SIF and a kernel mount."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence

    from tests.lab.apptainer_root import Apptainer
    from tests.lab.squashfs_root import SquashfsRoot

PYTHON = "/opt/venv/bin/python"
PACKAGES = "/opt/venv/lib/python3.11/site-packages"
TREE = f"{PACKAGES}/kivy/data"
"""A directory of the image with files and directories in it."""
NEW = (
    "/opt/venv/share/tool/db",
    "/opt/venv/julia_env",
    "/opt/venv/lib/python3.11/exports",
    "/var/log/tool",
    "/etc/tool",
)
"""Paths that the image does not have, in directories with and without mounts of the engine in them."""

PRELUDE = """
import json, os, shutil, subprocess, sys
from sif_writable import importhook
from sif_writable.overlay import enter as overlay
from sif_writable.overlay import obstacles as namespaces
from sif_writable.overlay.decide import Wanted
IMAGE = os.path.dirname(importhook.folder())
assert IMAGE
def serve(*paths):
    return overlay.serve([Wanted(path, "test") for path in paths], os.environ, IMAGE)
def write(path, text, mode="w"):
    with open(path, mode) as file:
        file.write(text)
def read(path):
    with open(path) as file:
        return file.read()
def files(folder):
    return sorted(os.path.join(where, name) for where, _, names in os.walk(folder) for name in names
                  if "fonts" not in where and not name.startswith("new"))
def answer(value):
    print(json.dumps(value))
"""


class Sif:
    """The test image as an ordinary user runs it: Apptainer's overlay over FUSE, files that are the user's own."""

    def __init__(self, apptainer: Apptainer, image: str) -> None:
        """Take the engine and the image."""
        self.apptainer = apptainer
        self.image = image
        self.places = apptainer.places

    def run(self, argv: Sequence[str], *, env: dict[str, str] | None = None, **options: Any) -> Any:
        """Run a command in the image."""
        return self.apptainer.exec(self.image, argv, env=env, **options)


class Kernel:
    """The test image mounted by the kernel: squashfs, files that are root's."""

    def __init__(self, root: SquashfsRoot) -> None:
        """Take the root."""
        self.root = root
        self.places = root.places

    def run(self, argv: Sequence[str], *, env: dict[str, str] | None = None, **options: Any) -> Any:
        """Run a command in the image."""
        return self.root.run(argv, env=env, **options)


def ask(world: Any, code: str, **options: Any) -> Any:
    """Return the answer of a program that must end well."""
    result: subprocess.CompletedProcess[str] = world.run([PYTHON, "-c", PRELUDE + code], **options)
    assert result.returncode == 0, (result.stdout, result.stderr)
    return json.loads(result.stdout.splitlines()[-1])


def storage(world: Any) -> str:
    """Return the overlay folder of the image in storage, outside."""
    for place in (f"{world.places.home}/.cache/sif-writable", f"{world.places.var_tmp}/sif-writable-1000"):
        for name in os.listdir(place) if os.path.isdir(place) else ():
            if name.startswith("image-"):
                return f"{place}/{name}/overlay"
    raise AssertionError("no storage was used")
