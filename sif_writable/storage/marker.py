"""What a storage root says of itself: that it is ours, and what was found out about it."""

import os

from sif_writable.seldom import MARKER
from sif_writable.signals import let_pass

UNCOUNTED = "uncounted"
NO_LOCKS = "nolock"
FINDINGS = (NO_LOCKS, UNCOUNTED)
"""What a marker may say after ``exec`` or ``noexec``: files cannot be locked; the filesystem reports that no bytes or
no inodes are free, although files can be made."""
UNTRIED = "untried"
"""What it says where the trial failed for a cause that will pass: the folder is ours, the next start tries again."""
OURS = "All that is in this folder is sif-writable's: it may be listed, measured and removed."
"""The second line of a marker. Earlier versions, which also used directories with files of the user, wrote only one."""
FIRST_LINE = 32
"""Bytes of the first line, which is filled up with spaces: earlier versions read that much."""


class Marker(str):
    """What was found out about a storage root, in its words; an empty one where nothing was."""

    __slots__ = ()

    @property
    def executable(self) -> bool:
        """Whether object code can be loaded from it."""
        return self.startswith("exec")

    @property
    def locks(self) -> bool:
        """Whether files can be locked in it."""
        return NO_LOCKS not in self.split()

    @property
    def counted(self) -> bool:
        """Whether its filesystem reports correctly how many bytes and inodes are free."""
        return UNCOUNTED not in self.split()


def read_marker(root: str, *, ours: bool = False) -> Marker:
    """Return what an earlier start found out about this storage root.

    The words are ``exec`` or ``noexec``, and any of :data:`FINDINGS`.

    :param ours: only if the marker says that all in there is ours; then also :data:`UNTRIED`.
    """
    try:
        # Not blocking: what somebody made a named pipe would wait for a writer, at every interpreter start.
        descriptor = os.open(f"{root}/{MARKER}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        let_pass(error)
        return Marker()
    try:
        first, _, second = os.read(descriptor, 256).decode("ascii", "replace").partition("\n")
    except OSError as error:
        let_pass(error)
        return Marker()
    finally:
        os.close(descriptor)
    if ours and second.rstrip("\n") != OURS:
        return Marker()
    words = first.split()
    if words[:1] == ["exec"] or words[:1] == ["noexec"]:
        return Marker(" ".join(words) if set(words[1:]).issubset(FINDINGS) else "")
    return Marker(UNTRIED if ours and words == [UNTRIED] else "")
