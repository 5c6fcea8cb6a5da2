"""The GPUs in the status model, in the text, and as a check: a GPU is present, never "CUDA works"."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from sif_writable.errors import Problem
from sif_writable.gpu import ask, demands, diagnosis, signs
from sif_writable.gpu.check import declared
from sif_writable.gpu.cuda import highest_cuda, minimum_driver, numbers
from sif_writable.gpu.visible import VISIBLE, chosen

if TYPE_CHECKING:
    from sif_writable.gpu.ask import Nvml
    from sif_writable.gpu.signs import GpuEvidence
    from sif_writable.report.model import Device, Gpu


def gpus(*, required: bool = False) -> Gpu:
    """Ask for the GPUs, also where none is expected.

    :param required: take it as if SIF_WRITABLE_GPU said ``require``.
    """
    environ = dict(os.environ)
    if required:
        environ[demands.POLICY] = "require"
    demanded = demands.read(environ, declared())
    if required:
        demanded.said_by[demands.POLICY] = "--require-gpu is given"
    evidence = signs.gather(environ, sys.path)
    found = diagnosis.from_evidence(evidence, demanded)
    if found is None and demanded.policy == "off":
        fact = f"NVML was not asked, as {demanded.who(demands.POLICY)} says."
        found = diagnosis.Diagnosis(diagnosis.INFO, Problem("not-asked", fact))
    nvml = ask.Nvml()
    # Where the files say that NVML cannot be there, it is not asked; where they say that GPUs are hidden, it is.
    hidden = found is not None and found.problem.code == "hidden" and demanded.policy != "off"
    if found is None or (hidden and signs.has_gpu_node(evidence.nodes)):
        nvml = ask.ask(details=True, timeout=demanded.timeout)
        found = found or diagnosis.from_nvml(evidence, nvml, demanded)
    return {
        "cause": found.problem.code,
        "severity": found.severity,
        "fact": found.problem.text,
        "remedy": found.problem.remedy,
        "expected": demands.why_gpu_expected(evidence.nodes, environ, demanded, evidence.of_image) or None,
        "driver": nvml.driver or evidence.driver or None,
        "highest_cuda": nvml.cuda or highest_cuda(evidence.driver) or None,
        "image_cuda": evidence.cuda or None,
        "image_cuda_from": evidence.cuda_from or None,
        "runs_image_cuda": _runs_image_cuda(evidence, nvml),
        "unknown": nvml.details_error or None,
        "settings": [
            f"{name}={value[:80]!r} is not understood and counts as unset; allowed: {forms}"
            for name, value, forms in demanded.not_understood
        ],
        "devices": _devices(nvml, environ),
        "policy": demanded.policy,
        "demanded": dict(demanded.values),
    }


def _runs_image_cuda(evidence: GpuEvidence, nvml: Nvml) -> bool | None:
    driver = nvml.driver or evidence.driver
    needed = minimum_driver(evidence.cuda) if evidence.cuda else ""
    if not driver or not needed:
        return None
    return numbers(driver) >= numbers(needed)


def _devices(nvml: Nvml, environ: dict[str, str]) -> list[Device]:
    visible = {found.index for found, _ in chosen(environ, nvml.gpus)[0]}
    by_uuid = environ.get(VISIBLE, "").startswith(("GPU-", "MIG-"))
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
