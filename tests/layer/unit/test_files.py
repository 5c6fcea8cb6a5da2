"""Trees of a layer as programs leave them: closed to their owner, and changing while they are read."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from sif_writable.layer import files
from tests.lab.users import VICTIM, as_user, needs_two_users


def test_what_a_program_has_closed_to_its_owner_is_copied_with_its_modes() -> None:
    needs_two_users()

    def work(top: str) -> dict[str, object]:
        os.makedirs(f"{top}/from/closed/deep")
        Path(f"{top}/from/closed/deep/file").write_text("in it", encoding="utf-8")
        for path, mode in (("closed/deep/file", 0), ("closed/deep", 0o400), ("closed", 0)):
            os.chmod(f"{top}/from/{path}", mode)
        seen = {path: stat.S_IMODE(status.st_mode) for path, status in files.walk(f"{top}/from")}
        os.chmod(f"{top}/from/closed", 0o700)
        os.chmod(f"{top}/from/closed/deep", 0o700)
        source = f"{top}/from/closed/deep/file"
        size = files.copy(source, f"{top}/copy", os.lstat(source))
        modes = [stat.S_IMODE(os.lstat(path).st_mode) for path in (source, f"{top}/copy")]
        os.chmod(f"{top}/copy", 0o600)
        return {"seen": seen, "copied": (size, modes, Path(f"{top}/copy").read_text(encoding="utf-8"))}

    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        os.chown(folder, VICTIM, VICTIM)
        told = as_user(VICTIM, lambda: work(folder))
    assert told == {
        "seen": {"closed": 0, "closed/deep": 0o400, "closed/deep/file": 0},
        "copied": [5, [0, 0], "in it"],
    }


@pytest.mark.parametrize("gone", ["a/b", "a"])
def test_what_vanishes_while_it_is_read_is_an_error_only_where_nothing_may(tmp_path: Path, gone: str) -> None:
    def vanish(strict: bool) -> list[str]:
        for path in ("a/b", "c"):
            (tmp_path / path).mkdir(parents=True, exist_ok=True)
        seen = []
        for path, _ in files.walk(str(tmp_path), strict=strict):
            seen.append(path)
            if path == gone:  # it is named, and is looked into later
                for each in ("a/b", "a"):
                    if each.startswith(gone) and (tmp_path / each).is_dir():
                        (tmp_path / each).rmdir()
        return seen

    assert vanish(strict=False) == (["a", "c", "a/b"] if gone == "a/b" else ["a", "c"])
    with pytest.raises(FileNotFoundError):
        vanish(strict=True)
