"""The list of a layer's members: it does not grow for ever, and nobody who is in it is lost."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sif_writable.layer import enter, join, members
from tests.layer.node import in_children

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.layer.conftest import Box

HERE = os.readlink("/proc/self/ns/pid")
ME = os.getpid()
NEVER = 1 << 30
"""The number of no process."""


def test_of_those_that_have_ended_nothing_is_kept_but_where_they_were_if_others_are_there() -> None:
    namespace = os.stat("/proc/self/ns/mnt").st_ino
    lines = [
        f"{NEVER} {HERE}",
        f"{ME} {HERE}",
        f"-{NEVER}",
        f"-{ME}",
        f"{NEVER} {HERE} 7",
        f"{NEVER} {HERE} {namespace}",
    ]
    assert members.living(lines, HERE) == [lines[1], lines[3], lines[5]]
    elsewhere = [f"{number} pid:[1]" for number in range(2 * join.MEMBERS)]
    assert members.living([*elsewhere, lines[1]], HERE) == [*elsewhere[join.MEMBERS :], lines[1]]


def test_the_first_is_asked_before_the_many_that_have_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a shell starts many short programs: the first one waits for them."""
    asked: list[int] = []

    def namespace_of(pid: int, *_: object) -> int | None:
        asked.append(pid)
        return 7 if pid == ME else None

    monkeypatch.setattr(join, "_namespace_of", namespace_of)
    ended = [f"{NEVER + number} {HERE}\n" for number in range(join.LONG)]
    (tmp_path / "members").write_text("".join([f"{ME} {HERE}\n", *ended]))
    assert join.member(enter.Layer(str(tmp_path), ""), 1, 1) == (ME, 7)
    assert asked == [NEVER + join.LONG - 1, ME]


def test_who_comes_while_it_is_written_anew_is_in_it(tmp_path: Path) -> None:
    def come(first: int) -> None:
        for number in range(first, first + 200):
            join.note_member(str(tmp_path), f"{ME} {HERE} {number}\n{NEVER} {HERE}\n")

    def tidy() -> None:
        for _ in range(100):
            members.drop_ended(str(tmp_path))

    join.note_member(str(tmp_path), f"{ME} {HERE} 0\n")
    comers = [lambda first=first: come(first) for first in (1000, 2000, 3000)]
    assert in_children(*comers, tidy, tidy) == [0] * 5
    members.drop_ended(str(tmp_path))
    found = (tmp_path / "members").read_text().splitlines()
    wanted = {0, *(first + number for first in (1000, 2000, 3000) for number in range(200))}
    assert {int(line.split()[2]) for line in found} == wanted
    assert os.listdir(tmp_path) == ["members"]


def test_many_processes_that_come_and_go_leave_a_short_list(box: Box) -> None:
    script = f"""
mkfifo ends
$P 'assert enter() == ""
sys.stdin.read()' < ends &
exec 3> ends
while ! ls {box.inside}/layer/container-* >/dev/null 2>&1; do sleep 0.01; done
for i in 1 2 3 4 5 6 7 8; do $P 'join.LONG, join.MEMBERS = 3, 1
assert enter() == ""'; done
cat {box.inside}/layer/upper-*/members | wc -l
exec 3>&-
wait
"""
    result = box.shell(script)
    assert 1 <= int(result.stdout) <= 5, result  # 9 joined it
