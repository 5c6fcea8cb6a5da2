"""The preflight: what could spoil a job, each as PASS, WARN or FAIL with its remedy."""

from __future__ import annotations

import os
import site
from typing import Any, NamedTuple

from sif_writable import startup
from sif_writable.facts import mounts
from sif_writable.report.startup import REMEDY, unmet
from sif_writable.report.status import current, place_problem
from sif_writable.report.text import human

PASS, WARN, FAIL = "PASS", "WARN", "FAIL"
LOW_BYTES = 256 << 20
"""Bytes free below which storage is likely to fill up within a job."""
LOW_INODES = 1000
"""Inodes free below which a package tree does not fit."""


class Check(NamedTuple):
    """One line of the preflight."""

    level: str
    """``PASS``, ``WARN`` or ``FAIL``."""
    name: str
    """What was looked at."""
    text: str
    """What was found."""
    remedy: str
    """What to do; empty for PASS."""


def checks(model: dict[str, Any]) -> list[Check]:
    """Turn the status model into checks, in the order in which a job would stumble."""
    return [
        *_hook(model),
        *_settings(model),
        *_storage(model),
        *_space(model),
        *_redirects(model),
        *_user_directories(),
        *_host_leaks(),
        *_gpu(model),
    ]


def _hook(model: dict[str, Any]) -> list[Check]:
    hook = model["hook"]
    if hook["problem"]:
        return [Check(FAIL, "hook", hook["problem"], hook["remedy"])]
    if hook["state"] == "failed":
        return [Check(FAIL, "hook", model["notes"][-1], "report this text; SIF_WRITABLE=off switches the hook off")]
    if hook["state"] == "off" and not model["root"]["writable"]:
        return [Check(WARN, "hook", "switched off by SIF_WRITABLE=off on a read-only root", "unset SIF_WRITABLE")]
    words = "active" if hook["active"] else f"not needed here ({hook['state']})"
    return [Check(PASS, "hook", f"{words}, started by {hook['how']}", "")]


def _settings(model: dict[str, Any]) -> list[Check]:
    return [
        Check(WARN, "settings", note, "correct the value or unset the variable")
        for note in model["notes"]
        if "not understood" in note or "can not be switched on" in note
    ]


def _storage(model: dict[str, Any]) -> list[Check]:
    outcome = current()
    if outcome is None:
        return []
    found = []
    line = unmet(outcome.storage)
    if line:
        strict = os.environ.get("SIF_WRITABLE_STRICT") == "1"
        found.append(Check(FAIL if strict else WARN, "storage", line.partition(" Remedy:")[0], REMEDY))
    if not model["storage"]:
        text = "no place can be written: " + "; ".join(f"{e['path']} {e['why']}" for e in model["refused"])
        found.append(Check(FAIL, "storage", text, "bind a writable directory to /sif-writable"))
    for entry in model["storage"]:
        if entry["lasting"] == "memory" and entry["kind"] != "runtime":
            text = f"{entry['kind']} files go to {entry['folder']}, which is memory and is gone after the run"
            found.append(Check(WARN, "storage", text, "bind a directory: --bind DIR:/sif-writable"))
    if model["storage"] and not found:
        found.append(Check(PASS, "storage", model["storage"][0]["folder"] + " and its neighbours can be written", ""))
    return found


def _space(model: dict[str, Any]) -> list[Check]:
    found, seen = [], set()
    for entry in model["storage"]:
        device = os.stat(entry["folder"]).st_dev
        if device in seen or entry["kind"] == "runtime":
            continue
        seen.add(device)
        if entry["free_bytes"] < LOW_BYTES:
            text = f"{entry['folder']} has {human(entry['free_bytes'])} free"
            found.append(Check(WARN, "space", text, "free some, or give a larger place with SIF_WRITABLE_DIR"))
        inodes = os.statvfs(entry["folder"])
        if inodes.f_files and inodes.f_favail < LOW_INODES:
            text = f"{entry['folder']} has {inodes.f_favail} inodes free"
            found.append(Check(WARN, "space", text, "remove small files, or make the overlay with more inodes"))
    if seen and not found:
        found.append(Check(PASS, "space", "enough bytes and inodes are free", ""))
    return found


def _redirects(model: dict[str, Any]) -> list[Check]:
    found = [
        Check(
            WARN,
            "redirects",
            f"{entry['variable']}={entry['value']}, set outside this package, {entry['problem']}",
            "bind that directory, or unset the variable so that it can be redirected",
        )
        for entry in model["user_set"]
        if entry["problem"]
    ]
    found += [
        Check(WARN, "redirects", note, "free the cause it names")
        for note in model["notes"]
        if "stays as it was" in note
    ]
    if model["home"]["why"] != "works" and not model["home"]["private"]:
        text = f"HOME={model['home']['value']} {model['home']['why']}"
        found.append(Check(WARN, "HOME", text, "set SIF_WRITABLE_HOME=auto, or give --home DIR"))
    return found or [Check(PASS, "redirects", f"{len(model['redirects'])} set; none of the user's own is wrong", "")]


def _user_directories() -> list[Check]:
    """Ask for the user's directories as libraries do, and see whether they can be used."""
    import platformdirs

    found = []
    for kind in ("cache", "config", "data", "state"):
        try:
            path = getattr(platformdirs, f"user_{kind}_dir")()
        except RuntimeError as error:  # platformdirs 4.12: no HOME and no passwd entry
            found.append(
                Check(WARN, "user directories", f"platformdirs finds no user {kind} directory: {error}", "set HOME")
            )
            continue
        problem = place_problem(path)
        if problem:
            text = f"the user's {kind} directory {path} {problem}"
            found.append(
                Check(WARN, "user directories", text, "set SIF_WRITABLE_HOME=redirect, or bind a writable HOME")
            )
    return found or [Check(PASS, "user directories", "cache, config, data and state can be written", "")]


def _host_leaks() -> list[Check]:
    """Name what of the host's Python is found first inside the image: ~/.local and PYTHONPATH."""
    if not startup.in_container(os.environ):
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
    for entry in filter(None, os.environ.get("PYTHONPATH", "").split(":")):
        mount = mounts.mount_of(entry)
        if not os.path.isdir(entry):
            text = f"PYTHONPATH names {entry}, which does not exist here"
        elif mount and root and mount.point != root.point:
            text = f"PYTHONPATH brings in {entry}, which is not part of the image"
        else:
            continue
        found.append(Check(WARN, "PYTHONPATH", text, "unset it for this container, or start with --cleanenv"))
    return found or [Check(PASS, "host", "neither ~/.local nor PYTHONPATH leaks into the image", "")]


def _gpu(model: dict[str, Any]) -> list[Check]:
    """Judge the GPUs: a lack of one is a failure only where one is required, and a warning where one is expected."""
    found = model["gpu"]
    if found is None or found["policy"] == "off":
        return []
    if found["severity"] in ("ok", "info"):
        return [Check(PASS, "GPU", found["fact"], "")]
    required = found["policy"] == "require"
    if not required and not found["expected"]:
        return [Check(PASS, "GPU", f"{found['fact']} Nobody expects one here.", "")]
    return [Check(FAIL if required and found["severity"] == "fail" else WARN, "GPU", found["fact"], found["remedy"])]
