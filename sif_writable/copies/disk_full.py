"""Report that the filesystem of a layer is full, where an uncaught error comes from a write that failed for that."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from sif_writable import LAYER, aside
from sif_writable.copies import messages
from sif_writable.mounted import in_layer
from sif_writable.signals import let_pass, suppress
from sif_writable.storage.shortage import FULL

if TYPE_CHECKING:
    from collections.abc import Iterable


def report(errors: Iterable[BaseException], image: str) -> None:
    """Write a line to stderr, once in a process, if an error is for want of space in this process's layer.

    :param errors: it, and what it came from.
    :param image: the folder of this image in storage.
    """
    directories = in_layer(os.environ.get(LAYER))[2:]
    if not directories:
        return
    path = ""
    for this in errors:
        if isinstance(this, OSError) and this.errno in FULL and isinstance(this.filename, (str, bytes)):
            path = os.path.abspath(os.fsdecode(this.filename))
            if not any(path == directory or path.startswith(f"{directory}/") for directory in directories):
                return  # another place is full
            break
    folder = _folder(image)
    if not folder:
        return
    from sif_writable.layer import full

    what = full.lack(folder) or _quota(folder)
    if what or path:
        messages.say(full.words(folder, what or "space"))


def _folder(image: str) -> str:
    """Return the folder of this process's layer, which itself may not have made or joined it."""
    from sif_writable.layer import enter, survey

    if enter.current is not None:
        return enter.current.folder
    places = enter.places(image, os.path.basename(image), os.geteuid())
    return survey.here(places, os.readlink("/proc/self/ns/mnt"))[0]


def _quota(folder: str) -> str:
    """Return ``quota`` if no page can be written beside a layer."""
    with suppress(OSError):
        descriptor, path = aside.create(folder, begin=aside.TRY)
        try:
            os.write(descriptor, bytes(4096))
            os.fsync(descriptor)
        except OSError as error:
            let_pass(error)
            return "quota" if error.errno == errno.EDQUOT else "space"
        finally:
            os.close(descriptor)
            os.unlink(path)
    return ""
