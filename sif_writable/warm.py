"""Does what an earlier start decided still hold? Each question that led to it is asked again.

A cold start keeps what it decided, with all that it asked (:mod:`sif_writable.redirects.remember`). A warm one asks
whether filesystems answer, then whose the storage is, then reads what was kept, and asks again; at the least difference
all is decided anew. It imports what is loaded already; what few starts need is in :mod:`sif_writable.seldom`.
"""

import marshal
import os
import sys
import time
from _imp import source_hash

import sif_writable
from sif_writable import DEBUG, DIR, LAYER, SESSION, TARGET, child, let_pass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any, Optional

    Row = Sequence[bytes]  # what is mounted, where, the type of filesystem, and more

IMAGE, PLAN = "image", "plan"
"""How the name of an image's folder in storage begins, before its identity; and in there that of a kept plan, before
the interpreter tag, with a dash between. The other names are in :mod:`sif_writable.storage.layout`."""
LARGEST, DAY = 1 << 20, 86400.0
"""Bytes of a file that are read; seconds, of which the time of a kept plan is not renewed more often."""
FOLDER = "sif-writable"
"""The name of the one folder that we make in a place."""
MIN_BYTES, ROOM, SMALL, MIN_INODES = 16 << 20, 256 << 20, 1 << 30, 64
"""Bytes that storage must have free; that downloads want (users fill 64 MiB within one import); below which a
filesystem that HOME and /tmp (or / and /tmp) share is a container session's tmpfs (64 MiB by default, 16 MiB before
Apptainer 1.2: apptainerconf/config.go, ``sessiondir max size``); inodes that must be free, where they are counted."""

STAT, LSTAT, ACCESS, THERE, LINK, SPACE, USER = range(7)
"""Kinds of questions, as :mod:`sif_writable.system.world` notes them; others are in :mod:`sif_writable.seldom`."""

_HEAD = 12
"""Bytes before the plan: a check sum (marshal must not be given what was damaged), and the length of its first part."""
_PLAN_KEY, _IDENTITY_KEY = 0x5349465F504C4132, 0x5349465F57524954
_LOCAL = frozenset(
    (
        b"bcachefs", b"binfmt_misc", b"bpf", b"btrfs", b"cgroup", b"cgroup2", b"configfs", b"debugfs",
        b"devpts", b"devtmpfs", b"efivarfs", b"erofs", b"ext2", b"ext3", b"ext4", b"f2fs", b"fuse.squashfuse",
        b"fuse.squashfuse_ll", b"fusectl", b"hugetlbfs", b"iso9660", b"mqueue", b"nsfs", b"overlay", b"proc", b"pstore",
        b"ramfs", b"rootfs", b"securityfs", b"squashfs", b"sysfs", b"tmpfs", b"tracefs", b"vfat", b"xfs", b"zfs",
    )
)  # fmt: skip
"""Types of filesystems that do not stop answering, or only together with the image; of another one it may happen."""


def start(data: "Mapping[bytes, bytes]") -> str:
    """Set what an earlier start has decided, without a session; return the state, or nothing: it does not hold here."""
    try:
        kept = _Plan(data).find()
    except (OSError, ValueError) as error:
        let_pass(error)
        return ""
    return _apply(kept) if kept else ""


def _apply(kept: "Any") -> str:
    """Set the variables, and hand them down: what :func:`sif_writable.redirects.remember.keep` has kept."""
    settings, (kinds, done, roots), pycache, user_site, told, lines = kept
    environ: Any = sif_writable.environment()
    for name, value in settings.items():
        environ[name] = value
        os.putenv(name, value)
    if pycache:
        sys.pycache_prefix = pycache
    if b"TMPDIR" in settings and "tempfile" in sys.modules:
        sys.modules["tempfile"].tempdir = None  # type: ignore[attr-defined]
    if user_site == "ignore" or (user_site and getattr(sys.modules.get("site"), "USER_SITE", None)):
        from sif_writable import usersite

        usersite.again(user_site)
    os.environ[SESSION] = f"2{kinds};{child.token()};{done};{child.inputs()};{roots}"
    if lines and getattr(sys.modules.get("sif_writable.session"), "told", "") != told:  # an ancestor has said the same
        from sif_writable.stderr import say

        say(lines)
    child.install(environ)
    return "active"


