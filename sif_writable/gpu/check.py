"""The GPU check before a heavy import: asked once per process tree, told once, and remembered in one variable of ours.

The import hook calls :func:`enforce`. Where nobody expects a GPU that is a look at the environment and at ``/dev``;
NVML is asked only where files do not tell (:mod:`sif_writable.gpu.signs`).
"""

from __future__ import annotations

import os
import sys
from _thread import allocate_lock

from sif_writable.facts import manifest
from sif_writable.gpu import diagnosis
from sif_writable.gpu import signs as gpu
from sif_writable.startup import let_pass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Mapping, MutableMapping

    from sif_writable.gpu.diagnosis import Demands, Diagnosis

RECORD = "SIF_WRITABLE_GPU_CHECKED"
"""The answer, for this process tree: ``KEY|CAUSE|SEVERITY|FACT|REMEDY``. The key says what was asked, so that a child
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
    """Return what is to be said about the GPUs, or None where nobody expects one or ``SIF_WRITABLE_GPU=off``.

    Threads that come at once wait for the first one. NVML is shut down and its process is gone before this returns.

    :param trigger: the module that is about to be imported.
    :param environ: os.environ, in which the answer is recorded.
    :param image: SIF_WRITABLE_GPU* as the image declares them; the environment wins.
    """
    return _check(trigger, environ, image)[0]


def enforce(trigger: str, environ: MutableMapping[str, str], image: Mapping[str, str] = NO_DECLARATION) -> None:
    """Check; tell on stderr, in two lines and once per process tree, what stands between the job and its GPU.

    :raises GpuUnavailableError: under ``SIF_WRITABLE_GPU=require``, at each call, where no GPU meets the demands. Each
        time that it ends the process, the two lines are told.
    """
    found, fresh = _check(trigger, environ, image)
    if found is None or found.severity in (diagnosis.OK, diagnosis.INFO):
        return
    if found.severity == diagnosis.FAIL and diagnosis.demands(environ, image).required:
        from sif_writable.errors import GpuUnavailableException, GpuUnavailableExit, somebody_waits

        kind = GpuUnavailableException if somebody_waits() else GpuUnavailableExit
        if fresh or kind is GpuUnavailableExit:
            tell(trigger, found.fact, found.remedy)
        raise kind(found, trigger)
    if fresh:
        tell(trigger, found.fact, found.remedy)


def tell(trigger: str, fact: str, remedy: str) -> None:
    """Say on stderr, if there is one, what is missing before a module is imported."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(f"sif-writable: before 'import {trigger}': {fact}\nsif-writable: remedy: {remedy}\n")
        sys.stderr.flush()
    except (OSError, ValueError) as error:
        let_pass(error)  # closed: nobody listens


def declared() -> Mapping[str, str]:
    """Return the demands that the image declares in its manifest, as ``SIF_WRITABLE_GPU*`` variables."""
    return manifest.demands(manifest.read(__file__.rsplit("/", 3)[0]))


def _check(trigger: str, environ: MutableMapping[str, str], image: Mapping[str, str]) -> tuple[Diagnosis | None, bool]:
    """Return the answer, and whether it is new to this process tree."""
    wanted = diagnosis.demands(environ, image)
    if wanted.policy == "off" or not (wanted.problems or diagnosis.promise(gpu.nodes(), environ, wanted)):
        return None, False
    if trigger in ONLY_WITH and not gpu.has_distribution(ONLY_WITH[trigger], sys.path):
        return None, False
    # Bounded, so that a thread that is itself stuck elsewhere cannot hold up the others for ever.
    lock = _locks.setdefault(os.getpid(), allocate_lock())
    locked = lock.acquire(timeout=wanted.timeout + 5)
    try:
        key = _key(environ, wanted)
        known = _recall(environ.get(RECORD, ""), key)
        if known:
            return known, False
        found = examine(trigger, environ, wanted)
        words = (key, found.cause, found.severity, found.fact.replace("|", "/"), found.remedy)
        environ[RECORD] = "|".join(words)
        return found, True
    finally:
        if locked:
            lock.release()


def examine(trigger: str, environ: Mapping[str, str], wanted: Demands) -> Diagnosis:
    """Look at the GPUs now, whatever was recorded before.

    :param trigger: the package whose CUDA version matters most, or an empty string.
    """
    signs = gpu.signs(environ, sys.path, trigger.partition(".")[0])
    found = diagnosis.from_signs(signs, wanted)
    if found is None:
        details = diagnosis.needs_details(environ, wanted)
        nvml = gpu.ask(diagnosis.looked_at(environ), details=details, timeout=wanted.timeout)
        found = diagnosis.from_nvml(signs, nvml, wanted)
    return diagnosis.with_settings(found, wanted)


def _key(environ: Mapping[str, str], wanted: Demands) -> str:
    """Return eight hexadecimal digits that differ where the answer may differ."""
    from binascii import crc32

    names = ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER", "LD_LIBRARY_PATH", "NVIDIA_VISIBLE_DEVICES")
    slurm = [name for name in sorted(environ) if name.startswith(("SLURM_GPUS", "SLURM_JOB_GPUS", "SLURM_STEP_GPUS"))]
    values = [f"{name}={environ.get(name)}" for name in (diagnosis.VISIBLE, *names, *slurm)]
    said = [*map("=".join, wanted.said.items()), *(f"{name}={value}" for name, value, _ in wanted.problems)]
    text = "\n".join([os.uname().nodename, *values, wanted.policy, *sorted(said)])
    return f"{crc32(text.encode('utf-8', 'surrogateescape')):08x}"


def _recall(record: str, key: str) -> Diagnosis | None:
    words = record.split("|", 4)
    return diagnosis.Diagnosis(*words[1:]) if len(words) == 5 and words[0] == key else None
