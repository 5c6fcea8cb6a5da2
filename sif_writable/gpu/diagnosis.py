"""DECIDE: from what was seen of the GPUs, and what is demanded, to one cause with its remedy. Pure.

NVML says that a GPU is present. Whether CUDA works on it is not known before CUDA is started, so no text here says so.
The signs are from gpu.md, section 3. The order is the order of cost, and the first hit is the answer.
"""

from __future__ import annotations

from sif_writable.sizes import FORMS, human, parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import TypeVar

    from sif_writable.gpu.signs import Gpu, Nvml, Signs

    T = TypeVar("T")

MOST_SECONDS = 86400.0
"""The longest time that NVML may be given."""

OK, INFO, WARN, FAIL = "ok", "info", "warn", "fail"
"""How bad: all is well; no GPU, and none is missed; doubtful; the GPU that is expected cannot be used."""

POLICIES = ("auto", "require", "warn", "off")
"""Values of SIF_WRITABLE_GPU; the first is the default."""

POLICY = "SIF_WRITABLE_GPU"
COUNT = "SIF_WRITABLE_GPU_COUNT"
MIN_MEMORY = "SIF_WRITABLE_GPU_MIN_MEMORY"
MIN_CAPABILITY = "SIF_WRITABLE_GPU_MIN_CAPABILITY"
TIMEOUT = "SIF_WRITABLE_GPU_TIMEOUT"
VISIBLE = "CUDA_VISIBLE_DEVICES"

MINIMUM_DRIVERS = (
    ((13, 0), "580.65.06"),
    ((12, 0), "525.60.13"),
    ((11, 0), "450.80.02"),
    ((10, 2), "440.33"),
    ((10, 1), "418.39"),
    ((10, 0), "410.48"),
)
"""CUDA version, and the oldest driver that runs it and the later minor versions of its major version (NVIDIA, CUDA
Compatibility, "Minor Version Compatibility", and the release notes of the toolkits). Newest first."""

_MISMATCH, _DRIVER_NOT_LOADED, _NO_PERMISSION = 18, 9, 4
_LOST, _RESET_REQUIRED = 15, 16
_CONTROL_DEVICE_BLOCKED = (17, 999)


class Diagnosis:
    """One cause, in two lines."""

    __slots__ = ("cause", "fact", "remedy", "severity")

    def __init__(self, cause: str, severity: str, fact: str, remedy: str) -> None:
        """:param cause: a word; :param severity: ok, info, warn or fail.

        :param fact: a sentence with the numbers; :param remedy: what to do; empty when all is well.
        """
        self.cause = cause
        self.severity = severity
        self.fact = fact
        self.remedy = remedy

    def __repr__(self) -> str:
        """Show all four."""
        return f"Diagnosis{(self.cause, self.severity, self.fact, self.remedy)!r}"


class Demands:
    """What the job and the image ask for."""

    __slots__ = ("capability", "count", "memory", "policy", "problems", "said", "timeout")

    def __init__(self) -> None:
        """Start with no demand."""
        self.policy = POLICIES[0]
        self.count = 0
        """GPUs; 0: not demanded."""
        self.memory = 0
        """Bytes per GPU; 0: not demanded."""
        self.capability = (0, 0)
        """CUDA compute capability of each GPU."""
        self.timeout = 10.0
        """Seconds for NVML."""
        self.said: dict[str, str] = {}
        """Variable to value, as the user or the image wrote it; what is not understood counts as not said."""
        self.problems: list[tuple[str, str, str]] = []
        """Variable, value and allowed forms of what could not be understood."""

    @property
    def required(self) -> bool:
        """Whether the job ends where there is no GPU."""
        return self.policy == "require"


def demands(environ: Mapping[str, str], image: Mapping[str, str]) -> Demands:
    """Read the policy and the demands; a value that is not understood is recorded and leaves the default.

    :param image: the same variables as the image declares them; the environment wins.
    """
    read = Demands()

    def take(variable: str, parse: Callable[[str], T | None], forms: str, default: T) -> T:
        value = environ.get(variable, "").strip() or image.get(variable, "").strip()
        if not value:
            return default
        parsed = parse(value)
        if parsed is None:
            read.problems.append((variable, value[:80], forms))
            return default
        read.said[variable] = value
        return parsed

    read.policy = take(POLICY, _parse_policy, ", ".join(POLICIES), read.policy)
    read.count = take(COUNT, _parse_count, "a whole number such as 2", 0)
    read.memory = take(MIN_MEMORY, parse_size, FORMS, 0)
    read.capability = take(MIN_CAPABILITY, _parse_capability, "a version such as 8.0", (0, 0))
    read.timeout = take(TIMEOUT, _parse_seconds, "seconds above 0 and up to a day, such as 10", read.timeout)
    return read


