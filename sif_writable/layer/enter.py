"""The writable layer of this container: join the one that stands, or have it made (:mod:`.make`).

On the path of the first import from a read-only environment; what happens rarely is in modules that are loaded then.

Folders, all in one place on a local filesystem, private to the user (:func:`places` yields the possible ones)::

    trial                 what a trial has shown in these circumstances
    lock                  of whose bytes a container's first process locks one, by its token
    container-TOKEN       of one container run: a link to `NAME:NAMESPACE:DEVICE`
    upper-NAME/           of one layer: `about`, `members` (who is in it), and for its Nth directory the upper directory
                          N and hidden/N: the overlay's work, upon which the layer's own processes find that directory
                          as it is in the image
    replica-ORIGIN-NUMBER/   a copy of a generation: what earlier runs wrote

Making a file may take 0.2 ms on a disk's filesystem, so there are no more of them than are needed.
"""

import os
import sys

from sif_writable import LAYER, let_pass
from sif_writable.layer import decide
from sif_writable.mounted import covering, in_layer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Optional

ABOUT = 4
"""Lines of `about` before the directories: the run of the machine, the generation below, where the next one goes, and
what tells that folder from others at the same path. After those may be lines of :func:`~.decide.known`."""
MOUNTED = " - overlay sif-writable "
"""What lines of mountinfo have in them that show an overlay of ours."""
MEMBERS = 64
"""How many processes are asked, the latest first, before all of /proc is looked through."""
LONG = 4 * MEMBERS
"""With more lines the list of members is written anew, without those that have ended."""

current: "Optional[Layer]" = None
"""The layer that this process is in, and made or joined itself."""


class Layer:
    """A layer that stands."""

    def __init__(self, place: str, token: str, image: str = "") -> None:
        """:param place: the folder of all layers of this image on this node."""
        self.place = place
        self.token = token
        self.image = image
        self.name = ""
        """Of the folder of its upper directories, in there."""
        self.directories: list[str] = []
        self.refused = False
        """Whether the kernel has refused to mount it, and not for a cause that passes."""
        self.in_memory = False
        """Whether it is on a tmpfs of its own: see :mod:`.memory`."""
        self.members = 0
        """How many lines its list of members has."""
        self.origin = ""
        """Of the generations, where this process makes it."""
        self.fresh = False
        """Whether nothing but the image is in it: this process has just made it, and no earlier run wrote anything."""

    @property
    def folder(self) -> str:
        """Return the folder that holds its upper directories."""
        return f"{self.place}/{self.name}"

    @property
    def link(self) -> str:
        """Return the link by which this container's processes find the layer."""
        return f"{self.place}/container-{self.token}"

    def uppers(self) -> "list[str]":
        """Return its upper directories, one for each directory."""
        return [f"{self.folder}/{number}" for number in range(len(self.directories))]


def enter(find: "Callable[[], Sequence[str]]", storage: str, image: str, environ: "Mapping[str, str]") -> str:
    """Have the layer of this container: none is made where one stands.

    The caller has the import system list the directories anew where the answer is an empty string.

    :param find: returns the directories that a layer is made over: absolute paths of the image, links resolved. It is
        called only where none stands.
    :param storage: the folder of this image in storage; empty: what is written stays on this node.
    :param image: the name of this image, fit for a file name.
    :returns: an empty string, or a sentence why there is no layer; then nothing of this process has changed, unless
        the sentence says so.
    """
    uid = os.geteuid()
    try:
        namespace = os.readlink("/proc/self/ns/mnt")
        threads = os.stat("/proc/self/task").st_nlink - 2
        program = os.readlink("/proc/self/exe")
    except OSError as error:
        let_pass(error)
        return "/proc is not there to be asked"
    if in_layer(environ.get(LAYER)):
        return ""
    uid_map = read("/proc/self/uid_map")
    problem = decide.obstacle(
        environ, uid=uid, uid_map=uid_map, threads=threads, program=program, prefix=sys.prefix, storage=storage
    )
    if problem:
        return problem
    token = _token()
    dead: list[str] = []
    for place in places(storage, image, uid):
        layer = Layer(place, token, image)
        record = current_record(layer)
        if record and is_private(place):
            if join(layer, record, namespace):
                return ""
            dead.append(record)
    from sif_writable.layer import make

    return make.first(find, Layer("", token, image), storage, namespace, uid_map, dead)


def places(storage: str, image: str, uid: int) -> "Iterator[str]":
    """Yield the folders that may hold the layers of an image on this node, the best first."""
    if storage:
        yield f"{storage}/layer"
    for parent in ("/var/tmp", "/tmp"):  # noqa: S108 - private folders, which are checked at each use
        yield f"{parent}/sif-writable-{uid}/layers/{image}"


