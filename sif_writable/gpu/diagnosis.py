"""What is the one cause that keeps CUDA from a GPU, and its remedy? Pure.

NVML says that a GPU is present. Whether CUDA works on it is not known before CUDA is started, so no text here says so.
The order is that of the cost of asking, and the first cause found is the answer. The signs and their causes are from
NVIDIA's NVML reference (``nvmlReturn_t``), its CUDA Compatibility guide, and the issues that are named beside them.
"""

from __future__ import annotations

from sif_writable.errors import Problem
from sif_writable.gpu.cuda import highest_cuda, minimum_driver, numbers
from sif_writable.gpu.demands import COUNT, MIN_CAPABILITY, MIN_MEMORY, TIMEOUT, why_gpu_expected
from sif_writable.gpu.signs import has_gpu_node
from sif_writable.gpu.visible import NO_PERMISSION, VISIBLE, chosen, hidden, permitted
from sif_writable.gpu.wording import ask_for, device_files, elsewhere, gpus, like, permission
from sif_writable.sizes import count, human

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sif_writable.gpu.ask import Gpu, Nvml
    from sif_writable.gpu.demands import Demands
    from sif_writable.gpu.signs import GpuEvidence

OK, INFO, WARN, FAIL = "ok", "info", "warn", "fail"
"""How bad: all is well; no GPU, and none is missed; doubtful; the GPU that is expected cannot be used."""

_MISMATCH, _DRIVER_NOT_LOADED = 18, 9
_LOST, _RESET_REQUIRED = 15, 16
_CONTROL_DEVICE_BLOCKED = (17, 999)


class Diagnosis:
    """One cause, and how bad it is."""

    __slots__ = ("problem", "severity")

    def __init__(self, severity: str, problem: Problem) -> None:
        """:param severity: ok, info, warn or fail; :param problem: its text has the numbers; for ok, no remedy."""
        self.severity = severity
        self.problem = problem

    def __repr__(self) -> str:
        """Show all."""
        return f"Diagnosis{(self.severity, *self.problem)!r}"


def with_settings(found: Diagnosis, demands: Demands) -> Diagnosis:
    """Name a setting that is not understood, and so counts as unset, where there is nothing worse to say."""
    if not demands.not_understood or found.severity in (WARN, FAIL):
        return found
    variable, value, forms = demands.not_understood[0]
    fact = f"{variable}={value!r} is not understood and counts as unset."
    return Diagnosis(WARN, Problem("bad-setting", fact, f"Allowed: {forms}."))


def from_evidence(evidence: GpuEvidence, demands: Demands) -> Diagnosis | None:
    """Return what can be said for certain without NVML; None where NVML must be asked."""
    quiet = FAIL if demands.required else INFO
    if VISIBLE in evidence.environ and hidden(evidence.environ[VISIBLE]):
        fact = f'GPUs are hidden from this process on purpose: {VISIBLE}="{evidence.environ[VISIBLE]}".'
        return Diagnosis(
            quiet, Problem("hidden", fact, f"To use them, unset {VISIBLE} or give it device numbers such as 0.")
        )
    nvidia = has_gpu_node(evidence.nodes)
    container_choice = evidence.environ.get("NVIDIA_VISIBLE_DEVICES")
    if container_choice in ("void", "none") and not nvidia:
        fact = f"GPUs are hidden from this container on purpose: NVIDIA_VISIBLE_DEVICES={container_choice}."
        return Diagnosis(
            quiet, Problem("hidden", fact, "To use them, start the container with NVIDIA_VISIBLE_DEVICES=all.")
        )

    if not nvidia and not evidence.driver and "dxg" not in evidence.nodes:
        if "kfd" in evidence.nodes:
            fact = "An AMD GPU (ROCm) is present (/dev/kfd), and no NVIDIA GPU."
            if demands.required and evidence.cuda:
                fact = f"{fact[:-1]}, which {evidence.cuda_from} needs."
                return Diagnosis(FAIL, Problem("rocm", fact, elsewhere(evidence.environ)))
            return Diagnosis(
                INFO, Problem("rocm", fact, "Nothing to do for a ROCm build: only NVIDIA GPUs are checked here.")
            )
        expected = why_gpu_expected(evidence.nodes, evidence.environ, demands, evidence.of_image)
        fact = "There is no NVIDIA GPU on this node: no /dev/nvidia*, no /proc/driver/nvidia/version"
        clause = expected if expected in demands.said_by.values() else f"{expected} is set"
        fact += f", although {clause}." if expected else "."
        return Diagnosis(FAIL if expected else INFO, Problem("no-gpu", fact, elsewhere(evidence.environ)))
    if "nvidiactl" not in evidence.nodes and evidence.driver:  # apptainer/singularity#1306
        fact = f"NVIDIA driver {evidence.driver} runs on this node with {gpus(evidence.gpus)}, "
        fact += "but the container has no /dev/nvidiactl."
        remedy = "Start the container with --nv, which brings the device files under --contain too: apptainer exec --nv"
        return Diagnosis(FAIL, Problem("contained", fact, f"{remedy} ..."))
    return None


