"""What an earlier version kept in a given place is brought once, and what is not this user's or odd stays there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from sif_writable.redirects import earlier
from sif_writable.redirects.catalog import ROWS
from sif_writable.seldom import MARKER
from sif_writable.storage import layout
from sif_writable.storage.candidates import FOLDER

if TYPE_CHECKING:
    from pathlib import Path

OWN, OTHER = (f"image-{digit * 16}" for digit in "0f")
LEAVES = [row.leaf for row in ROWS if row.kind == "data" and row.leaf][:2]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a place with what an earlier version had for an image of another identity, and an empty root."""
    (tmp_path / MARKER).write_text("exec\n")
    for name in (OTHER, f"image-{'e' * 16}"):
        (tmp_path / name / layout.CONFIG / "matplotlib").mkdir(parents=True)
        (tmp_path / name / layout.CONFIG / "matplotlib" / "rc").write_text(name)
        (tmp_path / name / layout.HOME).mkdir(mode=0o700)
        (tmp_path / name / layout.HOME / ".settings").write_text(name)
        (tmp_path / name / layout.NOTE).write_text("image: /images/a.sif\nprefix: /venv\n")
        os.utime(tmp_path / name / layout.CONFIG, (1, 1) if name != OTHER else (2, 2))
    (tmp_path / f"image-{'d' * 16}").mkdir()  # without a note
    new = tmp_path / FOLDER / OWN
    new.mkdir(parents=True)
    (new / layout.NOTE).write_text("image: /images/a.sif\n")
    return tmp_path


def test_it_is_the_image_of_the_same_path_that_was_used_last(place: Path) -> None:
    new = f"{place}/{FOLDER}/{OWN}"
    assert earlier.image(str(place), new) == OTHER
    (place / OWN).mkdir()
    assert earlier.image(str(place), new) == OWN
    (place / OWN).rmdir()
    for text in ("", "prefix: /images/a.sif\n", "image: \n"):
        (place / FOLDER / OWN / layout.NOTE).write_text(text)
        assert earlier.image(str(place), new) == "-"
    os.unlink(place / FOLDER / OWN / layout.NOTE)
    assert earlier.image(str(place), new) == "-"


def test_settings_and_a_home_are_copied(place: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    new = place / FOLDER / OWN
    earlier.take_over(str(place), f"{place}/{FOLDER}", f"{new}/{layout.CONFIG}")
    assert (new / layout.CONFIG / "matplotlib" / "rc").read_text() == OTHER
    filled = tmp_path_factory.mktemp("filled")
    earlier.copy_home(str(place), f"{new}/{layout.HOME}", str(filled))
    assert os.listdir(filled) == [".settings"]


@pytest.mark.parametrize("case", ["open to others", "a link", "gone", "no mark", "elsewhere"])
def test_a_home_that_may_be_anybodys_is_not_copied(
    place: Path, tmp_path_factory: pytest.TempPathFactory, case: str
) -> None:
    old, home = place / OTHER / layout.HOME, f"{place}/{FOLDER}/{OWN}/{layout.HOME}"
    if case == "open to others":
        old.chmod(0o777)
    elif case in ("a link", "gone"):
        os.rename(old, place / "moved")
        if case == "a link":
            old.symlink_to("../moved")
    elif case == "no mark":
        os.unlink(place / MARKER)
    else:
        home = f"{place}/other/{OWN}/{layout.HOME}"
    filled = tmp_path_factory.mktemp("filled")
    earlier.copy_home(str(place), home, str(filled))
    assert os.listdir(filled) == []


def test_downloads_are_linked_one_by_one_and_many_at_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for leaf in LEAVES:
        for name in ("a", "b"):
            (place / layout.DATA / leaf / name).mkdir(parents=True)
    monkeypatch.setattr(earlier, "_LINKS", 3)
    new = place / FOLDER / layout.DATA
    earlier.take_over(str(place), f"{place}/{FOLDER}", str(new))
    first, second = LEAVES
    assert sorted(os.listdir(new / first)) == ["a", "b"]
    assert os.path.realpath(new / first / "a") == f"{place}/{layout.DATA}/{first}/a"
    assert (new / second).is_symlink()  # there are too many of them
    assert os.path.realpath(new / second) == f"{place}/{layout.DATA}/{second}"
