"""Fixtures that give tests real parts, and the last lines of the report: what was not run here, and why."""

from __future__ import annotations

import contextlib
import functools
import os
import sysconfig
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.corpus import cases
from tests.lab import (
    apptainer_root,
    apt,
    image,
    measured,
    pythons,
    readonly_root,
    scratch,
    slurm_cluster,
    store,
    wheels,
)
from tests.lab.apptainer_root import Apptainer
from tests.lab.readonly_root import ReadonlyRoot
from tests.lab.squashfs_root import SquashfsRoot
from tests.lab.unavailable import LabUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from tests.lab.apptainer_root import Runtime
    from tests.lab.pythons import Python
    from tests.lab.scratch import Scratch
    from tests.lab.slurm_cluster import Cluster

pytest_plugins = ("tests.lab.fixtures",)

BY_COPY = {"SIF_WRITABLE_OVERLAY": "off"}
"""The environment of a test of copies: where a layer is possible, nothing else shows what serves where it is not."""
LONG = (
    "tests/copies/test_copyup.py",
    "tests/hook/test_budget.py",
    "tests/corpus/test_frameworks.py",
    "tests/repository/test_unit_everywhere.py",
    "tests/faults/test_hanging.py",
    "tests/apptainer/test_examples.py",
    "tests/image/test_build_time.py",
    "tests/apptainer/test_session.py",
    "tests/apptainer/test_prestage.py",
    "tests/apptainer/test_matrix.py",
    "tests/apptainer/test_layer_programs.py",
    "tests/corpus/test_replay.py",
    "tests/trace/test_trace.py",
    "tests/slurm/test_array.py",
    "tests/apptainer/test_overlay_image.py",
    "tests/apptainer/test_layer.py",
    "tests/apptainer/test_prepare.py",
    "tests/apptainer/test_trace.py",
    "tests/apptainer/test_growth.py",
    "tests/faults/test_injected.py",
    "tests/overlay/test_overlay.py",
    "tests/copies/test_evidence.py",
    "tests/copies/test_fallback.py",
    "tests/hook/test_starts.py",
    "tests/layer/test_layer.py",
    "tests/storage/test_places.py",
    "tests/cleanup/test_removal.py",
    "tests/hook/test_environments.py",
    "tests/hook/test_delivery.py",
    "tests/container/test_definitions.py",
    "tests/commands/test_shells.py",
    "tests/faults/test_cgroups.py",
)
"""Files of tests that take ten seconds of a processor or more, or wait as long; the longest first.

Those that need the image, which may have to be made first, are not quite the first.
"""
NOT_RUN = "not run: "
"""How the reason of a skip begins where this machine lacks something."""
FLAGS = ("--all-corpus", "--all-faults", "--all-interpreters", "--frameworks")
"""What a run leaves out by default, since it takes long."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that say how much to try."""
    group = parser.getgroup("sif-writable")
    group.addoption("--all-corpus", action="store_true", help="tests/corpus: also what takes minutes")
    group.addoption(
        "--all-faults",
        action="store_true",
        help="tests/faults: every fault, and write the table of them; tests/layer: all",
    )
    group.addoption(
        "--all-interpreters",
        action="store_true",
        help="every supported Python where the oldest, that of most tests and the newest are the default",
    )
    group.addoption(
        "--frameworks",
        action="store_true",
        help="tests/corpus: torch, jax, tensorflow and other large packages, in images of 3 GB together",
    )
    known = ",".join(cases.MEANS)
    group.addoption("--corpus-means", default=known, help=f"replay only the cases that need one of these: {known}")
    group.addoption("--array-tasks", type=int, default=24, help="tests/slurm: tasks of each array job (default: 24)")


def pytest_configure(config: pytest.Config) -> None:
    """Measure what tests start with this interpreter, too, where that is asked for."""
    if measured.ON and not hasattr(config, "workerinput"):
        for path in measured.start(sysconfig.get_path("purelib"), measured.folder()):
            config.add_cleanup(functools.partial(os.unlink, path))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Let tests of every interpreter run on those that were asked for; `or_debians` has Debian's besides."""
    asked_for = pythons.asked_for(every=metafunc.config.getoption("--all-interpreters"))
    for name, more in (("each_python", ()), ("each_python_or_debians", (pythons.DEBIAN,))):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, dict.fromkeys((*asked_for, *more)), indirect=True, scope="session")
    if "each_build" in metafunc.fixturenames:
        builds = pythons.BUILDS if metafunc.config.getoption("--all-interpreters") else pythons.BUILDS[:1]
        metafunc.parametrize("each_build", builds, indirect=True, scope="session")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long, so that at the end no worker has one left while the others are done."""
    places = {path: number for number, path in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(LONG)))


def or_skip(get: Callable[..., Any], *arguments: Any) -> Any:
    """Return a part of the lab, or skip the test with the reason why this machine has none."""
    try:
        return get(*arguments)
    except LabUnavailable as why:
        pytest.skip(f"{NOT_RUN}{why}")


@pytest.fixture(scope="session")
def lab() -> str:
    """Return the folder of everything that the lab keeps."""
    return store.LAB


@pytest.fixture(scope="session")
def each_python(request: pytest.FixtureRequest) -> Python:
    """Return the interpreters that the package has to work with, in turn."""
    python: Python = or_skip(pythons.get, request.param)
    return python


@pytest.fixture(scope="session")
def each_python_or_debians(request: pytest.FixtureRequest) -> Python:
    """Return those and always Debian's, in turn."""
    python: Python = or_skip(pythons.get, request.param)
    return python


