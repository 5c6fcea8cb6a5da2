"""What the hook says on stderr: one line when a request could not be met, each decision with SIF_WRITABLE_DEBUG=1."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sif_writable.act import Outcome
    from sif_writable.plan import Storage

REMEDY = "bind a directory of yours that can be written there, or name another one"


def tell(outcome: Outcome) -> None:
    """Print what the situation calls for; usually nothing."""
    line = unmet(outcome.storage)
    debug = os.environ.get("SIF_WRITABLE_DEBUG", "") == "1"
    lines = debug_lines(outcome) if debug else [line] if line else []
    if lines and sys.stderr is not None:
        sys.stderr.write("".join(f"sif_writable: {text}\n" for text in lines))


def unmet(storage: Storage) -> str:
    """Return the line about a place that the user asked for and did not get, or an empty string."""
    for place, problem in storage.refused:
        if place.label == "SIF_WRITABLE_DIR":
            instead = next(iter(storage.roots.values()), None)
            used = f"using {instead}" if instead else "no other place was found, nothing is redirected"
            return f"SIF_WRITABLE_DIR={_short(place.base)} {problem}; {used}. Remedy: {REMEDY}."
    return ""


def debug_lines(outcome: Outcome) -> list[str]:
    """List every decision of a start, a line each."""
    storage, decision = outcome.storage, outcome.decision
    lines = [f"image {outcome.facts.identity}, interpreter {outcome.facts.tag}"]
    lines += [f"refused {place.label} ({_short(place.base)}): {problem}" for place, problem in storage.refused]
    lines += [f"{kind} files go to {folder}" for kind, folder in storage.folders.items()]
    lines += [f"{r.variable}={_short(r.value)}: {r.why}" for r in decision.redirects]
    lines += [f"{variable} is left alone: {why}" for variable, why in decision.left]
    lines.append(
        f"HOME={_short(decision.home)}: {decision.home_why}" if decision.home else f"HOME: {decision.home_why}"
    )
    if decision.user:
        lines.append(f"USER={decision.user}: this uid has no passwd entry")
    if decision.pycache:
        lines.append(f"bytecode goes to {decision.pycache}: the image ships none")
    return lines + decision.notes + outcome.failed


def _short(value: str) -> str:
    """Quote a value for one line of a terminal."""
    text = value if value.isprintable() else repr(value)
    return text if len(text) <= 200 else f"{text[:200]}... ({len(text)} characters)"
