"""What is said of packages that write into their own directory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sif_writable.copies import messages


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
