"""Copies in storage on a server: their code is read from the image, which is on this node, until it is changed."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.conftest import BY_COPY, NOT_RUN
from tests.lab import counted
from tests.lab.environments import PYTHON
from tests.lab.hooked import write
from tests.lab.scratch import HOME

if TYPE_CHECKING:
    from tests.lab.pythons import Python
    from tests.lab.writing_image import Image

PACKAGE = {"__init__": "from fresh import first, second\n", "first": "VALUE = 1\n", "second": "VALUE = 1\n"}
SAY = """
import os
from fresh import first, second
own = first.__file__
if os.path.exists(own.replace('first', 'third')):  # what a program has made
    from fresh import third
    assert third.VALUE == 33
data = first.__loader__.get_data(own).decode().strip()
print(first.VALUE, second.VALUE, data, own.partition('/tree')[2], first.__cached__.startswith(own.rpartition('/')[0]))
"""


def test_code_is_read_from_the_image_until_it_is_changed(one_image: Image, main_python: Python) -> None:
    library = one_image.machine.in_image("/opt/l/sp")
    for name, text in PACKAGE.items():
        write(f"{library}/fresh/{name}.py", text)
        os.utime(f"{library}/fresh/{name}.py", (1, 1))  # bytecode distinguishes versions of one size by the second
    subprocess.run([main_python.path, "-m", "compileall", "-q", library], check=True)
    env = {**BY_COPY, "PYTHONPATH": "/opt/l/sp", "SIF_WRITABLE_PACKAGES": "fresh"}
    log = f"{one_image.places.folder}/requests"

    def asked(says: str, *how: str) -> dict[str, set[str]]:
        """Return which modules of the copy a start asks the server for, by kinds of requests; it says this."""
        served = [":".join((one_image.places.home, HOME, log, "0", "30", *how))]
        argv = [PYTHON, "-c", SAY]
        result = one_image.machine.run(argv, venv=one_image.environment, env=env, served=served)
        if "could not be served" in result.stderr:
            pytest.skip(f"{NOT_RUN}this machine lets nobody mount with FUSE")
        assert (result.returncode, result.stdout, result.stderr) == (0, says, "")
        found: dict[str, set[str]] = {}
        for kind, _, path in counted.requests(log):
            if path.endswith((".py", ".pyc")) and "/fresh/" in path:
                found.setdefault(kind, set()).add(os.path.basename(path).partition(".")[0])
        os.unlink(log)
        return found

    path = "/opt/l/sp/fresh/first.py"
    unchanged = f"1 1 VALUE = 1 {path} True\n"
    asked(unchanged)
    one_by_one = {"__init__", "first", "second", "third"}
    assert asked(unchanged) == {"lookup": one_by_one}
    assert asked(unchanged, "plus") == {"lookup": {"__init__", "third"}}, "the others come with the listing"
    copy = f"{one_image.folder}/tree{path}"
    with open(copy, "r+", encoding="utf-8") as file:  # in place, and as long as it was
        file.write("VALUE = 2\n")
    assert asked(f"2 1 VALUE = 2 {path} True\n")["open"] == {"first"}
    os.unlink(copy)
    write(copy.replace("first", "third"), "VALUE = 33\n")
    os.symlink("third.py", copy)
    assert asked(f"33 1 VALUE = 33 {path} True\n")["open"] >= {"third"}
