"""Hundreds of interpreters that start at once in one read-only root, on a storage that was empty."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from tests.conftest import or_skip
from tests.lab import image
from tests.lab.squashfs_root import SquashfsRoot
from tests.slurm import writers
from tests.slurm.writers import IN_TREE, PYTHON, START, STORAGE

if TYPE_CHECKING:
    from tests.lab.scratch import Scratch

STARTS, AT_A_TIME = 500, 32
# Runs in the root, in its own Python, which does not have the hook.
_ALL = """
import json, subprocess, sys
from concurrent.futures import ThreadPoolExecutor

def start(number):
    done = subprocess.run(sys.argv[3:], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return done.returncode, done.stdout, done.stderr

with ThreadPoolExecutor(int(sys.argv[2])) as pool:
    print(json.dumps(list(pool.map(start, range(int(sys.argv[1]))))))
"""


def test_each_of_hundreds_succeeds_and_each_thing_is_made_once(writing_image: str, places: Scratch) -> None:
    root = SquashfsRoot(or_skip(image.squashfs, writing_image), places)
    storage = places.new_folder("storage")
    argv = ["/usr/bin/python3", "-I", "-S", "-c", _ALL, str(STARTS), str(AT_A_TIME), PYTHON, "-c", START]
    result = root.run(argv, binds=[f"{storage}:{STORAGE}"], timeout=600)
    assert result.returncode == 0, result.stderr[-3000:]
    starts = json.loads(result.stdout)
    assert [start for start in starts if start[0] or start[2]] == []
    tasks = [writers.report(said) for _, said, _ in starts]
    assert len(tasks) == STARTS
    assert {task.hook for task in tasks} == {"active"}
    assert {"/tree/" in path for task in tasks for path in task.files} == {True}
    made, begun = writers.made(tasks), writers.begun(tasks)
    (kept,) = (name for name in os.listdir(storage) if name.startswith("image-"))
    packages = f"{STORAGE}/{kept}/packages-cpython-311/tree/opt/venv/lib/python3.11/site-packages"
    things = [*(f"{packages}/{name}" for name in IN_TREE), f"{STORAGE}/{kept}/config/kivy", f"{STORAGE}/{kept}/home"]
    assert {path: made[path] for path in things} == dict.fromkeys(things, 1)
    assert {path: begun[os.path.basename(path)] for path in things} == dict.fromkeys(things, 1)
    assert writers.leftovers(storage) == []
    assert writers.held(storage) == []
