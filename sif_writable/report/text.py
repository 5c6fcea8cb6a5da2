"""All of the status as text, and how any text is folded, aligned and coloured."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Any

from sif_writable.report import overlay, usage
from sif_writable.sizes import count, human

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sif_writable.report.model import Home, Space, Status, Storage

WIDTH, NARROWEST, WIDEST = 80, 40, 120
"""Columns of a line where there is no terminal, and the least and the most that are used of one."""
MANY_INODES = 1_000_000
"""Free inodes above which their number is not worth mentioning."""
WRITTEN = 5
"""Files that are named of what a package wrote."""
_STYLES = {"good": "32", "bad": "31", "warn": "33", "head": "1"}


class Painter:
    """Colours words on a terminal and leaves them plain elsewhere (no-color.org)."""

    def __init__(self, stream: Any = None) -> None:
        """:param stream: where the text will go; standard output by default."""
        stream = sys.stdout if stream is None else stream
        self.on = bool(stream.isatty()) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def __call__(self, text: str, style: str) -> str:
        """Return the text in a style: ``good``, ``bad``, ``warn`` or ``head``."""
        return f"\033[{_STYLES[style]}m{text}\033[0m" if self.on else text


def width() -> int:
    """Return how many columns a line may have: those of a terminal, within reason, and 80 elsewhere."""
    stream = sys.stdout
    if stream is None or not stream.isatty():
        return WIDTH
    return min(max(shutil.get_terminal_size((WIDTH, 24)).columns, NARROWEST), WIDEST)


def shown(text: str) -> str:
    """Return a text such that it can be printed in a line: names of files and values of variables may hold anything."""
    return "".join([letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text])


def paragraph(text: str, indent: int) -> str:
    """Fold a text at the width of the terminal, never within a path."""
    pad = " " * indent
    return textwrap.fill(
        text, width(), initial_indent=pad, subsequent_indent=pad, break_long_words=False, break_on_hyphens=False
    )


def table(rows: Sequence[Sequence[str]], indent: int) -> list[str]:
    """Return rows of cells in columns as wide as they need; the last one, of paths, is as long as it is."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    pad = " " * indent
    return [
        (pad + "  ".join([f"{cell:<{wide}}" for cell, wide in zip(row[:-1], widths)] + [row[-1]])).rstrip()
        for row in rows
    ]


def _field(name: str, text: str) -> str:
    label = f"{name}:"
    return f"{label:<11}" + paragraph(text, 11).lstrip()


def render(model: Status, paint: Painter) -> str:
    """Return the whole status model as text; what a ticket needs of it is in :mod:`.summary`."""
    hook, container, root = model["hook"], model["container"], model["root"]
    lines = [paint(f"sif_writable {model['version']}", "head")]
    word = paint("active", "good") if hook["active"] else paint(f"not active ({STATES[hook['state']]})", "warn")
    by = ", as an ancestor of this process has decided" if hook["active"] and hook["by"] == "an ancestor" else ""
    lines.append(f"{'hook:':<11}{word}{by}")
    if hook["how"]:
        lines.append(paragraph(f"{'started' if hook['active'] else 'called'} by {hook['how']}", 11))
    if hook["problem"]:
        lines += [paragraph(hook["problem"], 11), paragraph(f"remedy: {hook['remedy']}", 11)]
    engine = container["engine"] + (f", image {container['image']}" if container["image"] else "")
    signs = f" (by {', '.join(container['signs'])})" if container["signs"] else ""
    lines.append(_field("container", engine + signs))
    lines.append(_field("identity", f"{container['identity']} from {', '.join(container['ingredients'])}"))
    writable = "writable" if root["writable"] else "read-only for this user"
    lines.append(_field("root", f"{root['prefix']} is {writable} ({root['filesystem']})"))
    if root["note"]:
        lines.append(paragraph(root["note"], 11))
    lines.append(_field("HOME", home_words(model["home"])))
    lines += _storage_lines(model, paint)
    lines += _space_lines(model, paint)
    lines += _redirect_lines(model, paint)
    lines += _package_lines(model, paint)
    if model["layer"]:
        from sif_writable.report import layer

        lines += ["", paint("writable layer", "head")]
        lines += [paragraph(sentence, 2) for sentence in layer.lines(model["layer"], verbose=True)]
    outside = overlay.lines(model["overlay"]) if model["overlay"] else []
    if outside:
        lines += ["", paint("paths outside packages", "head")] + [paragraph(sentence, 2) for sentence in outside]
    if model["user_set"]:
        lines += ["", paint("set by the user, left alone", "head")]
        for entry in model["user_set"]:
            lines.append(paragraph(shown(f"{entry['variable']}={entry['value']}"), 2))
            if entry["problem"]:
                lines.append(paragraph(paint(shown(f"warning: {entry['problem']}"), "warn"), 4))
                lines.append(paragraph(f"remedy: {entry['remedy']}", 4))
    left = [(entry["variable"], entry["why"]) for entry in model["left_alone"] if entry["why"] != "set by the user"]
    if left:
        lines += ["", paint("left alone", "head"), *table(left, 2)]
    lines += _gpu_lines(model, paint)
    if model["notes"]:
        lines += ["", paint("notes", "head")] + [paragraph(shown(note), 2) for note in model["notes"]]
    return "\n".join(lines) + "\n"


