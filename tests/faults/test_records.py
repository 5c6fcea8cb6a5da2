"""Damaged records of ours: the manifest, the learned list, what a process hands to its children."""

from __future__ import annotations

import glob
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults import damage
from tests.lab import environments
from tests.lab.environments import PYTHON
from tests.lab.plain_machine import VENV, WORK

if TYPE_CHECKING:
    from tests.faults.conftest import Faulty

NOWHERE = "/no/such/home"


@pytest.fixture
def step(request: pytest.FixtureRequest) -> int:
    """Return how many lengths apart records are cut off."""
    return 1 if request.config.getoption("--all-faults") else 37


def _ask(faulty: Faulty, *words: str, **options: Any) -> str:
    result = faulty.machine.run([PYTHON, *words], home=NOWHERE, **options)
    assert (result.returncode, result.stderr) == (0, ""), result
    return result.stdout


def _damage(faulty: Faulty, *words: str, **options: Any) -> list[list[Any]]:
    with open(damage.__file__, encoding="utf-8") as file:
        code = file.read()
    argv = [faulty.python.path, "-I", "-S", "-c", code, *words]
    result = faulty.machine.run(argv, home=NOWHERE, timeout=3600, **options)
    assert result.returncode == 0, result.stderr
    results: list[list[Any]] = json.loads(result.stdout)
    assert len(results) > 4
    return results


def _notes(faulty: Faulty, **options: Any) -> str:
    status = json.loads(_ask(faulty, "-m", "sif_writable", "status", "--json", "--no-gpu", **options))
    return " ".join(status["notes"])


def test_a_manifest(faulty: Faulty, step: int) -> None:
    faulty.environment = environments.copy(faulty.environment, f"{faulty.places.folder}/venv")
    site = environments.packages(faulty.environment)
    manifest = f"{site}/sif_writable.manifest"
    with open(manifest, "a", encoding="utf-8") as file:
        file.write("user-site: no\noverlay: /opt/x why\nheavy: declared\ngpu: off\n\nwriter: declared declared.py:5\n")
    options: dict[str, Any] = {"venv": faulty.environment, "writable": True}
    os.chmod(manifest, 0o666)
    inside = VENV + manifest[len(faulty.environment) :]
    assert "manifest" not in _notes(faulty, **options)
    for name, code, out, err in _damage(faulty, inside, str(step), **options):
        assert (code, out in ("active cured\n", "active its own error\n"), err) == (0, True, ""), (name, out, err)

    with open(manifest, "rb+") as file:
        file.truncate(os.path.getsize(manifest) - 3)
    assert "sif_writable.manifest ends within a line" in _notes(faulty, **options)
    with open(manifest, "ab") as file:
        file.write(b"\nnonsense\n\xff\xfe: x\n")
    assert "has lines that are not understood (2, such as 'nonsense')" in _notes(faulty, **options)
    doctor = faulty.machine.run([PYTHON, "-m", "sif_writable", "doctor"], home=NOWHERE, **options).stdout
    (line,) = [part for part in " ".join(doctor.split()).split("WARN ") if "nonsense" in part]
    assert line.startswith("manifest: ")
    assert "Build the image again" in line
    os.unlink(manifest)
    os.mkdir(manifest)
    assert "counts as empty" in _notes(faulty, **options)


def test_a_learned_list(faulty: Faulty, step: int) -> None:
    options: dict[str, Any] = {"venv": faulty.environment}
    assert _ask(faulty, "-c", damage.PROGRAM, **options) == "active cured\n"
    (learned,) = glob.glob(f"{glob.escape(faulty.places.var_tmp)}/*/image-*/packages-*/learned")
    inside = "/var/tmp" + learned[len(faulty.places.var_tmp) :]
    for name, code, out, err in _damage(faulty, inside, str(step), **options):
        assert (code, out in ("active cured\n", "active its own error\n")) == (0, True), (name, out, err)
        assert all(line.startswith("sif_writable: ") for line in err.splitlines()), (name, err)
    assert _ask(faulty, "-c", damage.PROGRAM, **options) == "active cured\n"
    with open(learned, "ab") as file:
        file.write(b"package\tcut o")
    assert "1 line of" in _notes(faulty, **options)


@pytest.mark.parametrize("variable", ["SIF_WRITABLE_SESSION", "SIF_WRITABLE_COPIES", "SIF_WRITABLE_OLD_HOME"])
def test_what_a_process_hands_to_its_children(faulty: Faulty, step: int, variable: str) -> None:
    options: dict[str, Any] = {"venv": faulty.environment}
    env = _ask(faulty, "-c", "import json, os; print(json.dumps(dict(os.environ)))", **options)
    with open(f"{faulty.places.work}/env.json", "w", encoding="utf-8") as file:
        file.write(env)
    for name, code, out, err in _damage(faulty, variable, str(step), f"{WORK}/env.json", **options):
        state, _, said = out.strip().partition(" ")
        assert (code, err) == (0, ""), (name, out, err)
        assert (state in ("active", "inherited"), said in ("cured", "its own error")) == (True, True), (name, out)
    assert os.listdir(faulty.places.work) == ["env.json"]
    damaged = {**json.loads(env), "SIF_WRITABLE_SESSION": "2;half"}
    assert "SIF_WRITABLE_SESSION='2;half' is damaged" in _notes(faulty, env=damaged, **options)
