"""What is said of packages that write into their own directory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from sif_writable.copies import learning, messages, policy

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("names", "begins"),
    [
        (("one",), "one writes into its own directory, which"),
        (("two", "one"), "one and two write into their own directories, which"),
    ],
)
def test_one_package_or_more_are_named(names: tuple[str, ...], begins: str, capsys: pytest.CaptureFixture[str]) -> None:
    units: Any = [SimpleNamespace(name=name) for name in names]
    copies: Any = SimpleNamespace(folder="/storage")
    messages.from_the_next_run_on(units, copies)
    said = capsys.readouterr().err
    assert said.startswith(f"sif_writable: {begins} cannot be written here; from the next run on ")
    assert said.endswith(f"To undo this: sif-writable cache forget {' '.join(sorted(names))}\n")


@pytest.mark.parametrize(
    ("path", "variable", "facts", "remedy"),
    [
        ("/opt/tool", "", {"hides": True}, "bind a directory there (apptainer exec --bind DIRECTORY:/opt/tool)."),
        ("/opt/data/x.db", "", {}, "bind a directory there (apptainer exec --bind DIRECTORY:/opt/data)."),
        (
            "/out.txt",  # as of a program that begins in `/`; a directory bound there would hide the image
            "",
            {"hides": True},
            "or bind a file there (touch out.txt; apptainer exec --bind out.txt:/out.txt).",
        ),
        ("/etc/hosts", "", {"is_file": True}, "bind a copy of it there (apptainer exec --bind COPY:/etc/hosts)."),
        (
            "/x.y",
            "X_DIR",
            {"hides": True, "is_file": True},
            "set X_DIR to a directory that can be written, or bind one there (apptainer exec --bind DIRECTORY:/x.y).",
        ),
    ],
)
def test_the_remedy_hides_nothing_of_the_image(path: str, variable: str, facts: dict[str, bool], remedy: str) -> None:
    words = policy.outside_words(path, variable, **facts)
    assert words.startswith(f"{path} cannot be written, and it belongs to no package that could have a writable copy. ")
    assert words.partition(" Remedy: ")[2].removeprefix("write it to a directory that is bound, ") == remedy


def test_a_directory_hides_what_it_holds(tmp_path: Path) -> None:
    assert not learning._holds_something(str(tmp_path))
    assert not learning._holds_something(str(tmp_path / "none"))
    (tmp_path / "x").touch()
    assert learning._holds_something(str(tmp_path))