def _parse_policy(text: str) -> str | None:
    return text.lower() if text.lower() in POLICIES else None


def _parse_count(text: str) -> int | None:
    return int(text) if _is_number(text) else None


def _parse_capability(text: str) -> tuple[int, int] | None:
    major, point, minor = text.partition(".")
    return (int(major), int(minor or 0)) if _is_number(major) and (not point or _is_number(minor)) else None


def _parse_seconds(text: str) -> float | None:
    whole, point, fraction = text.partition(".")
    if not _is_number(whole) or (point and not _is_number(fraction)):
        return None
    return float(text) if 0 < float(text) <= MOST_SECONDS else None


def _is_number(text: str) -> bool:
    """Say whether a text is a number of few digits: int() takes those of all scripts, and no more than 4,300."""
    return text.isascii() and text.isdecimal() and len(text) <= 9


def promise(nodes: Sequence[str], environ: Mapping[str, str], wanted: Demands) -> str:
    """Return who leads to expect a GPU, as words for a sentence, or an empty string."""
    for name in sorted(environ):
        none = ("", "0") if name.startswith("SLURM_GPUS") else ("",)  # a count; the others list device numbers
        if name.startswith(("SLURM_GPUS", "SLURM_JOB_GPUS", "SLURM_STEP_GPUS")) and environ[name] not in none:
            return f"{name}={environ[name]}"
    if environ.get(VISIBLE) and not hidden(environ[VISIBLE]):
        return f"{VISIBLE}={environ[VISIBLE]}"
    if environ.get("NVIDIA_VISIBLE_DEVICES", "void") not in ("", "void", "none"):
        return f"NVIDIA_VISIBLE_DEVICES={environ['NVIDIA_VISIBLE_DEVICES']}"
    if wanted.policy in ("require", "warn"):
        return f"{POLICY}={wanted.policy}"
    for name in (COUNT, MIN_MEMORY, MIN_CAPABILITY):
        if name in wanted.said:
            return f"{name}={wanted.said[name]}"
    return "/dev/nvidiactl" if has_gpu_node(nodes) else ""


def has_gpu_node(nodes: Sequence[str]) -> bool:
    """Say whether there is a device file of an NVIDIA GPU or of the driver's control device."""
    return any(name == "nvidiactl" or name[6:].isdigit() for name in nodes)


# --- CUDA_VISIBLE_DEVICES, as torch reads it (torch/cuda/__init__.py, _parse_visible_devices) ---


def visible(value: str) -> list[int] | list[str]:
    """Return the device numbers or identifiers that a value of CUDA_VISIBLE_DEVICES names.

    Numbers: the leading integer of each entry counts, the first negative one or the first non-number ends the list.
    Identifiers: the list ends at the first entry of another kind. A repeated entry gives an empty list.
    """
    entries = value.split(",")
    for prefix in ("GPU-", "MIG-"):
        if value.startswith(prefix):
            names: list[str] = []
            for entry in entries:
                if entry in names:
                    return []
                if not entry.startswith(prefix):
                    break
                names.append(entry)
            return names
    numbers: list[int] = []
    for entry in entries:
        number = _leading_integer(entry.strip())
        if number in numbers:
            return []
        if number < 0:
            break
        numbers.append(number)
    return numbers


def _leading_integer(entry: str) -> int:
    digits = entry[1:] if entry[:1] in ("+", "-") else entry
    end = next((at for at, letter in enumerate(digits) if letter not in "0123456789"), len(digits))
    if not end or entry[0] == "-":
        return -1
    return int(digits[:end][:9])  # more digits name no device, either


def hidden(value: str) -> bool:
    """Say whether a value of CUDA_VISIBLE_DEVICES hides all GPUs on purpose: empty, ``-1``, ``NoDevFiles``."""
    first = value.split(",", 1)[0].strip()
    return not first.startswith(("GPU-", "MIG-")) and _leading_integer(first) < 0


