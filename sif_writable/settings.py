"""What did the user ask for? The names of our variables, each once, and the values that they may have.

What the gate, the first stage of the hook, sessions and lines on stderr go by is named there, and what concerns the GPU
in :mod:`sif_writable.gpu.demands`. On the cold path of a start.
"""

from sif_writable import DEBUG, MODE
from sif_writable.child import KEEP, OPT_IN, OVERLAY
from sif_writable.session import STRICT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

HOME = "SIF_WRITABLE_HOME"
"""Whether a private HOME takes the place of the user's."""
SHARE = "SIF_WRITABLE_SHARE"
"""What the group shares that may write the place which the user gave: ``data``, so that whoever is in it can replace
what programs read there; never code."""
IN_OVERLAY = "SIF_WRITABLE_IN_OVERLAY"
"""What descendants find in their namespace: ``NAMESPACE;POINT:POINT``. It counts only in that very namespace."""

MODES = {
    MODE: ("auto", "on", "off"),
    HOME: ("auto", "keep", "redirect"),
    OVERLAY: ("auto", "on", "off"),
    KEEP: ("new", "all", "none"),
    SHARE: ("none", "data"),
    STRICT: ("0", "1"),
    DEBUG: ("0", "1"),
}
"""Variables of ours with a fixed set of values; the first is the default."""
_SYNONYMS = {
    MODE: ("0", "1", "no", "yes", "false", "true", "never", "always"),
    OVERLAY: ("layer",),  # what the default was asked for with before it was the default
}
"""Other values that are understood."""


def misunderstood(environ: "Mapping[str, str]", optional: "Iterable[str]") -> "list[str]":
    """List our variables whose value is not understood, with what is allowed; they count as unset.

    :param optional: the variables that :data:`OPT_IN` may name.
    """
    notes = []
    for name, allowed in MODES.items():
        value = environ.get(name, "").strip() if name == KEEP else environ.get(name, "")
        if value and value.lower() not in (*allowed, *_SYNONYMS.get(name, ())):
            notes.append(f"{name}={value[:80]!r} is not understood and counts as unset; allowed: {', '.join(allowed)}")
    known = list(optional)
    return notes + [
        f"{OPT_IN} names {name[:80]!r}, which can not be switched on; allowed: {', '.join(known)}"
        for name in opted(environ)
        if name not in known
    ]


def home(environ: "Mapping[str, str]") -> str:
    """Return ``keep``, ``redirect``, or something else, which counts as unset."""
    return environ.get(HOME, "").lower()


def shares_data(environ: "Mapping[str, str]") -> bool:
    """Whether downloads are shared with the group."""
    return environ.get(SHARE, "").lower() == "data"


def opted(environ: "Mapping[str, str]") -> "list[str]":
    """Return the variables that the user has switched on."""
    return listed(environ, OPT_IN)


def listed(environ: "Mapping[str, str]", name: str) -> "list[str]":
    """Return the words of a variable of ours that have commas or spaces between them."""
    return environ.get(name, "").replace(",", " ").split()
