"""Distinguish the image's own paths from what was bound in from the host.

An *image mount* is the mount of ``/``, and what belongs to it: where an engine puts the root together from binds, the
mounts that show the same filesystem in the same place. Where no engine has left its sign, a root that is put together
is a tmpfs or the host's own (bubblewrap, Firejail), and the mount that holds the interpreter counts. An *environment
directory* is a directory on such a mount that an interpreter's packages live in. Everything else is the host's, also
what is bound read-only or into site-packages: it is never copied, covered or overruled.

The fields of ``/proc/self/mountinfo`` are those of proc_pid_mountinfo(5). It imports only ``os`` and ``sys``. Without
``/proc`` nothing is known to be the image's.
"""

import os
import sys

import sif_writable
from sif_writable import rootfs
from sif_writable.signals import let_pass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Optional

MOUNTINFO = "/proc/self/mountinfo"
_IMAGES_ONLY = ("overlay", "squashfs", "fuse.squashfuse", "fuse.fuse-overlayfs", "erofs")
"""How the names of filesystem types begin on which there is nothing but an image."""
_APPTAINER = "/.singularity.d"
_PROGRAMS = ("bin", "sbin")


class Mount:
    """One line of mountinfo."""

    __slots__ = ("device", "is_layer", "kind", "number", "parent", "point", "read_only", "root")

    def __init__(self, line: str) -> None:
        """Read a line.

        :raises ValueError: it is not one of mountinfo.
        """
        left, _, right = line.partition(" - ")
        self.number, self.parent, self.device, root, point, options = left.split(" ", 6)[:6]
        self.root, self.point = _plain(root), _plain(point)
        self.kind = right.partition(" ")[0]
        self.read_only = options.split(",")[0] == "ro"
        self.is_layer = right.startswith("overlay sif-writable ") and (
            ",volatile" in right or ",fsync=volatile" in right  # the latter as Linux 6.18 has it
        )

    def base(self) -> "Optional[str]":
        """Return the directory of its filesystem that stands for ``/``, where it is shown in its own place."""
        if self.root.rstrip("/").endswith(self.point.rstrip("/")):
            return self.root.rstrip("/")[: len(self.root.rstrip("/")) - len(self.point.rstrip("/"))]
        return None


def _plain(field: str) -> str:
    """Undo the escapes of a path, which are a backslash and three octal digits."""
    if "\\" not in field:
        return field
    head, *parts = field.split("\\")
    return head + "".join([chr(int(part[:3], 8)) + part[3:] for part in parts])


class Mounts:
    """The mounts of this process, and which of them are the image's."""

    def __init__(self, text: str, base_prefix: str, *, signed: bool) -> None:
        """Take a table of mounts.

        :param text: as in mountinfo; lines that are not understood do not count.
        :param base_prefix: where the interpreter is installed, links resolved.
        :param signed: a container engine has left its sign, and the root is a container's.
        """
        self.table: list[Mount] = []
        for line in text.split("\n"):
            try:
                self.table.append(Mount(line))
            except ValueError:  # noqa: PERF203 - the last line is empty
                continue
        self._children: dict[str, list[Mount]] = {}
        for mount in self.table:
            self._children.setdefault(mount.parent, []).append(mount)
        known = {mount.number for mount in self.table}
        tops = [mount for mount in self.table if mount.point == "/" and mount.parent not in known - {mount.number}]
        self._top = tops[-1] if tops else None
        self._image: set[str] = set()
        root = self.holder("/")
        if root is None:
            return
        if signed:
            self._image = {root.number}
            self._add_shown_in_place(root)
            if (described := self.holder(_APPTAINER)) is not None and described is not root:
                self._add_shown_in_place(described)
        elif root.read_only and not root.kind.startswith("tmpfs"):  # runc, Enroot
            self._image = {root.number}
        elif (holder := self.holder(base_prefix)) is not None:
            self._image = {holder.parent if holder.is_layer else holder.number}
        for mount in self.table:  # a parent comes before what is mounted on it
            if mount.is_layer and mount.parent in self._image:
                self._image.add(mount.number)

    def _add_shown_in_place(self, model: Mount) -> None:
        """Add what shows the filesystem of a mount of the image, from the same directory of it, in its own place."""
        base = model.base()
        # Elsewhere than on an image's own filesystem, "/data shown at /data" is what a bind of the host's looks like.
        if base is None or not (base or model.kind.startswith(_IMAGES_ONLY)):
            return
        self._image.update(
            mount.number for mount in self.table if mount.device == model.device and mount.base() == base
        )

    def holder(self, path: str) -> "Optional[Mount]":
        """Return the mount that a path is on, or None where that is not known.

        :param path: absolute, links resolved.
        """
        here = self._top
        seen: set[str] = set()
        while here is not None and here.number not in seen:
            seen.add(here.number)
            inner = [mount for mount in self._children.get(here.number, ()) if mount is not here]
            inner = [mount for mount in inner if _is_at_or_below(path, mount.point)]
            if not inner:
                return here
            # A way passes the outermost mount first. What is mounted below that was covered by it.
            here = min(inner[::-1], key=lambda mount: len(mount.point))
        return None

    def is_image(self, path: str) -> bool:
        """Whether a path, links resolved, is on a mount of the image."""
        holder = self.holder(path)
        return holder is not None and holder.number in self._image

    def host_mount(self, path: str) -> str:
        """Return the mount point of the host's filesystem that a path is on, or an empty string."""
        holder = self.holder(path)
        return "" if holder is None or holder.number in self._image else holder.point

    def host_mounts_below(self, path: str) -> "list[str]":
        """Return where below a path something of the host's is mounted and can be seen."""
        return [
            mount.point
            for mount in self.table
            if mount.point != path
            and _is_at_or_below(mount.point, path)
            and mount.number not in self._image
            and self.holder(mount.point) is mount
        ]


