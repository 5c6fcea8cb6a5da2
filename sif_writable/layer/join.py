"""Join the layer that other processes of this container are in: find one that lives, and enter its namespaces.

On the path of the first import from a read-only environment, with the system calls for it that Python has no name for.
``ctypes`` takes 2 ms to import, and all that is needed of it is in ``_ctypes``: a function type that saves errno.
``os.setns`` of CPython 3.12 spares nothing: what the new namespace gives has to be dropped, and nothing of Python's own
does that.
"""

import _ctypes
import _signal  # type: ignore[import-not-found] # built in
import os
import sys

from sif_writable import LAYER, child, let_pass
from sif_writable.layer import enter
from sif_writable.layer.enter import Layer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

NEWNS, NEWUSER = 0x00020000, 0x10000000
MEMBERS = 64
"""How many processes are asked, the latest and the first in turn, before all of /proc is looked through."""
LONG = 4 * MEMBERS
"""With more lines the list of members is written anew, without those that have ended."""
_CAPABILITIES_3 = 0x20080522
_WISHES = ("new", "all", "none")
"""What :func:`sif_writable.layer.merge.mode` understands."""
_GET_OWNER = (0xB701, 0x2000B701)
"""NS_GET_USERNS; the second one on POWER, MIPS and SPARC."""


class _Function(_ctypes.CFuncPtr):  # which returns an int unless another type is named
    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO


_libc = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]


def call(name: str, what: str, *arguments: "Any") -> None:
    """Call a function of the C library that returns 0, with numbers, bytes and None.

    :raises OSError: with its errno, and `what` as the file name.
    """
    function: Any = _Function(_ctypes.dlsym(_libc, name))
    if function(*arguments) != 0:
        number = _ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def join(layer: Layer, record: str, namespace: str) -> bool:
    """Enter the layer that other processes of this container are in.

    :param record: what :func:`current_record` returned.
    """
    layer.name, _, words = record.partition(":")
    number, _, device = words.partition(":")
    if not number.isdigit() or not device.isdigit():
        return False
    base, layer.directories = enter.about(layer.folder)
    if not layer.directories:
        return False
    if namespace == f"mnt:[{number}]":
        if not is_here(layer, record, namespace):
            return False
        entered(layer, namespace)  # a descendant with another environment
        return True
    found = member(layer, int(number), int(device))
    if found is None:
        return False
    mounts = found[1]
    try:
        here = os.open(".", os.O_PATH | os.O_CLOEXEC)
        try:
            path, strong = cwd(), is_strong()
            with undisturbed():
                join_namespaces(mounts, strong=strong)
                drop_capabilities(strong=strong)
                come_back(path, here)
        finally:
            os.close(here)
    except OSError as error:
        let_pass(error)
        return False
    finally:
        os.close(mounts)
    try:
        note_member(layer.folder, me())
        if layer.members > LONG and layer.members % MEMBERS == 0:  # there may be as many that live
            from sif_writable.layer import members

            members.drop_ended(layer.folder)
    except OSError as error:  # no space: others find it in /proc
        let_pass(error)
    entered(layer, os.readlink("/proc/self/ns/mnt"))
    # One in memory says only below its own mount what is in it.
    layer.fresh = not base and layer.name.startswith("upper-") and not _is_written(layer)
    return True


def _is_written(layer: Layer) -> bool:
    """Whether something was written to a layer, as far as that is known."""
    try:
        return any(os.listdir(upper) for upper in layer.uppers())
    except OSError as error:
        let_pass(error)
        return True


def is_here(layer: Layer, record: str, namespace: str) -> bool:
    """Whether this process is in a layer with this record: the number of a namespace that has ended is given again."""
    number, _, device = record.partition(":")[2].partition(":")
    over = enter.directories(layer.folder)[:1]
    return namespace == f"mnt:[{number}]" and device in [str(_device(path)) for path in over]


def me() -> str:
    """Return this process's line in the list of members: its number, and where that counts."""
    return f"{os.getpid()} {os.readlink('/proc/self/ns/pid')}\n"


def member(layer: Layer, number: int, device: int) -> "Optional[tuple[int, int]]":
    """Return a live process that is in a layer, and an open descriptor of its mount namespace."""
    known = [line.split(" ") for line in reversed(enter.read(f"{layer.folder}/members").splitlines())]
    layer.members = len(known)
    numbers = {number, *[int(words[2]) for words in known if len(words) > 2 and words[2].isdigit()]}  # of `moved`
    # Those that live are the last that came, or the first one, which started the others.
    turns = [words[0] for pair in zip(known, reversed(known)) for words in pair][:MEMBERS]
    for pid in dict.fromkeys([int(word) for word in turns if word.isdigit()]):
        found = _namespace_of(pid, numbers, layer, device)
        if found is not None:
            return pid, found
    # A child that was forked in the layer, and has outlived who made or joined it. Of many processes few are ours.
    uid = os.geteuid()
    for name in os.listdir("/proc"):
        if name.isdigit() and _owner(f"/proc/{name}") == uid:
            found = _namespace_of(int(name), numbers, layer, device)
            if found is not None:
                return int(name), found
    return None


def _owner(path: str) -> int:
    try:
        return os.stat(path).st_uid
    except OSError as error:  # it has ended
        let_pass(error)
        return -1