STATES = {
    "off": "SIF_WRITABLE=off",
    "host": "not in a container",
    "build": "an image is being built",
    "writable": "the root and HOME are writable",
    "elevated": "the interpreter runs with other rights than its caller",
    "not delivered": "the hook did not run at interpreter start",
    "not run": "the hook did not run at interpreter start",
    "no storage": "no place can be written: nothing was changed",
    "failed": "the hook failed; see the notes",
    "active": "nothing to do",
    "inherited": "nothing to do",
}


def inactive() -> str:
    """Say why the hook has nothing to do in this process, or return an empty string."""
    import sif_writable

    return "" if sif_writable.state in ("active", "inherited") else STATES.get(sif_writable.state, "")


LASTING = {"persistent": "persistent", "memory": "in memory, gone with the job or the container"}
"""How long a place lasts, where that is said in other words than "as long as"."""


def home_words(home: Home) -> str:
    """Say what HOME is, and why."""
    if home["private"]:
        was = "not set" if home["old"] is None else repr(home["old"])
        return f"{home['value']}, a private one, since {home['why']} (it was {was})"
    return f"{home['value']} {home['why']}".strip()


def _storage_lines(model: Status, paint: Painter) -> list[str]:
    if not model["storage"] and not model["refused"]:
        return []
    lines = ["", paint("storage", "head")]
    for entry in model["storage"]:
        lines.append(f"  {entry['kind']:<9}{entry['folder']}")
        lasting = LASTING.get(entry["lasting"], f"lasts as long as the {entry['lasting']}")
        words = f"{entry['place']}; {entry['filesystem']}, {free(entry)}; {lasting}"
        lines.append(paragraph(words, 11))
        if entry["note"]:
            lines.append(paragraph(paint(entry["note"], "warn"), 11))
    if not model["storage"]:
        lines.append(paragraph(paint("no place can be written; nothing was changed", "bad"), 2))
    for refused in model["refused"]:
        lines.append(paragraph(f"not {refused['place']}: {shown(refused['path'])} {shown(refused['why'])}", 2))
        if refused["remedy"]:
            lines.append(paragraph(f"remedy: {shown(refused['remedy'])}", 4))
    for used in model["usage"]:
        lines.append(paragraph(usage.words(used), 2))
        if used["warning"]:
            lines.append(paragraph(paint(used["warning"]["text"], "warn"), 2))
            lines.append(paragraph(f"remedy: {used['warning']['remedy']}", 4))
    return lines


def _space_lines(model: Status, paint: Painter) -> list[str]:
    """Return the free space of what is not listed as storage, and what runs short."""
    lines = []
    for entry in model["space"]:
        if entry["what"] != "storage":
            lines.append(paragraph(f"{entry['what']}: {entry['path']}, {entry['filesystem']}, {free(entry)}", 2))
        for warning in entry["warnings"]:
            lines.append(paragraph(paint(f"nearly full: {warning['text']}", "warn"), 2))
            lines.append(paragraph(f"remedy: {warning['remedy']}", 4))
    return ["", paint("space", "head"), *lines] if lines else []


def free(entry: Storage | Space) -> str:
    """Say how much is free, with inodes where they run short."""
    inodes = ""
    if entry["total_inodes"] and entry["free_inodes"] < MANY_INODES:
        inodes = f" and {entry['free_inodes']} of {entry['total_inodes']} inodes"
    return f"{human(entry['free_bytes'])} of {human(entry['total_bytes'])}{inodes} free"


