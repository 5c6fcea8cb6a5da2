"""The GPUs in the status model, in the text, and as a check: a GPU is present, never "CUDA works"."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from sif_writable.gpu import diagnosis
from sif_writable.gpu import signs as gpu
from sif_writable.gpu.check import declared

if TYPE_CHECKING:
    from sif_writable.gpu.diagnosis import Demands
    from sif_writable.gpu.signs import Nvml, Signs


def gpus(*, required: bool = False) -> dict[str, Any]:
    """Ask for the GPUs, whoever expects one or not.

    :param required: take it as if SIF_WRITABLE_GPU said ``require``.
    :returns: keys cause, severity (``ok``, ``info``, ``warn``, ``fail``), fact, remedy, expected, driver,
        highest_cuda, image_cuda, image_cuda_from, runs_image_cuda (None where not known), unknown (why names, memory
        and the like could not be read), settings (values that are not understood), and devices: a list of index,
        name, uuid, memory_total and memory_free in bytes, capability, mig, compute_mode, visible (None where not
        known), problem.
    """
    environ = dict(os.environ)
    if required:
        environ[diagnosis.POLICY] = "require"
    wanted = diagnosis.demands(environ, declared())
    signs = gpu.signs(environ, sys.path)
    cause = diagnosis.from_signs(signs, wanted)
    nvml = gpu.Nvml()
    # Where the files say that NVML cannot be there, it is not asked; where they say that GPUs are hidden, it is.
    if cause is None or (diagnosis.has_gpu_node(signs.nodes) and cause.cause == "hidden"):
        nvml = gpu.ask(details=True, timeout=wanted.timeout)
        cause = cause or diagnosis.from_nvml(signs, nvml, wanted)
    cause = diagnosis.with_settings(cause, wanted)
    return {
        "cause": cause.cause,
        "severity": cause.severity,
        "fact": cause.fact,
        "remedy": cause.remedy,
        "expected": diagnosis.promise(signs.nodes, environ, wanted) or None,
        "driver": nvml.driver or signs.driver or None,
        "highest_cuda": nvml.cuda or diagnosis.highest_cuda(signs.driver) or None,
        "image_cuda": signs.cuda or None,
        "image_cuda_from": signs.cuda_from or None,
        "runs_image_cuda": _runs_image_cuda(signs, nvml),
        "unknown": nvml.blind or None,
        "settings": [
            f"{name}={value[:80]!r} is not understood and counts as unset; allowed: {forms}"
            for name, value, forms in wanted.problems
        ],
        "devices": _devices(nvml, environ),
        "policy": wanted.policy,
        "demanded": _demanded(wanted),
    }


def _runs_image_cuda(signs: Signs, nvml: Nvml) -> bool | None:
    driver = nvml.driver or signs.driver
    needed = diagnosis.minimum_driver(signs.cuda) if signs.cuda else ""
    if not driver or not needed:
        return None
    return diagnosis.numbers(driver) >= diagnosis.numbers(needed)


def _devices(nvml: Nvml, environ: dict[str, str]) -> list[dict[str, Any]]:
    visible = {found.index for found, _ in diagnosis.chosen(environ, nvml.gpus)[0]}
    by_uuid = environ.get(diagnosis.VISIBLE, "").startswith(("GPU-", "MIG-"))
    return [
        {
            "index": found.index,
            "name": found.name or None,
            "uuid": found.uuid or None,
            "memory_total": found.total,
            "memory_free": found.free,
            "capability": ".".join(map(str, found.capability)) if found.capability else None,
            "mig": [instance.uuid for instance in found.instances] if found.mig else None,
            "compute_mode": found.mode or None,
            "visible": None if by_uuid and not found.uuid else found.index in visible,
            "problem": found.text if found.code else None,
        }
        for found in nvml.gpus
    ]


def _demanded(wanted: Demands) -> dict[str, str]:
    return dict(wanted.said)
