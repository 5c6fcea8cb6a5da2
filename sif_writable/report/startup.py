"""What the hook says on stderr: one line when a request could not be met, each decision with SIF_WRITABLE_DEBUG=1."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from sif_writable.errors import Problem
from sif_writable.facts.filesystem import SILENT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sif_writable.act import Outcome
    from sif_writable.facts import Facts
    from sif_writable.plan import Decision, Place, Storage

REMEDY = "bind a directory of yours that can be written there, or name another one"
LOOSE_REMEDY = "chmod g-w,o-w or chmod +t {!r}, or name another directory"


def say(lines: Iterable[str]) -> None:
    """Print lines on stderr, if there is one."""
    text = "".join(f"sif_writable: {line}\n" for line in lines)
    if not text or sys.stderr is None:
        return
    # Not through the stream: what it could not write would stay in its buffer, and the program would end with code 120.
    with contextlib.suppress(OSError, ValueError):
        os.write(sys.stderr.fileno(), text.encode("utf-8", "backslashreplace"))


def unmet(storage: Storage, label: str = "SIF_WRITABLE_DIR") -> Problem | None:
    """Return what is wrong with a place that the user asked for and did not get, or None."""
    for place, problem in storage.refused:
        if place.label == label:
            served = [kind for kind in storage.roots if kind in storage.folders]
            taken = [kind for kind in served if storage.places[kind] is place]
            instead = next((storage.roots[kind] for kind in served if kind not in taken), None)
            used = f"using {instead}" if instead else "no other place was found"
            used += " for those" if taken else "" if instead else ", nothing is redirected"
            what = f"{label}={_short(place.base)}" if label == "SIF_WRITABLE_DIR" else label
            return Problem("storage-refused", f"{what} {problem}; {used}.", f"{cure(storage, place)}.")
    return None


def cure(storage: Storage, place: Place) -> str:
    """Return what helps where a place that was given does not serve."""
    loose = [directory for other, directory in storage.loose if other is place]
    return LOOSE_REMEDY.format(loose[0]) if loose else REMEDY


def silence(path: str) -> str:
    """Return the line about a filesystem that hangs: or nobody would know what has been waited for."""
    return f"{path} {SILENT}, and is passed over"


def facts_lines(facts: Facts) -> list[str]:
    """Tell what was seen, for SIF_WRITABLE_DEBUG."""
    home = f"HOME={_short(facts.home)} {facts.home_problem or 'works'}"
    return [f"image {facts.identity}, interpreter {facts.tag}", home]


def storage_lines(storage: Storage) -> list[str]:
    """Tell which places were refused and which were taken, for SIF_WRITABLE_DEBUG."""
    lines = [f"refused {place.label} ({_short(place.base)}): {problem}" for place, problem in storage.refused]
    return lines + [f"{kind} files go to {folder}" for kind, folder in storage.folders.items()]


def decision_lines(decision: Decision) -> list[str]:
    """Tell what was decided, for SIF_WRITABLE_DEBUG."""
    lines = [f"{redirect.variable}={_short(redirect.value)}: {redirect.why}" for redirect in decision.redirects]
    lines += [f"{variable} is left alone: {why}" for variable, why in decision.left]
    lines.append(
        f"HOME={_short(decision.home)}: {decision.home_why}" if decision.home else f"HOME: {decision.home_why}"
    )
    if decision.pycache:
        lines.append(f"bytecode goes to {decision.pycache}: the image ships none")
    return lines + decision.notes


def outcome_lines(outcome: Outcome) -> list[str]:
    """Tell what could only be known by doing it, for SIF_WRITABLE_DEBUG."""
    user = outcome.decision.user
    return [*outcome.failed, *([f"USER={user}: this uid has no passwd entry"] if user else [])]


def _short(value: str) -> str:
    """Quote a value for one line of a terminal."""
    text = value if value.isprintable() else repr(value)
    return text if len(text) <= 200 else f"{text[:200]}... ({len(text)} characters)"
