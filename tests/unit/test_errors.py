"""What is wrong, as data, also between processes."""

from __future__ import annotations

import pickle

from sif_writable.errors import (
    GpuUnavailableError,
    GpuUnavailableException,
    GpuUnavailableExit,
    Problem,
    SifWritableError,
)


def test_the_error_carries_the_problem_between_processes() -> None:
    problem = Problem("no-gpu", "There is none.", "Take one.")
    for kind in (GpuUnavailableError, GpuUnavailableExit, GpuUnavailableException):
        error = pickle.loads(pickle.dumps(kind(problem, "torch")))  # noqa: S301
        assert type(error) is kind
        assert str(error) == "There is none.\nTake one."
        assert (error.name, error.problem, type(error.problem)) == ("torch", problem, Problem)
        assert ImportError not in kind.__mro__
        assert isinstance(error, SifWritableError) == isinstance(error, Exception) == (kind is GpuUnavailableException)
        assert (getattr(error, "code", None) == 1) == isinstance(error, SystemExit) == (kind is GpuUnavailableExit)


def test_a_problem_is_its_three_parts() -> None:
    problem = Problem("no-gpu", "There is none.", "Take one.")
    assert (problem.code, problem.text, problem.remedy) == tuple(problem)
    assert str(problem) == "There is none. Remedy: Take one."
    assert str(Problem("no-gpu", "There is none.")) == "There is none."
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(problem, protocol)) == problem  # noqa: S301