def looked_at(environ: Mapping[str, str]) -> int:
    """Return how many GPUs NVML must be asked about to judge those that are visible; 0: all."""
    chosen = visible(environ.get(VISIBLE, ""))
    return max((number + 1 for number in chosen if isinstance(number, int)), default=0)


def needs_details(environ: Mapping[str, str], wanted: Demands) -> bool:
    """Say whether more than the presence of GPUs must be known."""
    return bool(wanted.memory or any(wanted.capability)) or environ.get(VISIBLE, "").startswith(("GPU-", "MIG-"))


def chosen(environ: Mapping[str, str], gpus: Sequence[Gpu]) -> tuple[list[tuple[Gpu, str]], str]:
    """Return the visible GPUs, each with the UUID of its MIG instance or an empty string, and the first stale entry.

    CUDA counts only the GPUs that the process may use, so those without permission have no number. An entry that fits
    no GPU, or several, ends the list; a device that is named twice empties it.
    """
    allowed = _allowed(gpus)
    if VISIBLE not in environ:
        return [(gpu, "") for gpu in allowed], ""
    found: list[tuple[Gpu, str]] = []
    for entry in visible(environ[VISIBLE]):
        if isinstance(entry, int):
            hits = [(gpu, "") for gpu in allowed[entry : entry + 1]]
        elif entry.startswith("GPU-"):
            hits = [(gpu, "") for gpu in allowed if gpu.uuid.startswith(entry)]
        elif entry.startswith("MIG-GPU-"):  # the form of drivers before 470: MIG-GPU-UUID/GI/CI
            hits = [(gpu, entry) for gpu in allowed if gpu.uuid and gpu.uuid == entry[4:].partition("/")[0]]
        else:
            hits = [(g, i.uuid) for g in allowed for i in g.instances if i.uuid.startswith(entry)]
        if len(hits) != 1:
            return found, str(entry)
        if hits[0] in found:
            return [], ""
        found += hits
    return found, ""


def _allowed(gpus: Sequence[Gpu]) -> list[Gpu]:
    """Return the GPUs that the process may use."""
    return [gpu for gpu in gpus if gpu.code != _NO_PERMISSION]


def _unknown(stale: str, allowed: Sequence[Gpu]) -> str:
    """Say what NVML does not tell of the GPUs that an entry may name which fits none, or return an empty string."""
    if stale.startswith("MIG-") and not stale.startswith("MIG-GPU-"):
        return next((_untold(gpu) for gpu in allowed if not gpu.complete), "")
    if stale.startswith(("GPU-", "MIG-")):
        return next((f"NVML does not tell the UUID of GPU {gpu.index}" for gpu in allowed if not gpu.uuid), "")
    return ""


def _untold(gpu: Gpu) -> str:
    return f"NVML does not tell the MIG instances of GPU {gpu.index}"


def _because(nvml: Nvml) -> str:
    return f": {nvml.blind}" if nvml.blind else ""


# --- CUDA versions and drivers ---


def minimum_driver(cuda: str) -> str:
    """Return the oldest driver for a CUDA version; empty for versions before 10."""
    version = numbers(cuda)
    return next((driver for oldest, driver in MINIMUM_DRIVERS if oldest <= (*version, 0)[:2]), "")


def highest_cuda(driver: str) -> str:
    """Return the newest CUDA major version that a driver runs, such as 12; empty for a driver before all known."""
    for (major, _), oldest in MINIMUM_DRIVERS:
        if numbers(driver) >= numbers(oldest):
            return str(major)
    return ""


def numbers(version: str) -> tuple[int, ...]:
    """Return a dotted version as numbers."""
    return tuple(int(part) for part in version.split(".") if _is_number(part))


# --- The causes ---


def diagnose(signs: Signs, nvml: Nvml, wanted: Demands) -> Diagnosis:
    """Return the cause, from files first and from NVML's answers then; and what of the demands is not understood."""
    return with_settings(from_signs(signs, wanted) or from_nvml(signs, nvml, wanted), wanted)


def with_settings(found: Diagnosis, wanted: Demands) -> Diagnosis:
    """Name a setting that is not understood, and so counts as unset, where there is nothing worse to say."""
    if not wanted.problems or found.severity in (WARN, FAIL):
        return found
    variable, value, forms = wanted.problems[0]
    fact = f"{variable}={value!r} is not understood and counts as unset."
    return Diagnosis("bad-setting", WARN, fact, f"Allowed: {forms}.")


