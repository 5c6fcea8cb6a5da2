"""Each engine on a root that can only be read: the hook is active, knows what is the image's, and names the engine."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import NOT_RUN, or_skip
from tests.engines import starts
from tests.engines.table import REAL, ROWS, SIGNS, markdown
from tests.lab import attached
from tests.lab.store import REPOSITORY

if TYPE_CHECKING:
    import subprocess

    from tests.lab.apptainer_root import Apptainer
    from tests.lab.scratch import Scratch
    from tests.lab.squashfs_root import SquashfsRoot

ASK = """
import json, os, subprocess, sif_writable
from sif_writable.system import container, image_mounts
directories = [path for path in image_mounts.environment_directories() if os.path.isdir(path)]
# The other delivery: the interpreter at /usr/bin has no package of ours.
hook = os.environ.get("ATTACHED", "/sif-writable-attached") + "/sif_writable/hook"
signs = ("CH_", "KUBERNETES_", "SHIFTER_", "SINGULARITY_", "APPTAINER_", "container", "SIF_WRITABLE_DIR")
environ = {name: value for name, value in os.environ.items() if name.startswith(signs)}
environ.update(PYTHONPATH=hook, HOME="/nowhere")
code = "import sys; print(getattr(sys.modules.get('sif_writable'), 'state', None))"
attached = subprocess.run(["/usr/bin/python3", "-B", "-c", code], env=environ, capture_output=True, text=True)
print(json.dumps({
    "state": sif_writable.state,
    "attached": attached.stdout.strip() or attached.stderr,
    "engine": container.engine(os.environ).name,
    "image": container.engine(os.environ).image,
    "own": any(image_mounts.environment_directory(f"{path}/x") for path in directories),
    "cache": os.access(os.environ.get("NUMBA_CACHE_DIR", "").rpartition("/image-")[0] or "/nowhere", os.W_OK),
}))
"""
BY_HAND = ("apptainer", "kernel")
OF_SIGNS: dict[str, tuple[dict[str, str], str, str]] = {
    "docker": ({}, ".dockerenv", ""),
    "kubernetes": ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "", ""),
    "enroot": ({}, ".lock", ""),
    "shifter": ({"SHIFTER_IMAGE": "alpine:3", "SHIFTER_RUNTIME": "1"}, "", "alpine:3"),
    "singularity": ({"SINGULARITY_CONTAINER": "/d/x.sif", "SINGULARITY_COMMAND": "exec"}, "", "/d/x.sif"),
    "singularity-oci": ({"SINGULARITY_CONTAINER": "/tmp/b/1", "SINGULARITY_NAME": "x.sif"}, "", "x.sif"),
}
"""Variables, a file at ``/``, and the image's name as the engine gives it."""


def _check(engine: str, result: subprocess.CompletedProcess[str], image: str = "") -> None:
    row = ROWS[engine]
    lines = result.stdout.strip().splitlines()
    assert lines, result
    found: dict[str, Any] = json.loads(lines[-1])
    assert found["engine"] in row.name.split(" or "), result
    expected = {"state": "active", "attached": "active", "own": row.own, "cache": True}
    assert {name: found[name] for name in expected} == expected, result
    if image:
        assert found["image"] == image


@pytest.mark.parametrize(
    "engine", [name for name, row in ROWS.items() if row.tried_with == REAL and name not in BY_HAND]
)
def test_the_engine_itself(places: Scratch, squashfs_image: str, engine: str) -> None:
    result = or_skip(starts.run, places, squashfs_image, engine, ASK)
    if not result.stdout.strip() and "Traceback" not in result.stderr:
        pytest.skip(f"{NOT_RUN}{engine} does not start here: {result.stderr.strip()[-200:]}")
    _check(engine, result)


def test_apptainer(apptainer: Apptainer, sif: str) -> None:
    folder = os.path.realpath(f"{or_skip(attached.folder)}/current")
    options = ["--bind", f"{apptainer.inside(folder)}:{attached.POINT}"]
    _check("apptainer", apptainer.exec(sif, ["python", "-c", ASK], options=options))


def test_a_kernel_mount_without_any_sign(squashfs_root: SquashfsRoot) -> None:
    layer = starts.without_sign(squashfs_root.places)
    _check("kernel", squashfs_root.run([starts.PYTHON, "-c", ASK], layer=layer))


@pytest.mark.parametrize("engine", [name for name, row in ROWS.items() if row.tried_with == SIGNS])
def test_the_signs_of_an_engine(squashfs_root: SquashfsRoot, engine: str) -> None:
    variables, file, image = OF_SIGNS[engine]
    layer = starts.without_sign(squashfs_root.places)
    binds = []
    if file:
        with open(f"{layer}/{file}", "w", encoding="utf-8"):
            pass
        binds = [f"{layer}/{file}:/{file}"]
    _check(engine, squashfs_root.run([starts.PYTHON, "-c", ASK], layer=layer, env=variables, binds=binds), image)


def test_users_read_this_table() -> None:
    with open(os.path.join(REPOSITORY, "container", "README.md"), encoding="utf-8") as file:
        assert markdown() in file.read()