def from_nvml(evidence: GpuEvidence, nvml: Nvml, demands: Demands) -> Diagnosis:
    """Return what NVML's answers mean, in the order library, driver, devices, CUDA, demands.

    Of devices, CUDA and demands a failure counts before what is only doubtful. What is not known is never a failure.
    """
    if nvml.timed_out:
        fact = f"NVML did not answer within {nvml.timed_out:g} s (in {nvml.pending_call})."
        remedy = f"The driver or a GPU of node {evidence.host} hangs: tell its administrator, and leave the node out "
        remedy += f"(sbatch --exclude={evidence.host}). If GPUs are only slow to wake, raise {TIMEOUT} (seconds)."
        return Diagnosis(FAIL, Problem("no-answer", fact, remedy))
    if nvml.not_asked:
        return _unchecked(nvml.not_asked)
    found = _library(evidence, nvml)
    if found is None and nvml.failure:
        found = _refusal(evidence, nvml, nvml.failure.call, nvml.failure.code, nvml.failure.text)
    if found:
        return found
    causes = [*_devices(evidence, nvml, demands), *_cuda(evidence), *_shortfalls(evidence, nvml, demands)]
    failures = [cause for cause in causes if cause.severity == FAIL]
    return next(iter(failures + causes), None) or _present(evidence, nvml)


def _library(evidence: GpuEvidence, nvml: Nvml) -> Diagnosis | None:
    """Say what is wrong with the driver library that the loader took, or did not take."""
    if "/stubs/" in nvml.path:
        fact = f"The loader takes {nvml.path}, a stub that serves for linking only."
        remedy = f"Take {nvml.path.rpartition('/')[0]} off LD_LIBRARY_PATH; --nv brings the real library."
        return Diagnosis(FAIL, Problem("stub", fact, remedy))
    if nvml.path:
        return None
    for name, words in nvml.load_errors:
        # Glibc and musl name the file that is missing; where it is another one, the library is there but broken.
        if f"{name}: " not in words or "No such file or directory" not in words:
            fact = f"libnvidia-ml.so.1 is there but cannot be loaded: {words}."
            remedy = "Remove NVIDIA driver packages (such as libnvidia-compute) from the image"
            return Diagnosis(FAIL, Problem("library-broken", fact, f"{remedy}; --nv brings the host's own."))
    if "dxg" in evidence.nodes and not has_gpu_node(evidence.nodes):
        fact = "This is WSL (/dev/dxg, no /dev/nvidia*), and the container has no libnvidia-ml.so.1."
        remedy = "Start the container with --nv; if that is not enough, add --bind /usr/lib/wsl "
        return Diagnosis(FAIL, Problem("wsl", fact, remedy + "and put /usr/lib/wsl/lib on LD_LIBRARY_PATH."))
    files = device_files(evidence.nodes)  # of --nv and the host's ld cache: EESSI/software-layer#231
    if evidence.libs:
        fact = f"{files}, and /.singularity.d/libs holds {count(len(evidence.libs))}, but no libnvidia-ml.so.1."
        remedy = "--nv brings what the host's ld cache lists: there, ldconfig -p must show libnvidia-ml.so.1."
        return Diagnosis(FAIL, Problem("library-missing", fact, remedy))
    if evidence.mounted:  # by CDI or --nvccli: where the root is read-only, their hook cannot renew the loader's cache
        folder = evidence.mounted[-1].rpartition("/")[0]
        fact = f"{files}, and the driver's libraries are mounted in {folder}, but "
        if not any("/libnvidia-ml.so." in path for path in evidence.mounted):
            fact += "libnvidia-ml.so is not among them."
            remedy = "Start the container with NVIDIA_DRIVER_CAPABILITIES=compute,utility."
            return Diagnosis(FAIL, Problem("library-missing", fact, remedy))
        fact += "the loader does not find them."
        return Diagnosis(FAIL, Problem("library-missing", fact, f"Put {folder} first on LD_LIBRARY_PATH."))
    state = "does not exist" if evidence.libs is None else "is empty"
    fact = f"{files}, but the container has no driver library: /.singularity.d/libs {state}."
    remedy = "Start the container with --nv: apptainer exec --nv ... If it was, the host's ld cache lacks the driver: "
    return Diagnosis(FAIL, Problem("nv-missing", fact, remedy + "there, ldconfig -p must show libnvidia-ml.so.1."))


