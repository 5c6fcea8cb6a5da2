"""The first process of a container makes its layer; a trial has shown over which directories, and where it lies.

On the path of the first import from a read-only environment, as :mod:`.enter`.
"""

import os
import sys

from sif_writable import let_pass
from sif_writable.layer import enter, join, kernel
from sif_writable.layer.enter import Layer, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Optional

NEW = ".new"
"""How the name of what is being made begins."""
LOCK_SECONDS = 10.0
"""As long as storage is waited for: who has the lock may publish what killed processes have left."""
EMPTY = 16
"""How many layers that nothing was written to may lie about: they are removed together, which takes a process."""
_LINKS = 3
"""Of the folder of a layer, those of its upper directories apart."""
_LOCKS = (1 << 31) - 1
"""How many bytes of the lock there are to choose from: a prime, within the size of a file anywhere."""


def first(
    find: "Callable[[], Sequence[str]]",
    layer: Layer,
    storage: str,
    namespace: str,
    uid_map: str,
    dead: "Sequence[str]",
) -> str:
    """Have a layer where none stands, unless this process is in one without knowing it.

    :param find: see :func:`.enter.enter`, also for `storage` and what is returned.
    :param layer: whose place is not known yet.
    :param dead: records of layers that nobody is in any more.
    """
    text = read("/proc/self/mountinfo")
    if enter.MOUNTED in text:
        from sif_writable.layer import inherited

        here = inherited.folder(text.splitlines())
        if here:  # the variable was lost, or the namespace is one below: nobody makes a layer inside a layer
            inherited.export(here)
            return ""
    table = kernel.table(text)
    quick = environment(uid_map, table)
    found = settled(enter.places(storage, layer.image, os.geteuid()), 1, quick)
    if found is None:
        from sif_writable.layer import trial

        found = trial.asked(find, storage, layer.image, uid_map, quick)
    if found is None:
        return "no directory of the environment is the image's own"
    layer.place, words = found
    if words[2] != "ok":
        return words[2]
    layer.directories = [word for word in words[3:] if word[:1] == "/"]
    layer.in_memory = len(layer.directories) < len(words) - 3
    problem = make(layer, storage, namespace, dead, table)
    if problem and layer.refused:  # it is not tried again
        from sif_writable.layer import trial

        trial.note(layer.place, [*words[:2], problem])
    return problem


def environment(uid_map: str, table: "Sequence[tuple[str, str, str]]") -> str:
    """Return what the choice of directories depends on, in one line, without asking the table of mounts what is whose.

    Where it is as it was at a trial, so are the directories. That spares the modules that know an image's own mounts.

    :param table: what :func:`.kernel.table` returned.
    """
    points = tuple([f"{point}/" for _, point, _ in table if point != "/"])
    known = [path for path in sys.path if path[:1] == "/" and not f"{path}/".startswith(points) and os.path.isdir(path)]
    known += [sys.prefix, sys.base_prefix]
    starts = tuple([f"{path}/" for path in known])
    above = {"/"}
    for path in known:
        above.update([path[:at] for at in range(1, len(path)) if path[at] == "/"])
    words = [boot(), read("/proc/self/attr/current"), " ".join(uid_map.split()), *known]
    for root, point, kind in table:
        if point in above or f"{point}/".startswith(starts):
            words.append(f"{root} {point} {kind}")
    return repr(";".join([word.strip("\n\0") for word in words]))


def settled(roots: "Iterator[str]", line: int, text: str) -> "Optional[tuple[str, list[str]]]":
    """Return the place that a trial has chosen, with all that it noted: see :func:`sif_writable.layer.trial.settle`.

    :param line: which of the lines has to have this text.
    """
    for root in roots:
        lines = read(f"{root}/trial").splitlines()
        if len(lines) > 2 and lines[line] == text and enter.is_private(root):  # two of circumstances, and the result
            return root, lines
    return None


