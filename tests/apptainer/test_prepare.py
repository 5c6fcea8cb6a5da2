"""`sif-writable prepare` in the `%post` of real images."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.conftest import BY_COPY, or_skip
from tests.lab import built, image, wheels

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.apptainer_root import Apptainer, Runtime
    from tests.lab.built import Built

POST = """
# A second environment, and something that the user has in ~/.local beside the image's own.
python3 -m venv --without-pip /opt/other
sif-writable prepare --all-interpreters --no-user-site --packages kivy --gpu-min-memory=20GiB
sif-writable prepare --all-interpreters --no-user-site --packages kivy --gpu-min-memory=20GiB > /prepared-again
sif-writable prepare --check --all-interpreters
"""
STATE = "import sys; print(sys.modules['sif_writable'].state)"
INTERPRETERS = ("/opt/venv/bin/python", "/opt/other/bin/python", "/usr/bin/python3")


@pytest.fixture(scope="module")
def prepared(apptainer_runtime: Runtime) -> Built:
    """Return an image that was prepared, twice, with all its interpreters."""
    assert apptainer_runtime
    made: Built = or_skip(built.built, POST)
    return made


def manifest(apptainer: Apptainer, prepared: Built) -> list[str]:
    """Return the lines of the manifest."""
    words = ["sh", "-c", "cat /opt/venv/lib/python3*/site-packages/sif_writable.manifest"]
    return apptainer.exec(prepared.path, words).stdout.splitlines()


def test_the_build_says_what_it_did(prepared: Built) -> None:
    output = prepared.output
    assert "bind target:  /sif-writable is there" in output
    assert "installed:" in output
    assert "MPLCONFIGDIR" in output
    assert "package: kivy; gpu-min-memory: 20GiB" in output
    for interpreter in INTERPRETERS:
        assert os.path.dirname(interpreter) in output
    assert output.rstrip().splitlines()[-1]  # whatever Apptainer says last
    assert "up to date" in output
    assert "\r" not in output  # no progress bar where no terminal is


def test_the_manifest(apptainer: Apptainer, prepared: Built) -> None:
    lines = manifest(apptainer, prepared)
    for line in (
        "user-site: no",
        "package: kivy",
        "gpu-min-memory: 20GiB",
        "location: MPLCONFIGDIR matplotlib",
        "location: NUMBA_CACHE_DIR numba",
    ):
        assert line in lines
    found = [line.split()[3] for line in lines if line.startswith("interpreter: ")]
    assert found[0] == "/opt/venv"
    assert set(found) == {"/opt/venv", "/opt/other", "/usr"}
    assert any(line.startswith("distribution: numba ") for line in lines)
    again = apptainer.exec(prepared.path, ["cat", "/prepared-again"])
    assert "bytecode:     complete" in again.stdout


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_every_interpreter_has_the_hook(apptainer: Apptainer, prepared: Built, interpreter: str) -> None:
    done = apptainer.exec(prepared.path, [interpreter, "-c", STATE], options=["--no-home"])
    assert (done.returncode, done.stdout) == (0, "active\n"), done.stderr
    done = apptainer.exec(prepared.path, [interpreter, "-m", "sif_writable", "status"])
    assert done.returncode == 0, done.stderr


def test_starts_compile_nothing(apptainer: Apptainer, prepared: Built) -> None:
    program = "import sys, sif_writable as s, kivy, numba; print(sys.pycache_prefix, s.state)"
    done = apptainer.exec(prepared.path, ["python", "-v", "-c", program])
    assert done.stdout.strip().endswith("None active"), done.stdout
    assert "could not create" not in done.stderr
    assert "# wrote" not in done.stderr


def test_the_users_own_packages_are_not_found(apptainer: Apptainer, prepared: Built, sif: str) -> None:
    folder = os.path.join(apptainer.places.home, ".local", "lib", "python3.11", "site-packages")
    os.makedirs(folder)
    with open(os.path.join(folder, "mine.py"), "w", encoding="utf-8") as file:
        file.write("")
    program = ["/usr/bin/python3", "-c", "import mine"]
    assert apptainer.exec(sif, program).returncode == 0
    assert apptainer.exec(prepared.path, program).returncode == 1
    # What somebody sets for a run wins.
    assert apptainer.exec(prepared.path, program, env={"APPTAINERENV_PYTHONNOUSERSITE": ""}).returncode == 0


def test_the_bind_target_is_taken_at_once(apptainer: Apptainer, prepared: Built) -> None:
    store = apptainer.places.new_folder("store")
    program = ["python", "-c", "import os; print(os.environ['NUMBA_CACHE_DIR'])"]
    done = apptainer.exec(prepared.path, program, options=["--bind", f"{apptainer.inside(store)}:/sif-writable"])
    assert done.stdout.startswith("/sif-writable/image-"), done.stderr


def test_the_package_that_was_named_is_imported_from_a_copy_where_there_is_no_layer(
    apptainer: Apptainer, prepared: Built
) -> None:
    program = ["python", "-c", "import kivy; print(kivy.__file__)"]
    done = apptainer.exec(prepared.path, program, env=BY_COPY)
    assert "/packages-cpython-311/tree/opt/venv/" in done.stdout, done.stderr
    done = apptainer.exec(prepared.path, program)
    assert done.stdout.splitlines()[-1].startswith("/opt/venv/lib/"), done.stderr


def test_identity_is_one_image_in_every_mode_and_another_with_an_upper_layer(
    apptainer: Apptainer, prepared: Built
) -> None:
    words = ["python", "-m", "sif_writable", "status", "--json"]
    show = "import json, sys; found = json.load(sys.stdin)['container']; print(found['identity'], found['ingredients'])"

    def identity(*options: str, before: str = "true") -> str:
        command = ["sh", "-c", f'{before}; {" ".join(words)} | SIF_WRITABLE=off python -c "{show}"']
        done = apptainer.exec(prepared.path, command, options=options, env={"APPTAINERENV_SIF_WRITABLE": "on"})
        assert done.returncode == 0, done.stderr
        assert "'stamp'" in done.stdout
        return done.stdout.split()[0]

    plain = identity()
    upper = apptainer.inside(apptainer.places.new_folder("upper"))
    assert identity("--no-home") == identity("--containall") == identity("--overlay", upper) == plain
    install = "mkdir /opt/venv/lib/python3.11/site-packages/later-1.0.dist-info"
    assert identity("--overlay", upper, before=install) != plain


IDENTITY = "import os; print(os.environ['SIF_WRITABLE_COPIES'].rpartition('-')[2])"
LAYERED = """
import json, os, subprocess, sys
import requests
outside, different = json.loads(sys.argv[1]), []
assert "SIF_WRITABLE_LAYER" in os.environ
def mounts():
    with open("/proc/self/mountinfo") as file:
        return file.read().count(" - overlay sif-writable ")
