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
    from collections.abc import Iterable, Iterator  # noqa: F401
    from typing import Any

IMAGE, PLAN = "image", "plan"
"""How the name of an image's folder in storage begins, before its identity; and in there that of a kept plan, before
the interpreter tag, with a dash between. The other names are in :mod:`sif_writable.storage.layout`."""
LARGEST = 1 << 20
"""Bytes of a file that are read."""
FOLDER = "sif-writable"
"""The name of the one folder that we make in a place."""
MIN_BYTES, ROOM, SMALL, MIN_INODES = 16 << 20, 256 << 20, 1 << 30, 64
"""Bytes that storage must have free; that downloads want (users fill 64 MiB within one import); below which a
filesystem that HOME and /tmp (or / and /tmp) share is a container session's tmpfs (64 MiB by default, 16 MiB before
Apptainer 1.2: apptainerconf/config.go, ``sessiondir max size``); inodes that must be free, where they are counted."""

STAT, LSTAT, ACCESS, THERE, LINK, SPACE, USER = range(7)
"""Kinds of questions, as :mod:`sif_writable.system.world` notes them; others are in :mod:`sif_writable.seldom`."""

_LIMITS = 1 | 8  # os.ST_RDONLY and os.ST_NOEXEC, which PyPy has not
_HEAD = 12
"""Bytes before the plan: a check sum (marshal must not be given what was damaged), and the length of its first part."""
_PLAN_KEY, _IDENTITY_KEY = 0x5349465F504C4133, 0x5349465F57524954
MARKS = 1 << 15
"""Bits that stand for the names of variables that were asked for."""
LOCAL = (
    b" bcachefs binfmt_misc bpf btrfs cgroup cgroup2 configfs debugfs devpts devtmpfs efivarfs erofs ext2 ext3 ext4 "
    b"f2fs fuse.squashfuse fuse.squashfuse_ll fusectl hugetlbfs iso9660 mqueue nsfs overlay proc pstore ramfs rootfs "
    b"securityfs squashfs sysfs tmpfs tracefs vfat xfs zfs "
)
"""Types of filesystems that do not stop answering, or only together with the image; of another one it may happen."""


def start(data):  # type: (dict[bytes, bytes]) -> str
    """Set what an earlier start has decided, without a session; return the state, or nothing: it does not hold here."""
    try:
        kept = find(data)
    except (OSError, ValueError) as error:
        let_pass(error)
        return ""
    if not kept:
        return ""
    settings, (kinds, done, roots), pycache, user_site, said, lines = kept
    environ: Any = sif_writable.environment()
    environ.update(settings)
    for name in settings:
        os.putenv(name, settings[name])
    if pycache:
        sys.pycache_prefix = pycache
    if b"TMPDIR" in settings and "tempfile" in sys.modules:
        sys.modules["tempfile"].tempdir = None  # type: ignore[attr-defined]
    if user_site == "ignore" or (user_site and getattr(sys.modules.get("site"), "USER_SITE", None)):
        sif_writable.follow("usersite").again(user_site)
    os.environ[SESSION] = f"2{kinds};{child.token()};{done};{child.inputs()};{roots}"
    if lines:
        sif_writable.follow("seldom").say_once(lines, said)
    child.install(environ)
    return "active"


def find(data):  # type: (dict[bytes, bytes]) -> Any
    """Return what an earlier start has decided (:func:`sif_writable.redirects.remember.keep`), or None.

    :raises OSError: the image or a place cannot be read at the moment, or does not answer.
    """
    # Storage is looked for where `sif_writable.storage.candidates.places` does. A plan counts if this user owns it and
    # nobody else may write it; who owns the folders that it lies in is asked by the plan itself.
    table, mounted, kinds = mounts()
    if LAYER.encode() in data or data.get(DEBUG.encode()) == b"1":
        return None
    if b"\nsif-writable " in b"\n" + table and sif_writable.follow("seldom").is_in_layer(table):
        return None
    left: Any = None
    points: Any = {}
    for kind in set(kinds):
        if b" %s " % kind not in LOCAL:
            points = sif_writable.follow("hanging").may_hang_in(mounted, kinds, LOCAL)
            left = dict(points)
            break
    uid = user = os.geteuid()
    if not uid:
        user = sif_writable.follow("seldom").uid_outside()
    home = os.fsdecode(data.get(b"HOME", b""))
    if home[:1] != "/":
        home = sif_writable.follow("home").home_directory(os.environ.get("HOME"))
    target = TARGET.encode() in mounted
    if not target and os.access(TARGET, os.F_OK):  # or a link leads to a mount
        target = os.stat(TARGET).st_dev != os.stat("/").st_dev
    image, manifest = identity(__file__.rsplit("/", 2)[0])
    name = f"{IMAGE}-{image}/{PLAN}-{sys.implementation.cache_tag}"
    writable = sif_writable.environment_writable(os.access)
    for number, (base, given) in enumerate(_places(data, home, target, writable, left)):
        if left:  # nobody waits for a later one where an earlier one may do
            sif_writable.follow("hanging").wait_for(base, left, first=not number)
        try:
            place = os.stat(base)
        except (FileNotFoundError, NotADirectoryError, PermissionError):  # as then, or the questions show it
            continue
        own = place.st_uid == uid and not place.st_mode & 0o022
        folder = f"{base}/{FOLDER}" if own else f"{base}/{FOLDER}-{user}"
        for root in (os.path.realpath(base), folder) if given and own else (folder,):
            content, plan = _read(f"{root}/{name}")
            if plan is None or plan.st_uid != uid or plan.st_mode & 0o170022 != 0o100000:
                continue
            same = uid, user, home, target, writable, manifest, sys.dont_write_bytecode
            kept = _holds(content, same, data, mounted, points, left)
            if kept and abs(time.time() - plan.st_mtime) > 86400:  # it is renewed once a day
                kept = kept if sif_writable.follow("seldom").use(root, name, kept[0]) else None
            return kept and kept[1:]
    return None