@pytest.fixture(scope="session")
def each_build(request: pytest.FixtureRequest) -> Python:
    """Return PyPy; where every interpreter is asked for, a debug build and a free-threaded one, too."""
    python: Python = or_skip(pythons.get, request.param)
    return python


@pytest.fixture(scope="session")
def main_python() -> Python:
    """Return one interpreter that is not Debian's, where there is another."""
    python: Python = or_skip(pythons.main)
    return python


@pytest.fixture(scope="session")
def strace() -> str:
    """Return the program, as commands in the machine see it."""
    or_skip(apt.ensure, "strace")
    return str(apt.find("strace"))


@pytest.fixture(scope="session")
def wheel() -> str:
    """Return this project's wheel, built from the present sources."""
    return str(or_skip(wheels.project_wheel))


@pytest.fixture(scope="session")
def wheelhouse() -> str:
    """Return a folder with the wheels of the packages in the test image, and of our dependencies, for Python 3.11."""
    return str(or_skip(wheels.wheelhouse))


@pytest.fixture(scope="session")
def sif() -> str:
    """Return the test image, with the present sif-writable."""
    return str(or_skip(image.sif))


@pytest.fixture(scope="session")
def sandbox_without() -> str:
    """Return the same image without sif-writable, as a sandbox folder."""
    return str(or_skip(image.without_sif_writable))


@pytest.fixture
def places() -> Iterator[Scratch]:
    """Make empty writable places for this test's machine: HOME, /tmp, /var/tmp, /dev/shm and a working directory."""
    with scratch.fresh() as fresh:
        yield fresh


@pytest.fixture(scope="session")
def apptainer_runtime() -> Runtime:
    """Return the Apptainer of this machine or of the lab."""
    runtime: Runtime = or_skip(apptainer_root.find)
    return runtime


@pytest.fixture
def apptainer(apptainer_runtime: Runtime, places: Scratch) -> Apptainer:
    """Return Apptainer as an ordinary user with empty places."""
    return Apptainer(apptainer_runtime, places)


@pytest.fixture(scope="session")
def slurm() -> Iterator[Cluster]:
    """Return a real Slurm of several virtual nodes, which run Apptainer."""
    with contextlib.ExitStack() as stack:
        yield or_skip(stack.enter_context, slurm_cluster.running())


@pytest.fixture(scope="session")
def squashfs_image(sif: str) -> str:
    """Return the test image's filesystem for the kernel to mount."""
    return str(or_skip(image.squashfs, sif))


@pytest.fixture
def squashfs_root(squashfs_image: str, places: Scratch) -> SquashfsRoot:
    """Return the test image, mounted by the kernel, everything root's; with empty places."""
    return SquashfsRoot(squashfs_image, places)


@pytest.fixture(scope="session")
def readonly_venv() -> str:
    """Return the virtual environment of `readonly_root`."""
    return str(or_skip(readonly_root.venv))


@pytest.fixture
def readonly(readonly_venv: str, places: Scratch) -> ReadonlyRoot:
    """Return this machine's own root, shown read-only; with empty places."""
    return ReadonlyRoot(readonly_venv, places)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None, None, None]:
    """Say in the last lines, after pytest's own summary, what was not run, all of it, and why."""
    yield
    reasons: Counter[str] = Counter()
    for report in terminalreporter.getreports("skipped"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        why = reason.partition("Skipped: ")[2] or reason
        reasons[why.partition(NOT_RUN)[2] or why] += 1
    if reasons:
        terminalreporter.write_line(f"{NOT_RUN}{_tests(sum(reasons.values()))}", yellow=True)
    for why, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
        terminalreporter.write_line(f"  {_tests(count)}: {why}", yellow=True)
    config = terminalreporter.config
    if config.args_source == config.ArgsSource.TESTPATHS:
        left_out = [flag for flag in FLAGS if not config.getoption(flag)]
        if left_out:
            terminalreporter.write_line(f"left out unless asked for: {', '.join(left_out)} (see --help)", yellow=True)


def _tests(count: int) -> str:
    return f"{count} test{'s' if count > 1 else ''}"