def _refusal(evidence: GpuEvidence, nvml: Nvml, call: str, code: int, text: str) -> Diagnosis:
    """Say what it means that NVML refused a call."""
    answer = f"NVML code {code}: {text}"
    if code == _MISMATCH:  # an image with a driver library of its own: k4yt3x/video2x#1226
        fact = f"The NVIDIA library and the driver do not match: {nvml.path} was loaded, "
        fact += f"driver {evidence.driver or 'of unknown version'} runs ({answer})."
        if nvml.path.startswith("/.singularity.d/libs/") or nvml.path in evidence.mounted:
            remedy = "The host's driver was updated without a reboot: ask the administrator of node "
            return Diagnosis(FAIL, Problem("mismatch", fact, f"{remedy}{evidence.host} to reload it."))
        remedy = "The image brings its own copy: remove it (a package such as libnvidia-compute), or put "
        return Diagnosis(FAIL, Problem("mismatch", fact, remedy + "/.singularity.d/libs first on LD_LIBRARY_PATH."))
    if code == _DRIVER_NOT_LOADED:
        running = f"though driver {evidence.driver} is listed" if evidence.driver else "no /proc/driver/nvidia/version"
        fact = f"The NVIDIA driver is not loaded on node {evidence.host}: {running} ({answer})."
        remedy = "A fault of the host: tell its administrator, and take another node."
        return Diagnosis(FAIL, Problem("driver-not-loaded", fact, remedy))
    if code == NO_PERMISSION:  # NVIDIA/nvidia-docker#393
        fact = f"This process may not use the NVIDIA driver ({call}, {answer})."
        return Diagnosis(FAIL, Problem("no-permission", fact, permission(evidence.environ)))
    if code in _CONTROL_DEVICE_BLOCKED:  # NVIDIA/nvidia-container-toolkit#115
        fact = f"The operating system blocks the NVIDIA control device ({call}, {answer})."
        remedy = f"{ask_for(1, evidence.environ)}: most often the device cgroup of the job withholds it. "
        return Diagnosis(
            FAIL, Problem("cgroup", fact, remedy + "After a systemd reload on the host, start the container again.")
        )
    fact = f"NVML refuses {call} ({answer})."
    return Diagnosis(FAIL, Problem("nvml-error", fact, f"See whether nvidia-smi works on node {evidence.host} itself."))


