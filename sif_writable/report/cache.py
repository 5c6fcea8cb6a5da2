"""What storage holds, as data and as text: for ``sif-writable cache``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sif_writable.cleanup import layers
from sif_writable.cleanup.contents import LEFTOVER, LOCK, PACKAGES, Contents, Image, Item
from sif_writable.cleanup.policy import is_empty, span
from sif_writable.report import layer
from sif_writable.report.text import paragraph
from sif_writable.sizes import human
from sif_writable.storage import layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sif_writable.cleanup.policy import Plan, Removal
    from sif_writable.cleanup.request import Removed
    from sif_writable.report.text import Painter


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
                "entries": [_entry(item, this) for item in entry.items if not is_empty(item)],
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
        "written_files": item.written,
        "written_bytes": item.written_size,
        **({"layer": layer.details(item)} if item.kind in layers.KINDS else {}),
    }


def listing(seen: list[Contents], refused: list[tuple[str, str]], this: str, now: float, paint: Painter) -> str:
    """Return what storage holds as text."""
    lines: list[str] = []
    for entry in seen:
        lines.append(paint(entry.root, "head") + f"  {human(sum(item.size for item in entry.items))}")
        shared = [item for item in entry.items if not item.image and item.kind not in (LOCK, LEFTOVER)]
        if any(not is_empty(item) for item in shared):
            lines += ["  shared by all images", *_rows(shared, now)]
        for identity, image in sorted(entry.images.items(), key=lambda pair: (pair[0] != this, -pair[1].used)):
            rows = _rows([item for item in entry.items if item.image == identity and item.kind != LEFTOVER], now)
            if not rows and identity != this:
                continue
            whose = "this image" if identity == this else "another image" if this else "image"
            lines.append(f"  {whose}, {_named(image)}; last used {_ago(now - image.used)}")
            lines += rows
        rest = [item for item in entry.items if item.kind in (LOCK, LEFTOVER)]
        if rest:
            size = human(sum(item.size for item in rest))
            locks = sum(item.kind == LOCK for item in rest)
            left = len(rest) - locks
            words = f"{locks} lock file{'s' * (locks != 1)}, {left} thing{'s' * (left != 1)} left aside"
            lines.append(f"  {words}, {size}")
        if all(is_empty(item) for item in entry.items):
            lines.append("  empty")
        if not entry.reads_recorded:
            lines.append(paragraph("this filesystem does not record reading: last use means last written", 2))
        lines.append("")
    lines += [paragraph(f"not looked into: {path} {why}", 0) for path, why in refused]
    return "\n".join(lines).rstrip() + "\n"


def _named(image: Image) -> str:
    told = ", ".join(filter(None, (image.name, image.prefix))) or "not known which"
    return f"{layout.image(image.identity)}: {told}"


def _rows(items: list[Item], now: float) -> list[str]:
    """Return a line for each thing that is not empty, the largest first."""
    lines = []
    for item in sorted(items, key=lambda item: -item.size):
        if is_empty(item):
            continue
        files = f"{item.files} file{'s' * (item.files != 1)}"
        lines.append(f"    {item.name:<24} {item.kind:<8} {human(item.size):>9} {files:>12}  {_ago(now - item.used)}")
        if item.kind == PACKAGES and item.written:
            files = f"{item.written} file{'s' * (item.written != 1)}"
            lines.append(f"      programs wrote {files} of it, {human(item.written_size)}")
        if item.problem:
            lines.append(paragraph(item.problem, 6))
        if item.kind in layers.KINDS:
            lines += [paragraph(words, 6) for words in layer.about(item)]
    return lines


def _ago(seconds: float) -> str:
    return f"{span(seconds)} ago" if seconds >= 60 else "now"


def reach(removals: Sequence[Removal]) -> str:
    """Say how much of how many images goes, and where."""
    items = [removal.item for removal in removals]
    images = len({(item.image) for item in items if item.image})
    whose = [f"{images} image{'s' * (images > 1)}"] if images else []
    whose += ["what images share"] if any(not item.image for item in items) else []
    places = sorted({item.path[: -len(f"/{item.folder}/{item.name}".replace("//", "/"))] for item in items})
    size = human(sum(_going(removal) for removal in removals))
    things = f"{len(items)} thing{'s' * (len(items) != 1)}"
    return f"{things}, {size}, of {' and of '.join(whose)} in {' and '.join(places)}"


def intended(plan_: Plan, seen: Sequence[Contents]) -> str:
    """Return what would be removed, as text: each thing with the image that it belongs to."""
    if not plan_.removals:
        return "nothing to remove\n"
    images = {identity: image for contents in seen for identity, image in contents.images.items()}
    lines = [f"would remove {reach(plan_.removals)}:"]
    named = ""
    for removal in sorted(plan_.removals, key=lambda removal: (removal.item.image, removal.item.path)):
        item = removal.item
        if item.image != named and item.image in images:
            lines.append(f"  of {_named(images[item.image])}")
        named = item.image
        lines.append(f"  {item.path}  {human(_going(removal))}, {removal.why}")
        if item.kind == PACKAGES and item.written:
            what = f"{item.written} file{'s' * (item.written != 1)} that programs wrote in it"
            lines.append(f"    {what} {'stay' if removal.keep_written else 'go too'}, {human(item.written_size)}")
    return "\n".join(lines) + "\n"


def _going(removal: Removal) -> int:
    kept = removal.item.written_size if removal.keep_written and removal.item.kind == PACKAGES else 0
    return removal.item.size - kept


def outcome(done: list[Removed]) -> str:
    """Return what was removed, as text."""
    gone = [entry for entry in done if not entry.problem]
    lines = [f"  {entry.item.path}  {human(entry.freed)}" for entry in gone]
    lines += [paragraph(f"not removed: {entry.item.path} {entry.problem}", 2) for entry in done if entry.problem]
    freed = human(sum(entry.freed for entry in gone))
    head = f"removed {len(gone)} thing{'s' * (len(gone) != 1)}, {freed}" if done else "nothing to remove"
    return "\n".join([head + (":" if lines else ""), *lines]) + "\n"
