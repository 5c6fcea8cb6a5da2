"""The preflight: what could spoil a job, each as PASS, INFO, WARN or FAIL with its remedy."""

from __future__ import annotations

import importlib.util
import os
import site
import sys
from typing import TYPE_CHECKING, NamedTuple

import sif_writable
from sif_writable import DIR, importhook, settings
from sif_writable.attach import variables
from sif_writable.redirects import given
from sif_writable.redirects.folders import STAYS
from sif_writable.report import overlay, usage
from sif_writable.report.status import current
from sif_writable.report.text import STATES, shown
from sif_writable.session import STRICT
from sif_writable.storage.kinds import CONFIG, KINDS
from sif_writable.storage.shortage import QUOTA
from sif_writable.storage.shortage import remedy as space_remedy
from sif_writable.storage.space import overlay_is_read_only, room_at
from sif_writable.storage.unserved import cure, named, remedy, unmet
from sif_writable.system import mounts
from sif_writable.system.probe import GIVEN_AWAY, attempt_in

if TYPE_CHECKING:
    from sif_writable.report.model import Status

PASS, INFO, WARN, FAIL = "PASS", "INFO", "WARN", "FAIL"


class Check(NamedTuple):
    """One line of the preflight."""

    level: str
    """``PASS``, ``INFO`` (to know, nothing to do), ``WARN`` or ``FAIL``."""
    name: str
    """The subject."""
    text: str
    """What was found."""
    remedy: str
    """What to do; empty for PASS and INFO."""


def checks(model: Status) -> list[Check]:
    """Turn the status model into checks, in the order in which a job would fail by them."""
    return [
        *_hook(model),
        *_settings(model),
        *_overlay(model),
        *_layer(model),
        *_storage(model),
        *_space(model),
        *_usage(model),
        *_redirects(model),
        *_user_directories(model),
        *_host_leaks(),
        *_gpu(model),
    ]


def _hook(model: Status) -> list[Check]:
    hook = model["hook"]
    if hook["problem"]:
        return [Check(FAIL, "hook", hook["problem"], hook["remedy"])]
    if hook["state"] == "failed":
        return [Check(FAIL, "hook", model["notes"][-1], "report this text; SIF_WRITABLE=off switches the hook off")]
    if hook["state"] == "off" and not model["root"]["writable"]:
        return [Check(WARN, "hook", "switched off by SIF_WRITABLE=off on a read-only root", "unset SIF_WRITABLE")]
    if hook["state"] in ("no storage", "elevated"):  # of the former, the line of storage says what to do
        return [Check(INFO, "hook", f"does nothing here: {STATES[hook['state']]}", "")]
    prefix = model["root"]["prefix"]
    of_base = "" if prefix == sys.prefix else f", for the packages of {prefix}, which this virtual environment uses"
    if hook["active"]:
        return [Check(PASS, "hook", f"active{of_base}, started by {hook['how']}", "")]
    return [Check(PASS, "hook", f"not needed here: {STATES[hook['state']]}; called by {hook['how']}", "")]


def _settings(model: Status) -> list[Check]:
    found = [Check(WARN, "settings", text, "correct or unset the variable") for text in model["settings"]]
    return found + [
        Check(WARN, "manifest", entry["text"], entry["remedy"])
        for entry in model["problems"]
        if entry["code"] == "bad-manifest"
    ]


def _overlay(model: Status) -> list[Check]:
    note = model["root"]["note"]
    found = [Check(PASS, "overlay", note, "")] if note else []
    refused = overlay.refusals(model["overlay"]) if model["overlay"] else []
    return found + [Check(WARN, "paths", text.rstrip("."), "") for text in refused]  # each ends with its remedy


def _layer(model: Status) -> list[Check]:
    if not model["layer"]:
        return []
    from sif_writable.cleanup.contents import inspect_images, on_this_node
    from sif_writable.cleanup.policy import KNOWN
    from sif_writable.layer import enter
    from sif_writable.report import layer, layer_checks

    image = os.path.dirname(importhook.folder())
    layer_checks.try_now(image)
    places = enter.places(image, os.path.basename(image), os.geteuid())
    left = [inspect_images(os.path.dirname(image), [os.path.basename(image)], KNOWN), *on_this_node()]
    found = layer_checks.findings(layer.model(image), layer_checks.machine(), places, left)
    return [Check(PASS if one.good else WARN, "layer", one.text, one.remedy) for one in found]


