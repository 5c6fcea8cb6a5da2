"""Where an image says that its own downloads are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sif_writable.redirects import own

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = "image-0123456789abcdef"


def test_what_was_noted_is_read_also_at_another_path(tmp_path: Path) -> None:
    folder = tmp_path / "one" / IMAGE / "data-torch"
    (folder / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "one" / "data").mkdir()
    own.note(str(tmp_path / "one/data"), str(folder), "0123456789abcdef", str(folder), 2)
    (tmp_path / "one").rename(tmp_path / "two")
    found = own.read(str(tmp_path / "two/data/torch@0123456789abcdef"))
    assert found == (str(tmp_path / "two" / IMAGE / "data-torch"), frozenset({"hub", "hub/checkpoints"}))


def test_what_cannot_be_read_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    for name in ("folder", "link", "nothing"):
        assert own.read(f"{tmp_path}/{name}") == ("", frozenset())


@pytest.mark.parametrize(
    "text", ["", "../../home", f"{IMAGE}/../data-x", f"{IMAGE}/data-x/..", "/etc", f"{IMAGE}/home"]
)
def test_what_we_do_not_write_leads_nowhere(tmp_path: Path, text: str) -> None:
    (tmp_path / "torch@x").write_text(text)
    assert own.read(str(tmp_path / "torch@x")) == ("", frozenset())