def ask(interpreter, environ):
    code = sys.argv[2] + "; import sys; sys.path.append('/data'); import of_the_host; " + COUNT
    done = subprocess.run([interpreter, "-c", code], env=environ, capture_output=True, text=True)
    return (done.stdout or done.stderr).splitlines()[:2]
COUNT = "print(open('/proc/self/mountinfo').read().count(' - overlay sif-writable '))"
for folder in ("/opt/venv/lib/python3.11/site-packages", "/usr/lib/python3/dist-packages"):
    os.mkdir(folder + "/later-1.0.dist-info")
for interpreter, identity in outside.items():
    for environ in ({**os.environ, "HOME": "/tmp"}, {"HOME": "/nowhere"}):
        found = ask(interpreter, environ)
        if found != [identity, str(mounts())]:
            different.append([interpreter, len(environ) > 1, found, identity, mounts()])
print(json.dumps(different))
"""


def test_each_environment_keeps_its_identity_in_the_layer_of_another(apptainer: Apptainer, prepared: Built) -> None:
    """Also where the environment of the child was cleaned, and without a layer in the layer."""
    script = "; ".join(f'SIF_WRITABLE=on {interpreter} -c "$1"' for interpreter in INTERPRETERS)
    plain = apptainer.exec(prepared.path, ["sh", "-c", script, "sh", IDENTITY], env=BY_COPY)
    outside = dict(zip(INTERPRETERS, plain.stdout.split()))
    assert len(set(outside.values())) == len(INTERPRETERS), plain
    folder = apptainer.places.new_folder("of the host")
    with open(f"{folder}/of_the_host.py", "w", encoding="utf-8"):
        pass
    bind = ["--bind", f"{apptainer.inside(folder)}:/data:ro"]
    words = ["/opt/venv/bin/python", "-c", LAYERED, json.dumps(outside), IDENTITY]
    done = apptainer.exec(prepared.path, words, options=bind)
    assert done.returncode == 0, done
    assert json.loads(done.stdout) == []


def test_a_check_in_the_image_itself(apptainer: Apptainer, prepared: Built) -> None:
    done = apptainer.exec(prepared.path, ["sif-writable", "prepare", "--check"])
    assert (done.returncode, done.stdout) == (0, "up to date\n")
    done = apptainer.exec(prepared.path, ["sif-writable", "prepare"])
    assert done.returncode == 2
    assert "is on a read-only filesystem" in done.stderr
    assert "Remedy" in done.stderr


def test_a_wrong_option_ends_the_build(tmp_path: Path) -> None:
    base, wheel = or_skip(image.without_sif_writable), wheels.project_wheel()
    done = built.build(base, wheel, "sif-writable prepare --packages numbba", str(tmp_path / "none.sif"))
    assert done.returncode != 0
    assert "'numbba', which is not installed in this environment; perhaps numba" in done.stdout + done.stderr
    assert not (tmp_path / "none.sif").exists()
