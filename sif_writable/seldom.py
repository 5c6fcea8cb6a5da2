"""Questions that few starts have to ask again, for :mod:`sif_writable.warm`; it imports only what is loaded already."""

import marshal
import os
import sys
from _imp import source_hash

from sif_writable import let_pass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, Callable

TEXT, ACL, MOUNTS = range(7, 10)
"""Kinds of questions, as those in :mod:`sif_writable.warm`."""
_NAMES_KEY = 0x5349465F504C414E
_PASSING = (".lock", ".locks", ".nfs", ".sif_writable", ".tmp", ".swp")
"""How names begin or end of what programs make for a moment, this one included (:mod:`sif_writable.aside`)."""
MARKER = ".sif-writable"
"""The file that marks a storage root which was tried and found good, and says what was found."""


def ask(kind: int, path: str, more: "Any", mounted: "Sequence[bytes]") -> "Any":
    """Answer a question that is seldom asked.

    :param mounted: where something is mounted (:func:`sif_writable.warm.mounts`).
    :raises OSError: there is no answer.
    """
    if kind == TEXT:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    if kind == ACL:
        try:
            return os.getxattr(path, more)
        except OSError as error:
            let_pass(error)
            if error.errno not in (61, 95):  # ENODATA, EOPNOTSUPP: there is none
                raise
            return error.errno
    from sif_writable.hanging import path_in_table

    for path_of_table in mounted:
        point = path_in_table(path_of_table)
        if f"{path}/".startswith(f"{point}/") and point.startswith(f"{more}/"):
            return True
    return False


def mounts(table: bytes) -> "tuple[bytes, list[bytes], list[bytes]]":
    """Return what :func:`sif_writable.warm.mounts` does, from a table in which options have spaces."""
    lines = [line.split(b" ") for line in table.splitlines()]
    return table, [line[1] for line in lines], [line[2] for line in lines]


def is_in_layer(table: bytes) -> bool:
    """Whether this process is in a layer of which the variable was cleaned, by the table of :func:`~.warm.mounts`."""
    lines = [line.split(b" ") for line in table.splitlines()]
    return any(line[0] == b"sif-writable" and line[2] == b"overlay" for line in lines)


def say_once(lines: "list[str]", said: str) -> None:
    """Say lines, unless an ancestor has said the same."""
    if getattr(sys.modules.get("sif_writable.session"), "said", "") != said:
        from sif_writable.stderr import say

        say(lines)


def rest(content: bytes, checksum: "Callable[[bytes], bytes]") -> "Any":
    """Return the part of a plan that is needed only where something is new: paths, and which names were asked for.

    :param content: the end of the file, with its check sum.
    :param checksum: :func:`sif_writable.warm.checksum`.
    :raises ValueError: it is damaged.
    """
    if checksum(content[8:]) != content[:8]:
        raise ValueError("damaged")
    loads = marshal.loads
    return loads(content[8:])


def any_asked(new: "list[bytes]", asked: bytes) -> bool:
    """Whether any of these names, which have come since, is one that was asked for: between zero bytes, in a row."""
    if len(new) > 32:
        return not set(new).isdisjoint(asked.split(b"\0"))
    for name in new:  # noqa: SIM110 - a generator costs a frame
        if b"\0%s\0" % name in asked:
            return True
    return False


def holds(path: str, text: str) -> bool:
    """Whether there is a file at this path that contains a text."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a named pipe shall not block
        with open(descriptor, "rb", buffering=0) as file:
            return text.encode() in (file.read(1 << 20) or b"")
    except OSError as error:
        let_pass(error)
        return False


def hold(held: "list[tuple[str, str, bool]]") -> bool:
    """Whether files (path, text, whether it is in there) hold what they held."""
    for path, text, found in held:  # noqa: SIM110 - like the loop above
        if holds(path, text) != found:
            return False
    return True


def sum_of_names(names: "Iterable[str]") -> bytes:
    """Return a check sum of the names in a directory; locks and what is built aside come and go."""
    kept = [name for name in names if not name.endswith(_PASSING) and not name.startswith(_PASSING)]
    kept.sort()
    return source_hash(_NAMES_KEY, os.fsencode("\0".join(kept)))


def unchanged_since(noted: "list[tuple[str, int, bytes]]") -> bool:
    """Whether directories hold what they held, from :meth:`sif_writable.redirects.watch.Watch.noted`."""
    try:
        for directory, changed, names in noted:
            if os.stat(directory).st_ctime_ns != changed and sum_of_names(os.listdir(directory)) != names:
                return False
    except OSError as error:
        let_pass(error)
        return False
    return True


def uid_outside() -> int:
    """Return the uid that root of this user namespace is outside of it; 0 where it is the real root."""
    try:
        with open("/proc/self/uid_map", "rb", buffering=0) as file:
            inside, outside, _ = file.read().split()[:3]
    except (OSError, ValueError) as error:
        let_pass(error)
        return 0
    return int(outside) if inside == b"0" else 0


def use(root: str, name: str, used: str) -> bool:
    """Let the time of a kept plan say that its image was used today: nothing else says so everywhere.

    That of the mark is renewed with it, which a cleaner of old files would take away.

    :param name: of the plan, in the root.
    :param used: the file that says the same of another root (:data:`USED`), or empty.
    :returns: whether the root is still marked.
    """
    try:
        os.utime(f"{root}/{MARKER}")
        os.utime(f"{root}/{name}")
        if used:
            os.utime(used)
    except FileNotFoundError:
        return False
    except OSError as error:  # a filesystem that gives files to somebody else; the plan is good nevertheless
        let_pass(error)
    return True