class _Plan:
    """Looks for a kept plan, and asks again."""

    def __init__(self, data: "Mapping[bytes, bytes]") -> None:
        self.data = data
        self.uid = self.user = os.geteuid()
        self.rows = mount_rows()
        self.points = may_hang_in(self.rows)
        self.answered: set[str] = set()
        """Mount points that answered."""

    def find(self) -> "Any":
        """Return what :func:`_apply` is given, or None."""
        data = self.data
        if LAYER.encode() in data or data.get(DEBUG.encode()) == b"1":
            return None
        for source, _, kind, _ in self.rows:
            if source == b"sif-writable" and kind == b"overlay":  # in a layer of which the variable was cleaned
                return None
        if not self.uid:
            from sif_writable import seldom

            self.user = seldom.uid_outside()
        self.home = os.fsdecode(data.get(b"HOME", b""))
        if self.home[:1] != "/":
            self.home = sif_writable.follow("home").home_directory(os.environ.get("HOME"))
        self.target = TARGET.encode() in [row[1] for row in self.rows]
        name, manifest, first = "", b"", True
        for base, given in self._places():
            self._wait_for(base, first=first)  # where an earlier one may do, or be made, nobody waits for a later one
            first = False
            try:
                place = os.stat(base)
            except (FileNotFoundError, NotADirectoryError, PermissionError):  # as then, or the questions tell
                continue
            own = place.st_uid == self.uid and not place.st_mode & 0o022
            folder = f"{base}/{FOLDER}" if own else f"{base}/{FOLDER}-{self.user}"
            for root in (os.path.realpath(base), folder) if given and own else (folder,):
                try:
                    status = os.lstat(root)
                except (FileNotFoundError, NotADirectoryError, PermissionError):
                    continue
                if status.st_uid != self.uid or status.st_mode & 0o170022 != 0o040000:
                    continue
                if not name:
                    image, manifest = identity(os.path.dirname(os.path.dirname(__file__)))
                    name = f"{IMAGE}-{image}/{PLAN}-{sys.implementation.cache_tag}"
                content, plan = _read(f"{root}/{name}")
                if plan is None or plan.st_uid != self.uid or plan.st_mode & 0o170022 != 0o100000:
                    continue
                kept = self._holds(content, manifest, {(STAT, base): place, (LSTAT, root): status})
                if kept and abs(time.time() - plan.st_mtime) > DAY:
                    from sif_writable import seldom

                    kept = kept if seldom.use(root, name, kept[0]) else None
                return kept and kept[1:]
        return None

    def _places(self) -> "Iterator[tuple[str, bool]]":
        """Yield where storage may be, and whether the user gave it.

        As :func:`sif_writable.storage.candidates.places` does.
        """
        get = self.data.get
        if given := get(DIR.encode()):
            yield os.fsdecode(given), True
        if self.target:
            yield TARGET, True
        if sif_writable.environment_writable(os.access):
            yield "/var/cache", False
        if (cache := get(b"XDG_CACHE_HOME", b""))[:1] == b"/":
            yield os.fsdecode(cache), False
        home = self.home
        if home[:1] == "/" and home != "/":
            self._wait_for(home)
            if os.access(f"{home}/.", os.W_OK | os.X_OK):
                yield f"{home}/.cache", False
        for name in (b"SLURM_TMPDIR", b"SCRATCH", b"TMPDIR"):
            if (base := get(name, b""))[:1] == b"/":
                yield os.fsdecode(base), False
        yield from (("/var/tmp", False), ("/tmp", False), ("/dev/shm", False))  # noqa: S108

    def _wait_for(self, path: str, *, first: bool = True) -> None:
        """Wait until the filesystems on the way to a path have answered, each that may not, once.

        :param first: whether storage may have to be there: else nobody waits.
        :raises TimeoutError: one does not, or would have to be waited for.
        """
        waiting = {point: kind for point, kind in self.points.items() if point not in self.answered}
        while waiting:
            from sif_writable import hanging

            point, kind = hanging.hangable_mount_on(path, waiting)
            if not point:
                break
            if not first:
                raise TimeoutError
            if hanging.times_out(point, kind):
                from sif_writable.system import timeouts

                timeouts.mark_timed_out(path)  # who decides anew shall not wait for it again
                raise TimeoutError
            self.answered.add(point)
            del waiting[point]

    def _holds(self, content: bytes, manifest: bytes, known: "dict[tuple[int, str], os.stat_result]") -> "Any":
        """Return what was decided if each question has the answer of then, or else None."""
        if seal(content[8:]) != content[:8]:
            return None
        data, size, loads = self.data, _HEAD + int.from_bytes(content[8:_HEAD], "little"), marshal.loads
        same, values, names, asked, waited, questions, held, listings, present, noted, kept = loads(content[_HEAD:size])
        if same != [self.uid, self.user, self.home, self.target, manifest, sys.dont_write_bytecode]:
            return None
        if kept[3] and sys.pycache_prefix is not None:
            return None
        if any([data.get(name) != value for name, value in values]):  # noqa: C419 - a generator costs a frame
            return None
        if _any_asked(data.keys() - names, asked):
            return None
        if self.points or waited:
            reached = loads(content[size:])
            if {point: kind for point, kind in self.points.items() if point in reached} != waited:
                return None
            for point in waited:
                self._wait_for(point)
        if not _same(questions, known, self.rows):
            return None
        for directory, there, others, asked in listings:
            listed = set(os.listdir(directory))
            if not there.issubset(listed) or _any_asked({os.fsencode(name) for name in listed - others}, asked):
                return None
        for folder, needed, given in present:  # of what has come, only what other images fetched counts
            changed = needed.symmetric_difference(os.listdir(folder))
            if (given and os.stat(folder).st_mode & 0o022) or changed & needed or "@" in "".join(changed):
                return None
        if held or noted:
            from sif_writable import seldom

            return kept if seldom.hold(held) and seldom.unchanged_since(noted) else None
        return kept