def _namespace_of(pid: int, numbers: "set[int]", layer: Layer, device: int) -> "Optional[int]":
    """Open the mount namespace of a process if it is one with a layer: numbers of processes are used again."""
    try:
        descriptor = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:  # it has ended, or is another user's
        let_pass(error)
        return None
    try:
        if os.fstat(descriptor).st_ino in numbers and _device(f"/proc/{pid}/root{layer.directories[0]}") == device:
            return descriptor
    except OSError as error:
        let_pass(error)
    os.close(descriptor)
    return None


def _device(path: str) -> int:
    return os.stat(path).st_dev


def entered(layer: Layer, namespace: str) -> None:
    """Export the layer to descendants, and publish at the end what was written."""
    import atexit

    if child.KEEP in os.environ:
        note_wish(layer.folder)
    # What :func:`sif_writable.mounted.covering` returns here, without that module.
    mounts = f"{child.token().rpartition('.')[0]}.{os.stat(layer.directories[0]).st_dev:x}"
    os.environ[LAYER] = enter.inside(namespace, mounts, layer.image, sys.prefix, layer.directories)
    enter.current = layer
    atexit.register(_at_exit, layer)


def note_wish(folder: str) -> None:
    """Note what this process wants to be kept of a layer: whoever publishes it may have another setting, or none."""
    wish = os.environ.get(child.KEEP, "").strip().lower()
    if wish in _WISHES and wish != enter.read(f"{folder}/keep"):
        try:
            enter.write(f"{folder}/keep", wish, os.O_TRUNC)
        except OSError as error:
            let_pass(error)


def _at_exit(layer: Layer) -> None:
    """Publish what was written, if this process is the last one in the layer."""
    try:
        if any(os.listdir(upper) for upper in layer.uppers()):
            from sif_writable.layer import publish

            publish.at_exit(layer)
    except Exception as error:  # noqa: BLE001 - the folder or the disk is gone: the next start does it, or says what is wrong
        let_pass(error)
        return


def note_member(folder: str, line: str) -> None:
    """Add a line to the list of a layer's members: to the new one where it is replaced meanwhile (:mod:`.members`)."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    is_there = 0
    while not is_there:
        descriptor = os.open(f"{folder}/members", flags, 0o600)
        try:
            os.write(descriptor, line.encode())
            is_there = os.fstat(descriptor).st_nlink
        finally:
            os.close(descriptor)


# --- The kernel ---


def join_namespaces(mounts: int, *, strong: bool) -> None:
    """Enter a mount namespace, and the user namespace that it belongs to.

    A process in it may be in another user namespace, which it has made itself (browsers and sandboxes do): whoever
    entered that one would be nobody there, and not get into the layer.

    The root directory becomes that of the mount namespace, and the working directory too.

    :param mounts: a descriptor of the mount namespace.
    :param strong: what :func:`is_strong` returned.
    :raises OSError: it is not permitted; then nothing has changed, unless the file name is "setns mnt".
    """
    user = _owner_of(mounts)
    try:
        call("setns", "setns user", user, NEWUSER)
    finally:
        os.close(user)
    try:
        call("setns", "setns mnt", mounts, NEWNS)
    except OSError:
        drop_capabilities(strong=strong)
        raise


def _owner_of(mounts: int) -> int:
    """Open the user namespace that a mount namespace belongs to (ioctl_ns(2))."""
    function: Any = _Function(_ctypes.dlsym(_libc, "ioctl"))
    for request in _GET_OWNER:
        descriptor: int = function(mounts, request)
        if descriptor >= 0:
            return descriptor
    number = _ctypes.get_errno()
    raise OSError(number, os.strerror(number), "ioctl")


class undisturbed:  # noqa: N801 - as contextlib's
    """A block that no handler of the program interrupts: signals wait, so that no change is left half done."""

    def __enter__(self) -> None:
        """Hold them back."""
        self.before = _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())

    def __exit__(self, *_: object) -> None:
        """Let them come: what their handlers raise passes."""
        _signal.pthread_sigmask(_signal.SIG_SETMASK, self.before)


def cwd() -> str:
    """Return the path of the working directory, or an empty string."""
    try:
        return os.getcwd()
    except OSError as error:  # it was removed
        let_pass(error)
        return ""


def come_back(path: str, descriptor: int) -> None:
    """Enter the working directory anew: what it was lies below what was mounted over it, or in another namespace."""
    try:
        os.chdir(path)
    except OSError as error:
        let_pass(error)
        os.fchdir(descriptor)


def is_strong() -> bool:
    """Whether this process is root of its user namespace and has the rights of that, as with ``--fakeroot``."""
    if os.geteuid() != 0:
        return False
    descriptor = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(descriptor, 4096)
    finally:
        os.close(descriptor)
    return bool(text.partition(b"CapEff:")[2].partition(b"\n")[0].strip().strip(b"0"))


def drop_capabilities(*, strong: bool = False) -> None:
    """Take from this process what the new namespace gave it: files deny again what they denied.

    :param strong: it had as much before: :func:`is_strong`.
    :raises OSError: the kernel refuses, which it never does.
    """
    if strong:
        return
    header = _CAPABILITIES_3.to_bytes(4, sys.byteorder) + bytes(4)
    call("capset", "capset", header, bytes(24))