def _redirect_lines(model: Status, paint: Painter) -> list[str]:
    """Group the redirects by reason, each as one line: what it holds, and the value below the folder of its kind."""
    if not model["redirects"]:
        return []
    folders = {entry["kind"]: entry["folder"] for entry in model["storage"]}
    rows = []
    for entry in model["redirects"]:
        size = ""
        if entry["size_bytes"]:
            size = human(entry["size_bytes"]) + ("" if entry["size_complete"] else " or more")
        value = entry["value"].replace(folders.get(entry["kind"], "\0"), entry["kind"])
        # An empty entry at the end of a list stands for the one that is built in.
        value = value[:-1] + " (before its own)" if value.endswith(":") else value
        rows.append((entry["variable"], size, entry["offers"], shown(value)))
    lines = ["", paint(f"redirects ({len(rows)}, set by sif_writable)", "head")]
    aligned = dict(zip((entry["variable"] for entry in model["redirects"]), table(rows, 4)))
    for why in dict.fromkeys(entry["why"] for entry in model["redirects"]):
        lines.append(paragraph(f"because {why}", 2))
        lines += [aligned[entry["variable"]] for entry in model["redirects"] if entry["why"] == why]
    return lines


def _package_lines(model: Status, paint: Painter) -> list[str]:
    if not model["packages"]:
        return []
    lines = ["", paint("packages that write into their own directory", "head")]
    for entry in model["packages"]:
        size = f" ({human(entry['size_bytes'])})" if entry["how"] == "copy" else ""
        lines.append(f"  {entry['name']}{size}")
        if entry["why"]:
            lines.append(paragraph(f"because {entry['why']}", 4))
        if entry["how"] == "copy":
            lines.append(f"    copied to {entry['where']}")
        elif entry["how"] == "mount":
            lines.append("    can be written where it is, thanks to a mount")
        elif entry["how"] == "next import":
            lines.append("    copied at its next import")
        else:
            lines.append(paragraph(paint(entry["how"], "warn"), 4))
        if entry["written"]:
            shown = ", ".join(entry["written"][:WRITTEN])
            more = f" and {len(entry['written']) - WRITTEN} more" if len(entry["written"]) > WRITTEN else ""
            lines.append(paragraph(f"it wrote {shown}{more}", 4))
    return lines


def _gpu_lines(model: Status, paint: Painter) -> list[str]:
    found = model["gpu"]
    if found is None:
        return []
    styles = {"warn": "warn", "fail": "bad", "ok": "good"}
    lines = ["", paint("GPU", "head")]
    style = styles.get(found["severity"], "") if found["severity"] == "ok" or found["expected"] else ""
    lines.append(paragraph(paint(found["fact"], style) if style else found["fact"], 2))
    if found["remedy"] and found["expected"]:
        lines.append(paragraph(f"remedy: {found['remedy']}", 2))
    for device in found["devices"]:
        words = [device["name"] or device["problem"] or "no name"]
        if device["memory_total"]:
            words.append(f"{human(device['memory_free'] or 0)} of {human(device['memory_total'])} free")
        if device["capability"]:
            words.append(f"capability {device['capability']}")
        if device["mig"] is not None:
            words.append(f"MIG with {count(len(device['mig']), 'instance')}")
        if device["compute_mode"]:
            words.append(f"compute mode {device['compute_mode']}")
        if device["visible"] is not None:
            words.append("visible" if device["visible"] else "hidden by CUDA_VISIBLE_DEVICES")
        lines.append(paragraph(f"{device['index']}: {', '.join(words)}", 4))
    if found["unknown"]:
        lines.append(paragraph(f"not known: names, UUIDs and memory, since {found['unknown']}", 2))
    if found["driver"]:
        cuda = f", which runs CUDA up to {found['highest_cuda']}" if found["highest_cuda"] else ""
        lines.append(paragraph(f"driver {found['driver']}{cuda}", 2))
    if found["image_cuda"]:
        runs = {True: "; this driver runs it", False: "; this driver is too old for it", None: ""}
        text = f"the image has CUDA {found['image_cuda']} ({found['image_cuda_from']}){runs[found['runs_image_cuda']]}"
        lines.append(paragraph(text, 2))
    return lines
