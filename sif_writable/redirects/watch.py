"""Note what was looked at while something was made from it, so that a later start can ask whether more has come.

The cold path of the hook; :func:`sif_writable.seldom.unchanged_since` asks.
"""

from __future__ import annotations

import os
import time

from sif_writable.seldom import sum_of_names

MOST = 128
"""Directories that are noted. Each costs a later start one system call; those that lie deepest are left out."""
_YOUNG = 2.0
"""Seconds. A directory that changed this recently may change again without showing another time."""


class Watch:
    """The directories that were listed, with the time of their last change and a check sum of their names."""

    def __init__(self) -> None:
        """Start with nothing noted."""
        self._noted: dict[str, tuple[int, bytes]] = {}
        self.whole = True
        """Whether all has succeeded that was made from what is noted; if not, no plan is to be kept."""

    def names(self, directory: str) -> list[str]:
        """List a directory, and note it.

        :raises OSError: it cannot be listed.
        """
        changed = os.stat(directory).st_ctime_ns  # before it is listed: what comes in between is seen the next time
        names = sorted(os.listdir(directory))
        young = time.time() - changed / 1e9 < _YOUNG
        self._noted[directory] = (0 if young else changed, sum_of_names(names))
        return names

    def noted(self) -> list[tuple[str, int, bytes]]:
        """Return (directory, time of its last change in ns or 0, check sum of its names), highest directories first."""
        nearest = sorted(self._noted, key=lambda path: (path.count("/"), path))[:MOST]
        return [(path, *self._noted[path]) for path in nearest]
