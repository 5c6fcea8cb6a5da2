"""Sessions: what is handed down, for which wishes of the user it holds, and how it is taken back."""

from __future__ import annotations

from itertools import starmap

import pytest

from sif_writable import child, session
from sif_writable.redirects import decide
from sif_writable.redirects.beside import CARRIED
from sif_writable.redirects.catalog import OPT_IN, ROWS
from sif_writable.redirects.remember import Asked
from sif_writable.session import was_set
from sif_writable.storage import candidates
from sif_writable.storage.chosen import needs_runtime
from tests.lab.decisions import HOME_WORKS, make_facts, make_storage

SET = [
    ("NUMBA_CACHE_DIR", "/s/numba", None),
    ("PYTENSOR_FLAGS", "device=cpu,base_compiledir=/s/pytensor", "device=cpu"),
    ("CELLPOSE_LOCAL_MODELS_PATH", "/outside/storage", None),
    ("HF_HOME", "/s/data/hf", None),
    ("HOME", "/s/home", "/root"),
    ("TMPDIR", "/t/run/tmp", None),
    ("USER", "uid1000", None),
    ("SIF_WRITABLE_HEAVY", "mine,,of.the.image,another", "mine"),
    ("SIF_WRITABLE_OVERLAY_PATHS", "::/of/the/image", None),
]


def test_a_session_of_another_container_is_taken_back() -> None:
    environ = {
        "SIF_WRITABLE_SESSION": f"2;token;{','.join(starmap(was_set, SET))};inputs;/s:/t",
        "SIF_WRITABLE_HEAVY": "mine,,of.the.image,another",
        "SIF_WRITABLE_OVERLAY_PATHS": "::/of/the/image",
        "NUMBA_CACHE_DIR": "/s/numba",
        "CELLPOSE_LOCAL_MODELS_PATH": "/outside/storage",
        "PYTENSOR_FLAGS": "device=cpu,base_compiledir=/s/pytensor",
        "HF_HOME": "/changed/by/the/program",
        "HOME": "/s/home",
        "HF_HUB_CACHE": "/s/data/hub",
        **{session.OLD + name: before for name, _, before in SET if before is not None},
        "TMPDIR": "/t/run/tmp",
        "USER": "uid1000",
        "SIF_WRITABLE_REFUSED": "x",
        "PATH": "/bin",
    }
    session.forget(environ)
    assert environ == {
        "SIF_WRITABLE_HEAVY": "mine",
        "PYTENSOR_FLAGS": "device=cpu",
        "HF_HOME": "/changed/by/the/program",
        "HF_HUB_CACHE": "/s/data/hub",
        "HOME": "/root",
        "PATH": "/bin",
    }


@pytest.mark.parametrize(
    "damaged", ["", ";", "2;2", "2;t;;", "2;t;A=,B;;relative", "2;t;A=1+,B==,,=+;;/x", "\n;;;;/x", "x" * 100_000]
)
def test_a_broken_session_is_harmless(damaged: str) -> None:
    environ = {"SIF_WRITABLE_SESSION": damaged, "A": "relative/x", "PATH": "/bin"}
    session.forget(environ)
    assert environ == {"A": "relative/x", "PATH": "/bin"}


def _asked() -> set[str]:
    """Return each variable that a decision asks for."""
    asked = Asked({"SIF_WRITABLE_OPT_IN": " ".join(row[0] for row in OPT_IN)})
    for facts in (make_facts(), make_facts(home="", home_problem="is empty")):
        list(candidates.places(facts, asked))
        needs_runtime(facts, make_storage(), asked)
        decide.decide(facts, make_storage(), HOME_WORKS, asked)
    return asked.names


OF_ROWS = {name for row in (*ROWS, *OPT_IN) for name in (row[0], *row[4])} | {row[1] for row in CARRIED}
DO_NOT_DECIDE = {
    *("SIF_WRITABLE_STRICT", "SIF_WRITABLE_DEBUG", "SIF_WRITABLE_OVERLAY", "SIF_WRITABLE_KEEP"),
    *("SLURM_TMPDIR", "KUBERNETES_SERVICE_HOST"),
}
"""Asked for to name values that are not understood, by the layer at each use, and by place: one node, one pod."""


def test_each_variable_that_decides_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in sorted((_asked() | OF_ROWS | {"USER", "LOGNAME"}) - DO_NOT_DECIDE):
        monkeypatch.delenv(name, raising=False)
        seen = {child.inputs()}
        for value in ("", "/x", "/x\udcff"):
            monkeypatch.setenv(name, value)
            seen.add(child.inputs())
        assert len(seen) == 4, name


@pytest.mark.parametrize("name", ["PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "PWD", "SHLVL", "SLURM_JOB_ID", "_"])
def test_what_differs_between_any_two_processes_is_not(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = child.inputs()
    monkeypatch.setenv(name, "something else")
    assert child.inputs() == before
