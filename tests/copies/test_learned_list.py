"""A learned list that cannot be used: copies are not used, `status` says why in one sentence, and nothing fails."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Callable

import pytest

if TYPE_CHECKING:
    from tests.lab.writing_image import Image


def _closed(path: str) -> None:
    os.chmod(path, 0)


def _folder(path: str) -> None:
    os.unlink(path)
    os.mkdir(path)


def _pipe(path: str) -> None:
    os.unlink(path)
    os.mkfifo(path, 0o666)
    os.chmod(path, 0o666)


def _link(path: str) -> None:
    os.rename(path, path + ".real")
    os.symlink(path + ".real", path)


def _loop(path: str) -> None:
    os.unlink(path)
    os.symlink("learned", path)


def _another_owner(path: str) -> None:
    if os.geteuid():
        pytest.skip("not run: only root can give a file away")
    os.chmod(path, 0o644)
    os.chown(path, 54321, 54321)


def _rubbish(path: str) -> None:
    with open(path, "ab") as file:
        file.write(os.urandom(1 << 20).replace(b"\t", b"?") + b"\n")


_STATE = "import quiet, sys; s = sys.modules['sif_writable']; print(s.state, s.failure)"


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_closed, "cannot be used (Permission denied)"),
        (_folder, "cannot be used (it is not an ordinary file)"),
        (_pipe, "cannot be used (it is not an ordinary file)"),
        (_link, "cannot be used (it is a link)"),
        (_loop, "cannot be used (it is a link)"),
        (_another_owner, "cannot be used (it belongs to somebody else)"),
        (_rubbish, "are not understood and were passed over"),
    ],
)
def test_a_list_that_cannot_be_used_is_one_note_and_no_failure(
    one_image: Image, spoil: Callable[[str], None], why: str
) -> None:
    one_image.says("import quiet")
    path = f"{one_image.folder}/learned"
    spoil(path)
    assert one_image.says(_STATE).endswith("active None\n")
    status = json.loads(one_image.says("", argv=("-m", "sif_writable", "status", "--json", "--no-gpu")))
    notes = [note for note in status["notes"] if "learned" in note or "failed" in note]
    assert [one_image.inside(path) in note and why in note for note in notes] == [True], notes
