"""Environments that others than venv lay out, and other builds of Python: what users meet first works there."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.conftest import or_skip
from tests.lab import environments, first_use, scratch, wheels
from tests.lab.environments import PYTHON
from tests.lab.plain_machine import VENV, PlainMachine
from tests.lab.store import LAB, ORDINARY_UID, provide
from tests.lab.unavailable import LabUnavailable
from tests.layer.conftest import owned

if TYPE_CHECKING:
    import subprocess

    from tests.lab.pythons import Python
    from tests.lab.scratch import Scratch

UV = "uv==0.13.9"
WHEELS = "/wheels"


@pytest.fixture(scope="session")
def build_environment(each_build: Python) -> str:
    """Return an environment of another build, with the sources and small packages that write beside themselves."""
    return str(or_skip(owned, each_build, environments.of_sources))


@pytest.mark.exact
def test_another_build(places: Scratch, each_build: Python, build_environment: str) -> None:
    first_use.works(places, build_environment, layer=each_build.build != "pypy")


# --- conda.


def _conda(python: Python) -> str:
    """Return a prefix as conda lays it out: the interpreter is in it, and no `pyvenv.cfg`."""
    prefix = os.path.dirname(os.path.dirname(python.path))
    if python.path.startswith(("/usr/bin/", LAB)):
        raise LabUnavailable("the interpreters here cannot be moved into a conda prefix")
    library = f"lib/python{python.version}"
    sources = environments.of_sources(python)

    def make(path: str) -> None:
        for folder in ("bin", "conda-meta", "etc/conda/activate.d", "share/jupyter", library):
            os.makedirs(f"{path}/{folder}")
        shutil.copy(python.path, f"{path}/bin/python{python.version}")
        os.symlink(f"python{python.version}", f"{path}/bin/python")
        ignored = shutil.ignore_patterns("test", "site-packages", "config-*", "idlelib", "tkinter", "ensurepip")
        shutil.copytree(f"{prefix}/{library}", f"{path}/{library}", dirs_exist_ok=True, ignore=ignored)
        shutil.copytree(environments.packages(sources), f"{path}/{library}/site-packages")
        with open(f"{path}/conda-meta/history", "w", encoding="utf-8") as file:
            file.write("==> 2026-01-01 00:00:00 <==\n")
        with open(f"{path}/conda-meta/python-{python.version}.0-0.json", "w", encoding="utf-8") as file:
            file.write(f'{{"name": "python", "version": "{python.version}.0", "files": ["bin/python"]}}')

    return provide(f"environment-conda-{python.version.replace('.', '')}", (prefix, sources, 2), make)


def test_a_conda_environment(places: Scratch, main_python: Python) -> None:
    prefix = str(or_skip(lambda: owned(main_python._replace(build="conda"), lambda _: _conda(main_python))))
    first_use.works(places, prefix, writable=[f"{VENV}/share/jupyter", f"{VENV}/etc"])


# --- uv.


@pytest.fixture(scope="session")
def uv() -> str:
    """Return a folder with uv."""
    return str(or_skip(wheels.installed, "uv", (UV,), wheels.IMAGE_PYTHON))


def _by_uv(python: Python, uv: str) -> str:
    """Return an environment that uv has made, with this project installed by it."""
    needed = wheels.download("dependencies", (*wheels.DEPENDENCIES,), python.version)
    wheel = wheels.project_wheel()

    def make(path: str) -> None:
        os.makedirs(path)
        if os.getuid() == 0:
            os.chown(path, ORDINARY_UID, ORDINARY_UID)
        with scratch.fresh() as places:
            binds = [f"{uv}:/uv:ro", f"{needed}:{WHEELS}:ro", f"{os.path.dirname(wheel)}:/wheel:ro"]
            install = ["--offline", "--no-index", f"--find-links={WHEELS}", f"/wheel/{os.path.basename(wheel)}"]
            machine = PlainMachine(places)
            for words in (
                ["venv", "--offline", "--allow-existing", "--python", python.path, VENV],
                ["pip", "install", "--python", PYTHON, *install],
            ):
                done = machine.run(["/uv/bin/uv", "-q", *words], venv=path, writable=True, image=False, binds=binds)
                if done.returncode:
                    raise RuntimeError(f"{words}: {done.stderr}")

    return provide(f"environment-uv-{python.version.replace('.', '')}", (python, needed, wheel, uv), make)


def test_an_environment_of_uv_and_what_uv_installs_at_run_time(places: Scratch, main_python: Python, uv: str) -> None:
    environment = str(or_skip(lambda: owned(main_python._replace(build="uv"), lambda _: _by_uv(main_python, uv))))
    needed = wheels.download("dependencies", (*wheels.DEPENDENCIES,), main_python.version)
    binds = [f"{uv}:/uv:ro", f"{needed}:{WHEELS}:ro"]
    machine = first_use.works(places, environment)
    install = f"/uv/bin/uv -q pip install --offline --no-index --find-links={WHEELS}"

    def run(script: str, **env: str) -> subprocess.CompletedProcess[str]:
        start = [PYTHON, "-c", "import subprocess, sys; sys.exit(subprocess.run(['sh', '-c', sys.argv[1]]).returncode)"]
        return machine.run([*start, script], venv=environment, home="/no/such/home", binds=binds, env=env)

    # Into an environment of the user's own, from a program whose HOME is broken: its cache goes where others go.
    own = "/work-folder/own"
    made = f"/uv/bin/uv -q venv --offline --python {PYTHON} {own} && {install} --python {own}/bin/python filelock"
    done = run(f"{made} && {own}/bin/python -c 'import filelock; print(filelock.__file__)'; echo $UV_CACHE_DIR")
    assert done.returncode == 0, done
    imported, cache = done.stdout.split()
    assert imported.startswith(f"{own}/")
    assert "/sif-writable" in cache
    assert "Failed" not in done.stderr
    # Into the image's own, which cannot be written: as without us.
    outcomes = [run(f"{install} --python {PYTHON} --reinstall filelock", SIF_WRITABLE=mode) for mode in ("off", "")]
    assert [outcome.returncode for outcome in outcomes] == [outcomes[0].returncode] * 2, outcomes
    assert outcomes[0].returncode != 0