_last: "Optional[tuple[str, Mounts]]" = None


def mounts() -> Mounts:
    """Return the mounts of this process as they are now."""
    global _last
    try:
        text = _table()
    except FileNotFoundError:  # no /proc
        text = ""
    except OSError as error:
        let_pass(error)
        try:  # what failed once would leave a package without what is installed with it
            text = _table()
        except OSError as error:
            let_pass(error)
            text = ""
    if _last is None or _last[0] != text:
        data = sif_writable.environment()
        contained = sif_writable.in_container(data)
        own = "" if contained and _is_below_proot() else text  # the table is the host's then
        signed = contained and sif_writable.has_sign(data)
        _last = (text, Mounts(own, os.path.realpath(sys.base_prefix), signed=signed))
    return _last[1]


def _is_below_proot() -> bool:
    try:
        return rootfs.below_proot()
    except OSError as error:
        let_pass(error)
        return False


def _table() -> str:
    with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def environment_directories() -> "list[str]":
    """Return the directories that packages of this interpreter live in, wherever they are mounted from.

    Never ``/``, a directory directly below it (but for a prefix of its own), or one of programs.
    """
    found: dict[str, None] = {}
    if sys.prefix != sys.base_prefix or os.path.isdir(f"{sys.prefix}/conda-meta"):
        found[sys.prefix] = None
    else:
        found.update(dict.fromkeys((f"{sys.prefix}/share", f"{sys.prefix}/etc/jupyter")))
        found.update(dict.fromkeys(_site_directories(sys.prefix)))
    found.update(dict.fromkeys(_site_directories(sys.base_prefix)))
    found.update(dict.fromkeys(entry for entry in sys.path if entry.startswith("/")))
    both: dict[str, None] = {}
    for entry in found:
        for way in (os.path.normpath(entry), os.path.realpath(entry)):
            if way == sys.prefix or (way.count("/") > 1 and os.path.basename(way) not in _PROGRAMS):
                both[way] = None
    both.pop("/", None)
    return list(both)


def _site_directories(prefix: str) -> "Iterator[str]":
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for library in dict.fromkeys(("lib", sys.platlibdir)):
        for name in ("site-packages", "dist-packages"):
            yield f"{prefix}/{library}/{version}/{name}"
    yield f"{prefix}/lib/python3/dist-packages"


def directories_to_cover() -> "list[str]":
    """Return the environment directories of the image that a layer covers, the environment itself first.

    The standard library is not among them unless it lies in the environment: nothing writes there, and each of its
    files that is looked up through one more overlay asks the FUSE server of the image once more (15 us).
    """
    table = mounts()
    library = os.path.realpath(os.path.dirname(os.__file__))
    found = []
    for directory in environment_directories():
        if directory in (library, f"{library}/lib-dynload"):
            continue
        if os.path.realpath(directory) != directory or not os.path.isdir(directory) or os.access(directory, os.W_OK):
            continue
        if table.is_image(directory) and not table.host_mounts_below(directory):  # the host's is never covered
            found.append(directory)
    return found


def environment_directory(path: str, directories: "Optional[Iterable[str]]" = None) -> str:
    """Return the environment directory of the image that a path lies in, or an empty string.

    The path counts as it is written and as it is; both have to be on the image's own mounts. What lies above a mount of
    the host's, such as a package with a bind in it, counts as the host's.

    :param path: absolute; it need not exist.
    :param directories: by default those of this interpreter.
    """
    written = os.path.normpath(path)
    real = os.path.realpath(path)
    table = mounts()
    if not table.is_image(real) or not table.is_image(os.path.realpath(os.path.dirname(written))):
        return ""
    if table.host_mounts_below(real):
        return ""
    for directory in environment_directories() if directories is None else directories:
        if _is_at_or_below(written, directory) or _is_at_or_below(real, directory):
            return directory
    return ""


def host_mount(path: str) -> str:
    """Return the mount point of what is bound in from the host and holds a path, or an empty string."""
    return mounts().host_mount(os.path.realpath(path))


def _is_at_or_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")