def make(
    layer: Layer, storage: str, namespace: str, dead: "Sequence[str]", mounts: "Sequence[tuple[str, str, str]]"
) -> str:
    """Make a layer, one process of the container at a time.

    :param dead: records of layers that nobody is in any more.
    :param mounts: what :func:`.kernel.table` returned.
    """
    try:
        descriptor = os.open(f"{layer.place}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        let_pass(error)
        return f"{layer.place}/lock cannot be made: {error.strerror}"
    opened = [descriptor]
    try:
        os.lseek(descriptor, int.from_bytes(layer.token.encode(), "big") % _LOCKS, os.SEEK_SET)
        if not kernel.locked(descriptor, LOCK_SECONDS):
            return f"another process has been making the layer of this container for {LOCK_SECONDS:.0f} seconds"
        record = enter.current_record(layer)
        joined = Layer(layer.place, layer.token, layer.image)
        if record and record not in dead and join.join(joined, record, namespace):
            return ""
        neighbour = _neighbour(layer)
        if neighbour is not None:
            opened.append(neighbour[1])
            if not layer.directories:
                return "the layer of another environment in this container is over all its directories"
        base = _prepared(layer, storage, [record.partition(":")[0] for record in dead])
        with join.undisturbed():
            problem = kernel.mount_layer(layer, base, mounts, neighbour)
            if not problem:
                layer.fresh = not base and not layer.in_memory
                _appear(layer)
        if problem:
            return problem
    except OSError as error:
        let_pass(error)
        return f"the layer failed: {error}"
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return ""


def _prepared(layer: Layer, storage: str, dying: "Sequence[str]") -> str:
    """Make the folders of a layer, and give it a name; return the folder of what earlier runs wrote."""
    if layer.in_memory:
        from sif_writable.layer import memory

        memory.prepare(layer, storage)
        return ""  # that is not known yet
    base = _base(layer, storage, dying)
    try:
        layer.name = prepare(layer.place, layer.directories, base, storage, layer)
    except FileNotFoundError:  # the base was superseded and removed just now
        base = _base(layer, storage, dying)
        layer.name = prepare(layer.place, layer.directories, base, storage, layer)
    return base


def _neighbour(layer: Layer) -> "Optional[tuple[int, int]]":
    """Return a process of this container that is in the layer of another environment: see :mod:`.neighbours`.

    What that is over is taken from the directories of this one.
    """
    above, below = layer.place.rsplit("/", 1)[0], ""
    if layer.place.endswith("/layer"):  # in the folder of an image
        above, below = above.rsplit("/", 1)[0], "/layer"
    for name in listed(above):
        place = f"{above}/{name}{below}"
        if name.partition("-")[0] == layer.image.partition("-")[0] and place != layer.place:
            other = Layer(place, layer.token)
            record = enter.current_record(other)
            if record:
                from sif_writable.layer import neighbours

                found = neighbours.member(other, record)
                if found is not None:
                    layer.directories = neighbours.not_covered(layer.directories, neighbours.covered(found[0]))
                    return found
    return None


def _namespace() -> str:
    """Return the mount namespace; it stands already, so it is asked in two ways before that may fail."""
    try:
        return os.readlink("/proc/self/ns/mnt")
    except OSError as error:
        let_pass(error)
        return f"mnt:[{os.stat('/proc/self/ns/mnt').st_ino}]"


def _appear(layer: Layer) -> None:
    """Have others find a layer that is mounted now. Where that fails, this process is in it alone, and it is kept."""
    namespace = _namespace()
    try:
        if not layer.in_memory:
            # Only now has it the name that others look for: one that is not mounted yet looks like a dead one.
            made_in, layer.name = layer.folder, layer.name.removeprefix(f"{NEW}-")
            os.rename(made_in, layer.folder)
        device = os.stat(layer.directories[0]).st_dev
        # A link appears as a whole, and replacing one does not make the disk write, as replacing a file does.
        aside = f"{layer.place}/{NEW}-{os.urandom(8).hex()}"
        os.symlink(f"{layer.name}:{namespace[5:-1]}:{device}", aside)
        os.rename(aside, layer.link)
    except OSError as error:
        let_pass(error)
    join.entered(layer, namespace)


def _base(layer: Layer, storage: str, dying: "Sequence[str]") -> str:
    """Return the folder of what earlier runs wrote, on this node, or an empty string; collect what they left here.

    :param dying: names of layers that this container had.
    """
    names = os.listdir(layer.place)
    folder = generations(layer.place, storage)
    there = names if folder == layer.place else listed(folder)
    number = newest(there)
    layer.origin = origin_of(there)
    if not layer.origin:
        from sif_writable.layer import replicas

        layer.origin = replicas.mark(folder)
    known = replica(layer.origin, number)
    left = [name for name in names if name.startswith("upper-")]
    if (number and known not in names) or len(left) > EMPTY or (left and _is_written(layer, left)):
        from sif_writable.layer import collect

        return collect.before_making(layer.place, folder, layer.origin, dying)
    return f"{layer.place}/{known}" if number else ""


def _is_written(layer: Layer, names: "Iterable[str]") -> bool:
    """Whether something was written to layers that may be dead.

    Times do not show it: a file that is copied into an upper directory leaves that with its time.
    """
    usual = [str(number) for number in range(len(layer.directories))]
    for name in names:
        folder = f"{layer.place}/{name}"
        try:
            known = os.lstat(folder).st_nlink == len(usual) + _LINKS  # else it is of another environment
            if any(os.listdir(f"{folder}/{n}") for n in (usual if known else os.listdir(folder)) if n.isdigit()):
                return True
        except OSError as error:  # another process collects it just now
            let_pass(error)
    return False


def replica(origin: str, number: int) -> str:
    """Return the name of a node's copy of a generation."""
    return f"replica-{origin[3:]}-{number}"


def origin_of(names: "Iterable[str]") -> str:
    """Return what distinguishes a folder of generations from others that were at the same path; empty: nothing yet.

    :param names: all that are in it.
    """
    return min([name for name in names if name[:3] == "id-"], default="")


def boot() -> str:
    """Name this run of the machine: what a layer holds is not safe from its crash.

    :raises OSError: it cannot be found out. It must not count as another one.
    """
    path = "/proc/sys/kernel/random/boot_id"
    name = read(path).strip()
    if not name:
        raise OSError(5, "it cannot be read", path)
    return name


def newest_generation(folder: str) -> int:
    """Return the number of the newest generation in storage, or 0."""
    return newest(listed(folder))


def listed(folder: str) -> "list[str]":
    """Return what is in a folder, or nothing where it cannot be listed."""
    try:
        return os.listdir(folder)
    except OSError as error:
        let_pass(error)
        return []


def newest(names: "Iterable[str]") -> int:
    """Return the number of the newest generation among the names in a folder, or 0."""
    return max([int(name[4:]) for name in names if name[:4] == "gen-" and name[4:].isdigit()], default=0)


def generations(place: str, storage: str) -> str:
    """Return the folder of the generations."""
    return f"{storage}/layer" if storage else place


def prepare(place: str, directories: "Sequence[str]", base: str, storage: str, layer: "Optional[Layer]" = None) -> str:
    """Make the upper directories of a new layer; return the name of their folder, until it is mounted.

    :param layer: that they are for; None: a trial.
    :raises OSError: they cannot be made.
    """
    name = f"{NEW}-upper-{os.urandom(8).hex()}"
    folder = f"{place}/{name}"
    os.mkdir(folder, 0o700)
    enter.write(f"{folder}/about", about(place, directories, base, storage, layer))
    enter.write(f"{folder}/members", join.me())
    if base and not os.path.isdir(base):
        raise FileNotFoundError(2, "it was collected just now", base)
    make_uppers(folder, directories)
    return name


def about(place: str, directories: "Sequence[str]", base: str, storage: str, layer: "Optional[Layer]") -> str:
    """Return what a layer says of itself."""
    known = [enter.known(layer.image, sys.prefix)] if layer is not None else []
    origin = layer.origin if layer is not None else ""
    return "\n".join([boot(), base, generations(place, storage), origin, *directories, *known])


def make_uppers(folder: str, directories: "Sequence[str]") -> None:
    """Make the upper directories in the folder of a layer.

    :raises OSError: they cannot be made.
    """
    os.mkdir(f"{folder}/hidden", 0o700)
    for number, directory in enumerate(directories):
        status = os.stat(directory)
        os.mkdir(f"{folder}/hidden/{number}", 0o700)
        os.mkdir(f"{folder}/{number}", 0o700)
        os.chmod(f"{folder}/{number}", status.st_mode & 0o1777 | 0o700)
        # The time of a directory of packages is part of what an image is known by.
        os.utime(f"{folder}/{number}", ns=(status.st_atime_ns, status.st_mtime_ns))