def _places(
    data,  # type: dict[bytes, bytes]
    home,  # type: str
    target,  # type: bool
    writable,  # type: bool
    left,  # type: Any
):
    # type: (...) -> Iterator[tuple[str, bool]]
    """Yield where storage may be, and whether the user gave it."""
    if given := data.get(DIR.encode()):
        yield os.fsdecode(given), True
    if target:
        yield TARGET, True
    if writable:
        yield "/var/cache", False
    if (cache := data.get(b"XDG_CACHE_HOME", b""))[:1] == b"/":
        yield os.fsdecode(cache), False
    if home[:1] == "/" and home != "/":
        if left:
            sif_writable.follow("hanging").wait_for(home, left)
        if os.access(f"{home}/.", os.W_OK | os.X_OK):
            yield f"{home}/.cache", False
    for name in (b"SLURM_TMPDIR", b"SCRATCH", b"TMPDIR"):
        if (base := data.get(name, b""))[:1] == b"/":
            yield os.fsdecode(base), False
    yield from (("/var/tmp", False), ("/tmp", False), ("/dev/shm", False))  # noqa: S108


def _holds(
    content,  # type: bytes
    same,  # type: Any
    data,  # type: dict[bytes, bytes]
    mounted,  # type: list[bytes]
    points,  # type: Any
    left,  # type: Any
):
    # type: (...) -> Any
    """Return what was decided if each question has the answer of then, or else None."""
    size = _HEAD + int.from_bytes(content[8:_HEAD], "little")
    if checksum(content[8:size]) != content[:8]:
        return None
    loads = marshal.loads
    then, values, names, marks, hanging, questions, held, listings, present, noted, kept = loads(content[_HEAD:size])
    if then != same or (kept[3] and sys.pycache_prefix is not None):
        return None
    for name, value in values:
        if data.get(name) != value:
            return None
    rest: Any = None
    if not names.issuperset(data):
        new = marked(data.keys() - names, marks)
        if new:
            rest = sif_writable.follow("seldom").rest(content[size:], checksum)
            if sif_writable.follow("seldom").any_asked(new, rest[1]):
                return None
    waited, reached = hanging
    if points:
        rest = rest or (reached is None and sif_writable.follow("seldom").rest(content[size:], checksum))
        if not sif_writable.follow("hanging").answer_as_then(waited, reached or rest[0], points, left):
            return None
    elif waited:
        return None
    if not _same(questions, mounted):
        return None
    for number, (directory, there, others) in enumerate(listings):
        listed = os.listdir(directory)
        if not there.issubset(listed):
            return None
        new = marked(map(os.fsencode, others.union(listed) - others), marks)
        if new:
            rest = rest or sif_writable.follow("seldom").rest(content[size:], checksum)
            if sif_writable.follow("seldom").any_asked(new, rest[2][number]):
                return None
    for folder, needed, given in present:  # of what has come, only what other images fetched counts
        changed = needed.symmetric_difference(os.listdir(folder))
        if (given and os.stat(folder).st_mode & 0o022) or changed & needed or "@" in "".join(changed):
            return None
    if held or noted:
        seldom: Any = sif_writable.follow("seldom")
        return kept if seldom.hold(held) and seldom.unchanged_since(noted) else None
    return kept


def _same(questions, mounted):  # type: (list[Any], list[bytes]) -> bool
    """Whether questions have the same answers: by kind, each path, what more is asked, and the answer.

    An error is its number.

    :param mounted: as in :func:`mounts`.
    """
    access = os.access
    devices: dict[int, int] = {}
    found: Any
    for kind, asked in questions:
        if kind == ACCESS:
            for path, more, answer in asked:
                if access(path, more) != answer:
                    return False
            continue
        for path, more, answer in asked:
            try:
                if kind <= LSTAT:
                    found = about((os.lstat if kind else os.stat)(path), devices)
                elif kind == THERE:
                    if not (answer and access(path, os.F_OK)):  # which costs a sixth, and may follow a link to nowhere
                        os.lstat(path)
                    found = True
                elif kind == LINK:
                    found = os.readlink(path)
                elif kind == SPACE:
                    found = space(os.statvfs(path))
                elif kind == USER:
                    found = sif_writable.follow("home").home_directory(None)
                else:
                    found = sif_writable.follow("seldom").ask(kind, path, more, mounted)
            except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
                found = error.errno if kind != THERE else isinstance(error, PermissionError)
            if found != answer:
                return False
    return True


