"""What is printed to bring a folder into containers: values for shells, and an administrator's lines."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from sif_writable.attach import variables
from sif_writable.commands.env import assignment
from tests.conftest import NOT_RUN

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = "/home/a user/attached/current"
OURS = f"{FOLDER}:/sif-writable-attached"
HOOK = "/sif-writable-attached/sif_writable/hook"
HOST = "/sif-writable-attached/host"
PTH = "sif_writable/hook/sif_writable_attached.pth"


@pytest.mark.parametrize(
    ("environ", "bind", "path"),
    [
        ({}, OURS, HOOK),
        ({"APPTAINER_BIND": "/data", "APPTAINERENV_PYTHONPATH": "/mine"}, f"/data,{OURS}", f"{HOOK}:/mine"),
        ({"SINGULARITY_BIND": "/a:/b:ro", "SINGULARITYENV_PYTHONPATH": "/m:/n"}, f"/a:/b:ro,{OURS}", f"{HOOK}:/m:/n"),
        ({"APPTAINER_BIND": r"/x\,y\:z:/x,/b"}, rf"/x\,y\:z:/x,/b,{OURS}", HOOK),
        ({"APPTAINER_BIND": "", "SINGULARITY_BIND": "/b"}, f"/b,{OURS}", HOOK),
        # The host's own counts only where neither the user nor the image says otherwise.
        ({"PYTHONPATH": "/host/a:/host/b"}, OURS, f"{HOOK}:{HOST}:/host/a:/host/b"),
        ({"PYTHONPATH": "/host", "APPTAINERENV_PYTHONPATH": "/mine"}, OURS, f"{HOOK}:/mine"),
        ({"PYTHONPATH": ":"}, OURS, HOOK),
        # What was printed before goes, also for another folder or image.
        ({"APPTAINER_BIND": f"/old/current:/sif-writable-attached,/data,{OURS}"}, f"/data,{OURS}", HOOK),
        ({"APPTAINER_BIND": f"/o/{PTH}:/opt/v/sif_writable_attached.pth,/d"}, f"/d,{OURS}", HOOK),
        ({"APPTAINER_BIND": "/sif-writable-attached,/d"}, f"/d,{OURS}", HOOK),
        ({"APPTAINERENV_PYTHONPATH": f"{HOOK}:/mine:{HOST}:/host"}, OURS, f"{HOOK}:/mine"),
        ({"APPTAINERENV_PYTHONPATH": f"{HOOK}:{HOST}:/gone", "PYTHONPATH": "/host"}, OURS, f"{HOOK}:{HOST}:/host"),
    ],
)
def test_values_have_what_the_user_has(environ: Mapping[str, str], bind: str, path: str) -> None:
    expected = {"APPTAINER_BIND": bind, "SINGULARITY_BIND": bind}
    expected |= {"APPTAINERENV_PYTHONPATH": path, "SINGULARITYENV_PYTHONPATH": path}
    found = variables.for_shell(environ, FOLDER)
    assert found == expected
    assert variables.for_shell({**environ, **found}, FOLDER) == expected


def test_different_values_of_both_stay_different() -> None:
    found = variables.for_shell({"APPTAINER_BIND": "/a", "SINGULARITY_BIND": "/b"}, FOLDER)
    assert (found["APPTAINER_BIND"], found["SINGULARITY_BIND"]) == (f"/a,{OURS}", f"/b,{OURS}")


def test_an_image_gets_files_and_no_python_path() -> None:
    found = variables.for_image({"APPTAINER_BIND": f"/data,{OURS}", "PYTHONPATH": "/host"}, FOLDER, ["/a b", "/c"])
    binds = [f"{FOLDER}/{PTH}:{directory}/sif_writable_attached.pth" for directory in ("/a b", "/c")]
    value = ",".join(["/data", OURS, *binds])
    assert found == {"APPTAINER_BIND": value, "SINGULARITY_BIND": value}


@pytest.mark.parametrize("path", ["/a,b", "/a:b", "/a\\b", "/a\nb"])
def test_a_path_that_no_list_of_binds_can_hold_is_refused(path: str) -> None:
    assert "in its path" in variables.bad_path(path)
    assert variables.bad_path("/a b/ünï/'") == ""


@pytest.mark.parametrize("shell", ["sh", "fish", "csh"])
@pytest.mark.parametrize(
    ("environ", "apptainer", "singularity"),
    [
        ({}, HOOK, HOOK),
        ({"APPTAINERENV_PYTHONPATH": "/a b:/c"}, f"{HOOK}:/a b:/c", HOOK),
        ({"SINGULARITYENV_PYTHONPATH": "/c"}, HOOK, f"{HOOK}:/c"),
        ({"SIF_WRITABLE": "off"}, "", ""),
        ({"SIF_WRITABLE": "on", "APPTAINERENV_PYTHONPATH": f"/x:{HOOK}"}, f"/x:{HOOK}", HOOK),
    ],
)
def test_the_profile_of_a_site(shell: str, environ: Mapping[str, str], apptainer: str, singularity: str) -> None:
    program = shutil.which(shell) or (shutil.which("tcsh") if shell == "csh" else None)
    if program is None:
        pytest.skip(f"{NOT_RUN}{shell} is not installed")
    settings, lines = variables.for_site(FOLDER, shell)
    assert settings == [f"bind path = {OURS}"]
    script = "\n".join([assignment(shell, *item) for item in environ.items()] + 2 * lines) + "\n"
    script += "env\n"
    done = subprocess.run(
        [program, "-f"] if shell == "csh" else [program],
        input=script,
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
    )
    assert done.stderr == ""
    found = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    assert found.get("APPTAINERENV_PYTHONPATH", "") == apptainer
    assert found.get("SINGULARITYENV_PYTHONPATH", "") == singularity
    assert found.get("SIF_WRITABLE") == environ.get("SIF_WRITABLE")
