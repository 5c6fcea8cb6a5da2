"""The downloads that an image keeps for itself, since it brings some: how other images find what was fetched in it.

A file beside the downloads of all images names the folder, and what in it came from the image.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sif_writable.signals import let_pass
from sif_writable.storage import layout
from sif_writable.storage.publish import write_aside

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def note(downloads: str, folder: str, identity: str, seeds: Iterable[str], levels: int) -> None:
    """Write that file.

    :param downloads: where the downloads of all images are.
    :param folder: this image's own one of a location, named with :data:`.layout.OWN_DATA`.
    :param seeds: directories that it was filled from.
    :param levels: how deep its entries are offered (:data:`.beside.LEVELS`).
    :raises OSError: it cannot be written.
    """
    leaf = os.path.basename(folder)[len(layout.OWN_DATA) :]
    brought = [name for seed in seeds for name in _entries(seed, "", levels)]
    text = "\0".join([folder, *dict.fromkeys(brought)])
    write_aside(f"{downloads}/{leaf}{layout.ALSO}{identity}", os.fsencode(text))


def read(path: str) -> tuple[str, frozenset[str]]:
    """Return the folder of another image, and what in it came from there; two empty ones where nothing can be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            folder, *brought = os.fsdecode(file.read()).split("\0")
    except OSError as error:
        let_pass(error)
        return "", frozenset()
    # The storage may be found at another path now: what is believed of the note is the image alone.
    root = os.path.dirname(os.path.dirname(path))
    image, _, name = folder.rpartition("/")
    return f"{root}/{os.path.basename(image)}/{name}", frozenset(brought)


def _entries(seed: str, below: str, levels: int) -> Iterator[str]:
    try:
        with os.scandir(f"{seed}/{below}") as found:
            entries = [(entry.name, entry.is_dir()) for entry in found]
    except OSError as error:
        let_pass(error)
        return
    for name, is_directory in entries:
        yield below + name
        if is_directory and levels > 1:
            yield from _entries(seed, f"{below}{name}/", levels - 1)
