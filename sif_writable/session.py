"""What an ancestor has set, and how it is taken back.

Loaded only where what an ancestor decided does not hold for this process, and by commands. What was set is known by
name and check sum: what has another value now is from the user or his program, and stays.
"""

import sys

from sif_writable import startup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping
    from typing import Optional

    from sif_writable.errors import Problem

REFUSED = "SIF_WRITABLE_REFUSED"
TOLD = "SIF_WRITABLE_TOLD"
COPIES = "SIF_WRITABLE_COPIES"
GPU_CHECKED = "SIF_WRITABLE_GPU_CHECKED"
HANDED_DOWN = (REFUSED, TOLD, COPIES, startup.PYCACHE)
"""Variables of ours that a session has besides those that it names, and :data:`~.startup.OLD` of each."""

taken_back: "dict[str, Optional[str]]" = {}
"""Variables that this process has taken back at its start, with their value since then."""
told = ""
"""What an ancestor had in :data:`TOLD`."""


def fields(environ: "Mapping[str, str]") -> "list[str]":
    """Return the fields of the session in an environment; an empty list without one, or where it is damaged."""
    found = environ.get(startup.SESSION, "").split(";", startup.FIELDS - 1)
    if len(found) != startup.FIELDS or found[0][:1] != "2" or found[4][:1] not in ("", "/"):
        return []
    return found


def names(environ: "Mapping[str, str]") -> "list[str]":
    """Return the variables that the session in an environment has set, whatever their value is now."""
    found = fields(environ)
    return [entry.partition("=")[0] for entry in found[2].split(",") if entry] if found else []


def roots(environ: "Mapping[str, str]") -> "list[str]":
    """Return the storage roots of the session in an environment, the main one first."""
    found = fields(environ)
    return [root for root in found[4].split(":") if root] if found else []


def in_force(environ: "Mapping[str, str]") -> "dict[str, Optional[str]]":
    """Map the variables that still have the value which the session has set to the value that they had before."""
    found = fields(environ)
    kept: dict[str, Optional[str]] = {}
    for entry in found[2].split(",") if found else ():
        name, _, check_sum = entry.partition("=")
        if name in environ and startup.check_sum(environ[name]) == check_sum[:8]:
            kept[name] = environ.get(startup.OLD + name) if check_sum[8:] == "+" else None
    return kept


def forget(environ: "MutableMapping[str, str]") -> "Optional[Problem]":
    """Take out of an environment what the session named in it has put there, and the session itself.

    :returns: what ``status`` says where it cannot be a session of ours.
    """
    found = fields(environ)
    for name, before in in_force(environ).items():
        if before is None:
            del environ[name]
        else:
            environ[name] = before
    session = environ.pop(startup.SESSION, "")
    for name in (*HANDED_DOWN, *[name for name in environ if name.startswith(startup.OLD)]):
        environ.pop(name, None)
    # It has a key of its own, and is asked once per process tree.
    if not found or found[1] != startup.token() or environ.get("SIF_WRITABLE", "").lower() in startup.OFF:
        environ.pop(GPU_CHECKED, None)
    if found:
        return None
    from sif_writable.errors import Problem

    text = f"{startup.SESSION}={session[:40]!r} is damaged and was passed over: all was decided anew"
    return Problem("damaged-session", text)


def take_back(environ: "MutableMapping[str, str]") -> "Optional[Problem]":
    """Take back what an ancestor's decisions have changed in this process, too.

    :param environ: os.environ.
    :returns: as :func:`forget`.
    """
    global told
    before = dict(environ)
    damaged = forget(environ)
    told = before.get(TOLD, "")
    taken_back.update({name: environ.get(name) for name, value in before.items() if environ.get(name) != value})
    prefix = before.get("PYTHONPYCACHEPREFIX")
    if "PYTHONPYCACHEPREFIX" in taken_back and prefix and sys.pycache_prefix == prefix:
        sys.pycache_prefix = environ.get("PYTHONPYCACHEPREFIX") or None
    if "TMPDIR" in taken_back and "tempfile" in sys.modules:
        sys.modules["tempfile"].tempdir = None  # type: ignore[attr-defined]
    if "HOME" in taken_back or "PYTHONNOUSERSITE" in taken_back:
        from sif_writable import usersite

        usersite.follow_home(switched_on="PYTHONNOUSERSITE" in taken_back)
    return damaged
