"""Which cases are replayed, and their replays, made once and looked at by several tests."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.conftest import or_skip
from tests.corpus import cases, images
from tests.corpus.replay import (
    FRAMEWORK_PROFILES,
    PROFILES,
    KernelMachine,
    SifMachine,
    replay,
    replay_by_copies,
    replay_on_writable_root,
    replay_without_hook,
)
from tests.lab import apptainer_root, image, scratch
from tests.lab.apptainer_root import Apptainer
from tests.lab.squashfs_root import SquashfsRoot

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.corpus.cases import Case
    from tests.corpus.replay import Replay

CASES = cases.load()
FRAMEWORKS = cases.frameworks()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give every test of a case all cases; what is not asked for is deselected, and reported."""
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", CASES, ids=[case.name for case in CASES], scope="module", indirect=True)
    if "profile" in metafunc.fixturenames:
        metafunc.parametrize("profile", PROFILES)
    if "framework" in metafunc.fixturenames:
        ids = [case.name for case in FRAMEWORKS]
        metafunc.parametrize("framework", FRAMEWORKS, ids=ids, scope="module", indirect=True)
    if "framework_profile" in metafunc.fixturenames:
        metafunc.parametrize("framework_profile", FRAMEWORK_PROFILES)
    if "kernel_profile" in metafunc.fixturenames:
        metafunc.parametrize("kernel_profile", _kernel_profiles(metafunc.config))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what takes minutes and what this project cannot do yet, unless it is asked for."""
    left_out = [item for item in items if (case := _case_of(item)) and _why_not(case, config)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which cases were not replayed, and how to replay them."""
    if not any("tests/corpus" in str(report.nodeid) for report in terminalreporter.getreports("")):
        return
    reasons: dict[str, list[str]] = {}
    for case in CASES:
        if why := _why_not(case, config):
            reasons.setdefault(why, []).append(case.name)
    for why, names in reasons.items():
        terminalreporter.write_line(f"not run: cases of tests/corpus that {why}: {', '.join(names)}")


def _kernel_profiles(config: pytest.Config) -> Sequence[str]:
    """Return the profiles on the kernel mount: what differs between them is what Apptainer shows as well."""
    return PROFILES if config.getoption("all_corpus") else PROFILES[:1]


def _case_of(item: pytest.Item) -> Case | None:
    parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    case = parameters.get("case") or parameters.get("framework")
    return case if isinstance(case, cases.Case) else None


def _why_not(case: Case, config: pytest.Config) -> str:
    if case in FRAMEWORKS:
        return "" if config.getoption("frameworks") else "are large frameworks (--frameworks)"
    if case.means not in config.getoption("corpus_means").split(","):
        return f"need {case.means} (--corpus-means={','.join(cases.MEANS)})"
    if not case.light and not config.getoption("all_corpus"):
        return "take minutes (--all-corpus)"
    return ""


class Replays:
    """A case, per machine and profile: futures, so that one test waits for what it looks at."""

    def __init__(self, case: Case, sif: str, kernel_profiles: Sequence[str], pool: ThreadPoolExecutor) -> None:
        """Start all replays, each in fresh places."""
        self._case = case
        self._sif = sif
        self.in_sif = {profile: pool.submit(self._in_sif, profile) for profile in PROFILES}
        self.on_kernel_mount = {profile: pool.submit(self._on_kernel_mount, profile) for profile in kernel_profiles}
        self.without_hook = pool.submit(self._in_sif_without_hook, PROFILES[0])

    def _in_sif(self, profile: str) -> Replay:
        with scratch.fresh() as places:
            return replay(self._case, profile, SifMachine(Apptainer(apptainer_root.find(), places), self._sif))

    def _in_sif_without_hook(self, profile: str) -> Replay:
        with scratch.fresh() as places:
            machine = SifMachine(Apptainer(apptainer_root.find(), places), self._sif)
            return replay_without_hook(self._case, profile, machine)

    def _on_kernel_mount(self, profile: str) -> Replay:
        with scratch.fresh() as places:
            return replay_by_copies(self._case, profile, KernelMachine(SquashfsRoot(image.squashfs(self._sif), places)))


@pytest.fixture(scope="module")
def case(request: pytest.FixtureRequest) -> Case:
    """Return each selected case in turn."""
    chosen: Case = request.param
    return chosen


@pytest.fixture(scope="session")
def sifs() -> dict[str, str]:
    """Keep the images of this run: they stay as they are when the code changes meanwhile."""
    return {}


@pytest.fixture(scope="module")
def framework(request: pytest.FixtureRequest) -> Case:
    """Return each selected framework in turn."""
    chosen: Case = request.param
    return chosen


@pytest.fixture(scope="module")
def framework_sif(framework: Case, sifs: dict[str, str]) -> str:
    """Return the image with all cases of the framework's environment."""
    name = f"frameworks-{framework.environment}"
    if name not in sifs:
        sifs[name] = or_skip(images.frameworks, framework.environment)
    return sifs[name]


@pytest.fixture(scope="module")
def healthy(framework: Case, framework_sif: str) -> Replay:
    """Replay a framework on a writable root, without the hook."""
    with scratch.fresh() as places:
        return replay_on_writable_root(framework, SifMachine(Apptainer(apptainer_root.find(), places), framework_sif))


@pytest.fixture(scope="module")
def replays(case: Case, sifs: dict[str, str], pytestconfig: pytest.Config) -> Iterator[Replays]:
    """Replay a case everywhere. The light ones share an image, the others have one each."""
    name = "light" if case.light else case.environment.replace(".", "")
    if name not in sifs:
        together = [one for one in CASES if one.light == case.light and not _why_not(one, pytestconfig)]
        if not case.light:
            together = [one for one in together if one.environment == case.environment]
        sifs[name] = or_skip(images.sif, name, together)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield Replays(case, sifs[name], _kernel_profiles(pytestconfig), pool)
        pool.shutdown(cancel_futures=True)
