"""Variables of the user that lead nowhere: which they are, and who sent a program to a path."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from sif_writable import SESSION
from sif_writable.copies import policy
from sif_writable.redirects import given
from sif_writable.redirects.catalog import OPT_IN, ROWS
from sif_writable.session import was_set
from sif_writable.system.timeouts import TIMED_OUT

if TYPE_CHECKING:
    from pathlib import Path

NOWHERE = "/proc/not-bound/mine"
"""Where nobody can make anything, root included."""


def value(shape: str) -> str:
    return {
        "flags": f"device=cpu,base_compiledir={NOWHERE}",
        "comma_list": f"{NOWHERE},{NOWHERE}/pkgs",
        "path_list_open": f"{NOWHERE}:",
    }.get(shape, NOWHERE)


@pytest.fixture(autouse=True)
def _nobody_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer root, too, that /proc cannot be written, as an ordinary user is answered."""
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != "/proc" and access(path, mode))


def test_each_variable_that_leads_nowhere_is_named_with_what_to_bind() -> None:
    for name, shape in given.known().items():
        (found,) = given.listed({name: value(shape)})
        assert (found.variable, found.problem) == (name, "does not exist here and cannot be made")
        assert found.remedy == f"bind it (--bind /proc/not-bound), or unset {name}"
        assert found.level == ("info" if name == "XDG_RUNTIME_DIR" else "warn"), name


def test_rows_aliases_and_parents_are_known() -> None:
    known = given.known()
    assert {row.variable for row in (*ROWS, *OPT_IN) if row.shape != "value"} <= set(known)
    parents = {"HF_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "TORCH_HOME", "HUGGINGFACE_HUB_CACHE"}
    others = {
        "CONDA_PKGS_DIRS",
        "CONDA_ENVS_DIRS",
        "PIP_CACHE_DIR",
        "R_LIBS_USER",
        "JULIA_DEPOT_PATH",
        "TRANSFORMERS_CACHE",
    }
    assert parents | others <= set(known)
    assert not {"PIP_NO_CACHE_DIR", "DGLBACKEND", "HOME", "SLURM_JOB_ID"} & set(known)


@pytest.mark.parametrize(
    ("variable", "text", "problem"),
    [
        ("HF_HOME", "{there}", ""),
        ("TORCH_HOME", "{there}", ""),
        ("TORCH_HOME", "{there}/new/below", ""),
        ("TORCH_HOME", "~/torch", ""),
        ("TORCH_HOME", "relative/path", ""),
        ("TORCH_HOME", "", ""),
        ("TORCH_HOME", "{file}", "is not a directory"),
        ("CONDARC", "{file}", ""),
        ("TORCH_HOME", "{dangling}", "is a link to what is not there"),
        ("R_LIBS", f"{NOWHERE}:{{there}}", ""),  # one of a list serves
        ("R_LIBS", f"{NOWHERE}:{NOWHERE}/2", "does not exist here and cannot be made"),
        ("PYTENSOR_FLAGS", "device=cpu", ""),
        ("PYTENSOR_FLAGS", f"compiledir={NOWHERE}/x", "does not exist here and cannot be made"),
    ],
)
def test_what_is_wrong_with_a_value(tmp_path: Path, variable: str, text: str, problem: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(NOWHERE)
    names = {"there": tmp_path, "file": tmp_path / "file", "dangling": tmp_path / "dangling"}
    (found,) = given.listed({variable: text.format(**names), "HOME": str(tmp_path)})
    assert (found.problem, bool(found.remedy)) == (problem, bool(problem))


def test_a_place_that_does_not_answer_is_not_the_users_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(given, "responds", lambda path: path != "/gone/torch")
    (found,) = given.listed({"TORCH_HOME": "/gone/torch"})
    assert found.problem == TIMED_OUT
    assert found.remedy == "see what holds up its server, or unset TORCH_HOME"


def test_what_this_package_has_set_is_not_the_users() -> None:
    assert given.listed({"TORCH_HOME": NOWHERE, "HF_HOME": "/"}, ours=["TORCH_HOME"])[0].variable == "HF_HOME"


@pytest.mark.parametrize(
    ("path", "environ", "names"),
    [
        ("/no/hf/hub/x", {"HF_HOME": "/no/hf", "SCRATCH": "/no"}, ["HF_HOME"]),
        ("/no", {"HF_HOME": "/no/hf", "TORCH_HOME": "/no/torch", "TMPDIR": "/tmp"}, ["TORCH_HOME", "HF_HOME"]),
        ("/no/hf", {"HF_HOME": "/no/hf"}, ["HF_HOME"]),
        ("/no/hf", {"HF_HOME": "/no/hf/"}, ["HF_HOME"]),
        ("/no/hfx", {"HF_HOME": "/no/hf"}, []),
        ("/no/x", {"MY_PROGRAMS_CACHE": "/no/x"}, ["MY_PROGRAMS_CACHE"]),
        ("/usr/new", {"SOME_INSTALLATION": "/usr"}, []),
        ("/usr/new", {"NUMBA_CACHE_DIR": "/usr"}, ["NUMBA_CACHE_DIR"]),
        ("/no/x", {"PWD": "/no/x", "PATH": "/no/x", "LD_LIBRARY_PATH": "/no", "SIF_WRITABLE_OLD_X": "/no"}, []),
        ("/no/x", {"NUMBA_CACHE_DIR": "/no/x", SESSION: f"2;t;{was_set('NUMBA_CACHE_DIR', '/no/x', None)};i;/no"}, []),
        ("/no/depot/x", {"JULIA_DEPOT_PATH": "/no/depot:"}, ["JULIA_DEPOT_PATH"]),
        ("/no/x", {"THEANO_FLAGS": "a=b,base_compiledir=/no/x"}, ["THEANO_FLAGS"]),
    ],
)
def test_who_sent_a_program_to_a_path(path: str, environ: dict[str, str], names: list[str]) -> None:
    assert given.sending(path, environ) == names


def test_on_a_mount_of_the_host_only_known_variables_count() -> None:
    environ = {"MY_PROGRAMS_CACHE": "/no/x", "HF_HOME": "/no/x"}
    assert given.sending("/no/x/y", environ, only_known=True) == ["HF_HOME"]


def test_the_sentence_names_the_variable_and_what_to_bind() -> None:
    environ = {"HF_HOME": "/no/hf", "TORCH_HOME": "/no/\ntorch"}
    words = policy.sent_words("/no cannot be written", given.words(environ, environ), environ, "/no")
    assert words.startswith(
        "/no cannot be written: HF_HOME=/no/hf and TORCH_HOME='/no/\\ntorch' lead there. Remedy: bind"
    )
    assert "--bind /no), or unset HF_HOME and TORCH_HOME" in words
    many = [f"V{number}" for number in range(5)]
    assert policy.sent_words("/no cannot be written", [f"{name}=/no" for name in many], many, "/no") == (
        "/no cannot be written: V0=/no, V1=/no, V2=/no and 2 more lead there. Remedy: bind that directory "
        "(apptainer exec --bind /no)."
    )
    assert "make that directory writable" in policy.sent_words("/no is full", ["HF_HOME=/no"], ["HF_HOME"], "")
