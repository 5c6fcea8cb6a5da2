"""When the check is made."""

from __future__ import annotations

from sif_writable import importhook
from sif_writable.gpu import check


def test_the_list_of_heavy_modules_names_modules() -> None:
    assert all(part.isidentifier() for name in importhook.HEAVY for part in name.split("."))
    assert set(check.ONLY_WITH) <= set(importhook.HEAVY)
