"""What a layer costs at the first import, exactly: modules, system calls, files. Never milliseconds."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.conftest import NOT_RUN
from tests.lab.environments import PYTHON
from tests.lab.scratch import HOME

if TYPE_CHECKING:
    from tests.lab.pythons import Python
    from tests.layer.conftest import Box

pytestmark = pytest.mark.exact

FINDER = {"atexit", "sif_writable.first_import", "sif_writable.importhook"}
JOINING = FINDER | {
    *("_ctypes", "quiet", "quiet.sub", "sif_writable.layered"),
    *(f"sif_writable.layer{name}" for name in ("", ".enter", ".join")),
}
MAKING = JOINING | {"sif_writable.layer.kernel", "sif_writable.layer.make"}
MADE = ["mkdir"] * 4 + ["open"] * 2 + ["symlink"]
"""What is made in the place of the layers for one directory: its folder, `about`, `members`, `hidden`, the upper
directory, the work directory; and the link of the container. The rest is the kernel's."""
CALLS = {"made": 186, "joined": 72, "library": 0}
"""How many system calls more than without a layer, memory apart: what is measured, and a little.

Among them are those that read the list of packages with a copy, which other users' files need in a layer, too, and one
that tells whether a package is another user's.

Where it is made some empty layers of earlier starts lie about, each of which is looked into.
"""
_MEMORY = ("brk", "mmap", "munmap", "mprotect", "mremap", "madvise")

ASK = "import sys; old = set(sys.modules); import {0}; import json; print(json.dumps(sorted(set(sys.modules) - old)))"
FAILS = """
import atexit, sys
names = lambda: {name for name in sys.modules if "sif_writable" in name}
atexit.register(lambda: print(sorted(names() - old)))  # before ours, so it runs after it
import quiet
old = names()
import threading
raise ValueError
"""
HOLD = "import quiet, sys; print(1, flush=True); sys.stdin.read()"
ON, OFF = (f"env -i USER=user LANG=C.UTF-8 HOME={HOME}/{words}" for words in ("on", "off SIF_WRITABLE_OVERLAY=off"))
"""With and without a layer, by no ancestor's decisions. Each has storage of its own, as what a start keeps is of one
setting: all starts are warm."""
HELD = f"""
mkfifo in out
{ON} {PYTHON} -c '{HOLD}' < in > out &
exec 3> in 4< out
read -r line <&4
%s
exec 3>&-
wait
"""


def _script(*commands: str) -> str:
    """Warm everything up, then run commands."""
    once = f"{PYTHON} -c 'import quiet'"
    return "\n".join([f"mkdir {HOME}/on {HOME}/off", *[f"{ON} {once}", f"{OFF} {once}"] * 2, *commands])


def _environ(**more: str) -> dict[str, str]:
    return {"SIF_WRITABLE": "", **more}


def test_modules(each_box: Box, each_python: Python) -> None:
    ask = ASK.replace("import json; ", "").replace("json.dumps", "")
    quiet, bisect = (f"{ON} {PYTHON} -c '{ask.format(name)}'" for name in ("quiet", "bisect"))
    fails = f"{ON} {PYTHON} -c '{FAILS}' 2>/dev/null"
    script = "\n".join([_script(quiet, HELD % quiet), fails, bisect])
    result = each_box.shell(script, env=_environ())
    assert (result.returncode, result.stderr) == (0, ""), result
    made, joined, failed, library = (set(json.loads(line.replace("'", '"'))) for line in result.stdout.splitlines())
    if each_python.version == "3.9":  # which does not know the names of the standard library
        library -= FINDER
    assert made == MAKING
    assert joined == JOINING
    assert failed == {"sif_writable.uncaught", "sif_writable.evidence"}  # nothing of what copies need
    assert library <= {"bisect", "_bisect"}


def test_system_calls_and_files(box: Box, strace: str) -> None:
    def traced(name: str, module: str, env: str = ON) -> str:
        return f"{env} {strace} -f -qq -s 4096 -o {name} {PYTHON} -c 'import {module}'"

    script = _script(
        *(traced("none", "quiet", OFF), traced("made", "quiet"), HELD % traced("joined", "quiet")),
        *(traced("library", "bisect"), traced("library-none", "bisect", OFF)),
    )
    result = box.shell(script, env=_environ())
    if result.returncode != 0 and "ptrace" in result.stderr:
        pytest.skip(f"{NOT_RUN}this machine does not let processes be traced")
    assert (result.returncode, result.stderr) == (0, ""), result
    found = {name: _calls(box, name) for name in ("none", "made", "joined", "library", "library-none")}
    assert not any("sif_writable/start." in call for calls in found.values() for call in calls)  # which decides anew
    more = {name: len(found[name]) - len(found["none"]) for name in ("made", "joined")}
    more["library"] = len(found["library"]) - len(found["library-none"])
    assert all(more[name] <= most for name, most in CALLS.items()), more
    assert sorted(_making(found["made"])) == MADE
    assert _making(found["joined"]) == []


def _calls(box: Box, name: str) -> list[str]:
    with open(os.path.join(box.places.work, name), encoding="utf-8", errors="replace") as file:
        calls = [line.split(maxsplit=1)[1] for line in file]
    return [call for call in calls if call.partition("(")[0] not in _MEMORY]


def _making(calls: list[str]) -> list[str]:
    """Return what makes a file in the place of the layers, by name, among some system calls."""
    found = []
    for call in calls:
        name = call.partition("(")[0].removesuffix("at")
        made = name in ("mkdir", "symlink", "link", "mknod") or (name == "open" and "O_EXCL" in call)
        if made and "/layer/" in call and " = -1 " not in call:
            found.append(name)
    return found
