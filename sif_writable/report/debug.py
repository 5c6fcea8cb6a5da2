"""Each decision of the hook as a line, with SIF_WRITABLE_DEBUG=1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sif_writable.storage.unserved import short

if TYPE_CHECKING:
    from sif_writable.redirects.decision import Decision, Outcome
    from sif_writable.storage.chosen import Storage
    from sif_writable.system.surroundings import Facts


def facts_lines(facts: Facts) -> list[str]:
    """Return what was found, as lines for SIF_WRITABLE_DEBUG."""
    home = f"HOME={short(facts.home)} {facts.home_problem or 'works'}"
    return [f"image {facts.identity}, interpreter {facts.tag}", home]


def storage_lines(storage: Storage) -> list[str]:
    """Return which places were refused and which were chosen, as lines for SIF_WRITABLE_DEBUG."""
    lines = [f"refused {place.label} ({short(place.base)}): {problem}" for place, problem in storage.refused]
    slots = {"shared": storage.shared, **storage.slots, "image": storage.image}
    return lines + [f"{kind} files go to {slot.folder}" for kind, slot in slots.items() if slot]


def decision_lines(decision: Decision) -> list[str]:
    """Return what was decided, as lines for SIF_WRITABLE_DEBUG."""
    lines = [f"{redirect.variable}={short(redirect.value)}: {redirect.why}" for redirect in decision.redirects]
    lines += [f"{variable} is left alone: {why}" for variable, why in decision.skipped]
    lines.append(f"HOME={short(decision.home)}: {decision.home_why}" if decision.home else f"HOME: {decision.home_why}")
    if decision.pycache:
        lines.append(f"bytecode goes to {decision.pycache}: the image ships none")
    return lines + decision.notes


def outcome_lines(outcome: Outcome) -> list[str]:
    """Return what went differently from the decision, as lines for SIF_WRITABLE_DEBUG."""
    user = outcome.decision.user
    return [*map(str, outcome.failed), *([f"USER={user}: this uid has no passwd entry"] if user else [])]
