"""What storage holds, as data and as text: for ``sif-writable cache``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from sif_writable import act, facts, plan, session
from sif_writable.facts.filesystem import reachable, unfit
from sif_writable.facts.storage_contents import LEFTOVER, LOCK, Contents, Item, look
from sif_writable.plan.cleanup import KNOWN, span
from sif_writable.report.text import paragraph
from sif_writable.sizes import human

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sif_writable.act.cleanup import Removed
    from sif_writable.plan.cleanup import Plan
    from sif_writable.report.text import Painter


def roots(environ: Mapping[str, str]) -> list[str]:
    """Return the storage roots that this user has in the places where the hook looks for one, its own first."""
    found = dict.fromkeys(session.roots(environ))
    before = dict(environ)
    session.forget(before)
    seen = facts.see(before)
    for place in (*plan.places(seen, before), *plan.local_places()):
        for root in _in_place(place, seen.user):
            found[root] = None
    return [root for root in found if reachable(root) and act.read_marker(root)]


def _in_place(place: plan.Place, user: int) -> list[str]:
    """Return the folders that may be ours in a place: the place itself only if its mark says that all in it is ours."""
    itself = [place.base] if reachable(place.base) and act.read_marker(place.base, ours=True) else []
    return itself + [plan.own_folder(place, shared=shared, user=user) for shared in (False, True)]


def below(directory: str) -> list[str]:
    """Return the storage roots in a directory that a user names: itself, or what is made in a place for all users."""
    place = plan.Place("", os.path.abspath(directory), "")
    user = os.geteuid() or facts.uid_outside()
    # What an earlier version made in a place is known by its name, too; there it is all ours as well.
    above = plan.Place("", os.path.dirname(place.base), "")
    itself = [place.base] if place.base in _in_place(above, user) else []
    return [root for root in dict.fromkeys(itself + _in_place(place, user)) if act.read_marker(root)]


def refusal(root: str) -> str:
    """Say why a root may not be touched, or return an empty string: it must be this user's alone."""
    per_user = os.path.basename(root).startswith(f"{plan.FOLDER}-")
    return unfit(root, uid=os.geteuid(), room=0, inodes=0, foreign_mode=0o077 if per_user else 0o022) or ""


def contents(found: Iterable[str]) -> tuple[list[Contents], list[tuple[str, str]]]:
    """Look into storage roots; return what they hold, and those that are refused with the reason."""
    seen: list[Contents] = []
    refused: list[tuple[str, str]] = []
    known: set[tuple[int, int]] = set()
    for root in found:
        problem = refusal(root)
        status = os.lstat(root)
        if problem:
            refused.append((root, problem))
        elif (status.st_dev, status.st_ino) not in known:  # the same one by two ways
            known.add((status.st_dev, status.st_ino))
            seen.append(look(root, KNOWN))
    return seen, refused


def model(seen: list[Contents], refused: list[tuple[str, str]], this: str) -> dict[str, Any]:
    """Return everything as plain data; schema 1 only grows.

    :param this: identity of the image that this process runs in, or empty.
    """
    return {
        "schema": 1,
        "image": this or None,
        "roots": [
            {
                "path": entry.root,
                "size_bytes": sum(item.size for item in entry.items),
                "reads_recorded": entry.reads_recorded,
                "images": [{**image._asdict(), "this": image.identity == this} for image in entry.images.values()],
                "entries": [_entry(item, this) for item in entry.items],
            }
            for entry in seen
        ],
        "refused": [{"path": path, "why": why} for path, why in refused],
    }


def _entry(item: Item, this: str) -> dict[str, Any]:
    return {
        "name": item.name,
        "kind": item.kind,
        "path": item.path,
        "size_bytes": item.size,
        "files": item.files,
        "last_used": item.used,
        "image": item.image or None,
        "this_image": item.image == this if item.image else None,
        "problem": item.problem,
    }


def listing(seen: list[Contents], refused: list[tuple[str, str]], this: str, now: float, paint: Painter) -> str:
    """Return what storage holds as text."""
    lines: list[str] = []
    for entry in seen:
        lines.append(paint(entry.root, "head") + f"  {human(sum(item.size for item in entry.items))}")
        shared = [item for item in entry.items if not item.image and item.kind not in (LOCK, LEFTOVER)]
        if shared:
            lines += ["  shared by all images", *_rows(shared, now)]
        for identity, image in sorted(entry.images.items(), key=lambda pair: (pair[0] != this, -pair[1].used)):
            whose = "this image" if identity == this else "another image" if this else "image"
            told = ", ".join(filter(None, (image.name, image.prefix))) or "not known which"
            lines.append(f"  {whose}, image-{identity}: {told}; last used {_ago(now - image.used)}")
            lines += _rows([item for item in entry.items if item.image == identity and item.kind != LEFTOVER], now)
        rest = [item for item in entry.items if item.kind in (LOCK, LEFTOVER)]
        if rest:
            size = human(sum(item.size for item in rest))
            locks = sum(item.kind == LOCK for item in rest)
            lines.append(f"  {locks} lock files, {len(rest) - locks} things left aside, {size}")
        if not entry.items:
            lines.append("  empty")
        if not entry.reads_recorded:
            lines.append(paragraph("this filesystem does not record reading: last use means last written", 2))
        lines.append("")
    lines += [paragraph(f"not looked into: {path} {why}", 0) for path, why in refused]
    return "\n".join(lines).rstrip() + "\n"


def _rows(items: list[Item], now: float) -> list[str]:
    """Return a line for each thing that has files, the largest first, and the number of the others."""
    full = [item for item in items if item.files or item.size or item.problem]
    lines = [
        f"    {item.name:<24} {item.kind:<8} {human(item.size):>9}{item.files:>8} files  {_ago(now - item.used)}"
        + (f"\n      {item.problem}" if item.problem else "")
        for item in sorted(full, key=lambda item: -item.size)
    ]
    if len(items) > len(full):
        lines.append(f"    {len(items) - len(full)} empty folders")
    return lines


def _ago(seconds: float) -> str:
    return f"{span(seconds)} ago" if seconds >= 60 else "now"


def intended(plan_: Plan) -> str:
    """Return what would be removed, as text."""
    lines = [f"  {removal.item.path}  {human(removal.item.size)}, {removal.why}" for removal in plan_.removals]
    total = human(sum(removal.item.size for removal in plan_.removals))
    head = f"would remove {len(lines)} things, {total}:" if lines else "nothing to remove"
    return "\n".join([head, *lines]) + "\n"


def outcome(done: list[Removed]) -> str:
    """Return what was removed, as text."""
    gone = [entry for entry in done if not entry.problem]
    lines = [f"  {entry.item.path}  {human(entry.item.size)}" for entry in gone]
    lines += [paragraph(f"not removed: {entry.item.path} {entry.problem}", 2) for entry in done if entry.problem]
    freed = human(sum(entry.item.size for entry in gone))
    head = f"removed {len(gone)} things, {freed}" if done else "nothing to remove"
    return "\n".join([head + (":" if lines else ""), *lines]) + "\n"
