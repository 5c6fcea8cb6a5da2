"""What a layer cannot serve: files of other users, of which the kernel makes no copies for this one.

Packages that write to them get copies of their own, as without a layer. What is this user's own and closed by its mode
stays closed: in an environment that could be written it would be, too.
"""

from __future__ import annotations

import os

from sif_writable import LAYER
from sif_writable.mounted import in_layer
from sif_writable.signals import let_pass


def covers(path: str) -> bool:
    """Whether a path lies in the layer that this process is in."""
    real = os.path.realpath(path)
    return any(f"{real}/".startswith(f"{directory}/") for directory in in_layer(os.environ.get(LAYER))[2:])


def is_others(path: str) -> bool:
    """Whether a path in a layer is another user's, or lies in a directory of another user's."""
    here = os.path.realpath(path)
    while not os.path.lexists(here):
        here = os.path.dirname(here)
    uid = os.geteuid()
    try:
        return covers(here) and (os.lstat(here).st_uid != uid or os.lstat(os.path.dirname(here)).st_uid != uid)
    except OSError as error:
        let_pass(error)
        return False


def are_needed(text: str, name: str, directory: str) -> bool:
    """Whether a package needs its copy in a layer, too: what it could not write is still another user's.

    :param text: the learned list, whose lines say last what could not be written.
    :param directory: of the image, that holds the package.
    """
    beginning = f"package\t{name}\t{directory}\t"
    paths = [line.rpartition("\t")[2] for line in text.split("\n") if line.startswith(beginning)]
    return any(path[:1] == "/" and is_others(path) for path in paths)
