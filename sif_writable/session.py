"""What an ancestor has set, and how it is taken back.

The variable :data:`sif_writable.SESSION` says it: ``2;TOKEN;SET,SET;INPUTS;ROOT:ROOT``. Where any of the roots may stop
answering, the ``2`` is followed by a letter for each: a constant of :mod:`sif_writable.hanging`. Each ``SET`` is a
variable that was set, as :func:`was_set` writes it; ``TOKEN`` and ``INPUTS`` are what :func:`sif_writable.child.token`
and :func:`sif_writable.child.inputs` returned.

Loaded only where what an ancestor decided does not hold for this process, and by commands. What was set is known by
name and check sum: what has another value now is from the user or his program, and stays.
"""

import os
import sys

from sif_writable import MODE, OFF, SESSION
from sif_writable.child import COPIES, FIELDS, PYCACHE, SHARED_IN, token
from sif_writable.hanging import LOCAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping
    from typing import Optional

    from sif_writable.errors import Problem

OLD = "SIF_WRITABLE_OLD_"
"""How the variables begin that hold what others had before a session set them: ``SIF_WRITABLE_OLD_HOME``."""
REFUSED = "SIF_WRITABLE_REFUSED"
STRICT = "SIF_WRITABLE_STRICT"
"""The variable that asks for a heavy import to fail where :data:`REFUSED` is set."""
SAID = "SIF_WRITABLE_SAID"
GPU_CHECKED = "SIF_WRITABLE_GPU_CHECKED"
HANDED_DOWN = (REFUSED, SAID, COPIES, PYCACHE, SHARED_IN)
"""Variables of ours that a session has besides those that it names, and :data:`OLD` of each."""

_SET_KEY = 0x5349465F53455400

taken_back: "dict[str, Optional[str]]" = {}
"""Variables that this process has taken back at its start, with their value since then."""
said = ""
"""What an ancestor had in :data:`SAID`."""


def was_set(name: str, value: str, before: "Optional[str]") -> str:
    """Return how a session says that it set a variable: ``NAME=SUM``, and a ``+`` where it had a value before.

    What is equal by its check sum is still what was set; anything else is from the user or his program. The value
    before is in a variable of its own (:data:`OLD`), since one string of an environment is at most 128 KiB.
    """
    return f"{name}={check_sum(value)}" + ("" if before is None else "+")


def check_sum(value: str) -> str:
    """Return eight hexadecimal digits for a value."""
    from _imp import source_hash  # built in

    return source_hash(_SET_KEY, os.fsencode(value))[:4].hex()


def root_of(session: str, path: str) -> str:
    """Return the storage root of a session that contains a path, or an empty string."""
    for root in session.split(";", FIELDS - 1)[-1].split(":"):
        if root and path.startswith(root + "/"):
            return root
    return ""


def root_and_kind(session: str, path: str) -> "tuple[str, str]":
    """Return (root, kind) of the session's storage root that contains a path, or ("", LOCAL)."""
    fields = session.split(";", FIELDS - 1)
    for kind, root in zip(fields[0][1:], fields[-1].split(":")):
        if path.startswith(root + "/"):
            return root, kind
    return "", LOCAL


def fields(environ: "Mapping[str, str]") -> "list[str]":
    """Return the fields of the session in an environment; an empty list without one, or where it is damaged."""
    found = environ.get(SESSION, "").split(";", FIELDS - 1)
    if len(found) != FIELDS or found[0][:1] != "2" or found[4][:1] not in ("", "/"):
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
        name, _, known = entry.partition("=")
        if name in environ and check_sum(environ[name]) == known[:8]:
            kept[name] = environ.get(OLD + name) if known[8:] == "+" else None
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
    session = environ.pop(SESSION, "")
    for name in (*HANDED_DOWN, *[name for name in environ if name.startswith(OLD)]):
        environ.pop(name, None)
    # It has a key of its own, and is asked once per process tree.
    if not found or found[1] != token() or environ.get(MODE, "").lower() in OFF:
        environ.pop(GPU_CHECKED, None)
    if found:
        return None
    from sif_writable.errors import Problem

    text = f"{SESSION}={session[:40]!r} is damaged and was passed over: all was decided anew"
    return Problem("damaged-session", text)


def take_back(environ: "MutableMapping[str, str]") -> "Optional[Problem]":
    """Take back what an ancestor's decisions have changed in this process, too.

    :param environ: os.environ.
    :returns: as :func:`forget`.
    """
    global said
    before = dict(environ)
    damaged = forget(environ)
    said = before.get(SAID, "")
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
