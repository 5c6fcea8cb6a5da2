"""Runs in the machine, as a script: `damage.py WHAT STEP [FILE]` damages a record in many ways, and starts a program.

WHAT is a path of a file, or the name of a variable whose value is in FILE. It is cut off at every STEP-th length, and
replaced by bytes that mean nothing. What each start said is printed, as JSON: `[[damage, code, out, err], ...]`.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PYTHON = "/venv/bin/python"
PROGRAM = """
import sys
try:
    import declared
    declared.use()
    said = "cured"
except OSError as error:
    said = "its own error"
print(sys.modules["sif_writable"].state, said)
"""


def damaged(whole: bytes, step: int) -> Iterator[tuple[str, bytes]]:
    for length in range(0, len(whole), step):
        yield f"the first {length} bytes", whole[:length]
    for seed in range(1 + 20 // step):
        chance = random.Random(seed)  # noqa: S311 - the same every time
        noise = bytes(chance.randrange(1, 256) for _ in range(1000))
        yield f"noise {seed}", noise
        yield f"noise {seed} within", whole[: len(whole) // 2] + noise[:50] + whole[len(whole) // 2 :]
    yield "NUL", b"\0" * 5000 if os.path.isabs(sys.argv[1]) else b""
    yield "long", whole * 50


def start(env: dict[str, str]) -> list[object]:
    result = subprocess.run([PYTHON, "-c", PROGRAM], env=env, capture_output=True, timeout=120, check=False)
    return [result.returncode, result.stdout.decode(), result.stderr.decode(errors="replace")]


def main() -> None:
    what, step = sys.argv[1], int(sys.argv[2])
    results = []
    if os.path.isabs(what):
        with open(what, "rb") as file:
            whole = file.read()
        for name, content in damaged(whole, step):
            with open(what, "wb") as file:
                file.write(content)
            results.append([name, *start(dict(os.environ))])
        with open(what, "wb") as file:
            file.write(whole)
    else:
        with open(sys.argv[3], "rb") as file:
            env = json.load(file)
        for name, content in damaged(os.fsencode(env[what]), step):
            results.append([name, *start({**env, what: os.fsdecode(content)})])
    print(json.dumps(results))


if __name__ == "__main__":
    main()
