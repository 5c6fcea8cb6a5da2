"""Which GPUs does ``CUDA_VISIBLE_DEVICES`` name? Read as torch does (``torch/cuda/__init__.py``). Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sif_writable.gpu.ask import Gpu

VISIBLE = "CUDA_VISIBLE_DEVICES"

NO_PERMISSION = 4
"""NVML's code for a GPU that this process may not use."""


def visible(value: str) -> list[int] | list[str]:
    """Return the device numbers or identifiers that a value of CUDA_VISIBLE_DEVICES names.

    Numbers: the leading integer of each entry counts, the first negative one or the first non-number ends the list.
    Identifiers: the list ends at the first entry of another kind. A repeated entry gives an empty list. So does
    ``_parse_visible_devices`` in torch.
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


def gpus_to_query(environ: Mapping[str, str]) -> int:
    """Return how many GPUs NVML must be asked about to judge those that are visible; 0: all."""
    entries = visible(environ.get(VISIBLE, ""))
    return max((number + 1 for number in entries if isinstance(number, int)), default=0)


def chosen(environ: Mapping[str, str], gpus: Sequence[Gpu]) -> tuple[list[tuple[Gpu, str]], str]:
    """Return the visible GPUs, each with the UUID of its MIG instance or an empty string, and the first stale entry.

    CUDA counts only the GPUs that the process may use, so those without permission have no number. An entry that fits
    no GPU, or several, ends the list; a device that is named twice empties it.
    """
    allowed = permitted(gpus)
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


def permitted(gpus: Sequence[Gpu]) -> list[Gpu]:
    """Return the GPUs that the process may use; NVML counts the others, too."""
    return [gpu for gpu in gpus if gpu.code != NO_PERMISSION]