def _storage(model: Status) -> list[Check]:
    outcome = current()
    if outcome is None:
        return []
    found = []
    unserved = unmet(outcome.storage)
    strict = os.environ.get(STRICT) == "1"
    for place, problem in outcome.storage.refused:
        if place.label == DIR and unserved:
            text, level = unserved.text, FAIL if strict else WARN
            unserved = None
        elif place.given and place.label != DIR:
            text, level = f"{place.label} {problem}", WARN
        elif place.label != DIR and remedy(outcome.storage, place):
            text, level = f"{named(place.label, place.base)} {problem}", WARN
        else:
            continue
        found.append(Check(level, "storage", shown(text), cure(outcome.storage, place)))
    missing = [kind for kind in KINDS if kind not in outcome.storage.slots]
    if missing:
        what = (
            "no place can be written" if len(missing) == len(KINDS) else f"no place for {' and '.join(missing)} files"
        )
        text = f"{what}: " + "; ".join(f"{e['path']} {e['why']}" for e in model["refused"])
        what_helps = "bind a writable directory to /sif-writable"
        if overlay_is_read_only():
            text += "; the overlay that was given is read-only"
            what_helps += ", or give the overlay without :ro (then to one container at a time)"
        found.append(Check(FAIL if CONFIG in missing else WARN, "storage", text, what_helps))
    for entry in model["storage"]:
        if entry["lasting"] == "memory" and entry["kind"] != "runtime":
            text = f"{entry['kind']} files go to {entry['folder']}, which is memory and is gone after the run"
            found.append(Check(WARN, "storage", text, "bind a directory: --bind DIR:/sif-writable"))
    found += [
        Check(WARN, "storage", entry["text"].rstrip("."), entry["remedy"].rstrip("."))
        for entry in model["problems"]
        if entry["code"] == "not-shared"
    ]
    if model["storage"] and not found:
        found.append(Check(PASS, "storage", model["storage"][0]["folder"] + " and its neighbours can be written", ""))
    return found


def _space(model: Status) -> list[Check]:
    found = [
        Check(WARN, "space", f"{entry['what']}: {warning['text']}", warning["remedy"])
        for entry in model["space"]
        for warning in entry["warnings"]
    ]
    for entry in model["space"]:
        # Most filesystems report no quota of a user; writing a page shows that it is used up.
        problem = attempt_in(entry["path"]) if entry["what"] in ("storage", "HOME") and not entry["warnings"] else None
        room = room_at(entry["path"], os.environ)
        if problem and room:
            away = problem.code == GIVEN_AWAY
            what_helps = "name another directory" if away else space_remedy(room, QUOTA)
            found.append(Check(WARN, "space", f"{entry['what']}: {entry['path']} {problem.text}", what_helps))
    if model["space"] and not found:
        found.append(Check(PASS, "space", "enough bytes and inodes are free", ""))
    return found


def _usage(model: Status) -> list[Check]:
    return [
        Check(WARN, "growth", entry["warning"]["text"], entry["warning"]["remedy"])
        if entry["warning"]
        else Check(PASS, "growth", usage.words(entry), "")
        for entry in model["usage"]
    ]


def _redirects(model: Status) -> list[Check]:
    found = [
        Check(
            WARN,
            "redirects",
            shown(f"{entry['variable']}={entry['value']}, set outside this package, {entry['problem']}"),
            entry["remedy"],
        )
        for entry in model["user_set"]
        if entry["level"] == "warn"
    ]
    found += [
        Check(WARN, "redirects", entry["text"].rstrip("."), entry["remedy"].rstrip(".") or "free the cause it names")
        for entry in model["problems"]
        if entry["code"] == STAYS
    ]
    if model["home"]["why"] != "works" and not model["home"]["private"]:
        text = f"HOME={model['home']['value']} {model['home']['why']}"
        kept = settings.home(os.environ) == "keep"
        first = f"set {settings.HOME}=auto" if kept else "bind a directory to /sif-writable"
        found.append(Check(WARN, "HOME", text, f"{first}, or give --home DIR"))
    found = found or [Check(PASS, "redirects", f"{len(model['redirects'])} set; none of the user's own is wrong", "")]
    return found + [
        Check(INFO, "redirects", f"{entry['variable']}={entry['value']} {entry['problem']}; few programs miss it", "")
        for entry in model["user_set"]
        if entry["level"] == "info"
    ]


