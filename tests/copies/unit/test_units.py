"""What a path belongs to, what was installed with it, and what a copy has beyond it, in real directories."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from sif_writable.copies import copying, units
from sif_writable.copies.units import Unit

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, text: str = "") -> Path:
    """Make a file, and what holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a site directory with a distribution of packages, a module and more."""
    names = (
        "pkg/__init__.py",
        "mate/__init__.py",
        "single.py",
        "libs/a.so.1",
        "gone.py",
        "filelock.py",  # which copying needs itself
        "pkg-1.dist-info/RECORD",
    )
    for name in names[:4]:
        write(tmp_path / name)
    write(tmp_path / "filelock.py")
    write(tmp_path / names[-1], "".join(f"{name},sha256=x,1\n" for name in names[:-1]))
    return tmp_path


def test_what_a_distribution_installed_beside_a_package_goes_with_it(place: Path) -> None:
    unit = Unit("pkg", str(place), "pkg")
    found = units.installed_with(unit)
    assert [each.name for each in found] == ["pkg", "mate", "single"]
    assert [each.is_package for each in found] == [True, True, False]
    assert unit.holds(f"{place}/pkg/x")
    assert unit.holds(f"{place}/pkg")
    assert not unit.holds(f"{place}/pkg2")
    assert units.record_of(unit) == f"{place}/pkg-1.dist-info/RECORD"
    portion = Unit("space.pkg", str(place), "pkg")
    assert units.installed_with(portion) == [portion]


def test_without_a_record_a_package_goes_alone(place: Path) -> None:
    os.unlink(place / "pkg-1.dist-info/RECORD")
    unit = Unit("pkg", str(place), "pkg")
    assert units.installed_with(unit) == [unit]
    assert units.record_of(unit) == ""
    nowhere = Unit("pkg", f"{place}/nowhere", "pkg")
    assert units.installed_with(nowhere) == [nowhere]


@pytest.mark.parametrize("where", [os.listdir, open])
def test_an_image_that_does_not_answer_for_a_moment_is_no_image_without_records(
    place: Path, monkeypatch: pytest.MonkeyPatch, where: object
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    if where is os.listdir:
        monkeypatch.setattr(os, "listdir", fail)
    else:
        monkeypatch.setattr(units, "open", fail, raising=False)
    with pytest.raises(OSError, match="Input/output"):
        units.record_of(Unit("pkg", str(place), "pkg"))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("pkg/data/x", "pkg"),
        ("single.py", "single"),
        ("space/part/x", "space.part"),
        ("space", ""),
        ("libs", ""),
        ("no-name/x", ""),
        ("nothing", ""),
    ],
)
def test_what_a_path_belongs_to(place: Path, path: str, name: str) -> None:
    write(place / "space/part/__init__.py")
    unit = units.unit_at(f"{place}/{path}", [str(place), "", "/elsewhere"])
    assert (unit.name if unit else "") == name


def test_what_a_copy_has_beyond_the_images_files(place: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    unit = Unit("pkg", str(place), "pkg")
    write(place / "pkg/data.bin", "x" * 9)
    (place / "pkg/big").symlink_to("data.bin")
    copy = tmp_path_factory.mktemp("copy")
    copying.copy_tree(unit.path, str(copy))
    assert units.written(unit, str(copy))[0] == []
    (copy / "empty").mkdir()
    write(copy / "__pycache__/x.pyc", "bytecode")
    write(copy / "new/file", "new")
    write(copy / "__init__.py", "changed = 1\n")
    found, size = units.written(unit, str(copy))
    assert sorted(found) == ["__init__.py", "empty/", "new/file"]
    assert size > 0


def test_links_of_a_package_that_lead_to_files_elsewhere_count_as_files(place: Path, tmp_path: Path) -> None:
    elsewhere = write(tmp_path / "store/real.py", "x" * 10)
    package = place / "pkg"
    links = {"out.py": str(elsewhere), "in.py": "__init__.py", "absolute.py": f"{package}/__init__.py", "bad.py": "/no"}
    for name, target in links.items():
        (package / name).symlink_to(target)
    found = {name: units.external_link_status(f"{package}/{name}", str(package)) for name in links}
    assert {name: status and status.st_size for name, status in found.items()} == {
        "out.py": 10,
        "in.py": None,
        "absolute.py": None,
        "bad.py": None,
    }


def test_a_copy_has_links_for_what_cannot_be_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "pkg"
    for name in ("__init__.py", "closed.py", "bound/x"):
        write(source / name)
    os.mkfifo(source / "pipe")
    real_open, real_access = os.open, os.access

    def closed(path: str, *arguments: int) -> int:
        if str(path).endswith("closed.py"):
            raise PermissionError(13, "Permission denied")
        return real_open(path, *arguments)

    def access(path: str, mode: int) -> bool:
        return real_access(path, mode) and str(path).endswith("/bound")  # the image is read-only, what is bound is not

    (tmp_path / "copy").mkdir()
    monkeypatch.setattr(os, "open", closed)
    monkeypatch.setattr(os, "access", access)
    made = copying.copy_tree(str(source), str(tmp_path / "copy"))
    assert sorted(os.listdir(tmp_path / "copy")) == ["__init__.py", "bound", "closed.py"]
    links = {name: os.readlink(tmp_path / "copy" / name) for name in ("bound", "closed.py")}
    assert links == {name: f"{source}/{name}" for name in links}
    assert made == len(links) + 1
    assert not (tmp_path / "copy/__init__.py").is_symlink()


def test_what_is_object_code() -> None:
    assert [units.is_extension(path) for path in (None, "", "a.py", f"a{sys.implementation.cache_tag}.so")] == [
        False,
        False,
        False,
        True,
    ]
