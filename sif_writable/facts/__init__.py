"""SEE: reads the world, changes nothing, decides nothing.

This module holds what an activated start must know: HOME, the small session tmpfs, and the image identity. It is on
the start-up path, so it imports only ``os``, ``sys`` and one C module for the digest.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Optional

LABELS = "/.singularity.d/labels.json"
SMALL = 1 << 30
"""Bytes. A filesystem below this that HOME and /tmp (or / and /tmp) share is a container session's tmpfs: 64 MiB by
default, 16 MiB before Apptainer 1.2 (apptainerconf/config.go, ``sessiondir max size``)."""


class Facts:
    """What was seen of the surroundings of one interpreter start."""

    __slots__ = (
        "home",
        "home_problem",
        "home_small",
        "identity",
        "prefix",
        "prefix_writable",
        "purelib",
        "session_device",
        "ships_bytecode",
        "tag",
        "tmp_works",
        "uid",
    )

    uid: int
    """Effective user id."""
    home: str
    """The value of HOME, or an empty string."""
    home_problem: str
    """Why HOME cannot be used, as a sentence without subject; empty when it can."""
    session_device: "Optional[int]"
    """st_dev of the container session's small tmpfs, when /tmp lies on one."""
    home_small: bool
    """Whether HOME works and lies on that tmpfs."""
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


def see(environ: "Mapping[str, str]") -> Facts:
    """Gather the facts of this process.

    :param environ: the environment to read HOME from; nothing else of it is used.
    """
    facts = Facts()
    facts.uid = os.geteuid()
    facts.home = environ.get("HOME", "")
    facts.home_problem = home_problem(environ.get("HOME"))
    home = "" if facts.home_problem else facts.home
    facts.session_device = session_device(home)
    facts.home_small = bool(home) and facts.session_device == os.stat(home).st_dev
    facts.tmp_works = os.access("/tmp", os.W_OK | os.X_OK)  # noqa: S108
    facts.prefix = sys.prefix
    facts.prefix_writable = os.access(sys.prefix, os.W_OK)
    facts.purelib = __file__.rsplit("/", 3)[0]
    facts.ships_bytecode = os.access(__spec__.cached or "", os.F_OK)
    facts.tag = sys.implementation.cache_tag or f"python-{sys.version_info[0]}{sys.version_info[1]}"
    facts.identity = identity(facts.purelib)
    return facts


def home_problem(home: "Optional[str]") -> str:
    """Say why a value of HOME cannot be used, or return an empty string."""
    if home is None:
        return "is not set"
    if not home:
        return "is empty"
    if home == "/":
        return "is the root of the image"
    if not os.path.isabs(home):
        return "is not an absolute path"
    if not os.path.isdir(home):
        return "names a directory that does not exist" if not os.path.lexists(home) else "is not a directory"
    if not os.access(home, os.W_OK | os.X_OK):
        return "cannot be written by this user"
    return ""


def session_device(home: str) -> "Optional[int]":
    """Return st_dev of the session tmpfs that /tmp shares with HOME or with the root, or None.

    Under ``--contain`` HOME, /tmp and /var/tmp are one small tmpfs with one budget; under ``--writable-tmpfs`` with
    ``--contain`` the writable root draws on it too (measured, Apptainer 1.4.5).
    """
    try:
        device = os.stat("/tmp").st_dev  # noqa: S108 - the very directory is meant
        for other in (home, "/var/tmp"):  # noqa: S108
            if other and os.stat(other).st_dev == device:
                space = os.statvfs("/tmp")  # noqa: S108
                return device if space.f_blocks * space.f_frsize < SMALL else None
    except OSError:
        pass
    return None


def identity_ingredients(purelib: str) -> "list[tuple[str, bytes]]":
    """List what the image identity is made of, as (name, value) pairs; what an image lacks is left out.

    labels.json carries the build date in seconds and is equal in every mode of one SIF (apptainer.md, section 3); the
    installed distributions catch what was added in an upper layer; the time stamp of this package tells apart images
    without labels (Docker, Charliecloud). The root directory's own times differ per run and are of no use.
    """
    ingredients = [("prefix", os.fsencode(sys.prefix))]
    try:
        with open(LABELS, "rb", buffering=0) as file:
            labels = file.read()
            seconds = int(os.fstat(file.fileno()).st_mtime)
        ingredients.append(("labels.json", b"%d %s" % (seconds, labels)))
    except OSError:  # not there, or not readable (apptainer/singularity#6223)
        pass
    try:
        names = [n for n in os.listdir(purelib) if n.endswith((".dist-info", ".egg-info"))]
        names.sort()
        ingredients.append(("distributions", os.fsencode("\n".join(names))))
        ingredients.append(("installed", b"%d" % int(os.stat(__file__).st_mtime)))
    except OSError:
        pass
    return ingredients


def identity(purelib: str) -> str:
    """Return the image identity: 16 hexadecimal digits, equal in every mode of one image, new after a rebuild."""
    try:
        from _blake2 import blake2b  # the C module alone: hashlib costs 3 ms at interpreter start
    except ImportError:
        from hashlib import blake2b
    digest = blake2b(digest_size=8)
    for name, value in identity_ingredients(purelib):
        digest.update(b"%s\0%d\0%s" % (name.encode(), len(value), value))
    return digest.hexdigest()
