"""How much the images keep in storage, and how much they may."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sif_writable.cleanup.contents import images, inspect_images
from sif_writable.cleanup.measure import Bound, measure
from sif_writable.cleanup.policy import IDLE_DAYS, KNOWN, MAX, NEAR, limit
from sif_writable.sizes import count, human
from sif_writable.storage import layout
from sif_writable.storage.kinds import KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sif_writable.cleanup.policy import Limit
    from sif_writable.redirects.decision import Outcome
    from sif_writable.report.model import Advice, Usage

SECONDS, ENTRIES = 1.0, 200_000
"""How long the counting may take, and how many files and folders it may look at, in each root."""


def usage(outcome: Outcome | None, environ: Mapping[str, str]) -> list[Usage]:
    """Count what the images keep in the storage of this process, the most recently used first."""
    roots = [outcome.storage.root(kind) for kind in KINDS] if outcome else []
    allowed, _ = limit(environ)
    return [_of(root, allowed) for root in dict.fromkeys(filter(None, roots))]


def _of(root: str, allowed: Limit | None) -> Usage:
    listed = images(root)
    bound = Bound(SECONDS, ENTRIES)
    found = inspect_images(root, listed, KNOWN, bound)
    shared = measure(data, [], None, bound) if os.path.isdir(data := f"{root}/{layout.DATA}") else None
    size, files = sum(item.size for item in found.items), sum(item.entries for item in found.items)
    return {
        "root": root,
        "images": len(listed),
        "size_bytes": size,
        "files": files,
        "written_bytes": sum(item.written_size for item in found.items),
        "written_files": sum(item.written for item in found.items),
        "downloads_bytes": shared.size if shared else 0,
        "downloads_files": shared.files if shared else 0,
        "complete": not bound.exceeded,
        "limit_bytes": allowed.size if allowed else None,
        "limit_files": allowed.files if allowed else None,
        "warning": _warning(root, size, files, allowed),
    }


def _warning(root: str, size: int, files: int, allowed: Limit | None) -> Advice | None:
    if allowed is None or (size < NEAR * allowed.size and files < NEAR * allowed.files):
        return None
    over = size > allowed.size or files > allowed.files
    verb = "keep more than" if over else "come near to"
    return {
        "text": f"in {root} images {verb} what they may: {human(size)} of {human(allowed.size)}, {files:,} of "
        f"{allowed.files:,} files",
        "remedy": f"sif-writable cache prune --all-images --dead --yes removes what idle images have; {MAX} sets "
        "another limit",
    }


def total(entries: list[Usage]) -> str:
    """Return in a few words what all storage roots hold, or an empty string if that is nothing."""
    found = []
    complete = all(entry["complete"] for entry in entries)
    least = "" if complete else "at least "
    size, files = sum(entry["size_bytes"] for entry in entries), sum(entry["files"] for entry in entries)
    if size or not complete:
        images = {entry["images"] for entry in entries if entry["size_bytes"]}
        number = images.pop() if len(images) == 1 else 0  # several places may have the same images
        verb = f"{count(number, 'image')} keep{'s' * (number == 1)}" if number else "images keep"
        found.append(f"{verb} {least}{human(size)} in {count(files, 'file or folder', 'files and folders')}")
    downloads = sum(entry["downloads_bytes"] for entry in entries)
    if downloads:
        number = sum(entry["downloads_files"] for entry in entries)
        found.append(f"downloads take {least}{human(downloads)} in {count(number)}")
    return "; ".join(found)


def words(entry: Usage) -> str:
    """Return what the images keep in a storage root as a sentence."""
    text = total([entry]) or "nothing is kept so far"
    if entry["written_files"]:
        text += f"; programs wrote {human(entry['written_bytes'])} of what images keep"
    if entry["limit_bytes"] is None:
        return f"{text}; nothing goes by itself ({MAX}=off)"
    limits = f"{human(entry['limit_bytes'])} or {entry['limit_files']:,} files"
    return f"{text}; caches and copies go after {IDLE_DAYS} days without use, or beyond {limits}"
