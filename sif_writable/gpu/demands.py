"""What do the job and the image demand of the GPUs, and why is one expected? Pure."""

from __future__ import annotations

from sif_writable.gpu.signs import NVIDIA_VISIBLE, has_gpu_node
from sif_writable.gpu.visible import VISIBLE, hidden
from sif_writable.sizes import FORMS, parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeVar

    T = TypeVar("T")

POLICIES = ("auto", "require", "warn", "off")
"""Values of SIF_WRITABLE_GPU; the first is the default."""

POLICY = "SIF_WRITABLE_GPU"
COUNT = "SIF_WRITABLE_GPU_COUNT"
MIN_MEMORY = "SIF_WRITABLE_GPU_MIN_MEMORY"
MIN_CAPABILITY = "SIF_WRITABLE_GPU_MIN_CAPABILITY"
TIMEOUT = "SIF_WRITABLE_GPU_TIMEOUT"

MOST_SECONDS = 86400.0
"""The longest time that NVML may be given."""


class Demands:
    """What the job and the image ask for."""

    __slots__ = ("capability", "count", "memory", "not_understood", "policy", "said_by", "timeout", "values")

    def __init__(self) -> None:
        """Start with no demand."""
        self.policy = POLICIES[0]
        self.count = 0
        """GPUs; 0: not demanded."""
        self.memory = 0
        """Bytes per GPU; 0: not demanded."""
        self.capability = (0, 0)
        """CUDA compute capability of each GPU, as (major, minor)."""
        self.timeout = 10.0
        """Seconds for NVML."""
        self.values: dict[str, str] = {}
        """Variable to value, as the user or the image wrote it; what is not understood counts as unset."""
        self.said_by: dict[str, str] = {}
        """Variable to who demands it, as a clause, where that is not the variable itself: the image, an option."""
        self.not_understood: list[tuple[str, str, str]] = []
        """(variable, value, allowed forms)."""

    def who(self, variable: str) -> str:
        """Return who demands something: ``NAME=VALUE``, or a clause such as ``the image declares gpu: require``."""
        return self.said_by.get(variable) or f"{variable}={self.values[variable]}"

    @property
    def required(self) -> bool:
        """Whether the job ends where there is no GPU."""
        return self.policy == "require"


def read(environ: Mapping[str, str], image: Mapping[str, str]) -> Demands:
    """Read the policy and the demands; a value that is not understood is recorded and leaves the default.

    :param image: the same variables as the image declares them; the environment wins.
    """
    found = Demands()

    def take(variable: str, parse: Callable[[str], T | None], forms: str, default: T) -> T:
        own = environ.get(variable, "").strip()
        value = own or image.get(variable, "").strip()
        if not value:
            return default
        parsed = parse(value)
        if parsed is None:
            found.not_understood.append((variable, value[:80], forms))
            return default
        found.values[variable] = value
        if not own:
            key = variable.partition("_WRITABLE_")[2].lower().replace("_", "-")
            found.said_by[variable] = f"the image declares {key}: {value}"
        return parsed

    found.policy = take(POLICY, _parse_policy, ", ".join(POLICIES), found.policy)
    found.count = take(COUNT, _parse_count, "a whole number such as 2", 0)
    found.memory = take(MIN_MEMORY, parse_size, FORMS, 0)
    found.capability = take(MIN_CAPABILITY, _parse_capability, "a version such as 8.0", (0, 0))
    found.timeout = take(TIMEOUT, _parse_seconds, "seconds above 0 and up to a day, such as 10", found.timeout)
    return found


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


def why_gpu_expected(
    nodes: Sequence[str], environ: Mapping[str, str], demands: Demands, of_image: frozenset[str]
) -> str:
    """Return what leads to expect a GPU, or an empty string: ``NAME=VALUE``, a device file, or a clause.

    :param of_image: variables that the image sets (:func:`sif_writable.gpu.signs.set_by_image`).
    """
    for name in sorted(environ):
        none = ("", "0") if name.startswith("SLURM_GPUS") else ("",)  # a count; the others list device numbers
        if name.startswith(("SLURM_GPUS", "SLURM_JOB_GPUS", "SLURM_STEP_GPUS")) and environ[name] not in none:
            return f"{name}={environ[name]}"
    if environ.get(VISIBLE) and not hidden(environ[VISIBLE]) and VISIBLE not in of_image:
        return f"{VISIBLE}={environ[VISIBLE]}"
    if environ.get(NVIDIA_VISIBLE, "void") not in ("", "void", "none") and NVIDIA_VISIBLE not in of_image:
        return f"{NVIDIA_VISIBLE}={environ[NVIDIA_VISIBLE]}"
    if demands.policy in ("require", "warn"):
        return demands.who(POLICY)
    for name in (COUNT, MIN_MEMORY, MIN_CAPABILITY):
        if name in demands.values:
            return demands.who(name)
    return "/dev/nvidiactl" if has_gpu_node(nodes) else ""


def needs_details(environ: Mapping[str, str], demands: Demands) -> bool:
    """Say whether more than the presence of GPUs must be known."""
    return bool(demands.memory or any(demands.capability)) or environ.get(VISIBLE, "").startswith(("GPU-", "MIG-"))
