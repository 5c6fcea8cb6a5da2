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

from sif_writable import LAYER, first_import, let_pass
from sif_writable.child import OVERLAY as MODE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Optional

ABOUT = 4
"""Lines of `about` before the directories: the run of the machine, the generation below, where the next one goes, and
what distinguishes that folder from others at the same path. After those may be lines of :func:`known`."""
MOUNTED = " - overlay sif-writable "
"""What lines of mountinfo have in them that show an overlay of ours."""
NOT_NAMED = ":\n"
"""What separates the directories of a layer in :data:`sif_writable.LAYER`, and in the files of its folder."""
# What launchers give to each rank. Settings such as OMPI_MCA_* are exported by site modules, also where nothing runs.
_RANK_PREFIXES = ("PMI_", "PMI2_", "PMIX_", "OMPI_COMM_WORLD_", "MV2_COMM_WORLD_", "MPI_LOCAL", "PALS_", "HYDI_")
_RANK_VARIABLES = ("JSM_NAMESPACE_RANK", "FLUX_TASK_RANK", "ALPS_APP_PE")
_SETTINGS = ("PMIX_MCA_", "PMI_MCA_")

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
        """Whether nothing but the image is in it: nothing was written to it yet, nor by an earlier run."""

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
        return "/proc is not mounted here, or cannot be read"
    if LAYER in environ:
        from sif_writable import mounted

        if mounted.in_layer(environ[LAYER]):
            return ""
    uid_map = read("/proc/self/uid_map")
    problem = obstacle(
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
            first_import.load("layer.join")
            from sif_writable.layer import join

            if join.join(layer, record, namespace):
                return ""
            dead.append(record)
    first_import.load("layer.join", "layer.kernel", "layer.make")
    from sif_writable.layer import make

    umask = os.umask(0o077)
    os.umask(umask & 0o077)  # as in `aside.Usable`
    try:
        return make.first(find, Layer("", token, image), storage, namespace, uid_map, dead)
    finally:
        os.umask(umask)


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


def directories(folder: str) -> "list[str]":
    """Return what a layer was made over."""
    return about(folder)[1]


def about(folder: str) -> "tuple[str, list[str]]":
    """Return a layer's folder of what earlier runs wrote, or an empty string, and what it was made over."""
    lines = read(f"{folder}/about").splitlines()
    return "".join(lines[1:2]), [line for line in lines[ABOUT:] if line[:1] == "/"]


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


# --- May this process have a layer? Every answer is a sentence, or an empty string for yes ---


def mode(environ: "Mapping[str, str]") -> str:
    """Return ``on``, ``off`` or ``auto``, which what is not understood counts as."""
    value = environ.get(MODE, "").lower()
    return value if value in ("on", "off") else "auto"


def inside(namespace: str, mounts: str, image: str, prefix: str, directories: "Sequence[str]") -> str:
    """Return the value of :data:`sif_writable.LAYER`."""
    return ":".join([namespace, mounts, image, prefix, *directories])


def known(image: str, prefix: str) -> str:
    """Return the line of `about` that says what an image is called for one environment of it."""
    return f"={image}:{prefix}"


def obstacle(
    environ: "Mapping[str, str]", *, uid: int, uid_map: str, threads: int, program: str, prefix: str, storage: str
) -> str:
    """Say why this process must not have a layer, or return an empty string.

    :param uid: the effective one.
    :param uid_map: the text of /proc/self/uid_map; empty without /proc.
    :param threads: how many run in this process; 0 if that is not known.
    :param program: the file that this process executes, of /proc/self/exe.
    :param prefix: that of the environment, ``sys.prefix``.
    :param storage: the folder of this image in storage.
    """
    wish = mode(environ)
    if wish == "off":
        return f"{MODE}=off"
    problem = _lacking() or parallel(environ) or _keyring(environ) or _threads(threads) or _embedded(program)
    problem = problem or _path("the environment", prefix, NOT_NAMED) or _path("storage", storage, "\n")
    return problem or ("" if wish == "on" else identity(uid, uid_map))


def parallel(environ: "Mapping[str, str]") -> str:
    """Say by what this process is known to be one rank of many, or return an empty string."""
    data = getattr(environ, "_data", None)  # of os.environ, in which each name is decoded by itself
    text = "\n" + ("\n".join(environ) if data is None else os.fsdecode(b"\n".join(data)))
    hints = [start for start in (*_RANK_PREFIXES, *_RANK_VARIABLES) if f"\n{start}" in text]
    for name in environ if hints else ():
        if name in _RANK_VARIABLES or (name.startswith(_RANK_PREFIXES) and not name.startswith(_SETTINGS)):
            return f"this is a rank of an MPI program ({name} is set), and its ranks share memory"
    # srun says how many tasks the step has; a batch script knows only the number for the job.
    name = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environ else "SLURM_NTASKS"
    for variable, words in ((name, "a Slurm step"), ("WORLD_SIZE", "a group"), ("LOCAL_WORLD_SIZE", "a group")):
        number = environ.get(variable, "")
        if number.isdigit() and int(number) > 1:
            return f"this is one of {number} tasks of {words} ({variable}), and those may share memory"
    return ""


def _lacking() -> str:
    return (
        "" if hasattr(os, "posix_spawn") else "this Python has no os.posix_spawn (PyPy), by which its trial is started"
    )


def _keyring(environ: "Mapping[str, str]") -> str:
    if environ.get("KRB5CCNAME", "").startswith("KEYRING:"):
        return "the Kerberos ticket is in a keyring (KRB5CCNAME), which belongs to the user namespace"
    return ""


def _threads(count: int) -> str:
    if count == 1:
        return ""
    if not count:
        return "/proc is not mounted here, so threads cannot be counted"
    return f"{count} threads run in this process, and the kernel asks for a single one"


def _embedded(program: str) -> str:
    name = program.rpartition("/")[2]
    if name.startswith(("python", "pypy")):
        return ""
    return f"Python runs inside another program ({name or 'unknown'}), which may have opened what a layer would cover"


def _path(what: str, path: str, letters: str) -> str:
    for letter, words in (("\n", "a line break"), (":", "a colon")):
        if letter in letters and letter in path:
            return f"the path of {what}, {path!r}, has {words} in it, which separates the paths that a layer notes"
    return ""


def identity(uid: int, uid_map: str) -> str:
    """Say what a layer would change about users and groups, or return an empty string."""
    lines = [line.split() for line in uid_map.splitlines()]
    if len(lines) == 1 and len(lines[0]) == 3 and (lines[0][0], lines[0][2]) == (str(uid), "1"):
        return ""
    if not lines:
        return "/proc does not say which users there are"
    return f"this user namespace has more users than one, and a layer would hide them ({MODE}=on makes it all the same)"
