"""Over which directories a layer is made, and what it changes: asked at a trial, and by ``status``."""

from sif_writable.child import OVERLAY as MODE
from sif_writable.layer import enter
from sif_writable.layer.enter import NOT_NAMED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def can_be_named(path: str) -> bool:
    """Whether a directory can have a layer as far as that depends on the letters of its path."""
    return not any(letter in path for letter in NOT_NAMED)


def hides(environ: "Mapping[str, str]", uid: int, uid_map: str) -> str:
    """Say what a layer changes about users and groups where it is asked for all the same, or return an empty string."""
    if enter.mode(environ) != "on" or not enter.identity(uid, uid_map):
        return ""
    return (
        f"{MODE}=on: in it files of other users and supplementary groups show as nobody (65534), and chgrp to such a "
        "group fails"
    )


def distinct(directories: "Sequence[str]") -> "list[str]":
    """Return the directories that do not lie below another one, in their order, each once."""
    found: list[str] = []
    for path in directories:
        if not any(path == other or path.startswith(f"{other}/") for other in directories if other != path):
            found += [path] if path not in found else []
    return found
