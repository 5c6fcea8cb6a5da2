"""Names for what is built or tried aside, before it is renamed into place or removed: all of ours are made here.

Nobody can guess such a name, and nobody makes one by chance: it ends with a random number and the name of this package.
So what a killed process leaves cannot be mistaken for what a user or a program calls ``.new-results``.
"""

import os

NEW, TRY = ".new", ".try"
"""How a name begins: of what is to stay, and of what only shows that something can be done."""
_END = ".sif_writable"
_LONGEST = 100
"""Bytes that are taken of the name of what is built; with all the rest a name has at most 255."""
_DIGITS = 16


class Usable:
    """While it lasts, the umask takes no rights from this user himself.

    Scripts have 0177 for their secrets: nobody gets into a directory that is made then, such as ``~/.cache``, ever.
    """

    def __enter__(self) -> None:
        """Let the umask count for others only."""
        self._umask = os.umask(0o077)
        os.umask(self._umask & 0o077)

    def __exit__(self, *_: object) -> None:
        """Let it count again."""
        os.umask(self._umask)


def path(directory: str, what: str = "", begin: str = NEW) -> str:
    """Return an unused path in a directory for something that is to be ``what``; mkdir, symlink and open make it."""
    middle = os.fsdecode(os.fsencode(what)[:_LONGEST]) + "-" if what else ""
    return f"{directory}/{begin}-{middle}{os.getpid()}-{os.urandom(_DIGITS // 2).hex()}{_END}"


def create(directory: str, what: str = "", begin: str = NEW, mode: int = 0o600) -> "tuple[int, str]":
    """Make a file at such a path; return a descriptor that reads and writes it, and the path.

    :raises OSError: it cannot be made.
    """
    place = path(directory, what, begin)
    return os.open(place, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode), place


def is_ours(name: str) -> bool:
    """Whether :func:`path` has made a name; a name that only begins like it is somebody else's."""
    if not name.startswith((NEW + "-", TRY + "-")) or not name.endswith(_END):
        return False
    process, token = name[: -len(_END)].split("-")[-2:]
    return process.isdigit() and len(token) == _DIGITS and not token.strip("0123456789abcdef")
