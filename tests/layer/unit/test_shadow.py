"""Which new files are run in the place of code that the image has."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

import pytest

from sif_writable.layer import shadow
from sif_writable.layer.merge import FILE, FOLDER, NEW, Change, keep

if TYPE_CHECKING:
    from pathlib import Path

SO = importlib.machinery.EXTENSION_SUFFIXES[0]


@pytest.mark.parametrize(
    ("image", "new", "hides"),
    [
        (["a.py"], "a.so", True),
        (["a.py"], f"a{SO}", True),
        (["a.py"], "a/__init__.py", True),
        (["a.py"], "a/__init__.pyc", True),
        (["a.py"], "a/part.py", False),  # a directory without __init__ comes last
        (["a.py"], "a.pyc", False),
        (["a.py"], "b.py", False),
        (["a.py"], "a.json", False),
        (["a.pyc"], "a.py", True),
        (["a.so"], "a.py", False),
        (["a.so"], "a.abi3.so", True),  # which of them it is depends on the interpreter
        (["a.so"], "a/__init__.py", True),
        (["a/__init__.py"], "a.py", False),
        (["a/__init__.py"], "a.so", False),
        (["a/__init__.py"], "a/__init__.so", True),
        (["a/__init__.pyc"], "a/__init__.py", True),
        (["a/__init__.py"], "a/__init__.pyc", False),
        (["a/__init__.py"], "a/b/__init__.py", False),
        (["a/__init__.py", "a/b.py"], "a/b/__init__.py", True),
        (["a/b/c.py"], "a/__init__.py", True),  # a namespace
        (["a/b/c.py"], "a.py", True),
        (["a/b/c.py"], "a/d.py", False),
        (["a/b/c.csv"], "a.py", False),
        (["a/b/c.csv"], "a/__init__.py", False),
        (["a.py"], "__pycache__/a.cpython-311.pyc", False),
        (["a.py"], "a.pth", False),
        (["liba.so.1"], "liba.py", False),
    ],
)
def test_what_is_run_then(image: list[str], new: str, hides: bool, tmp_path: Path) -> None:
    for name in image:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def names(folder: str) -> list[str]:
        return os.listdir(folder) if os.path.isdir(folder) else []

    def has_code(folder: str) -> bool:
        return any(shadow.module(name)[1] for _, _, found in os.walk(folder) for name in found)

    path = f"{tmp_path}/{new}"
    assert shadow.takes_place(path, names, has_code) is hides
    # The interpreter says the same: where nothing is hidden, it finds what it found.
    module = new.partition("/__init__")[0].partition(".")[0].replace("/", ".")
    if "abi3" in new or "__pycache__" in new or os.path.dirname(new).count("/"):
        return
    before = _found(module, tmp_path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    (tmp_path / new).touch()
    after = _found(module, tmp_path)
    assert (
        before is not None and after != before and not (before == "namespace" and image[0].endswith("csv"))
    ) is hides


def _found(module: str, folder: Path) -> str | None:
    for name in [name for name in sys.modules if name == "a" or name.startswith("a.")]:
        del sys.modules[name]
    path: list[str] | None = [str(folder)]
    spec = None
    for depth in range(1, module.count(".") + 2):
        name = ".".join(module.split(".")[:depth])
        spec = importlib.machinery.PathFinder.find_spec(name, path) if path else None
        if spec is None:
            return None
        path = list(spec.submodule_search_locations) if spec.submodule_search_locations is not None else None
    return spec.origin or "namespace" if spec else None


ROOTS = {"/v/site-packages": ["a.py", "b", "data"], "/v/site-packages/b": ["code.py"], "/o/site-packages": []}


@pytest.mark.parametrize(
    ("path", "is_link", "hides"),
    [
        ("/o/site-packages/a.py", False, True),
        ("/o/site-packages/a/__init__.py", False, True),
        ("/o/site-packages/b.py", False, True),
        ("/o/site-packages/data.py", False, False),
        ("/o/site-packages/c/a.py", False, False),
        ("/v/share/a.py", False, False),
        ("/v/site-packages/a", True, True),  # it may lead to a package
        ("/v/site-packages/c", True, False),
        ("/v/site-packages/a", False, False),
    ],
)
def test_a_name_in_one_directory_of_packages_hides_that_of_another(path: str, is_link: bool, hides: bool) -> None:
    found = shadow.takes_place(
        path, lambda folder: ROOTS.get(folder, []), lambda folder: folder.endswith("/b"), list(ROOTS), is_link=is_link
    )
    assert found is hides


def test_of_a_package_that_hides_a_module_nothing_stays_nor_of_a_changed_source_its_bytecode() -> None:
    names = ["a", "a/__init__.py", "a/more.py", "a/data.json", "b", "b/c", "b/c/__pycache__", "b/d.py"]
    names += ["b/__pycache__/d.cpython-311.pyc", "b/__pycache__/e.cpython-311.pyc"]
    folders = ("a", "b", "b/c", "b/c/__pycache__")
    changes = [Change(f"/s/{name}", FOLDER if name in folders else FILE, 1) for name in names]
    hides = {"/s/a/__init__.py"}
    kept = keep(
        changes,
        NEW,
        replaces=lambda change: change.path in {"/s/b", "/s/b/d.py", "/s/b/e.py"},
        installed=(),
        takes_place=lambda change: change.path in hides,
    )
    assert [change.path for change in kept.changes] == [
        "/s/b", "/s/b/c", "/s/b/c/__pycache__", "/s/b/__pycache__/e.cpython-311.pyc",
    ]  # fmt: skip
