"""Is the GPU there that somebody expects? Asked once per process tree, and remembered in one variable of ours.

The import hook calls :func:`enforce`. Where nobody expects a GPU that reads the environment and ``/dev``, and loads no
more than that takes; NVML is asked only where files do not say enough (:mod:`sif_writable.gpu.signs`).
"""

from __future__ import annotations

import os
import sys
from _thread import allocate_lock

from sif_writable.gpu import cuda, demands, signs
from sif_writable.gpu.visible import VISIBLE, gpus_to_query
from sif_writable.identity import PURELIB
from sif_writable.session import GPU_CHECKED
from sif_writable.system import manifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Mapping, MutableMapping

    from sif_writable.errors import Problem
    from sif_writable.gpu.demands import Demands
    from sif_writable.gpu.diagnosis import Diagnosis

RECORD = GPU_CHECKED
"""The answer, for this process tree: ``KEY|CODE|SEVERITY|TEXT|REMEDY``. The key says what was asked, so that a child
on another node, in another container or with other visible devices asks anew."""

ONLY_WITH = {"onnxruntime": "onnxruntime_gpu-"}
"""Modules that want a GPU only where a distribution is installed whose ``.dist-info`` folder starts so; the build for
CPUs has the same name."""

NO_DECLARATION: Mapping[str, str] = {}

_locks: dict[int, LockType] = {}
"""By pid: a lock that another thread held while this process was forked is never released here."""


def check(
    trigger: str, environ: MutableMapping[str, str], image: Mapping[str, str] = NO_DECLARATION
) -> Diagnosis | None:
    """Return what is found about the GPUs, or None where nobody expects one or ``SIF_WRITABLE_GPU=off``.

    Threads that come at once wait for the first one. NVML is shut down and its process is gone before this returns.

    :param trigger: the module that is about to be imported.
    :param environ: os.environ, in which the answer is recorded.
    :param image: SIF_WRITABLE_GPU* as the image declares them; the environment wins.
    """
    return _check(trigger, environ, image)[0]


def enforce(trigger: str, environ: MutableMapping[str, str], image: Mapping[str, str] = NO_DECLARATION) -> None:
    """Check; say on stderr, in two lines and once per process tree, what stands between the job and its GPU.

    :raises GpuUnavailableError: under ``SIF_WRITABLE_GPU=require``, at each call, where no GPU meets the demands. Each
        time that it ends the process, the two lines are written.
    """
    found, fresh = _check(trigger, environ, image)
    if found is None:
        return
    from sif_writable.gpu.diagnosis import FAIL, INFO, OK

    if found.severity in (OK, INFO):
        return
    if found.severity == FAIL and demands.read(environ, image).required:
        from sif_writable.errors import GpuUnavailableException, GpuUnavailableExit, somebody_waits

        kind = GpuUnavailableException if somebody_waits() else GpuUnavailableExit
        if fresh or kind is GpuUnavailableExit:
            warn(trigger, found.problem)
        raise kind(found.problem, trigger)
    if fresh:
        warn(trigger, found.problem)


def warn(trigger: str, problem: Problem) -> None:
    """Write two lines on stderr: what is missing before a module is imported, and the remedy."""
    from sif_writable import stderr

    stderr.say([f"before 'import {trigger}': {problem.text}", f"remedy: {problem.remedy}"])


def declared() -> Mapping[str, str]:
    """Return the demands that the image declares in its manifest, as ``SIF_WRITABLE_GPU*`` variables."""
    return manifest.demands(manifest.read(PURELIB))


def _check(trigger: str, environ: MutableMapping[str, str], image: Mapping[str, str]) -> tuple[Diagnosis | None, bool]:
    """Return the answer, and whether it is new to this process tree."""
    demanded = demands.read(environ, image)
    of_image = signs.set_by_image(environ)
    expected = demanded.not_understood or demands.why_gpu_expected(signs.nodes(), environ, demanded, of_image)
    if demanded.policy == "off" or not expected:
        return None, False
    if trigger in ONLY_WITH and not cuda.has_distribution(ONLY_WITH[trigger], sys.path):
        return None, False
    # Bounded, so that a thread that is itself stuck elsewhere cannot hold up the others for ever.
    lock = _locks.setdefault(os.getpid(), allocate_lock())
    locked = lock.acquire(timeout=demanded.timeout + 5)
    try:
        key = _key(environ, demanded)
        known = _recorded(environ.get(RECORD, ""), key)
        if known:
            return known, False
        found = examine(trigger, environ, demanded)
        code, text, remedy = found.problem
        environ[RECORD] = "|".join((key, code, found.severity, text.replace("|", "/"), remedy))
        return found, True
    finally:
        if locked:
            lock.release()


def examine(trigger: str, environ: Mapping[str, str], demanded: Demands) -> Diagnosis:
    """Ask about the GPUs now, whatever was recorded before.

    :param trigger: the package whose CUDA version matters most, or an empty string.
    """
    from sif_writable.gpu import ask, diagnosis

    evidence = signs.gather(environ, sys.path, trigger.partition(".")[0])
    found = diagnosis.from_evidence(evidence, demanded)
    # NVIDIA's library makes the device files that are missing, where it may (seen with driver 580 on an H200).
    may_appear = found is not None and found.problem.code == "contained" and signs.can_make_nodes()
    if found is None or may_appear:
        details = demands.needs_details(environ, demanded)
        nvml = ask.ask(gpus_to_query(environ), details=details, timeout=demanded.timeout)
        if found is None or nvml.gpus:
            found = diagnosis.from_nvml(evidence, nvml, demanded)
    return diagnosis.with_settings(found, demanded)


def _key(environ: Mapping[str, str], demanded: Demands) -> str:
    """Return eight hexadecimal digits that differ where the answer may differ."""
    from binascii import crc32

    names = ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER", "LD_LIBRARY_PATH", "NVIDIA_VISIBLE_DEVICES")
    slurm = [name for name in sorted(environ) if name.startswith(("SLURM_GPUS", "SLURM_JOB_GPUS", "SLURM_STEP_GPUS"))]
    values = [f"{name}={environ.get(name)}" for name in (VISIBLE, *names, *slurm)]
    asked = [f"{name}={value}" for name, value in demanded.values.items()]
    asked += [f"{name}={value}" for name, value, _ in demanded.not_understood]
    text = "\n".join([os.uname().nodename, *values, demanded.policy, *sorted(asked)])
    return f"{crc32(text.encode('utf-8', 'surrogateescape')):08x}"


def _recorded(record: str, key: str) -> Diagnosis | None:
    fields = record.split("|", 4)
    if len(fields) != 5 or fields[0] != key:
        return None
    from sif_writable.errors import Problem
    from sif_writable.gpu.diagnosis import Diagnosis

    _, code, severity, text, remedy = fields
    return Diagnosis(severity, Problem(code, text, remedy))