def from_signs(signs: Signs, wanted: Demands) -> Diagnosis | None:
    """Return what can be said for certain without NVML; None where NVML must be asked."""
    quiet = FAIL if wanted.required else INFO
    if VISIBLE in signs.environ and hidden(signs.environ[VISIBLE]):
        fact = f'GPUs are hidden from this process on purpose: {VISIBLE}="{signs.environ[VISIBLE]}".'
        return Diagnosis("hidden", quiet, fact, f"To use them, unset {VISIBLE} or give it device numbers such as 0.")
    nvidia = has_gpu_node(signs.nodes)
    container_choice = signs.environ.get("NVIDIA_VISIBLE_DEVICES")
    if container_choice in ("void", "none") and not nvidia:
        fact = f"GPUs are hidden from this container on purpose: NVIDIA_VISIBLE_DEVICES={container_choice}."
        return Diagnosis("hidden", quiet, fact, "To use them, start the container with NVIDIA_VISIBLE_DEVICES=all.")

    if not nvidia and not signs.driver and "dxg" not in signs.nodes:
        if "kfd" in signs.nodes:
            fact = "An AMD GPU (ROCm) is present (/dev/kfd), and no NVIDIA GPU."
            if wanted.required and signs.cuda:
                fact = f"{fact[:-1]}, which {signs.cuda_from} needs."
                return Diagnosis("rocm", FAIL, fact, _elsewhere(signs))
            return Diagnosis("rocm", INFO, fact, "Nothing to do for a ROCm build: only NVIDIA GPUs are checked here.")
        expected = promise(signs.nodes, signs.environ, wanted)
        fact = "There is no NVIDIA GPU on this node: no /dev/nvidia*, no /proc/driver/nvidia/version"
        fact += f", although {expected} is set." if expected else "."
        return Diagnosis("no-gpu", FAIL if expected else INFO, fact, _elsewhere(signs))
    if "nvidiactl" not in signs.nodes and signs.driver:
        fact = f"NVIDIA driver {signs.driver} runs on this node with {_gpus(signs.gpus)}, "
        fact += "but the container has no /dev/nvidiactl."
        remedy = "Start the container with --nv, which brings the device files under --contain too: apptainer exec --nv"
        return Diagnosis("contained", FAIL, fact, f"{remedy} ...")
    return None


def from_nvml(signs: Signs, nvml: Nvml, wanted: Demands) -> Diagnosis:
    """Return what NVML's answers mean, in the order library, driver, devices, CUDA, demands.

    Of devices, CUDA and demands a failure counts before what is only doubtful. What is not known is never a failure.
    """
    if nvml.timed_out:
        fact = f"NVML did not answer within {nvml.timed_out:g} s (in {nvml.asking})."
        remedy = f"The driver or a GPU of node {signs.host} hangs: tell its administrator, and leave the node out "
        remedy += f"(sbatch --exclude={signs.host}). If GPUs are only slow to wake, raise {TIMEOUT} (seconds)."
        return Diagnosis("no-answer", FAIL, fact, remedy)
    if nvml.trouble:
        return _unchecked(nvml.trouble)
    found = _library(signs, nvml)
    if found is None and nvml.failure:
        found = _refusal(signs, nvml, nvml.failure.call, nvml.failure.code, nvml.failure.text)
    if found:
        return found
    causes = [*_devices(signs, nvml, wanted), *_cuda(signs), *_shortfalls(signs, nvml, wanted)]
    failures = [cause for cause in causes if cause.severity == FAIL]
    return next(iter(failures + causes), None) or _present(signs, nvml)


