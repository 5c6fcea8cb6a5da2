"""Open to its group what this process makes in downloads that are shared, whatever its umask is.

Loaded only where downloads are shared. Where the filesystem keeps default access lists, these have done it already, but
not for what a program makes closed on purpose and then renames, as tempfile does. So what is made is noted, and opened
when the process ends.
"""

import os
import sys

from sif_writable.signals import let_pass, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAKING = {"open": 0, "os.mkdir": 0, "os.rename": 1, "os.link": 1, "sqlite3.connect": 0}
"""Audit events of what makes something, with the number of the argument that is its path (the table in Python's
documentation)."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_LOOKING = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_S_IFMT, _S_IFDIR, _S_IFREG, _S_ISGID = 0o170000, 0o040000, 0o100000, 0o2000

watching: "dict[str, Shared]" = {}


def watch(folder: str) -> None:
    """Note what is made below a folder from now on, and open it at the end; once per process."""
    if folder in watching:
        return
    import atexit

    watching[folder] = noted = Shared(folder)
    sys.addaudithook(noted.note)
    atexit.register(noted.open_all)


class Shared:
    """A folder that a group shares, and what this process has made in it."""

    __slots__ = ("_folder", "_made", "_ways")

    def __init__(self, folder: str) -> None:
        """Note nothing yet."""
        self._folder = folder
        self._ways = tuple({f"{folder}/", f"{os.path.realpath(folder)}/"})
        self._made: set[str] = set()
        """The first two names of what was made."""

    def note(self, event: str, arguments: "Any") -> None:
        """Be an audit hook."""
        if event not in _MAKING:
            return
        try:
            path = arguments[_MAKING[event]]
            if event == "open" and not arguments[2] & _WRITING:
                return
            path = os.fsdecode(path) if isinstance(path, bytes) else path
            if isinstance(path, str) and path.startswith(self._ways):
                way = next(way for way in self._ways if path.startswith(way))
                names = path[len(way) :].split("/")[:2]
                if ".." not in names:  # what that leads to is not shared
                    self._made.add("/".join(names))
        except Exception as error:  # noqa: BLE001 - whatever it is, the program's call is not ours to refuse
            let_pass(error)

    def open_all(self) -> None:
        """Open what was made, and what it lies in."""
        with suppress(OSError):
            top = os.open(self._folder, _LOOKING | os.O_DIRECTORY)
            try:
                group = os.fstat(top).st_gid
                for made in sorted(self._made):
                    _open(top, [name for name in made.split("/") if name not in ("", ".")], group)
            finally:
                os.close(top)


def _open(directory: int, way: "list[str]", group: int) -> None:
    """Open what is at the end of a way of names below a directory, with all that is in it.

    No link is followed, on the way neither: others may write here, and would have us open a file of ours elsewhere.
    """
    with suppress(OSError, IndexError):
        if os.stat(way[0], dir_fd=directory, follow_symlinks=False).st_mode & _S_IFMT not in (_S_IFDIR, _S_IFREG):
            return
        descriptor = os.open(way[0], _LOOKING, dir_fd=directory)
        try:
            status = os.fstat(descriptor)
            if status.st_uid == os.geteuid():
                _give(descriptor, status, group)
            if status.st_mode & _S_IFMT == _S_IFDIR:
                for name in way[1:2] or os.listdir(descriptor):
                    _open(descriptor, [name, *way[2:]], group)
        finally:
            os.close(descriptor)


def _give(descriptor: int, status: os.stat_result, group: int) -> None:
    """Let the group do what the owner may. A file with a second name may have that one elsewhere, and stays closed."""
    directory = status.st_mode & _S_IFMT == _S_IFDIR
    if not directory and (status.st_mode & _S_IFMT != _S_IFREG or status.st_nlink != 1):
        return
    if status.st_gid != group:
        os.fchown(descriptor, -1, group)
    mode = status.st_mode & 0o7777
    wanted = mode | (mode & 0o700) >> 3 | (_S_ISGID if directory else 0)
    if wanted != mode or status.st_gid != group:  # a new group takes the bits of others' identities away
        os.fchmod(descriptor, wanted)