def _devices(evidence: GpuEvidence, nvml: Nvml, demands: Demands) -> Iterator[Diagnosis]:
    """Find what is wrong with the devices that this process sees."""
    allowed = permitted(nvml.gpus)
    if not nvml.gpus:
        fact = f"The NVIDIA driver {evidence.driver} answers, but shows no GPU to this process."
        yield Diagnosis(FAIL, Problem("none-granted", fact, f"{ask_for(1, evidence.environ)}: the job owns none."))
        return
    if not allowed:
        first = nvml.gpus[0]
        fact = f"This process may use none of the {gpus(nvml.count)} here (NVML code {first.code}: {first.text})."
        yield Diagnosis(FAIL, Problem("no-permission", fact, permission(evidence.environ)))
        return
    value = evidence.environ.get(VISIBLE, "")
    units, stale = chosen(evidence.environ, nvml.gpus)
    for gpu, _ in units:
        answer = f"NVML code {gpu.code}: {gpu.text}"
        if gpu.code == _LOST:
            fact = f"GPU {gpu.index} of node {evidence.host} is lost ({answer})."
            remedy = "A fault of the hardware: tell the administrator, and leave the node out "
            yield Diagnosis(FAIL, Problem("lost", fact, f"{remedy}(sbatch --exclude={evidence.host})."))
        elif gpu.code == _RESET_REQUIRED:
            fact = f"GPU {gpu.index} of node {evidence.host} must be reset before it can be used ({answer})."
            remedy = f"Ask the administrator to reset it (nvidia-smi --gpu-reset -i {gpu.index}), or take another node."
            yield Diagnosis(FAIL, Problem("reset", fact, remedy))
        elif gpu.code:
            yield _refusal(evidence, nvml, f"the handle of GPU {gpu.index}", gpu.code, gpu.text)
    # NVML takes no notice of the variable: apptainer/apptainer#2203.
    if value and not stale and not units:
        fact = f"{VISIBLE}={value} names a device twice, and CUDA then shows none."
        yield Diagnosis(FAIL, Problem("stale-visible", fact, "Name each device once."))
    unknown = _not_known(stale, allowed)
    if unknown:
        yield _unchecked(f"{VISIBLE}={value} names {stale}, and {unknown}{_because(nvml)}")
    elif stale:
        fact = f"{VISIBLE}={value} names {stale}, but NVML shows {like(stale, allowed)}."
        left = f"only {gpus(len(units))} named before it can be used" if units else "no GPU can be used"
        severity = WARN if units and len(units) >= demands.count else FAIL
        remedy = f"The value may come from another node or job: unset it, or name what is there. As it is, {left}."
        yield Diagnosis(severity, Problem("stale-visible", fact, remedy))
    empty = [gpu for gpu, instance in units if gpu.mig and gpu.complete and not gpu.instances and not instance]
    if empty and len(empty) == len(units):
        fact = f"GPU {empty[0].index} is in MIG mode and has no MIG instance that this process may use."
        remedy = "Ask for one in the job (Slurm: --gres=gpu:PROFILE:1), or have the administrator make one "
        yield Diagnosis(FAIL, Problem("mig-empty", fact, remedy + "(nvidia-smi mig -cgi PROFILE -C)."))


def _cuda(evidence: GpuEvidence) -> Iterator[Diagnosis]:
    """Find what stands between CUDA and a GPU that is present, as far as files show it."""
    needed = minimum_driver(evidence.cuda) if evidence.cuda else ""
    own = evidence.libcuda
    if needed and evidence.driver and numbers(evidence.driver) < numbers(needed):
        forward = own is not None and numbers(own.version) >= numbers(needed)
        if not forward:
            fact = f"Driver {evidence.driver} is too old for the image's CUDA {evidence.cuda} ({evidence.cuda_from}), "
            fact += f"which needs {needed} or newer."
            newest = highest_cuda(evidence.driver)
            remedy = "Take a node with a newer driver, or an image built for "
            remedy += f"CUDA {newest} or older" if newest else "an older CUDA"
            for compat in evidence.compat:
                if numbers(compat.version) >= numbers(needed):
                    folder = compat.path.rpartition("/")[0]
                    remedy += f"; on data-centre GPUs {folder} first on LD_LIBRARY_PATH also helps"
                    break
            yield Diagnosis(FAIL, Problem("driver-too-old", fact, f"{remedy}."))
    if own and evidence.driver and numbers(own.version) and numbers(own.version) < numbers(evidence.driver):
        # NVIDIA/nvidia-docker#1515
        fact = f"LD_LIBRARY_PATH leads to {own.path} (version {own.version}), older than the driver that runs "
        fact += f"({evidence.driver}): CUDA refuses this with error 803."
        remedy = f"Take {own.path.rpartition('/')[0]} off LD_LIBRARY_PATH."
        yield Diagnosis(FAIL, Problem("shadowed", fact, remedy))
    # The setuid nvidia-modprobe, which would make it, cannot run in the container: apptainer/singularity#1441.
    if "nvidia-uvm" not in evidence.nodes and has_gpu_node(evidence.nodes):
        fact = "A GPU is present, but /dev/nvidia-uvm is missing, without which CUDA cannot start."
        remedy = f"On node {evidence.host}, outside the container, run nvidia-modprobe -u -c=0 or any CUDA program "
        yield Diagnosis(FAIL, Problem("uvm-missing", fact, remedy + "once, then start the container again."))