def is_private(folder: str) -> bool:
    """Whether a place of layers is ours and closed to everybody else: asked at each use, as it may have been replaced.

    Its name is safe, too: nobody else can write into the two folders that it lies in.
    """
    uid = os.geteuid()
    try:
        status, above = os.lstat(folder), os.lstat(folder.rsplit("/", 2)[0])
    except OSError as error:
        let_pass(error)
        return False
    return (
        status.st_uid == above.st_uid == uid
        and status.st_mode & 0o170077 == 0o040000
        and above.st_mode & 0o170022 == 0o040000
    )


def _token() -> str:
    """Name this very container run: the mount of ``/`` (its mtime is the container's start)."""
    root = os.stat("/")
    return f"{root.st_dev:x}.{root.st_ino:x}.{root.st_mtime_ns:x}"


def current_record(layer: Layer) -> str:
    """Return which layer was made last in this container, or an empty string."""
    try:
        return os.readlink(layer.link)
    except OSError as error:
        let_pass(error)
        return ""


def join(layer: Layer, record: str, namespace: str) -> bool:
    """Enter the layer that other processes of this container are in.

    :param record: what :func:`current_record` returned.
    """
    layer.name, _, words = record.partition(":")
    number, _, device = words.partition(":")
    if not number.isdigit() or not device.isdigit():
        return False
    layer.directories = directories(layer.folder)
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
    pid, mounts = found
    from sif_writable.layer import kernel

    try:
        here = os.open(".", os.O_PATH | os.O_CLOEXEC)
        try:
            path, strong = kernel.cwd(), kernel.is_strong()
            with kernel.undisturbed():
                kernel.join_process(pid, mounts)
                kernel.drop_capabilities(strong=strong)
                kernel.come_back(path, here)
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
    return True


def is_here(layer: Layer, record: str, namespace: str) -> bool:
    """Whether this process is in a layer with this record: the number of a namespace that has ended is given again."""
    number, _, device = record.partition(":")[2].partition(":")
    return namespace == f"mnt:[{number}]" and device in [str(_device(path)) for path in directories(layer.folder)[:1]]


def directories(folder: str) -> "list[str]":
    """Return what a layer was made over."""
    return [line for line in read(f"{folder}/about").splitlines()[ABOUT:] if line[:1] == "/"]


def me() -> str:
    """Return this process's line in the list of members: its number, and where that counts."""
    return f"{os.getpid()} {os.readlink('/proc/self/ns/pid')}\n"


def member(layer: Layer, number: int, device: int) -> "Optional[tuple[int, int]]":
    """Return a live process that is in a layer, and an open descriptor of its mount namespace."""
    known = [line.split(" ") for line in reversed(read(f"{layer.folder}/members").splitlines())]
    layer.members = len(known)
    numbers = {number, *[int(words[2]) for words in known if len(words) > 2 and words[2].isdigit()]}  # of `moved`
    for pid in dict.fromkeys([int(words[0]) for words in known[:MEMBERS] if words[0].isdigit()]):
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
    """Tell descendants, and publish at the end what was written."""
    global current
    import atexit

    if decide.KEEP in os.environ:  # whoever publishes it may have another setting, or none
        try:
            write(f"{layer.folder}/keep", os.environ[decide.KEEP], os.O_TRUNC)
        except OSError as error:
            let_pass(error)
    os.environ[LAYER] = decide.inside(
        namespace, covering(sys.prefix, *layer.directories[:1]), layer.image, sys.prefix, layer.directories
    )
    current = layer
    atexit.register(_at_exit, layer)


def _at_exit(layer: Layer) -> None:
    """Publish what was written, if this process is the last one in the layer."""
    try:
        if any(os.listdir(upper) for upper in layer.uppers()):
            from sif_writable.layer import publish

            publish.at_exit(layer)
    except Exception as error:  # noqa: BLE001 - the folder or the disk is gone: the next start does it, or says what is wrong
        let_pass(error)
        return


def read(path: str) -> str:
    """Return the text of a small file, or an empty string."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        let_pass(error)
        return ""
    try:
        parts = []
        while part := os.read(descriptor, 1 << 16):
            parts.append(part)
    except OSError as error:  # no security module answers
        let_pass(error)
        return ""
    finally:
        os.close(descriptor)
    return b"".join(parts).decode(sys.getfilesystemencoding(), "surrogateescape")


def write(path: str, text: str, how: int = os.O_EXCL) -> None:
    """Write a small file that is not there yet; with ``O_TRUNC`` as `how` it may be.

    :raises OSError: it cannot be written.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | how | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    rest = os.fsencode(text)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    finally:
        os.close(descriptor)


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
