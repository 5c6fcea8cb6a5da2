"""What an activated start must know of its surroundings: HOME, the small session tmpfs, the image."""

import os
import sys

from sif_writable import LAYER, TARGET, environment_writable, mounted, seldom, warm
from sif_writable.home import home_directory
from sif_writable.identity import PURELIB, declared, site_directories
from sif_writable.signals import let_pass
from sif_writable.system import world
from sif_writable.system.image import identity
from sif_writable.system.timeouts import TIMED_OUT, has_timed_out, may_hang, responds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Optional


class Facts:
    """What was seen of the surroundings of one interpreter start."""

    __slots__ = (
        "home",
        "home_problem",
        "home_timed_out",
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
    home_timed_out: bool
    """Whether the reason is that its filesystem does not answer."""
    session_device: "Optional[int]"
    """st_dev of the container session's small tmpfs, when /tmp lies on one."""
    target_mounted: bool
    """Whether there is a mount at /sif-writable, which somebody has given us."""
    tmp_works: bool
    """Whether /tmp can be written."""
    prefix: str
    """sys.prefix."""
    prefix_writable: bool
    """Whether this process may create files where packages are imported from (sif_writable.environment_writable)."""
    purelib: str
    """The folder of packages that stands for the image (:data:`sif_writable.identity.PURELIB`)."""
    ships_bytecode: bool
    """Whether the image holds compiled bytecode of one of its packages, and so presumably of the others."""
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
    facts.user = facts.uid or seldom.uid_outside()
    facts.home = home_directory(environ.get("HOME"))
    facts.home_problem = home_problem(facts.home, "HOME" in environ)
    facts.home_timed_out = bool(facts.home_problem) and has_timed_out(facts.home)
    home = "" if facts.home_problem else facts.home
    facts.session_device = session_device(home)
    facts.target_mounted = TARGET in may_hang() or mounted.mounted_at(TARGET)
    facts.tmp_works = responds("/tmp") and world.access("/tmp", os.W_OK | os.X_OK)  # noqa: S108
    facts.prefix = sys.prefix
    facts.prefix_writable = environment_writable(world.access) and not mounted.in_layer(environ.get(LAYER))
    facts.purelib = PURELIB
    facts.ships_bytecode = _ships_bytecode(facts.purelib)
    facts.tag = sys.implementation.cache_tag or f"python-{sys.version_info[0]}{sys.version_info[1]}"
    facts.manifest = declared(facts.purelib)
    facts.identity = identity(facts.purelib, facts.manifest)
    return facts


def _ships_bytecode(purelib: str) -> bool:
    """Whether this package has bytecode, or where it is not the image's own the first one that is."""
    own = __spec__.cached or ""
    if __file__.startswith(f"{purelib}/"):
        return world.access(own, os.F_OK)
    ending = os.path.basename(own).partition(".")[2]  # such as cpython-311.opt-1.pyc
    for directory in site_directories(purelib):
        try:
            names = sorted(world.names(directory))
        except OSError as error:
            let_pass(error)
            continue
        for name in names:
            if world.access(f"{directory}/{name}/__init__.py", os.F_OK):
                return world.access(f"{directory}/{name}/__pycache__/__init__.{ending}", os.F_OK)
    return True


def home_problem(home: str, is_set: bool = True) -> str:
    """Say why HOME cannot be used, or return an empty string.

    :param home: what it says (:func:`sif_writable.home.home_directory`).
    :param is_set: whether the variable says so, and not the passwd entry.
    """
    if not is_set:
        if not home:
            return "is not set, and this user has no passwd entry"
        problem = home_problem(home)
        return problem and f"is not set, and {home} of the passwd entry {problem}"
    if not home:
        return "is empty"
    if home == "/":
        return "is the root of the image"
    if not os.path.isabs(home):
        return "is not an absolute path"
    if not responds(home):
        return TIMED_OUT
    if not world.is_directory(home):
        return "names a directory that does not exist" if not world.exists(home) else "is not a directory"
    if not world.access(home, os.W_OK | os.X_OK):
        return "cannot be written by this user"
    return ""


def session_device(home: str) -> "Optional[int]":
    """Return st_dev of the session tmpfs that /tmp shares with HOME or with the root, or None.

    Under ``--contain`` HOME, /tmp and /var/tmp are one small tmpfs with one budget; under ``--writable-tmpfs`` with
    ``--contain`` the writable root draws on it too (measured, Apptainer 1.4.5).
    """
    if not responds("/tmp"):  # noqa: S108 - the very directory is meant
        return None
    try:
        device = world.stat("/tmp").st_dev  # noqa: S108
        for other in (home, "/var/tmp"):  # noqa: S108
            if other and responds(other) and world.stat(other).st_dev == device:
                space = world.statvfs("/tmp")  # noqa: S108
                return device if space.f_blocks * space.f_frsize < warm.SMALL else None
    except OSError as error:
        let_pass(error)
    return None
