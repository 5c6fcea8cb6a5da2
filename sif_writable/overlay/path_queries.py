"""What there is at the paths that an overlay may be needed for; looked at once each."""

from __future__ import annotations

import os

from sif_writable.overlay import obstacles
from sif_writable.system import image_mounts
from sif_writable.system.mounts import mounts


class PathQueries:
    """Answers what :func:`sif_writable.overlay.decide.decide` asks."""

    def __init__(self) -> None:
        """Read the table of mounts."""
        self.table = mounts()

    def exists(self, path: str) -> bool:
        """Whether there is anything, also a link to nothing."""
        return os.path.lexists(path)

    def is_directory(self, path: str) -> bool:
        """Whether it is a directory itself."""
        return os.path.isdir(path) and not os.path.islink(path)

    def writable(self, path: str) -> bool:
        """Whether this process may write it."""
        return os.access(path, os.W_OK)

    def entries(self, path: str) -> list[str] | None:
        """Return the names in a directory, None where they cannot be read."""
        try:
            return sorted(os.listdir(path))
        except OSError:
            return None

    def mounts_below(self, path: str) -> list[str]:
        """Return what is mounted below a directory."""
        return obstacles.below(path, self.table)

    def size(self, path: str) -> int:
        """Return the bytes of a file, 0 where there is none."""
        try:
            return os.lstat(path).st_size
        except OSError:
            return 0

    def host_mount(self, path: str) -> str:
        """Return the mount point of what is bound in from the host and holds a path, or an empty string."""
        return image_mounts.host_mount(path)


def resolved(path: str) -> str:
    """Resolve the links of a path as far as it exists: ``/var/run/x`` lies in ``/run``."""
    return os.path.realpath(path) if path.startswith("/") and ".." not in path.split("/") else path