def _user_directories(model: Status) -> list[Check]:
    """Ask platformdirs for the user's directories, as libraries do, and check that they can be used."""
    try:
        import platformdirs

        kinds = {kind: getattr(platformdirs, f"user_{kind}_dir") for kind in ("cache", "config", "data", "state")}
    except Exception as error:  # noqa: BLE001 - it may be any module of this name
        spec = importlib.util.find_spec("platformdirs")
        why = f"{spec.origin} is not platformdirs" if spec else "platformdirs is not installed"
        text = f"they were not asked for: {why} ({type(error).__name__}: {error})"
        return [Check(WARN, "user directories", text, "rename that module, or install platformdirs")]
    found = []
    for kind, ask in kinds.items():
        try:
            path = ask()
        except RuntimeError as error:  # platformdirs 4.12: no HOME and no passwd entry
            found.append(
                Check(WARN, "user directories", f"platformdirs finds no user {kind} directory: {error}", "set HOME")
            )
            continue
        problem = given.problem(path)
        if problem:
            name = f"XDG_{kind.upper()}_HOME"
            cure = "set SIF_WRITABLE_HOME=redirect, or bind a writable HOME"
            if not model["storage"]:  # a private HOME would have no place
                cure = "give --home DIR"
            if os.environ.get(name):  # then HOME is not what leads there
                cure = f"bind it (--bind {given.missing(path)}), or unset {name}"
            found.append(Check(WARN, "user directories", f"the user's {kind} directory {path} {problem}", cure))
    return found or [Check(PASS, "user directories", "cache, config, data and state can be written", "")]


def _host_leaks() -> list[Check]:
    """Name what the image's Python would import from the host before its own packages: ~/.local and PYTHONPATH."""
    if not sif_writable.in_container(sif_writable.environment()):
        return []
    found = []
    user_site = site.getusersitepackages() if site.ENABLE_USER_SITE else ""
    if user_site and os.path.isdir(user_site) and any(os.scandir(user_site)):
        found.append(
            Check(
                WARN,
                "user site",
                f"packages in {user_site} are found before the image's own",
                "set PYTHONNOUSERSITE=1 (for Apptainer: export APPTAINERENV_PYTHONNOUSERSITE=1)",
            )
        )
    root = mounts.mount_of("/")
    hook = f"{os.path.dirname(os.path.abspath(sif_writable.__file__))}/hook"
    for entry in variables.own_entries(os.environ.get("PYTHONPATH", "")):
        if os.path.realpath(entry) == hook:  # it delivers the hook
            continue
        mount = mounts.mount_of(entry)
        if not os.path.isdir(entry):
            text = f"PYTHONPATH names {entry}, which does not exist here"
        elif mount and root and mount.point != root.point:
            text = f"PYTHONPATH brings in {entry}, which is not part of the image"
        else:
            continue
        found.append(Check(WARN, "PYTHONPATH", text, "unset it for this container, or start with --cleanenv"))
    return found or [Check(PASS, "host", "neither ~/.local nor PYTHONPATH leaks into the image", "")]


def _gpu(model: Status) -> list[Check]:
    """Judge the GPUs: a lack of one is a failure only where one is required, and a warning where one is expected."""
    found = model["gpu"]
    if found is None or found["policy"] == "off":
        return []
    if found["severity"] in ("ok", "info"):
        return [Check(PASS if found["severity"] == "ok" else INFO, "GPU", found["fact"], "")]
    required = found["policy"] == "require"
    if not required and not found["expected"]:
        return [Check(INFO, "GPU", f"{found['fact']} None is expected here.", "")]
    return [Check(FAIL if required and found["severity"] == "fail" else WARN, "GPU", found["fact"], found["remedy"])]
