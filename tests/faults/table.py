"""The table of what was tried, `TABLE.md`: how it is written, and how it is read again."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any

from tests.faults.injector import KILL, KINDS, SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Iterable

PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "TABLE.md")
OUTCOMES = ("as healthy", "as without us", "believed", "killed", "not met")

_HEAD = """# What was tried

Each system call that the hook and the cold paths make on files was made to fail once, with each error that such a call
can have, by `strace -e inject`; at each call that changes something the process was killed as well. One fault per run,
from fresh storage, and a healthy run after it. This file is written by

```console
$ tests/run tests/faults/test_injected.py --all-faults
```

A fault passes where the program runs and says what it says without faults (*as healthy*) or what it says with the hook
switched off (*as without us*); where every file that a later run can see is whole; and where the healthy run that
follows says what it always says and leaves everything that runs without faults leave. *Believed*: as healthy, but
`ENOENT` and `EACCES` are answers, and `access()` knows only yes and no: what is said not to be there is not seeded,
linked or copied. *Not met*: the run took another way and did not make that call. *Left* counts what was built aside
and not taken away; later starts collect it.

The calls by which Python imports our modules and the standard library fail once each, with one error; those that look
for files do not: the import system meets every error in one way. Calls on the standard streams and on the line of
`sif_writable.pth` are not ours; children of the mount's trial are not traced, since strace counts anew in each process.
"""


def write(cases: Iterable[dict[str, Any]], calls: dict[str, dict[str, int]]) -> str:
    """Return the text of the table."""
    everything = list(cases)
    lines = [_HEAD, "## Calls\n", _row("program", "kind of call", "calls", "faults", *OUTCOMES, "left", "wrong")]
    lines.append("|---|---|" + "--:|" * (len(OUTCOMES) + 4))
    for scenario in SCENARIOS:
        for kind in KINDS:
            mine = [case for case in everything if (case["scenario"], case["kind"]) == (scenario.name, kind)]
            if mine:
                lines.append(_row(scenario.name, kind, calls[scenario.name][kind], *_counted(mine)))
    number = sum(sum(kinds.values()) for kinds in calls.values())
    lines += [_row("**all**", "", number, *_counted(everything)), "\n## Errors\n"]
    lines += [_row("error", "kinds of call", "faults", *OUTCOMES, "left", "wrong")]
    lines.append("|---|---|" + "--:|" * (len(OUTCOMES) + 3))
    for error in sorted({case["error"] for case in everything}, key=lambda error: (error == KILL, error)):
        mine = [case for case in everything if case["error"] == error]
        kinds = [kind for kind in KINDS if any(case["kind"] == kind for case in mine)]
        lines.append(_row(error, ", ".join(kinds), *_counted(mine)))
    return "\n".join(lines) + "\n"


def _counted(cases: list[dict[str, Any]]) -> list[int]:
    outcomes = Counter("believed" if case["outcome"].endswith("believed") else case["outcome"] for case in cases)
    left, wrong = sum(case["left"] for case in cases), sum(bool(case["problem"]) for case in cases)
    return [len(cases), *(outcomes[outcome] for outcome in OUTCOMES), left, wrong]


def _row(*cells: object) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def rows() -> list[list[str]]:
    """Return the cells of every line of the table that is kept."""
    with open(PATH, encoding="utf-8") as file:
        return [[cell.strip() for cell in line.split("|")[1:-1]] for line in file if line.startswith("| ")]
