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
    from collections.abc import Iterator


def note(downloads: str, folder: str, identity: str, filled: str, levels: int) -> None:
    """Write that file, before the folder is there: whoever finds neither makes both.

    :param downloads: where the downloads of all images are.
    :param folder: this image's own one of a location, named with :data:`.layout.OWN_DATA`.
    :param filled: what it is going to be, with what the image brings and nothing else.
    :param levels: how deep its entries are offered (:data:`.beside.LEVELS`).
    :raises OSError: it cannot be written.
    """
    image, _, name = folder.rpartition("/")
    text = "\0".join([f"{os.path.basename(image)}/{name}", *sorted(_entries(filled, "", levels))])
    write_aside(f"{downloads}/{name[len(layout.OWN_DATA) :]}{layout.ALSO}{identity}", os.fsencode(text))


def read(path: str) -> tuple[str, frozenset[str]]:
    """Return the folder of another image, and what in it came from there; two empty ones where nothing can be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            folder, *brought = os.fsdecode(file.read()).split("\0")
    except OSError as error:
        let_pass(error)
        return "", frozenset()
    image, _, name = folder.partition("/")
    if not layout.is_image(image) or not name.startswith(layout.OWN_DATA) or "/" in name:  # not as we write it
        return "", frozenset()
    root = os.path.dirname(os.path.dirname(path))  # which may be another path than when the note was written
    return f"{root}/{folder}", frozenset(brought)


def _entries(filled: str, below: str, levels: int) -> Iterator[str]:
    with os.scandir(f"{filled}/{below}") as found:
        entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
    for name, is_directory in entries:
        yield below + name
        if is_directory and levels > 1:
            yield from _entries(filled, f"{below}{name}/", levels - 1)