def _library(signs: Signs, nvml: Nvml) -> Diagnosis | None:
    """Say what is wrong with the driver library that the loader took, or did not take."""
    if "/stubs/" in nvml.path:
        fact = f"The loader takes {nvml.path}, a stub that serves for linking only."
        remedy = f"Take {nvml.path.rpartition('/')[0]} off LD_LIBRARY_PATH; --nv brings the real library."
        return Diagnosis("stub", FAIL, fact, remedy)
    if nvml.path:
        return None
    for name, words in nvml.refused:
        # Glibc and musl name the file that is missing; where it is another one, the library is there but broken.
        if f"{name}: " not in words or "No such file or directory" not in words:
            fact = f"libnvidia-ml.so.1 is there but cannot be loaded: {words}."
            remedy = "Remove NVIDIA driver packages (such as libnvidia-compute) from the image"
            return Diagnosis("library-broken", FAIL, fact, f"{remedy}; --nv brings the host's own.")
    if "dxg" in signs.nodes and not has_gpu_node(signs.nodes):
        fact = "This is WSL (/dev/dxg, no /dev/nvidia*), and the container has no libnvidia-ml.so.1."
        remedy = "Start the container with --nv; if that is not enough, add --bind /usr/lib/wsl "
        return Diagnosis("wsl", FAIL, fact, remedy + "and put /usr/lib/wsl/lib on LD_LIBRARY_PATH.")
    files = _files(signs.nodes)
    if signs.libs:
        fact = f"{files}, and /.singularity.d/libs holds {len(signs.libs)} files, but no libnvidia-ml.so.1."
        remedy = "--nv brings what the host's ld cache lists: there, ldconfig -p must show libnvidia-ml.so.1."
        return Diagnosis("library-missing", FAIL, fact, remedy)
    state = "does not exist" if signs.libs is None else "is empty"
    fact = f"{files}, but the container has no driver library: /.singularity.d/libs {state}."
    remedy = "Start the container with --nv: apptainer exec --nv ... If it was, the host's ld cache lacks the driver: "
    return Diagnosis("nv-missing", FAIL, fact, remedy + "there, ldconfig -p must show libnvidia-ml.so.1.")


def _refusal(signs: Signs, nvml: Nvml, call: str, code: int, text: str) -> Diagnosis:
    """Say what it means that NVML refused a call."""
    answer = f"NVML code {code}: {text}"
    if code == _MISMATCH:
        fact = f"The NVIDIA library and the driver do not match: {nvml.path} was loaded, "
        fact += f"driver {signs.driver or 'of unknown version'} runs ({answer})."
        if nvml.path.startswith("/.singularity.d/libs/"):
            remedy = "The host's driver was updated without a reboot: ask the administrator of node "
            return Diagnosis("mismatch", FAIL, fact, f"{remedy}{signs.host} to reload it.")
        remedy = "The image brings its own copy: remove it (a package such as libnvidia-compute), or put "
        return Diagnosis("mismatch", FAIL, fact, remedy + "/.singularity.d/libs first on LD_LIBRARY_PATH.")
    if code == _DRIVER_NOT_LOADED:
        running = f"though driver {signs.driver} is listed" if signs.driver else "no /proc/driver/nvidia/version"
        fact = f"The NVIDIA driver is not loaded on node {signs.host}: {running} ({answer})."
        remedy = "A fault of the host: tell its administrator, and take another node."
        return Diagnosis("driver-not-loaded", FAIL, fact, remedy)
    if code == _NO_PERMISSION:
        fact = f"This process may not use the NVIDIA driver ({call}, {answer})."
        return Diagnosis("no-permission", FAIL, fact, _permission(signs))
    if code in _CONTROL_DEVICE_BLOCKED:
        fact = f"The operating system blocks the NVIDIA control device ({call}, {answer})."
        remedy = f"{_ask_for(signs, 1)}: most often the device cgroup of the job withholds it. "
        return Diagnosis(
            "cgroup", FAIL, fact, remedy + "After a systemd reload on the host, start the container again."
        )
    fact = f"NVML refuses {call} ({answer})."
    return Diagnosis("nvml-error", FAIL, fact, f"See whether nvidia-smi works on node {signs.host} itself.")


