"""SEE: reads the world, changes nothing, decides nothing.

This module holds what an activated start must know: HOME, the small session tmpfs, and the image identity. It is on
the start-up path, so it imports only ``os``, ``sys`` and what is built in.
"""

import os
import sys

import sif_writable
from sif_writable import LAYER, TARGET, in_layer
from sif_writable.signals import let_pass
from sif_writable.system.filesystem import SILENT, overlays, reachable, unsteady

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Optional

LABELS = "/.singularity.d/labels.json"
_HASH_KEY = 0x5349465F57524954
SMALL = 1 << 30
"""Bytes. A filesystem below this that HOME and /tmp (or / and /tmp) share is a container session's tmpfs: 64 MiB by
default, 16 MiB before Apptainer 1.2 (apptainerconf/config.go, ``sessiondir max size``)."""


MANIFEST = "sif_writable.manifest"
"""The file beside this package in which the image describes itself: see :mod:`sif_writable.system.manifest`."""


class Facts:
    """What was seen of the surroundings of one interpreter start."""

    __slots__ = (
        "home",
        "home_problem",
        "home_small",
        "identity",
        "manifest",
        "prefix",
        "prefix_writable",
        "purelib",
        "session_device",
        "ships_bytecode",
        "tag",
        "target_mounted",
        "tmp_works",
        "uid",
        "user",
    )

    uid: int
    """Effective user id."""
    user: int
    """The number that keeps this user's folders apart from others': the uid outside where ``--fakeroot`` shows 0."""
    home: str
    """HOME, or where it is not set what the passwd entry says; else an empty string."""
    home_problem: str
    """Why that cannot be used, as a sentence whose subject is HOME; empty when it can."""
    session_device: "Optional[int]"
    """st_dev of the container session's small tmpfs, when /tmp lies on one."""
    home_small: bool
    """Whether HOME works and lies on that tmpfs."""
    target_mounted: bool
    """Whether there is a mount at /sif-writable, which somebody has given us."""
    tmp_works: bool
    """Whether /tmp can be written."""
    prefix: str
    """sys.prefix."""
    prefix_writable: bool
    """Whether this process may create files in sys.prefix."""
    purelib: str
    """The folder that holds this package: site-packages of the interpreter."""
    ships_bytecode: bool
    """Whether the image holds compiled bytecode of this package, and so presumably of its neighbours."""
    identity: str
    """Image identity: 16 hexadecimal digits."""
    tag: str
    """Interpreter tag such as cpython-311."""
    manifest: "dict[str, list[str]]"
    """What the image declares, key to values: the part that each start needs. Empty without a manifest."""

    def __init__(self) -> None:
        """Start with nothing seen, of an image without a manifest."""
        self.manifest = {}


def see(environ: "Mapping[str, str]") -> Facts:
    """Gather the facts of this process.

    :param environ: the environment to read HOME from; nothing else of it is used.
    """
    facts = Facts()
    facts.uid = os.geteuid()
    facts.user = facts.uid or uid_outside()
    facts.home = sif_writable.home(environ.get("HOME"))
    facts.home_problem = home_problem(facts.home, "HOME" in environ)
    home = "" if facts.home_problem else facts.home
    facts.session_device = session_device(home)
    facts.home_small = bool(home) and facts.session_device is not None and facts.session_device == os.stat(home).st_dev
    facts.target_mounted = TARGET in unsteady() or sif_writable.mounted_at(TARGET)
    facts.tmp_works = reachable("/tmp") and os.access("/tmp", os.W_OK | os.X_OK)  # noqa: S108
    facts.prefix = sys.prefix
    facts.prefix_writable = os.access(sys.prefix, os.W_OK) and not in_layer(environ.get(LAYER))
    facts.purelib = __file__.rsplit("/", 3)[0]
    facts.ships_bytecode = os.access(__spec__.cached or "", os.F_OK)
    facts.tag = sys.implementation.cache_tag or f"python-{sys.version_info[0]}{sys.version_info[1]}"
    facts.manifest = declared(facts.purelib)
    facts.identity = identity(facts.purelib, facts.manifest)
    return facts


