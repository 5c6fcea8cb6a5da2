"""Check whether a writable copy may be used: whether it is ours, and made from what the image has now.

A copy is valid as long as its stamp matches the original. The stamp is made of the names, sizes and times of the
package's files, of the contents of its first sources, and of its distribution's ``RECORD``, which has the checksums of
all that an installer has brought; where there is one, fewer files are looked at. Images keep whole seconds, and some
builds give every file the same time, so that times alone would not do.

It is asked whenever a package with a copy is imported, and imports only ``os``, ``sys`` and what is built in.
"""

import os
from _imp import source_hash

from sif_writable import LAYER
from sif_writable.mounted import in_layer
from sif_writable.signals import let_pass
from sif_writable.system import image, image_mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Optional

ENTRIES, RECORDED_ENTRIES = 2000, 200
"""Files and directories of a package that are compared, without and with a ``RECORD``: 5 us each."""
SOURCES, SOURCE_BYTES = 32, 1 << 16
"""Sources of a package that are read, and how many bytes of each."""
STAMPS = "/stamps"
"""The folder of stamps, in the folder of copies."""
GOOD, ABSENT, CHANGED, HOST, UNTRUSTED = "good", "absent", "changed", "host", "untrusted"

_KEY = 0x5349465F434F5059
_S_IFMT, _S_IFDIR, _S_IFREG, _S_IFLNK, _OTHERS_WRITE = 0o170000, 0o040000, 0o100000, 0o120000, 0o022


class Stamp:
    """What a copy was made from."""

    __slots__ = ("fingerprint", "path", "record")

    def __init__(self, fingerprint: str, record: str, path: str) -> None:
        """Hold what a stamp file says.

        :param fingerprint: 16 hexadecimal digits that stand for the original.
        :param record: the path of the ``RECORD`` that counts, or an empty string.
        :param path: of the original.
        """
        self.fingerprint = fingerprint
        self.record = record
        self.path = path


def stamp_file(folder: str, path: str) -> str:
    """Return where the stamp of a copy is.

    :param folder: the folder of copies; :param path: of the original.
    """
    name = path.strip("/").replace("%", "%25").replace("/", "%2F")
    if len(os.fsencode(name)) > 200:
        name = f"{source_hash(_KEY, os.fsencode(path)).hex()}-{os.path.basename(path)[:40]}"
    return f"{folder}{STAMPS}/{name}"


def read_stamp(file: str) -> "Optional[Stamp]":
    """Return the stamp of a copy from its file, or None."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        let_pass(error)
        return None
    try:
        text = os.read(descriptor, 1 << 14).decode("utf-8", "surrogateescape")
    except OSError as error:
        let_pass(error)
        return None
    finally:
        os.close(descriptor)
    fields = text.split("\n")
    return Stamp(fields[0], fields[1], fields[2]) if len(fields) == 4 else None


def fingerprint(path: str, record: str) -> str:
    """Return the fingerprint of an original in the image: 16 hexadecimal digits.

    :param path: of a package or a module; :param record: of its distribution's ``RECORD``, or an empty string.
    :raises OSError: it cannot be read at the moment.
    """
    if in_layer(os.environ.get(LAYER)) and (here := image.layer()):
        from sif_writable.layer import inherited

        with inherited.image(here) as original:
            return _seal(original(path), record and original(record))
    return _seal(path, record)


def _seal(path: str, record: str) -> str:
    entries = list(_entries(path, RECORDED_ENTRIES if record else ENTRIES))
    parts = [b"%s\0%d\0%d\0%d" % entry for entry in entries]
    sources = [name for name, mode, _, _ in entries if mode == _S_IFREG and name.endswith(b".py")]
    if not sources and len(entries) == 1 and path.endswith(".py"):
        sources = [b""]
    parts += [_content(os.fsencode(path) + name, SOURCE_BYTES) for name in sources[:SOURCES]]
    if record:
        parts.append(_content(os.fsencode(record), 1 << 26))
    return source_hash(_KEY, b"".join([b"%d\0%s" % (len(part), part) for part in parts])).hex()


def _entries(path: str, left: int) -> "Iterator[tuple[bytes, int, int, int]]":
    """Yield (path below the original, kind, size, time in nanoseconds) of what is in it, outer things first."""
    top = os.fsencode(path)
    status = os.lstat(top)
    yield b"", status.st_mode & _S_IFMT, 0 if _is_directory(status) else status.st_size, status.st_mtime_ns
    if not _is_directory(status) and not os.path.isdir(top):
        return
    places = [b""]
    for place in places:
        with os.scandir(top + place) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            if entry.name == b"__pycache__":  # says nothing that its source does not
                continue
            left -= 1
            if left < 0:
                return
            name = place + b"/" + entry.name
            status = entry.stat(follow_symlinks=False)
            if status.st_mode & _S_IFMT == _S_IFLNK:
                status = _landing(entry.path) or status
            elif _is_directory(status):
                places.append(name)
            yield name, status.st_mode & _S_IFMT, 0 if _is_directory(status) else status.st_size, status.st_mtime_ns


def _landing(path: bytes) -> "Optional[os.stat_result]":
    try:
        return os.stat(path)
    except OSError as error:  # a link to nothing
        let_pass(error)
        return None


def _is_directory(status: os.stat_result) -> bool:
    return status.st_mode & _S_IFMT == _S_IFDIR


def _content(path: bytes, most: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return b""
    try:
        return os.read(descriptor, most)
    finally:
        os.close(descriptor)


def state(folder: str, path: str) -> str:
    """Return whether the copy of a package or module may be used.

    :param folder: the folder of copies; :param path: of the original.
    :returns: ``GOOD``; ``ABSENT``: there is none; ``CHANGED``: it was made from something else, or it is not known
        from what; ``HOST``: the original is no part of the image, so that it gets no copy; ``UNTRUSTED``: somebody
        else can write it.
    :raises OSError: the image cannot be read at the moment.
    """
    if not image_mounts.environment_directory(path):
        return HOST
    copy = f"{folder}/tree{path}"
    try:
        status, own = os.lstat(copy), os.lstat(path)
    except OSError as error:
        let_pass(error)
        return ABSENT
    if status.st_mode & _S_IFMT == _S_IFLNK or (status.st_dev, status.st_ino) == (own.st_dev, own.st_ino):
        return ABSENT
    if not (_is_ours(folder) and _is_ours(folder + "/tree") and _is_ours(copy)):
        return UNTRUSTED
    known = read_stamp(stamp_file(folder, path))
    return GOOD if known is not None and known.fingerprint == fingerprint(path, known.record) else CHANGED


def _is_ours(path: str) -> bool:
    """Whether a path is no link, is this user's, and can be changed by nobody else."""
    try:
        status = os.lstat(path)
    except OSError as error:
        let_pass(error)
        return False
    return status.st_mode & _S_IFMT != _S_IFLNK and status.st_uid == os.geteuid() and not status.st_mode & _OTHERS_WRITE