def _devices(signs: Signs, nvml: Nvml, wanted: Demands) -> Iterator[Diagnosis]:
    """Find what is wrong with the devices that this process sees."""
    allowed = _allowed(nvml.gpus)
    if not nvml.gpus:
        fact = f"The NVIDIA driver {signs.driver} answers, but shows no GPU to this process."
        yield Diagnosis("none-granted", FAIL, fact, f"{_ask_for(signs, 1)}: the job owns none.")
        return
    if not allowed:
        first = nvml.gpus[0]
        fact = f"This process may use none of the {_gpus(nvml.count)} here (NVML code {first.code}: {first.text})."
        yield Diagnosis("no-permission", FAIL, fact, _permission(signs))
        return
    value = signs.environ.get(VISIBLE, "")
    units, stale = chosen(signs.environ, nvml.gpus)
    for gpu, _ in units:
        answer = f"NVML code {gpu.code}: {gpu.text}"
        if gpu.code == _LOST:
            fact = f"GPU {gpu.index} of node {signs.host} is lost ({answer})."
            remedy = "A fault of the hardware: tell the administrator, and leave the node out "
            yield Diagnosis("lost", FAIL, fact, f"{remedy}(sbatch --exclude={signs.host}).")
        elif gpu.code == _RESET_REQUIRED:
            fact = f"GPU {gpu.index} of node {signs.host} must be reset before it can be used ({answer})."
            remedy = f"Ask the administrator to reset it (nvidia-smi --gpu-reset -i {gpu.index}), or take another node."
            yield Diagnosis("reset", FAIL, fact, remedy)
        elif gpu.code:
            yield _refusal(signs, nvml, f"the handle of GPU {gpu.index}", gpu.code, gpu.text)
    if value and not stale and not units:
        fact = f"{VISIBLE}={value} names a device twice, and CUDA then shows none."
        yield Diagnosis("stale-visible", FAIL, fact, "Name each device once.")
    unknown = _unknown(stale, allowed)
    if unknown:
        yield _unchecked(f"{VISIBLE}={value} names {stale}, and {unknown}{_because(nvml)}")
    elif stale:
        fact = f"{VISIBLE}={value} names {stale}, but NVML shows {_shown(stale, allowed)}."
        left = f"only {_gpus(len(units))} named before it can be used" if units else "no GPU can be used"
        severity = WARN if units and len(units) >= wanted.count else FAIL
        remedy = f"The value may come from another node or job: unset it, or name what is there. As it is, {left}."
        yield Diagnosis("stale-visible", severity, fact, remedy)
    empty = [gpu for gpu, instance in units if gpu.mig and gpu.complete and not gpu.instances and not instance]
    if empty and len(empty) == len(units):
        fact = f"GPU {empty[0].index} is in MIG mode and has no MIG instance that this process may use."
        remedy = "Ask for one in the job (Slurm: --gres=gpu:PROFILE:1), or have the administrator make one "
        yield Diagnosis("mig-empty", FAIL, fact, remedy + "(nvidia-smi mig -cgi PROFILE -C).")


def _cuda(signs: Signs) -> Iterator[Diagnosis]:
    """Find what stands between CUDA and a GPU that is present, as far as files tell."""
    needed = minimum_driver(signs.cuda) if signs.cuda else ""
    own = signs.libcuda
    if needed and signs.driver and numbers(signs.driver) < numbers(needed):
        forward = own is not None and numbers(own.version) >= numbers(needed)
        if not forward:
            fact = f"Driver {signs.driver} is too old for the image's CUDA {signs.cuda} ({signs.cuda_from}), "
            fact += f"which needs {needed} or newer."
            remedy = "Take a node with a newer driver, or an image built for "
            remedy += f"CUDA {highest_cuda(signs.driver)} or older" if highest_cuda(signs.driver) else "an older CUDA"
            for compat in signs.compat:
                if numbers(compat.version) >= numbers(needed):
                    folder = compat.path.rpartition("/")[0]
                    remedy += f"; on data-centre GPUs {folder} first on LD_LIBRARY_PATH also helps"
                    break
            yield Diagnosis("driver-too-old", FAIL, fact, f"{remedy}.")
    if own and signs.driver and numbers(own.version) and numbers(own.version) < numbers(signs.driver):
        fact = f"LD_LIBRARY_PATH leads to {own.path} (version {own.version}), older than the driver that runs "
        fact += f"({signs.driver}): CUDA refuses this with error 803."
        remedy = f"Take {own.path.rpartition('/')[0]} off LD_LIBRARY_PATH."
        yield Diagnosis("shadowed", FAIL, fact, remedy)
    if "nvidia-uvm" not in signs.nodes and has_gpu_node(signs.nodes):
        fact = "A GPU is present, but /dev/nvidia-uvm is missing, without which CUDA cannot start."
        remedy = f"On node {signs.host}, outside the container, run nvidia-modprobe -u -c=0 or any CUDA program once, "
        yield Diagnosis("uvm-missing", FAIL, fact, remedy + "then start the container again.")