def marked(names, marks):  # type: (Iterable[bytes], bytes) -> list[bytes]
    """Return those of these names that may be among those asked for, of which there may be many (a Bloom filter)."""
    found = []
    for name in names:
        first, second = places_of(name)
        if marks[first >> 3] >> (first & 7) & marks[second >> 3] >> (second & 7) & 1:
            found.append(name)
    return found


def places_of(name):  # type: (bytes) -> tuple[int, int]
    """Return the two bits that stand for a name (:func:`sif_writable.redirects.remember.marks`)."""
    found = int.from_bytes(source_hash(_PLAN_KEY, name), "little")
    return found % MARKS, (found >> 32) % MARKS


def about(status, devices):  # type: (os.stat_result, dict[int, int]) -> tuple[int, int, int, int]
    """Return what a decision asks of a file. A device number differs in each run; which are equal does not."""
    return status.st_mode, status.st_uid, status.st_gid, devices.setdefault(status.st_dev, len(devices))


def space(found):  # type: (os.statvfs_result) -> tuple[Any, ...]
    """Return what a decision asks of a filesystem: its flags, and what is enough."""
    free = found.f_bavail * found.f_frsize
    return (
        found.f_flag & _LIMITS,
        (free >= MIN_BYTES) + (free >= ROOM),
        found.f_blocks and found.f_blocks * found.f_frsize >= SMALL,
        found.f_files and (found.f_favail > 0) + (found.f_favail >= MIN_INODES),
    )


def checksum(body):  # type: (bytes) -> bytes
    """Return the check sum of a part of a kept plan; another version's does not fit."""
    return source_hash(_PLAN_KEY, sif_writable.__version__.encode() + body)


def mounts():  # type: () -> tuple[bytes, list[bytes], list[bytes]]
    """Return the table of what is mounted, where that is, and the types of filesystems (proc_pid_mounts(5))."""
    # To look at the places themselves may be to wait. Each line has six fields; all but the last end with a space.
    table = _read("/proc/self/mounts")[0]
    fields = table.split(b" ")
    if len(fields) != 5 * table.count(b"\n") + 1:
        return sif_writable.follow("seldom").mounts(table)  # type: ignore[no-any-return]
    return table, fields[1::5], fields[2::5]


def identity(purelib):  # type: (str) -> tuple[str, bytes]
    """Return the image identity (:mod:`sif_writable.identity`), and what starts need of the manifest."""
    # `purelib` is the folder that holds this package. OSError: the image cannot be read at the moment.
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    usual = sys.platlibdir == "lib" and purelib == f"{sys.prefix}/lib/{version}/site-packages"
    of_any: Any = None if usual else sif_writable.follow("identity")
    if of_any and not (purelib.startswith(f"{sys.prefix}/") and purelib.endswith("-packages")):  # it was brought in
        purelib = of_any.PURELIB
    # The import system has just listed the folder where it has found this package.
    names: Any = getattr(sys.path_importer_cache.get(purelib), "_path_cache", None)
    manifest = stamp = b""
    if not names or "sif_writable.manifest" in names:
        text = _read(f"{purelib}/sif_writable.manifest")[0]
        manifest = text[: text.rfind(b"\n", 0, 1 << 16) + 1].partition(b"\n\n")[0]
        stamp = (b"\n" + manifest).partition(b"\nstamp: ")[2].partition(b"\n")[0]
    labels, status = _read("/.singularity.d/labels.json")
    if not usual or not (stamp or labels):
        of_any = of_any or sif_writable.follow("identity")
        return of_any.identity(purelib, of_any.declared_in(manifest)), manifest
    values = [(b"prefix", os.fsencode(sys.prefix))]
    if status is not None:
        values.append((b"labels.json", b"%d %s" % (status.st_mtime, labels)))
    if stamp:
        values.append((b"stamp", b"%d %s" % (os.stat(purelib).st_mtime, stamp)))
    else:
        names = [name for name in names or os.listdir(purelib) if name.endswith((".dist-info", ".egg-info"))]
        names.sort()
        values.append((os.fsencode(purelib), b"0 " + os.fsencode("\n".join(names))))
    packed = b""
    for ingredient, value in values:
        packed += b"%s\0%d\0%s" % (ingredient, len(value), value)
    return source_hash(_IDENTITY_KEY, packed).hex(), manifest


def _read(path):  # type: (str) -> tuple[bytes, os.stat_result | None]
    """Return what is in a file, and what is known of it; nothing where it is not there.

    :raises OSError: it cannot be read at the moment.
    """
    try:  # not blocking, as with any path that could be a named pipe
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return b"", None
    try:
        status = os.fstat(descriptor)
        text = os.read(descriptor, 1 << 16)
        while len(text) != status.st_size and len(text) < LARGEST and (more := os.read(descriptor, 1 << 16)):
            text += more
        return text, status
    finally:
        os.close(descriptor)