def _same(questions: "Iterable[Any]", known: "dict[tuple[int, str], os.stat_result]", rows: "Iterable[Row]") -> bool:
    """Whether questions (kind, path, what more is asked, answer; an error is its number) have the same answers.

    :param known: what :func:`os.stat` and :func:`os.lstat` have said a moment ago.
    """
    devices: dict[int, int] = {}
    found: Any
    for kind, path, more, answer in questions:
        try:
            if kind <= LSTAT:
                status = known.get((kind, path)) or (os.lstat if kind else os.stat)(path)
                found = about(status, devices)
            elif kind == ACCESS:
                found = os.access(path, more)
            elif kind == THERE:
                os.lstat(path)
                found = True
            elif kind == LINK:
                found = os.readlink(path)
            elif kind == SPACE:
                found = space(os.statvfs(path))
            elif kind == USER:
                found = sif_writable.follow("home").home_directory(None)
            else:
                from sif_writable import seldom

                found = seldom.ask(kind, path, more, rows)
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            found = error.errno if kind != THERE else isinstance(error, PermissionError)
        if found != answer:
            return False
    return True


def _any_asked(new: "set[bytes]", asked: bytes) -> bool:
    """Whether any of these names, which have come since, is one that was asked for: between zero bytes, in a row."""
    if len(new) > 32:
        return not new.isdisjoint(asked.split(b"\0"))
    return any([b"\0%s\0" % name in asked for name in new])  # noqa: C419 - a generator costs a frame


