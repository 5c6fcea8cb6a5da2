"""The status in twenty-five lines, for a ticket: what matters, what is wrong with a remedy, and counts of the rest."""

from __future__ import annotations

import os
import textwrap
from typing import TYPE_CHECKING

from sif_writable.report import overlay, usage
from sif_writable.report.text import LASTING, STATES, free, home_words, paragraph, shown, width
from sif_writable.sizes import count, human
from sif_writable.storage import unserved

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sif_writable.report.model import Status, Storage
    from sif_writable.report.text import Painter

MOST = 25
"""Lines."""
_LABEL = 11
_NAMED = 6
"""Things that are named of a longer list."""
_ALL = "sif-writable status --verbose"


def render(model: Status, paint: Painter) -> str:
    """Return the status as at most :data:`MOST` lines."""
    lines = [_title(model, paint), *_where(model), *_storage(model, paint), *_counts(model), *_gpu(model)]
    wrong = list(dict.fromkeys(_wrong(model)))
    if wrong:
        lines += _some(wrong, max(MOST - 1 - len(lines), 2), paint)
    lines = lines[: MOST - 1]
    lines.append(_one("more", f"{_ALL}; before a job: sif-writable doctor"))
    return "\n".join(lines) + "\n"


def problems(model: Status) -> list[str]:
    """Return what is wrong, each as a paragraph of its own."""
    return [paragraph(shown(words), 0) + "\n" for words in dict.fromkeys(_wrong(model))]


def _title(model: Status, paint: Painter) -> str:
    hook = model["hook"]
    word = paint("active", "good") if hook["active"] else paint(f"not active ({STATES[hook['state']]})", "warn")
    by = ", as an ancestor of this process has decided" if hook["active"] and hook["by"] == "an ancestor" else ""
    started = ", started by" if hook["active"] else "; called by"
    how = f"{started} {shown(hook['how'])}" if hook["how"] and not by else ""
    return f"{paint('sif_writable ' + model['version'], 'head')}: {word}{by}{how}"


def _where(model: Status) -> Iterator[str]:
    container, root = model["container"], model["root"]
    image = f", image {container['image']}" if container["image"] else ""
    yield from _field("container", f"{container['engine']}{image} (identity {container['identity']})", 2)
    writable = "writable" if root["writable"] else "read-only for this user"
    yield from _field("root", f"{root['prefix']} is {writable} ({root['filesystem']})", 1)
    if root["note"]:
        yield from _field("overlay", root["note"], 2)
    yield from _field("HOME", home_words(model["home"]), 3)


def _storage(model: Status, paint: Painter) -> Iterator[str]:
    found = model["storage"]
    if not found and model["refused"]:
        yield _one("storage", paint("no place can be written; nothing was changed", "bad"))
    rows = [(entry["kind"], f"{human(entry['free_bytes'])} free", _lasting(entry)) for entry in found]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for number, (row, entry) in enumerate(zip(rows, found)):
        cells = "  ".join(f"{cell:<{wide}}" for cell, wide in zip(row, widths))
        label = "storage" if model["hook"]["active"] else "would use"
        yield _one("" if number else label, f"{cells}  ", entry["folder"])
    refused = [entry for entry in model["refused"] if not entry["remedy"]]  # the others are among the wrong
    if refused:
        more = f"; and {len(refused) - 1} more" if len(refused) > 1 else ""
        yield from _field("not used", f"{refused[0]['path']} {refused[0]['why']}{more}", 2)
    kept = usage.total(model["usage"])
    if kept or not any(entry["size_bytes"] for entry in model["redirects"]):
        yield from _field("kept", kept or "nothing so far", 2) if model["usage"] else ()
    for room in model["space"]:
        if room["what"] not in ("storage", "HOME"):
            yield from _field("space", f"{room['what']}: {room['path']}, {room['filesystem']}, {free(room)}", 2)


def _lasting(entry: Storage) -> str:
    return LASTING.get(entry["lasting"], f"for this {entry['lasting']}")