def declared(purelib: str, *, whole: bool = False) -> "dict[str, list[str]]":
    """Return what the image declares, key to values in the order of the file; empty where there is no manifest.

    :param whole: also what stands below the first empty line, which no start needs.
    :raises OSError: the image cannot be read at the moment. What it brings must not be taken for nothing, since what
        is made without it stays.
    """
    try:
        # Not blocking, as with any path that could be a named pipe.
        descriptor = os.open(f"{purelib}/{MANIFEST}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        _raise_if_passing(error)
        return {}
    try:
        text = os.read(descriptor, 1 << 16)
        if whole:
            while more := os.read(descriptor, 1 << 20):
                text += more
    except OSError as error:
        _raise_if_passing(error)
        return {}
    finally:
        os.close(descriptor)
    found: dict[str, list[str]] = {}
    text = text[: text.rfind(b"\n") + 1]  # of a truncated file the last line would mean something else
    if not whole:
        text = text.partition(b"\n\n")[0]
    for line in text.decode("utf-8", "surrogateescape").split("\n"):
        key, colon, value = line.partition(": ")
        if colon and key[:1] not in ("", "#"):
            found.setdefault(key, []).append(value)
    return found


def _raise_if_passing(error: OSError) -> None:
    if isinstance(error, (FileNotFoundError, PermissionError)):  # every day, and without a module more
        return
    from sif_writable.system.filesystem import is_passing

    if is_passing(error):
        raise error


def home_problem(home: str, is_set: bool = True) -> str:
    """Say why HOME cannot be used, or return an empty string.

    :param home: what it says (:func:`sif_writable.home`).
    :param is_set: whether the variable says so, and not the passwd entry.
    """
    if not is_set:
        if not home:
            return "is not set, and this user has no passwd entry"
        problem = home_problem(home)
        return problem and (SILENT if problem == SILENT else f"is not set, and {home} of the passwd entry {problem}")
    if not home:
        return "is empty"
    if home == "/":
        return "is the root of the image"
    if not os.path.isabs(home):
        return "is not an absolute path"
    if not reachable(home):
        return SILENT
    if not os.path.isdir(home):
        return "names a directory that does not exist" if not os.path.lexists(home) else "is not a directory"
    if not os.access(home, os.W_OK | os.X_OK):
        return "cannot be written by this user"
    return ""


def uid_outside() -> int:
    """Return the uid that root of this user namespace is outside of it; 0 where it is the real root."""
    try:
        with open("/proc/self/uid_map", "rb", buffering=0) as file:
            inside, outside, _ = file.read().split()[:3]
    except (OSError, ValueError) as error:
        let_pass(error)
        return 0
    return int(outside) if inside == b"0" else 0


def session_device(home: str) -> "Optional[int]":
    """Return st_dev of the session tmpfs that /tmp shares with HOME or with the root, or None.

    Under ``--contain`` HOME, /tmp and /var/tmp are one small tmpfs with one budget; under ``--writable-tmpfs`` with
    ``--contain`` the writable root draws on it too (measured, Apptainer 1.4.5).
    """
    if not reachable("/tmp"):  # noqa: S108 - the very directory is meant
        return None
    try:
        device = os.stat("/tmp").st_dev  # noqa: S108
        for other in (home, "/var/tmp"):  # noqa: S108
            if other and reachable(other) and os.stat(other).st_dev == device:
                space = os.statvfs("/tmp")  # noqa: S108
                return device if space.f_blocks * space.f_frsize < SMALL else None
    except OSError as error:
        let_pass(error)
    return None


def site_directories(purelib: str) -> "list[str]":
    """Return the directories of the image that installed distributions are recorded in, wherever we were loaded from.

    :param purelib: the folder that holds this package. Where it is no directory of the environment's, as with a bind on
        PYTHONPATH, it says nothing of the image.
    """
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    if purelib.startswith(sys.prefix + "/") and purelib.endswith(("/site-packages", "/dist-packages")):
        found = [purelib]
        if purelib.endswith("/dist-packages"):  # Debian's: pip's own beside those of the system
            found += [f"{sys.prefix}/lib/python3/dist-packages", f"{sys.prefix}/local/lib/{version}/dist-packages"]
    else:
        places = [f"lib/{version}/site-packages", f"local/lib/{version}/dist-packages", "lib/python3/dist-packages"]
        found = [f"{sys.prefix}/{place}" for place in places]
    if sys.platlibdir != "lib":  # Fedora's: object code has a directory of its own, and pip's own lies beside both
        for top in (sys.prefix, f"{sys.prefix}/local"):
            found += [f"{top}/{library}/{version}/site-packages" for library in ("lib", sys.platlibdir)]
    return list(dict.fromkeys(found))


def identity_ingredients(
    purelib: str, manifest: "Optional[Mapping[str, list[str]]]" = None, at: "Callable[[str], str]" = str
) -> "list[tuple[str, bytes]]":
    """List what the image identity is made of, as (name, value) pairs; what an image lacks is left out.

    labels.json carries the build date in seconds and is equal in every mode of one SIF (measured, Apptainer 1.4.5); the
    names of the installed distributions catch what was installed in an upper layer. In images without labels (Docker,
    Charliecloud) sizes and times of the RECORDs take their place. The root directory's own times differ per run and are
    of no use.

    A manifest has a stamp that stands for the distributions of the image. What is installed in an upper layer later
    makes a directory in site-packages, whose time then changes; images keep whole seconds only.

    :param manifest: what the image declares, if it has been read.
    :param at: tells where a path of site-packages is seen as it is in the image.
    :raises OSError: the image cannot be read at the moment; less would make it equal to another one.
    """
    ingredients = [("prefix", os.fsencode(sys.prefix))]
    labels = b""
    try:
        with open(LABELS, "rb", buffering=0) as file:
            labels = file.read()
            seconds = int(os.fstat(file.fileno()).st_mtime)
        ingredients.append(("labels.json", b"%d %s" % (seconds, labels)))
    except OSError as error:  # not there, or not readable (apptainer/singularity#6223)
        _raise_if_passing(error)
    directories = site_directories(purelib)
    stamp = (declared(at(purelib)) if manifest is None else manifest).get("stamp")
    if stamp and purelib in directories:
        ingredients.append(("stamp", b"%d %s" % (int(os.stat(at(purelib)).st_mtime), os.fsencode(stamp[0]))))
        return ingredients
    for directory in directories:
        try:
            names = [n for n in os.listdir(at(directory)) if n.endswith((".dist-info", ".egg-info"))]
            # What programs write beside packages in a writable image is no other image, so the time of the directory
            # counts only where nothing else tells two images apart.
            seconds = 0 if labels or names else int(os.stat(at(directory)).st_mtime)
        except OSError as error:
            _raise_if_passing(error)
            continue
        names.sort()
        ingredients.append((directory, b"%d %s" % (seconds, os.fsencode("\n".join(names)))))
        if not labels:
            ingredients.append(("records", b" ".join([_record(f"{at(directory)}/{name}/RECORD") for name in names])))
    return ingredients


def _record(path: str) -> bytes:
    try:
        status = os.stat(path)
    except OSError as error:
        _raise_if_passing(error)
        return b""
    return b"%d.%d" % (status.st_size, int(status.st_mtime))


def identity(purelib: str, manifest: "Optional[Mapping[str, list[str]]]" = None) -> str:
    """Return the image identity: 16 hexadecimal digits, equal in every mode of one image, new after a rebuild.

    Below a writable layer it is what it was without: what is written there changes times that it is made of. An
    environment that is not the layer's own has another one.
    """
    if fields := in_layer(os.environ.get(LAYER)):
        known = fields[0].partition("-")[2]
        if fields[1] == sys.prefix and _is_identity(known):
            return known
        here = layer()
        if here:
            from sif_writable.layer import inherited

            try:
                known = inherited.identity(here, sys.prefix, lambda at: _identity(purelib, None, at))
            except OSError as error:
                let_pass(error)
            else:
                if _is_identity(known):
                    return known
    return _identity(purelib, manifest)


def _is_identity(text: str) -> bool:
    return len(text) == 16 and text.isalnum()  # it becomes part of a path


def find_layer() -> None:
    """Say in the environment which layer an ancestor has made, where somebody has cleaned that of this process."""
    if not in_layer(os.environ.get(LAYER)) and (here := layer()):
        from sif_writable.layer import inherited

        inherited.tell(here)


def layer() -> str:
    """Return the folder of the writable layer that this process is in by its mounts, or an empty string."""
    lines = overlays()
    if not lines:
        return ""
    from sif_writable.layer import inherited

    found = inherited.folder(lines)
    return found if found and reachable(found) and inherited.is_ours(found) else ""


def _identity(purelib: str, manifest: "Optional[Mapping[str, list[str]]]", at: "Callable[[str], str]" = str) -> str:
    # The keyed hash of .pyc files is built in. hashlib costs 3 ms at interpreter start, its C module alone 0.1 ms.
    from _imp import source_hash

    ingredients = identity_ingredients(purelib, manifest, at)
    packed = b"".join([b"%s\0%d\0%s" % (os.fsencode(name), len(value), value) for name, value in ingredients])
    return source_hash(_HASH_KEY, packed).hex()
