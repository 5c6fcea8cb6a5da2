"""What a layer costs at the first import, exactly: modules, system calls, files. Never milliseconds."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

import pytest

from tests.conftest import NOT_RUN
from tests.lab.environments import PYTHON
from tests.lab.scratch import HOME

if TYPE_CHECKING:
    from tests.lab.pythons import Python
    from tests.layer.conftest import Box

pytestmark = pytest.mark.exact

FINDER = {"atexit", "gc", "sif_writable.first_import", "sif_writable.importhook"}
JOINING = FINDER | {
    *("_ctypes", "quiet", "quiet.sub", "sif_writable.layered"),
    *(f"sif_writable.layer{name}" for name in ("", ".enter", ".join")),
}
MAKING = JOINING | {"sif_writable.layer.kernel", "sif_writable.layer.make"}
MADE = ["mkdir"] * 4 + ["open"] * 2 + ["symlink"]
"""What is made in the place of the layers for one directory: its folder, `about`, `members`, `hidden`, the upper
directory, the work directory; and the link of the container. The rest is the kernel's."""
_MOUNTS = re.compile(r'read\(\d+, "\d+ \d+ \d+:\d+ /')
"""A read of the table of mounts."""
CALLS = {"none": 41, "made": 172, "joined": 67, "library": 0}
"""How many system calls more than without a layer, memory apart: what is measured, and a little.

`none`: how many more than without us the import takes where there is no layer, the start apart.

Among them are those that read the list of packages with a copy, which other users' files need in a layer, too, and one
that asks whether a package is another user's.

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
_WITHOUT = f"{OFF} SIF_WRITABLE=off"
HELD = f"""
rm -f in out
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
        *(traced("without", "quiet", _WITHOUT), traced("without-library", "bisect", _WITHOUT)),
    )
    result = box.shell(script, env=_environ())
    if result.returncode != 0 and "ptrace" in result.stderr:
        pytest.skip(f"{NOT_RUN}this machine does not let processes be traced")
    assert (result.returncode, result.stderr) == (0, ""), result
    names = ("none", "made", "joined", "library", "library-none", "without", "without-library")
    found = {name: _calls(box, name) for name in names}
    assert not any("sif_writable/start." in call for calls in found.values() for call in calls)  # which decides anew
    more = {name: len(found[name]) - len(found["none"]) for name in ("made", "joined")}
    count = {name: len(calls) for name, calls in found.items()}
    more["none"] = count["none"] - count["library-none"] - (count["without"] - count["without-library"])
    more["library"] = len(found["library"]) - len(found["library-none"])
    assert all(more[name] <= most for name, most in CALLS.items()), more
    assert sorted(_making(found["made"])) == MADE
    assert _making(found["joined"]) == []


def test_directories_are_listed_anew_where_something_was_written(box: Box) -> None:
    """The time of a directory does not show it: what is written may have any."""
    ask = "from sif_writable.layer import enter; fresh = enter.current.fresh"
    write = f"""
import os, quiet, sys
{ask}
site = os.path.dirname(os.path.dirname(quiet.__file__))
then = os.stat(site)
with open(site + "/later.py", "w") as file:
    file.write("value = 5")
os.utime(site, ns=(then.st_atime_ns, then.st_mtime_ns))
print(fresh)
"""
    read = f"import quiet, sys; {ask}; import later; print(fresh, later.value)"
    for name, text in (("write.py", write), ("read.py", read)):
        with open(os.path.join(box.places.work, name), "w", encoding="utf-8") as file:
            file.write(text)
    result = box.shell(_script(HELD % f"{ON} {PYTHON} write.py; {ON} {PYTHON} read.py"), env=_environ())
    assert (result.returncode, result.stdout, result.stderr) == (0, "True\nFalse 5\n", ""), result


def test_no_garbage_collection_is_brought_on(box: Box) -> None:
    """Even where a collection is near; and what the program has frozen stays so."""
    program = """
import gc
if FREEZE:
    gc.freeze()
gc.set_threshold(700, 10, 10)
frozen, before = gc.get_freeze_count(), gc.get_stats()
near = [[] for _ in range(600 - gc.get_count()[0])]
import quiet, sys
more = sum(new["collections"] - old["collections"] for new, old in zip(gc.get_stats(), before))
print(more, gc.isenabled(), gc.get_threshold(), gc.get_freeze_count() == frozen, "sif_writable.layer" in sys.modules)
"""
    for freeze in ("False", "True"):
        with open(os.path.join(box.places.work, f"{freeze}.py"), "w", encoding="utf-8") as file:
            file.write(program.replace("FREEZE", freeze))
    result = box.shell(_script(HELD % f"{ON} {PYTHON} False.py; {ON} {PYTHON} True.py"), env=_environ())
    printed = result.stdout.splitlines()
    assert (result.returncode, result.stderr) == (0, ""), result
    assert printed[0] == "0 True (700, 10, 10) True True"
    assert printed[1].endswith("True (700, 10, 10) True True")


def _calls(box: Box, name: str) -> list[str]:
    with open(os.path.join(box.places.work, name), encoding="utf-8", errors="replace") as file:
        calls = [line.split(maxsplit=1)[1] for line in file]
    calls = [call for call in calls if call.partition("(")[0] not in _MEMORY]
    # The kernel gives a page of the table of mounts at a time, and how long that is, is the machine's matter.
    return [call for before, call in zip(["", *calls], calls) if not (_MOUNTS.match(before) and _MOUNTS.match(call))]


def _making(calls: list[str]) -> list[str]:
    """Return what makes a file in the place of the layers, by name, among some system calls."""
    found = []
    for call in calls:
        name = call.partition("(")[0].removesuffix("at")
        made = name in ("mkdir", "symlink", "link", "mknod") or (name == "open" and "O_EXCL" in call)
        if made and "/layer/" in call and " = -1 " not in call:
            found.append(name)
    return found