def _counts(model: Status) -> Iterator[str]:
    if model["redirects"]:
        used = sorted((e for e in model["redirects"] if e["size_bytes"]), key=lambda entry: -entry["size_bytes"])
        text = f"{len(model['redirects'])} set; {len(used) or 'none'} in use"
        names = [
            f"{os.path.basename(entry['folder'])} {'' if entry['size_complete'] else 'at least '}"
            f"{human(entry['size_bytes'])}"
            for entry in used
        ]
        yield from _field("redirects", f"{text}: {_list(names)}" if names else text, 2)
    copied = [entry["name"] for entry in model["packages"] if not entry["how"].startswith("refused")]
    if copied:
        verbs = "have a writable copy, or get one" if len(copied) > 1 else "has a writable copy, or gets one"
        yield from _field("copies", f"{count(len(copied), 'package')} {verbs}: {_list(copied)}", 2)
    if model["layer"]:
        from sif_writable.report import layer

        yield from _field("layer", layer.brief(model["layer"]), 2)
    outside = [done["path"] for done in model["overlay"]["entered"]] if model["overlay"] else []
    if outside:
        yield from _field("writable", f"{_list(outside)}, which the user or the image declares", 1)
    if model["user_set"]:
        names = [entry["variable"] for entry in model["user_set"]]
        yield from _field("left alone", f"{_list(names)}: set outside this package", 2)


def _gpu(model: Status) -> Iterator[str]:
    found = model["gpu"]
    if found is None or (
        found["expected"] and found["severity"] in ("warn", "fail")
    ):  # that is listed among what is wrong
        return
    kinds = dict.fromkeys(device["name"] for device in found["devices"] if device["name"])
    names = f" {_list([str(name) for name in kinds])}." if kinds else ""
    yield from _field("GPU", found["fact"] + names, 2)


def _wrong(model: Status) -> Iterator[str]:
    """Yield what is wrong, with its remedy, the worst first."""
    hook, gpu = model["hook"], model["gpu"]
    if hook["problem"]:
        yield f"{hook['problem']}; remedy: {hook['remedy']}"
    if gpu and gpu["expected"] and gpu["severity"] in ("warn", "fail"):
        yield f"GPU: {gpu['fact']} Remedy: {gpu['remedy']}"
    if model["refused"] and not model["storage"]:
        yield "no place can be written, so nothing was changed; remedy: bind a directory: --bind DIR:/sif-writable"
    for refused in model["refused"]:
        if refused["remedy"]:
            yield f"{unserved.named(refused['place'], refused['path'])} {refused['why']}; remedy: {refused['remedy']}"
    yield from model["notes"]
    for entry in model["user_set"]:
        if entry["level"] == "warn":
            yield f"{entry['variable']}={entry['value']} {entry['problem']}; remedy: {entry['remedy']}"
    for room in model["space"]:
        for warning in room["warnings"]:
            yield f"nearly full: {warning['text']}; remedy: {warning['remedy']}"
    for stored in model["storage"]:
        if stored["note"]:
            yield f"{stored['kind']} files: {stored['note']}"
    for package in model["packages"]:
        if package["how"].startswith("refused"):
            yield f"{package['name']}: its copy is {package['how']}"
    for used in model["usage"]:
        if used["warning"]:
            yield f"{used['warning']['text']}; remedy: {used['warning']['remedy']}"
    if model["overlay"]:
        yield from overlay.refusals(model["overlay"])


def _some(wrong: list[str], room: int, paint: Painter) -> list[str]:
    """Return problems in at most so many lines: as many as fit whole, and how many more there are."""
    lines: list[str] = []
    printed = 0
    for text in wrong:
        whole = _field("" if printed else "wrong", text, MOST)
        last = printed + 1 == len(wrong)
        if printed and len(lines) + len(whole) + (not last) > room:
            break
        lines += (
            whole if printed or len(whole) + (not last) <= room else _field("wrong", text, max(room - (not last), 1))
        )
        printed += 1
    if printed < len(wrong):
        lines.append(_one("", f"and {len(wrong) - printed} more: {_ALL}"))
    lines[0] = lines[0].replace("wrong", paint("wrong", "warn"), 1)
    return lines


def _list(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _one(label: str, text: str, path: str = "") -> str:
    return f"{label:<{_LABEL}}{text}{shown(path)}"


def _field(label: str, text: str, most: int) -> list[str]:
    """Fold a text into at most so many lines, never within a path; what does not fit is replaced by dots."""
    pad = " " * _LABEL
    lines = textwrap.wrap(
        shown(text),
        width(),
        initial_indent=f"{label:<{_LABEL}}",
        subsequent_indent=pad,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )
    if len(lines) > most:
        lines = [*lines[: most - 1], textwrap.shorten(lines[most - 1], width() - 2, placeholder="") + " ..."]
        lines[-1] = (f"{label:<{_LABEL}}" if most == 1 else pad) + lines[-1].lstrip().removeprefix(label).lstrip()
    return lines
