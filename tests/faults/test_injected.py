"""Each system call fails, or is the last one of its process: the program runs, and the next run finds all in order."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import NOT_RUN
from tests.faults import injector, table
from tests.faults.conftest import Faulty
from tests.lab import scratch

if TYPE_CHECKING:
    from tests.lab.pythons import Python

SAMPLE = 120
"""How many faults are tried without --all-faults, evenly spread over all of them."""
AT_ONCE = 2


@pytest.mark.timeout(4 * 3600)
def test_faults(faulty: Faulty, main_python: Python, strace: str, request: pytest.FixtureRequest) -> None:
    everything = request.config.getoption("--all-faults")

    def part(number: int) -> list[dict[str, Any]]:
        with scratch.fresh() as places:
            own = Faulty(places, main_python, faulty.environment)
            words = [strace, str(number), str(AT_ONCE), "0" if everything else str(SAMPLE)]
            result = own.script(injector.__file__, *words, timeout=4 * 3600)
        if "ptrace" in result.stderr:
            pytest.skip(f"{NOT_RUN}this machine does not let processes be traced")
        assert result.returncode == 0, result.stderr
        return [json.loads(line) for line in result.stdout.splitlines()]

    with ThreadPoolExecutor(AT_ONCE) as pool:
        parts = list(pool.map(part, range(AT_ONCE)))
    cases = [case for lines in parts for case in lines[:-1]]
    assert len(cases) == parts[0][-1]["faults"] if everything else len(cases) > SAMPLE + len(injector.SHOWN) - 2
    if everything:
        with open(table.PATH, "w", encoding="utf-8") as file:
            file.write(table.write(cases, parts[0][-1]["calls"]))
    wrong = [case for case in cases if case["problem"]]
    assert not wrong, "\n".join(map(str, wrong))
    assert sum(case["outcome"] == "not met" for case in cases) < len(cases) / 10


def test_the_table_is_about_what_is_tried_here() -> None:
    rows = table.rows()
    wide = max(len(row) for row in rows)
    calls = [row for row in rows if len(row) == wide][1:]
    assert list(dict.fromkeys(row[0] for row in calls[:-1])) == [scenario.name for scenario in injector.SCENARIOS]
    errors = [row for row in rows if len(row) == wide - 1][1:]
    assert {row[0] for row in errors} == {
        *" ".join(words for words, _ in injector.KINDS.values()).split(),
        injector.KILL,
    }
    assert [row for row in calls + errors if row[-1] != "0"] == []
    assert int(calls[-1][3]) == sum(int(row[3]) for row in calls[:-1]) == sum(int(row[2]) for row in errors)