def about(status: os.stat_result, devices: "dict[int, int]") -> "tuple[int, int, int, int]":
    """Return of a file what a decision asks. A device number differs in each run; which are equal does not."""
    return status.st_mode, status.st_uid, status.st_gid, devices.setdefault(status.st_dev, len(devices))


def space(found: os.statvfs_result) -> "tuple[Any, ...]":
    """Return of a filesystem what a decision asks: its flags, and what is enough."""
    free = found.f_bavail * found.f_frsize
    return (
        found.f_flag & (os.ST_RDONLY | os.ST_NOEXEC),
        (free >= MIN_BYTES) + (free >= ROOM),
        found.f_blocks and found.f_blocks * found.f_frsize >= SMALL,
        found.f_files and (found.f_favail > 0) + (found.f_favail >= MIN_INODES),
    )


def seal(body: bytes) -> bytes:
    """Return the check sum of a kept plan; another version's does not fit."""
    return source_hash(_PLAN_KEY, sif_writable.__version__.encode() + body)


def mount_rows() -> "list[Row]":
    """Return the mounts of this process (proc_pid_mounts(5)): to look at the places themselves may be to wait."""
    return [line.split(b" ", 3) for line in _read("/proc/self/mounts")[0].splitlines()]


def may_hang_in(rows: "Iterable[Row]") -> "dict[str, str]":
    """Return where filesystems are that may stop answering, but for the root, with hanging.REMOTE or hanging.FUSE."""
    found = {}
    for _, point, kind, _ in rows:
        if kind not in _LOCAL and point != b"/":
            from sif_writable import hanging

            found[hanging.path_in_table(point)] = "f" if kind.startswith(b"fuse") else "n"
    return found


def identity(purelib: str) -> "tuple[str, bytes]":
    """Return the image identity (:mod:`sif_writable.identity`), and the text of the manifest as far as starts need it.

    :param purelib: the folder that holds this package.
    :raises OSError: the image cannot be read at the moment.
    """
    if not purelib.startswith(f"{sys.prefix}/") or not purelib.endswith("-packages"):  # it was brought in
        from sif_writable.identity import PURELIB as purelib  # noqa: N811
    text = _read(f"{purelib}/sif_writable.manifest")[0]
    manifest = text[: text.rfind(b"\n", 0, 1 << 16) + 1].partition(b"\n\n")[0]
    stamp = (b"\n" + manifest).partition(b"\nstamp: ")[2].partition(b"\n")[0]
    labels, status = _read("/.singularity.d/labels.json")
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    usual = sys.platlibdir == "lib" and purelib == f"{sys.prefix}/lib/{version}/site-packages"
    if not usual or not (stamp or labels):
        from sif_writable import identity as of_any

        return of_any.identity(purelib, of_any.declared_in(manifest)), manifest
    values = [(b"prefix", os.fsencode(sys.prefix))]
    if status is not None:
        values.append((b"labels.json", b"%d %s" % (status.st_mtime, labels)))
    if stamp:
        values.append((b"stamp", b"%d %s" % (os.stat(purelib).st_mtime, stamp)))
    else:
        names = [name for name in os.listdir(purelib) if name.endswith((".dist-info", ".egg-info"))]
        names.sort()
        values.append((os.fsencode(purelib), b"0 " + os.fsencode("\n".join(names))))
    return source_hash(_IDENTITY_KEY, b"".join([b"%s\0%d\0%s" % (n, len(v), v) for n, v in values])).hex(), manifest


def _read(path: str) -> "tuple[bytes, Optional[os.stat_result]]":
    """Return what is in a file, and what is known of it; nothing where it is not there.

    :raises OSError: it cannot be read at the moment.
    """
    text = b""
    try:  # not blocking, as with any path that could be a named pipe
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return text, None
    try:
        status = os.fstat(descriptor)
        while len(text) < LARGEST and (more := os.read(descriptor, 1 << 16)):
            text += more
        return text, status
    finally:
        os.close(descriptor)
