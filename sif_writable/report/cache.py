"""What storage holds, as data and as text: for ``sif-writable cache``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sif_writable.cleanup import layers
from sif_writable.cleanup.contents import LEFTOVER, LOCK, PACKAGES, Contents, Image, Item
from sif_writable.cleanup.policy import is_empty, span
from sif_writable.report import layer
from sif_writable.report.text import paragraph
from sif_writable.sizes import count, human
from sif_writable.storage import layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sif_writable.cleanup.policy import Plan, Reach, Removal
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


class Shown(NamedTuple):
    """Which part of that is listed."""

    this: str
    """Identity of the image that this process runs in, or empty."""
    all_images: bool
    """Also what other images have, and what no program uses: lock files, leftovers of killed processes."""
    empty: bool = False
    """Also storage that holds nothing."""


def listing(seen: list[Contents], refused: list[tuple[str, str]], shown: Shown, now: float, paint: Painter) -> str:
    """Return what storage holds as text: the places, and in each what is not empty."""
    lines: list[str] = []
    for entry in seen:
        found = _of_root(entry, shown, now)
        if not (found or shown.empty):
            continue
        size = human(sum(item.size for item in entry.items if not _holds_nothing(item)))
        lines.append(paint(entry.root, "head") + f"  {size}")
        lines += found or ["  empty"]
        if not entry.reads_recorded:
            lines.append(paragraph("this filesystem does not record reading: last use means last written", 2))
        lines.append("")
    if not lines:
        lines.append(f"nothing is kept so far in {' or '.join(entry.root for entry in seen)}" if seen else "")
    lines += [paragraph(f"not looked into: {path} {why}", 0) for path, why in refused]
    return "\n".join(lines).strip() + "\n"


def _of_root(entry: Contents, shown: Shown, now: float) -> list[str]:
    lines: list[str] = []
    rows = _rows([item for item in entry.items if not item.image and item.kind not in (LOCK, LEFTOVER)], now)
    if rows:
        lines += ["  shared by all images", *rows]
    others: list[Item] = []
    count_of_others = 0
    for identity, image in sorted(entry.images.items(), key=lambda pair: (pair[0] != shown.this, -pair[1].used)):
        own = [item for item in entry.items if item.image == identity and item.kind != LEFTOVER]
        rows = _rows(own, now)
        if not rows:
            continue
        if identity != shown.this and not shown.all_images:
            others += own
            count_of_others += 1
            continue
        whose = "this image" if identity == shown.this else "another image" if shown.this else "image"
        lines += [f"  {whose}, {_named(image)}; last used {_ago(now - image.used)}", *rows]
    if count_of_others:
        size = human(sum(item.size for item in others))
        keep = "keeps" if count_of_others == 1 else "keep"
        lines.append(f"  {count(count_of_others, 'other image')} {keep} {size} (add --all-images)")
    rest = [item for item in entry.items if item.kind in (LOCK, LEFTOVER)]
    leftovers = sum(item.kind == LEFTOVER for item in rest)
    words = [count(len(rest) - leftovers, "lock file")] if len(rest) > leftovers else []
    words += [f"{count(leftovers, 'thing')} left behind by killed processes"] if leftovers else []
    if words and (leftovers or (shown.all_images and lines)):
        lines.append(f"  {', '.join(words)}, {human(sum(item.size for item in rest))}")
    return lines


def names(seen: list[Contents], reach: Reach) -> list[str]:
    """Return the paths of what is not empty, of this image or, where that is asked for or there is none, of all."""
    items = [item for entry in seen for item in entry.items if item.kind != LOCK and not _holds_nothing(item)]
    return [item.path for item in items if reach.all_images or not reach.this or not item.image or reach.holds(item)]


def _named(image: Image) -> str:
    known = ", ".join(filter(None, (image.name, image.prefix))) or "not known which"
    return f"{layout.image(image.identity)}: {known}"


def _rows(items: list[Item], now: float) -> list[str]:
    """Return a line for each thing that is not empty, the largest first."""
    lines = []
    items = [item for item in sorted(items, key=lambda item: -item.size) if not _holds_nothing(item)]
    name = max((len(item.name) for item in items), default=0)
    kind = max((len(item.kind) for item in items), default=0)
    for item in items:
        cells = f"{item.name:<{max(name, 24)}} {item.kind:<{max(kind, 8)}}"
        lines.append(f"    {cells} {human(item.size):>9} {count(item.files):>12}  {_ago(now - item.used)}")
        if item.kind == PACKAGES and item.written:
            lines.append(f"      programs wrote {count(item.written)} of it, {human(item.written_size)}")
        if item.problem:
            lines.append(paragraph(item.problem, 6))
        if item.kind in layers.KINDS:
            lines += [paragraph(words, 6) for words in layer.about(item)]
    return lines


def _holds_nothing(item: Item) -> bool:
    """Whether a thing is empty, or a layer to which nothing was written."""
    return is_empty(item) or (item.kind == layers.UPPER and layer.is_unused(item))


def _ago(seconds: float) -> str:
    return f"{span(seconds)} ago" if seconds >= 60 else "now"


def reach(removals: Sequence[Removal]) -> str:
    """Say how much would be removed, of how many images, and where."""
    items = [removal.item for removal in removals]
    images = len({(item.image) for item in items if item.image})
    whose = [count(images, "image")] if images else []
    whose += ["what images share"] if any(not item.image for item in items) else []
    places = sorted({item.path[: -len(f"/{item.folder}/{item.name}".replace("//", "/"))] for item in items})
    size = human(sum(_going(removal) for removal in removals))
    return f"{count(len(items), 'thing')}, {size}, of {' and of '.join(whose)} in {' and '.join(places)}"


def intended(plan_: Plan, seen: Sequence[Contents]) -> str:
    """Return what would be removed, as text: each thing with the image that it belongs to."""
    if not plan_.removals:
        return "nothing to remove\n"
    images = {identity: image for contents in seen for identity, image in contents.images.items()}
    lines = [f"would remove {reach(plan_.removals)}:"]
    named = ""
    empty = sum(is_empty(removal.item) for removal in plan_.removals)
    for removal in sorted(plan_.removals, key=lambda removal: (removal.item.image, removal.item.path)):
        item = removal.item
        if is_empty(item):
            continue
        if item.image != named and item.image in images:
            lines.append(f"  of {_named(images[item.image])}")
        named = item.image
        lines.append(f"  {item.path}  {human(_going(removal))}, {removal.why}")
        if item.kind == PACKAGES and item.written:
            what = f"{count(item.written)} that programs wrote in it"
            verb = ("stay", "go too") if item.written > 1 else ("stays", "goes too")
            lines.append(f"    {what} {verb[not removal.keep_written]}, {human(item.written_size)}")
    if empty:
        lines.append(f"  and {count(empty, 'empty folder')}")
    return "\n".join(lines) + "\n"


def _going(removal: Removal) -> int:
    kept = removal.item.written_size if removal.keep_written and removal.item.kind == PACKAGES else 0
    return removal.item.size - kept


def outcome(done: list[Removed]) -> str:
    """Return what was removed, as text."""
    gone = [entry for entry in done if not entry.problem]
    lines = [f"  {entry.item.path}  {human(entry.freed)}" for entry in gone if not is_empty(entry.item)]
    lines += [paragraph(f"not removed: {entry.item.path} {entry.problem}", 2) for entry in done if entry.problem]
    freed = human(sum(entry.freed for entry in gone))
    head = f"removed {count(len(gone), 'thing')}, {freed}" if done else "nothing to remove"
    return "\n".join([head + (":" if lines else ""), *lines]) + "\n"