def _shortfalls(evidence: GpuEvidence, nvml: Nvml, demands: Demands) -> Iterator[Diagnosis]:
    """Find what is demanded and not there."""
    units, stale = chosen(evidence.environ, nvml.gpus)
    slots = [(gpu, uuid) for gpu, instance in units for uuid in _slots(gpu, instance)]
    unknown = _not_known(stale, permitted(nvml.gpus))
    unknown = unknown or next(
        (_instances_not_known(gpu) for gpu, instance in units if not (gpu.complete or instance)), ""
    )
    if len(slots) < demands.count and unknown:
        demanded = f"{gpus(demands.count)} demanded ({demands.who(COUNT)})"
        yield _unchecked(f"{demanded}, and {unknown}{_because(nvml)}")
    elif len(slots) < demands.count:
        fact = f"{gpus(len(slots))} visible, {demands.count} demanded ({demands.who(COUNT)})."
        remedy = f"{ask_for(demands.count, evidence.environ)}, or lower the demand."
        yield Diagnosis(FAIL, Problem("too-few", fact, remedy))
    for gpu, uuid in slots:
        total = next((i.total for i in gpu.instances if i.uuid == uuid), gpu.total) if uuid else gpu.total
        name = f"GPU {gpu.index} ({gpu.name})" if gpu.name else f"GPU {gpu.index}"
        if demands.memory and total is None:
            yield _unchecked(f"NVML does not report the memory of {name}{_because(nvml)}")
        elif demands.memory and total is not None and total < demands.memory:
            part = f"The MIG instance {uuid} of {name}" if uuid else name
            fact = f"{part} has {human(total)} of memory, {human(demands.memory)} are demanded "
            fact += f"({demands.who(MIN_MEMORY)})."
            yield Diagnosis(
                FAIL, Problem("too-little-memory", fact, "Take a node with larger GPUs, or lower the demand.")
            )
        if any(demands.capability) and gpu.capability is None:
            yield _unchecked(f"NVML does not report the compute capability of {name}{_because(nvml)}")
        elif gpu.capability is not None and gpu.capability < demands.capability:
            has, needs = (".".join(map(str, version)) for version in (gpu.capability, demands.capability))
            fact = f"{name} has compute capability {has}, {needs} is demanded "
            fact += f"({demands.who(MIN_CAPABILITY)})."
            yield Diagnosis(FAIL, Problem("low-capability", fact, "Take a node with newer GPUs, or lower the demand."))


def _not_known(stale: str, allowed: Sequence[Gpu]) -> str:
    """Say what NVML does not report of the GPUs that an unmatched entry may name, or return an empty string."""
    if stale.startswith("MIG-") and not stale.startswith("MIG-GPU-"):
        return next((_instances_not_known(gpu) for gpu in allowed if not gpu.complete), "")
    if stale.startswith(("GPU-", "MIG-")):
        return next((f"NVML does not report the UUID of GPU {gpu.index}" for gpu in allowed if not gpu.uuid), "")
    return ""


def _instances_not_known(gpu: Gpu) -> str:
    return f"NVML does not report the MIG instances of GPU {gpu.index}"


def _because(nvml: Nvml) -> str:
    return f": {nvml.details_error}" if nvml.details_error else ""


def _slots(gpu: Gpu, instance: str) -> list[str]:
    """Return what CUDA may count as a device: the chosen MIG instance, all instances, or the GPU itself."""
    return [instance] if instance or not gpu.mig else [one.uuid for one in gpu.instances]


def _present(evidence: GpuEvidence, nvml: Nvml) -> Diagnosis:
    units, _ = chosen(evidence.environ, nvml.gpus)
    driver = nvml.driver or evidence.driver
    fact = f"A GPU is present: {len(units)} of {gpus(nvml.count)} visible" + (f", driver {driver}." if driver else ".")
    return Diagnosis(OK, Problem("present", fact, ""))


def _unchecked(why: str) -> Diagnosis:
    remedy = "Run sif-writable status to see what is known; SIF_WRITABLE_GPU=off leaves the check out."
    return Diagnosis(WARN, Problem("unchecked", f"The GPU could not be checked: {why}.", remedy))
