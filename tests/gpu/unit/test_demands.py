"""The demands of a job and an image, and what leads to expect a GPU."""

from __future__ import annotations

import pytest

from sif_writable import sizes
from sif_writable.gpu import demands, diagnosis, signs
from tests.gpu.unit.answers import card, diagnose, evidence, nvml

SECONDS = "seconds above 0 and up to a day, such as 10"


@pytest.mark.parametrize(
    ("variable", "value", "forms"),
    [
        ("SIF_WRITABLE_GPU", "yes", "auto, require, warn, off"),
        ("SIF_WRITABLE_GPU_COUNT", "-1", "a whole number such as 2"),
        ("SIF_WRITABLE_GPU_MIN_MEMORY", "big", sizes.FORMS),
        ("SIF_WRITABLE_GPU_MIN_CAPABILITY", "sm_80", "a version such as 8.0"),
        *(("SIF_WRITABLE_GPU_TIMEOUT", value, SECONDS) for value in ("0", "-1", "inf", "nan", "1e3", "9" * 12, ".")),
        *(("SIF_WRITABLE_GPU_TIMEOUT", value, SECONDS) for value in ("9" * 400, "86400.5", "1.", "\u0663")),
        *(("SIF_WRITABLE_GPU_COUNT", value, "a whole number such as 2") for value in ("2.5", "inf", "9" * 5000)),
        *(("SIF_WRITABLE_GPU_COUNT", value, "a whole number such as 2") for value in ("\u0663", "1 2", "+1", "0x2")),
        *(("SIF_WRITABLE_GPU_MIN_CAPABILITY", value, "a version such as 8.0") for value in ("8.", "9" * 5000, "-8.0")),
    ],
)
def test_a_demand_that_is_not_understood_is_named_and_counts_as_unset(variable: str, value: str, forms: str) -> None:
    wanted = demands.read({variable: f" {value} "}, {})
    assert wanted.not_understood == [(variable, value[:80], forms)]
    unset = demands.read({}, {})
    for name in ("policy", "count", "memory", "capability", "timeout", "values"):
        assert getattr(wanted, name) == getattr(unset, name)
    assert not demands.why_gpu_expected((), {variable: value}, wanted, frozenset())
    found = diagnose(evidence(), nvml(card()), wanted)
    assert (found.problem.code, found.severity) == ("bad-setting", "warn")


def test_the_environment_wins_over_the_image() -> None:
    image = {"SIF_WRITABLE_GPU": "require", "SIF_WRITABLE_GPU_COUNT": "4", "SIF_WRITABLE_GPU_MIN_CAPABILITY": "8"}
    environ = {"SIF_WRITABLE_GPU": "Warn", "SIF_WRITABLE_GPU_COUNT": "", "SIF_WRITABLE_GPU_TIMEOUT": "2.5"}
    wanted = demands.read(environ, image)
    assert (wanted.policy, wanted.count, wanted.capability, wanted.timeout) == ("warn", 4, (8, 0), 2.5)
    assert not wanted.not_understood


@pytest.mark.parametrize(
    ("nodes", "environ", "image", "who"),
    [
        ((), {}, {}, ""),
        (("nvidiactl",), {}, {}, "/dev/nvidiactl"),
        (("dxg", "kfd"), {}, {}, ""),
        (("nvidia-uvm",), {}, {}, ""),
        ((), {"SLURM_JOB_GPUS": "0"}, {}, "SLURM_JOB_GPUS=0"),
        ((), {"SLURM_JOB_GPUS": ""}, {}, ""),
        ((), {"SLURM_JOB_GPUS": "2"}, {}, "SLURM_JOB_GPUS=2"),
        ((), {"SLURM_GPUS_ON_NODE": "1"}, {}, "SLURM_GPUS_ON_NODE=1"),
        ((), {"SLURM_GPUS_PER_TASK": "0"}, {}, ""),
        ((), {"CUDA_VISIBLE_DEVICES": "0"}, {}, "CUDA_VISIBLE_DEVICES=0"),
        ((), {"CUDA_VISIBLE_DEVICES": "-1"}, {}, ""),
        ((), {"CUDA_VISIBLE_DEVICES": ""}, {}, ""),
        ((), {"NVIDIA_VISIBLE_DEVICES": "all"}, {}, "NVIDIA_VISIBLE_DEVICES=all"),
        ((), {"NVIDIA_VISIBLE_DEVICES": "void"}, {}, ""),
        ((), {}, {"SIF_WRITABLE_GPU": "require"}, "the image declares gpu: require"),
        ((), {"SIF_WRITABLE_GPU": "require"}, {"SIF_WRITABLE_GPU": "warn"}, "SIF_WRITABLE_GPU=require"),
        ((), {}, {"SIF_WRITABLE_GPU": "auto"}, ""),
        ((), {"SIF_WRITABLE_GPU": "auto"}, {"SIF_WRITABLE_GPU": "require"}, ""),
        ((), {}, {"SIF_WRITABLE_GPU_COUNT": "2"}, "the image declares gpu-count: 2"),
        ((), {}, {"SIF_WRITABLE_GPU_MIN_MEMORY": "2G"}, "the image declares gpu-min-memory: 2G"),
    ],
)
def test_who_expects_a_gpu(nodes: tuple[str, ...], environ: dict[str, str], image: dict[str, str], who: str) -> None:
    assert demands.why_gpu_expected(nodes, environ, demands.read(environ, image), frozenset()) == who


@pytest.mark.parametrize("variable", ["CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"])
def test_what_the_image_sets_is_no_expectation_of_the_job(variable: str) -> None:
    environ = {variable: "all"}
    wanted = demands.read(environ, {})
    assert not demands.why_gpu_expected((), environ, wanted, frozenset([variable]))
    assert demands.why_gpu_expected(("nvidiactl",), environ, wanted, frozenset([variable])) == "/dev/nvidiactl"


@pytest.mark.parametrize(
    ("environ", "image", "option", "clause"),
    [
        ({"SIF_WRITABLE_GPU": "require"}, {}, "", "SIF_WRITABLE_GPU=require is set"),
        ({}, {"SIF_WRITABLE_GPU": "require"}, "", "the image declares gpu: require"),
        ({"SIF_WRITABLE_GPU": "require"}, {}, "--require-gpu is given", "--require-gpu is given"),
        ({"SLURM_GPUS": "2"}, {}, "", "SLURM_GPUS=2 is set"),
    ],
)
def test_the_message_says_who_demands_a_gpu(
    environ: dict[str, str], image: dict[str, str], option: str, clause: str
) -> None:
    wanted = demands.read(environ, image)
    if option:
        wanted.said_by["SIF_WRITABLE_GPU"] = option
    found = diagnosis.from_evidence(signs.gather(environ, (), root="/nonexistent"), wanted)
    assert found is not None
    assert found.problem.text.endswith(f", although {clause}.")
