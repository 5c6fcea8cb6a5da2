"""List directories such that looking leaves no trace in access times: these show when something was last used."""

from __future__ import annotations

import os

from sif_writable.signals import let_pass


def names(path: str) -> list[str]:
    """List a directory that is not a link, and leave its access time as it is; an empty list where that fails."""
    try:
        descriptor = open_folder(path)
    except OSError as error:
        let_pass(error)
        return []
    try:
        return sorted(os.listdir(descriptor))
    except OSError as error:
        let_pass(error)
        return []
    finally:
        os.close(descriptor)


def open_folder(path: str) -> int:
    """Open a directory that is not a link such that listing it leaves its access time as it is."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_NOATIME)
    except PermissionError:  # not ours; then it is only listed
        return os.open(path, flags)
