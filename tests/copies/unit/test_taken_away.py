"""Copies that are taken away, lists of what was learned, and copies that may be anybody's, in real folders."""

from __future__ import annotations

import fcntl
import os
import sys
from typing import TYPE_CHECKING

import pytest

from sif_writable import lease
from sif_writable.copies import carry_over, changes, forget, ledger, policy, provide, store, validity
from sif_writable.copies.store import Copies
from sif_writable.copies.units import Unit
from sif_writable.system import image_mounts

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory of the image with a package and a module, and copies of both, of another version."""
    monkeypatch.setattr(image_mounts, "environment_directory", lambda *_: "/")
    for top in ("sp", f"copies/tree{tmp_path}/sp"):
        (tmp_path / top / "pkg").mkdir(parents=True)
        (tmp_path / top / "pkg" / "__init__.py").write_text("a = 1\n")
        (tmp_path / top / "single.py").write_text("b = 1\n")
    for here, _, _ in os.walk(tmp_path / "copies"):
        os.chmod(here, 0o700)
    return tmp_path / "sp"


def test_a_copy_that_another_process_has_just_replaced_stays(place: Path, tmp_path: Path) -> None:
    folder, unit = f"{tmp_path}/copies", Unit("pkg", str(place), "pkg")
    os.mkdir(folder + validity.STAMPS)
    with open(validity.stamp_file(folder, unit.path), "w", encoding="ascii") as file:
        file.write(f"{validity.fingerprint(unit.path, '')}\n\n{unit.path}\n")
    assert forget.replace(unit, folder) == ""
    assert os.path.isdir(f"{folder}/tree{unit.path}")
    os.unlink(validity.stamp_file(folder, unit.path))
    with open(f"{folder}/{lease.NAME}", "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert "pkg is imported from the image, where it cannot write: its copy was made from another" in (
            forget.replace(unit, folder)
        )
    assert os.path.isdir(f"{folder}/tree{unit.path}")
    assert forget.replace(unit, folder) == ""
    assert os.path.islink(f"{folder}/tree{unit.path}")


def test_bytecode_of_a_module_goes_with_its_copy(place: Path, tmp_path: Path) -> None:
    copied = tmp_path / f"copies/tree{place}"
    (copied / "__pycache__").mkdir()
    tag = sys.implementation.cache_tag
    for name in (f"single.{tag}.pyc", f"other.{tag}.pyc", "single.pypy39.pyc"):
        (copied / "__pycache__" / name).touch()
    (copied / "single.py").write_text("of a program\n")
    taken = forget.set_aside(f"{place}/single.py", f"{tmp_path}/copies")
    assert sorted(os.listdir(copied / "__pycache__")) == [f"other.{tag}.pyc", "single.pypy39.pyc"]
    with open(taken.kept, encoding="ascii") as file:
        assert file.read() == "of a program\n"
    assert taken.written == (taken.kept,)


def test_links_and_unchanged_files_are_the_images(place: Path) -> None:
    (place / "link").symlink_to("pkg")
    status = os.lstat(place / "single.py")
    assert forget._is_the_images(os.lstat(place / "link"), f"{place}/single.py")
    assert forget._is_the_images(status, f"{place}/single.py")
    os.utime(place / "pkg" / "__init__.py", (5, 5))
    assert not forget._is_the_images(status, f"{place}/pkg/__init__.py")
    assert not forget._is_the_images(status, f"{place}/nothing")


def test_a_copy_that_somebody_else_may_write_is_not_completed(place: Path, tmp_path: Path) -> None:
    copies, unit = Copies(f"{tmp_path}/copies"), Unit("pkg", str(place), "pkg")
    copied = tmp_path / f"copies/tree{place}/pkg"
    copied.chmod(0o777)
    words = provide._provide("pkg", [unit], copies)
    assert words == provide.untrusted_words("pkg", str(copied))
    copied.chmod(0o700)
    with open(f"{copies.folder}/{lease.NAME}", "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert "its copy was made from another version" in provide._provide("pkg", [unit], copies)


@pytest.mark.parametrize("first", ["nobody", "another process"])
def test_a_list_is_begun_also_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str) -> None:
    folder = tmp_path / "image-x" / "packages"
    if first == "another process":
        folder.mkdir(parents=True)
        (folder / "learned").write_text("of another\n")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    text = ledger.begin(str(folder))
    assert (folder / "learned").read_text() == (text if first == "nobody" else "of another\n")
    assert sorted(os.listdir(folder)) == ["learned", "tree"]


def test_while_storage_hangs_nothing_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(store.PACKAGES, "pkg")
    monkeypatch.setattr(store, "storage_hangs", lambda: True)
    assert Copies(str(tmp_path)).wanted() == {}
    monkeypatch.setattr(store, "storage_hangs", lambda: False)
    assert Copies(str(tmp_path)).wanted()["pkg"] == (store.ANYWHERE,)
    assert policy.names({store.PACKAGES: "pkg"})


def test_what_was_made_beside_a_copy_returns_where_nothing_is_in_its_place(tmp_path: Path) -> None:
    folder, tree = tmp_path / "copies", tmp_path / "copies" / "tree"
    tree.mkdir(parents=True)
    inner = f"{tmp_path}/image/deep/down"
    kept = folder / changes.WRITTEN
    for name in (f"{inner}/made", f"{inner}/there"):
        os.makedirs(os.path.dirname(f"{kept}{name}"), exist_ok=True)
        with open(f"{kept}{name}", "w", encoding="ascii") as file:
            file.write("work")
    os.makedirs(inner)
    with open(f"{inner}/there", "w", encoding="ascii") as file:
        file.write("the image's")
    carry_over.give_back_beside(str(folder), str(tree))
    assert os.listdir(f"{tree}{inner}") == ["made"]
    assert os.listdir(f"{kept}{inner}") == ["there"]