def _shortfalls(signs: Signs, nvml: Nvml, wanted: Demands) -> Iterator[Diagnosis]:
    """Find what is demanded and not there."""
    units, stale = chosen(signs.environ, nvml.gpus)
    slots = [(gpu, uuid) for gpu, instance in units for uuid in _slots(gpu, instance)]
    unknown = _unknown(stale, _allowed(nvml.gpus))
    unknown = unknown or next((_untold(gpu) for gpu, instance in units if not (gpu.complete or instance)), "")
    if len(slots) < wanted.count and unknown:
        demanded = f"{_gpus(wanted.count)} demanded ({COUNT}={wanted.said[COUNT]})"
        yield _unchecked(f"{demanded}, and {unknown}{_because(nvml)}")
    elif len(slots) < wanted.count:
        fact = f"{_gpus(len(slots))} visible, {wanted.count} demanded ({COUNT}={wanted.said[COUNT]})."
        yield Diagnosis("too-few", FAIL, fact, f"{_ask_for(signs, wanted.count)}, or lower the demand.")
    for gpu, uuid in slots:
        total = next((i.total for i in gpu.instances if i.uuid == uuid), gpu.total) if uuid else gpu.total
        name = f"GPU {gpu.index} ({gpu.name})" if gpu.name else f"GPU {gpu.index}"
        if wanted.memory and total is None:
            yield _unchecked(f"NVML does not tell the memory of {name}{_because(nvml)}")
        elif wanted.memory and total is not None and total < wanted.memory:
            part = f"The MIG instance {uuid} of {name}" if uuid else name
            fact = f"{part} has {human(total)} of memory, {human(wanted.memory)} are demanded "
            fact += f"({MIN_MEMORY}={wanted.said[MIN_MEMORY]})."
            yield Diagnosis("too-little-memory", FAIL, fact, "Take a node with larger GPUs, or lower the demand.")
        if any(wanted.capability) and gpu.capability is None:
            yield _unchecked(f"NVML does not tell the compute capability of {name}{_because(nvml)}")
        elif gpu.capability is not None and gpu.capability < wanted.capability:
            has, needs = (".".join(map(str, version)) for version in (gpu.capability, wanted.capability))
            fact = f"{name} has compute capability {has}, {needs} is demanded "
            fact += f"({MIN_CAPABILITY}={wanted.said[MIN_CAPABILITY]})."
            yield Diagnosis("low-capability", FAIL, fact, "Take a node with newer GPUs, or lower the demand.")


def _slots(gpu: Gpu, instance: str) -> list[str]:
    """Return what CUDA may count as a device: the chosen MIG instance, all instances, or the GPU itself."""
    return [instance] if instance or not gpu.mig else [one.uuid for one in gpu.instances]


def _present(signs: Signs, nvml: Nvml) -> Diagnosis:
    units, _ = chosen(signs.environ, nvml.gpus)
    driver = nvml.driver or signs.driver
    fact = f"A GPU is present: {len(units)} of {_gpus(nvml.count)} visible" + (f", driver {driver}." if driver else ".")
    return Diagnosis("present", OK, fact, "")


def _unchecked(why: str) -> Diagnosis:
    remedy = "Run sif-writable status to see what is known; SIF_WRITABLE_GPU=off leaves the check out."
    return Diagnosis("unchecked", WARN, f"The GPU could not be checked: {why}.", remedy)


# --- Phrases ---


def _gpus(count: int | None) -> str:
    return "1 GPU" if count == 1 else f"{count} GPUs"


def _files(nodes: Sequence[str]) -> str:
    count = sum(name[6:].isdigit() for name in nodes)
    return f"The device files of {_gpus(count)} are there"


def _shown(stale: str, gpus: Sequence[Gpu]) -> str:
    if stale.startswith("MIG-"):
        names = [instance.uuid for gpu in gpus for instance in gpu.instances]
        return ", ".join(names) or "no MIG instance"
    if stale.startswith("GPU-"):
        return ", ".join(gpu.uuid for gpu in gpus if gpu.uuid) or "no UUID"
    return f"{_gpus(len(gpus))} (0 to {len(gpus) - 1})" if len(gpus) > 1 else "1 GPU (0)"


def _elsewhere(signs: Signs) -> str:
    if "SLURM_JOB_ID" in signs.environ:
        return f"{_ask_for(signs, 1)}, in a partition that has them."
    return "Run it on a node with an NVIDIA GPU."


def _ask_for(signs: Signs, count: int) -> str:
    if "SLURM_JOB_ID" in signs.environ:
        return f"Ask Slurm for {_gpus(count)} (--gres=gpu:{count})"
    return f"Ask for {_gpus(count)} where the job or the container is started"


def _permission(signs: Signs) -> str:
    return f"{_ask_for(signs, 1)}: the job does not own it, or the mode of /dev/nvidia* forbids it."
