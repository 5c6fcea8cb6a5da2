"""A folder that `attach` has made, in images of every interpreter: found last, and all as with an installed package."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import or_skip
from tests.lab import attached, environments
from tests.lab.attached import HOOK, POINT
from tests.lab.hooked import STATE, Hooked, answer, question, write

if TYPE_CHECKING:
    from tests.lab.plain_machine import PlainMachine
    from tests.lab.pythons import Python

PATH = {"PYTHONPATH": HOOK}
FILES = (
    "[getattr(__import__('importlib.util').util.find_spec(name), 'origin', None)"
    " for name in ('sif_writable', 'platformdirs', 'filelock', 'pynvml')]"
)
ON_PATH = f"[path for path in sys.path if path.startswith({POINT!r})]"


@pytest.fixture(scope="session")
def folder() -> str:
    """Return what is to be bound."""
    return os.path.join(str(or_skip(attached.folder)), "current")


def run(machine: PlainMachine, folder: str, *words: str, **options: Any) -> Any:
    """Start an interpreter in an image that the folder is bound into."""
    options = {"env": PATH, **options}
    return machine.run(words, binds=[f"{os.path.realpath(folder)}:{POINT}:ro"], **options)


def test_every_interpreter_without_any_of_it(
    machine: PlainMachine, each_python_or_debians: Python, folder: str
) -> None:
    """A bare interpreter: nothing of ours, and nothing that we need."""
    python = each_python_or_debians
    asked = question(f"({STATE}, {FILES}, {ON_PATH})")
    state, files, on_path = answer(run(machine, folder, python.path, "-c", asked))
    assert (state, on_path) == ("active", [HOOK])
    assert files[0] == f"{POINT}/sif_writable/__init__.py"
    assert all(file is not None for file in files)
    done = run(machine, folder, python.path, "-m", "sif_writable", "status", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    model = json.loads(done.stdout)
    assert model["hook"]["active"]
    assert model["hook"]["how"] == f"{HOOK}/sitecustomize.py"
    assert [name for name in model["container"]["ingredients"] if POINT in name] == []
    program = "import numba_is_not_here"
    done = run(machine, folder, python.path, "-c", program)
    assert "No module named 'numba_is_not_here'" in done.stderr


def test_what_the_image_has_comes_first(bare: Hooked, folder: str) -> None:
    asked = question(f"({STATE}, {FILES}, {ON_PATH})")
    machine, python = bare.machine, environments.PYTHON
    state, files, _ = answer(run(machine, folder, python, "-c", asked, venv=bare.environment))
    assert state == "active"
    assert [file.startswith(POINT) for file in files] == [True, False, False, False]


def test_a_package_of_the_images_own_is_used_and_its_manifest(hooked: Hooked, folder: str) -> None:
    asked = question(f"({STATE}, {FILES}, {ON_PATH}, [f for f in sys.meta_path if 'attached' in f.__module__])")
    done = run(hooked.machine, folder, environments.PYTHON, "-c", asked, venv=hooked.environment)
    state, files, on_path, finders = answer(done)
    assert (state, on_path, finders) == ("active", [HOOK], [])
    assert not any(file.startswith(POINT) for file in files)


@pytest.mark.parametrize("flags", [["-s"], ["-E"], ["-I"], ["-S"]])
def test_flags(bare: Hooked, folder: str, flags: list[str]) -> None:
    done = run(bare.machine, folder, environments.PYTHON, *flags, "-c", question(STATE), venv=bare.environment)
    assert answer(done) == ("active" if flags == ["-s"] else None)


@pytest.mark.exact
def test_a_warm_start_loads_what_an_installed_one_does_and_what_starts_it(
    bare: Hooked, hooked: Hooked, folder: str
) -> None:
    words = (environments.PYTHON, "-c", question("sorted(sys.modules)"))
    starts = {
        name: [answer(run(bare.machine, folder, *words, venv=each.environment, env=env)) for _ in range(2)][1]
        for name, each, env in (("attached", bare, PATH), ("installed", hooked, {}))
    }
    more = {"sitecustomize", "sif_writable_attached", "sif_writable_image_path", "sif_writable.identity"}
    assert set(starts["attached"]).symmetric_difference(starts["installed"]) == more


def identity(hooked: Hooked, folder: str) -> tuple[str, list[str]]:
    """Return the identity of an image twice: of a start that decides, and of one that finds its plan."""
    program = question("os.environ.get('SIF_WRITABLE_COPIES', '').rpartition('/image-')[2]")
    words = (environments.PYTHON, "-c", program)
    cold, warm = (answer(run(hooked.machine, folder, *words, venv=hooked.environment)) for _ in range(2))
    assert cold == warm != ""
    status = (environments.PYTHON, "-m", "sif_writable", "status", "--json")
    model = json.loads(run(hooked.machine, folder, *status, venv=hooked.environment).stdout)["container"]
    assert model["identity"] == cold
    return cold, model["ingredients"]


def test_two_images_without_labels_have_two_identities(bare: Hooked, folder: str) -> None:
    first = Hooked(bare.machine, bare.python, environments.copy(bare.environment, f"{bare.machine.places.folder}/venv"))
    bare.machine.run(["true"])  # which makes the root
    labels = f"{bare.machine._tree}/.singularity.d/labels.json"
    os.chmod(labels, 0o000)
    found, ingredients = identity(first, folder)
    assert ingredients[0] == "prefix"
    assert ingredients[1].startswith("/venv/lib/python")
    assert "labels.json" not in ingredients
    first.write("other-1.0.dist-info/RECORD", "x")
    assert identity(first, folder)[0] != found
    shutil.rmtree(os.path.join(first.packages, "other-1.0.dist-info"))
    assert identity(first, folder)[0] == found


def test_bytecode_goes_to_storage_where_the_image_has_none(bare: Hooked, folder: str) -> None:
    asked = question("sys.pycache_prefix")
    words = (environments.PYTHON, "-c", asked)
    assert answer(run(bare.machine, folder, *words, venv=bare.environment)) is None
    changed = bare.copy()
    for here, folders, _ in os.walk(changed.packages):
        if "__pycache__" in folders:
            shutil.rmtree(f"{here}/__pycache__")
    write(f"{changed.packages}/new-1.0.dist-info/RECORD", "another image")
    storage = f"{bare.machine.places.home}/.cache/sif-writable"
    shutil.rmtree(storage)
    prefix = answer(run(bare.machine, folder, *words, venv=changed.environment))
    assert prefix is not None
    assert "/sif-writable/" in prefix
