"""Array jobs of a real Slurm: many containers at once on one storage that was empty, then once more on what they made.

``--array-tasks 200`` starts as many as a real job does.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from sif_writable.copies.ledger import parse
from tests.conftest import BY_COPY, NOT_RUN
from tests.lab import slurm_cluster
from tests.lab.store import REPOSITORY
from tests.lab.unavailable import LabUnavailable
from tests.slurm import writers
from tests.slurm.writers import IN_TREE, LATE, LATE_MADE, STORAGE, TASK, Report

if TYPE_CHECKING:
    from tests.lab.slurm_cluster import Cluster

SCRIPT = os.path.join(REPOSITORY, "container", "slurm-array.sh")
AT_A_TIME = 16
_MARK = "611.967"  # a number of seconds that nobody else sleeps


class Job(NamedTuple):
    """An array job that has ended."""

    tasks: list[Report]
    storage: str
    """Its storage, outside."""
    before: dict[str, tuple[int, ...]]
    """What was in there before."""
    after: dict[str, tuple[int, ...]]


def submit(cluster: Cluster, image: str, storage: str, count: int, program: str, **env: str) -> list[str]:
    """Run the script that users copy, as it is; return what the tasks say, which must all succeed."""
    apptainer = cluster.apptainer
    with open(os.path.join(apptainer.places.work, "task.py"), "w", encoding="utf-8") as file:
        file.write(program)
    # Without the HOME of the machine there is none, as where compute nodes do not have it.
    env = {"IMAGE": apptainer.inside(image), "STORAGE": apptainer.inside(storage), "APPTAINER_NO_HOME": "1", **env}
    options = [f"--array=0-{count - 1}%{AT_A_TIME}"]
    tasks = cluster.submit(SCRIPT, ["python", "task.py"], options=options, env=env, timeout=60 + 5 * count)
    assert len(tasks) == count
    assert [(task.state, task.output[-3000:]) for task in tasks if task.state != "COMPLETED"] == []
    return [task.output for task in tasks]


def run(cluster: Cluster, image: str, storage: str, count: int) -> Job:
    """Run a job that works from copies."""
    before = writers.listing(storage)
    said = submit(cluster, image, storage, count, TASK, **BY_COPY)
    return Job([writers.report(output) for output in said], storage, before, writers.listing(storage))


@pytest.fixture(scope="module")
def cold(slurm: Cluster, writing_image: str, request: pytest.FixtureRequest) -> Job:
    """Return the first job."""
    storage = slurm.apptainer.places.new_folder("storage")
    return run(slurm, writing_image, storage, request.config.getoption("--array-tasks"))


@pytest.fixture(scope="module")
def warm(cold: Job, slurm: Cluster, writing_image: str) -> Job:
    """Return the same job, later."""
    return run(slurm, writing_image, cold.storage, len(cold.tasks))


@pytest.mark.parametrize("which", ["cold", "warm"])
def test_every_task_has_what_it_needs(request: pytest.FixtureRequest, which: str) -> None:
    job: Job = request.getfixturevalue(which)
    tree, home = f"{STORAGE}/image-", "/home/.writer/settings"
    assert {task.hook for task in job.tasks} == {"active"}
    assert {task.area for task in job.tasks} == {9.0}
    assert {path.startswith(tree) and "/tree/" in path for task in job.tasks for path in task.files} == {True}
    (settings,) = {task.home for task in job.tasks}
    assert settings.startswith(tree)
    assert settings.endswith(home)


def test_each_thing_is_made_once(cold: Job) -> None:
    assert cold.before.keys() == {cold.storage}
    made, begun = writers.made(cold.tasks), writers.begun(cold.tasks)
    (image,) = (name for name in os.listdir(cold.storage) if name.startswith("image-"))
    packages = f"{STORAGE}/{image}/packages-cpython-311/tree/opt/venv/lib/python3.11/site-packages"
    things = [f"{packages}/{name}" for name in IN_TREE]
    things += [f"{STORAGE}/{image}/config/kivy", f"{STORAGE}/{image}/home"]
    assert {path: made[path] for path in things} == dict.fromkeys(things, 1)
    assert {path: begun[os.path.basename(path)] for path in things} == dict.fromkeys(things, 1)
    # What the image has for the seed, and what the packages made.
    assert os.path.exists(f"{cold.storage}/{image}/config/kivy/config.ini")
    copied = cold.storage + packages[len(STORAGE) :]
    assert [name for name in IN_TREE if os.path.islink(f"{copied}/{name}")] == []


def test_nothing_is_left_over(cold: Job) -> None:
    assert any("/locks/" in path for path in cold.after)
    assert writers.leftovers(cold.storage) == []
    assert writers.held(cold.storage) == []
    (path,) = (path for path in cold.after if path.endswith("/learned"))
    with open(path, encoding="utf-8") as file:
        lines, broken = parse(file.read())
    assert broken == 0
    names = {name.partition(".py")[0].replace("/", ".") for name in IN_TREE}
    assert {line.name for line in lines if line.why == "import"} == names


def test_warm_takes_no_lock_and_writes_nothing(cold: Job, warm: Job) -> None:
    assert sum(len(task.locks) for task in cold.tasks) > 0  # so that their absence says something
    # Who imports from a copy shares its lease with all others, and waits for nobody.
    assert {lock for task in warm.tasks for lock in task.locks if not lock.endswith("/lease")} == set()
    # numba tries each time whether its folder can be written, with a file that has no name.
    changes = [change for task in warm.tasks for change in task.changes if "/numba/" not in change[1]]
    changes = [change for change in changes if not change[1].endswith("/lease")]  # opened for its lock; see `after`
    assert changes == []
    assert warm.after == warm.before
    assert sum(task.compiled for task in warm.tasks) == 0


def test_what_writes_late_in_object_code_or_is_caught_works_in_the_first_task_already(
    slurm: Cluster, writing_image: str, request: pytest.FixtureRequest
) -> None:
    """And the newest generation has what all of them wrote, after the next start on each node; here that is one."""
    storage = slurm.apptainer.places.new_folder("storage-of-layers")
    count = request.config.getoption("--array-tasks")
    said = submit(slurm, writing_image, storage, count, LATE)
    assert [line for output in said for line in output.splitlines() if line.startswith("sif_writable")] == []
    submit(slurm, writing_image, storage, 1, LATE)
    (layers,) = [f"{storage}/{name}/layer" for name in os.listdir(storage) if name.startswith("image-")]
    newest = max(int(name[4:]) for name in os.listdir(layers) if name.startswith("gen-"))
    site = f"{layers}/gen-{newest}/tree/opt/venv/lib/python3.11/site-packages"
    for path in LATE_MADE:
        assert os.path.exists(f"{site}/{path}"), path
    assert sorted(os.listdir(f"{site}/open_use/tasks")) == sorted(str(number) for number in range(count))
    assert [name for name in os.listdir(layers) if "set-aside" in name] == []


def test_a_cluster_ends_with_its_jobs_however_its_test_ends() -> None:
    folder = ""

    def fail() -> None:
        nonlocal folder
        with slurm_cluster.running(1) as cluster:
            folder = cluster.apptainer.places.folder
            words = ["sbatch", f"--wrap=sleep {_MARK}"]
            result = cluster.apptainer.beside(words, env={"SLURM_CONF": cluster.settings})
            assert result.returncode == 0, result.stderr
            while not any(_MARK in words for words in _processes("cmdline")):
                time.sleep(0.05)
            assert any(os.path.basename(folder) in words for words in _processes("environ"))
            raise KeyError

    try:
        with pytest.raises(KeyError):
            fail()
    except LabUnavailable as why:
        pytest.skip(f"{NOT_RUN}{why}")
    deadline = time.monotonic() + 10  # the kernel ends the namespace a moment after its first process
    while any(_MARK in words or os.path.basename(folder) in words for words in _processes("cmdline", "environ")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not os.path.exists(folder)


def _processes(*files: str) -> list[str]:
    return [_text(f"/proc/{pid}/{name}") for pid in os.listdir("/proc") if pid.isdigit() for name in files]


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:  # it has just ended, or is not ours
        return ""
