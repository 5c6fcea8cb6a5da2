"""Make Python packages work in a read-only container image.

Imported at every interpreter start of an environment that has it installed. Here is the hook, as far as it finds out
whether there is anything to do: on a host, where the root can be written, and during a build this module is all that is
loaded. So it imports only ``os`` and ``sys``, which ``site`` has loaded already, and looks into the dictionary behind
``os.environ``, whose names and values are bytes: there a look-up takes a twentieth of the time.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Optional

    from sif_writable.redirects.decision import Outcome

__version__ = "0.1.0"

state = "not run"
"""What :func:`run` did: a word of :func:`gate`, ``elevated``, ``inherited``, ``active``, ``no storage``, ``failed``."""

outcome: "Optional[Outcome]" = None
"""The facts and the plan of this process, when it decided for itself."""

failure: "Optional[BaseException]" = None
"""What went wrong in the hook; ``sif-writable status`` prints it."""

MODE = "SIF_WRITABLE"
"""The variable that switches the hook off or on."""
DIR = "SIF_WRITABLE_DIR"
"""The variable with the place that the user gives to storage."""
SESSION = "SIF_WRITABLE_SESSION"
"""The variable by which a process hands its decisions to its descendants: :mod:`sif_writable.session`."""
DEBUG = "SIF_WRITABLE_DEBUG"
"""The variable that asks each start to say what it saw, decided and did."""
LAYER = "SIF_WRITABLE_LAYER"
"""The variable that tells descendants of a writable layer: ``mnt:[N]:MOUNTS:image-IDENTITY:PREFIX:PATH:…``.

It counts in that mount namespace, and while MOUNTS is what :func:`covering` returns: an exported variable gets into
other containers, too, and the kernel gives the number of a namespace that has ended to another one. The identity is
that of the image for this prefix, and the paths can be written.
"""
TARGET = "/sif-writable"
"""The well-known bind target."""

OFF = ("off", "0", "no", "false", "never")
ON = ("on", "1", "yes", "true", "always")

_BUILD = (b"APPTAINER_LABELS", b"SINGULARITY_LABELS", b"APPTAINER_ROOTFS", b"SINGULARITY_ROOTFS")
"""The first two are set in %post, the others in %setup (apptainer 1.4: internal/pkg/build/stage.go)."""
_ENGINE = (
    *(b"APPTAINER_CONTAINER", b"SINGULARITY_CONTAINER", b"CH_RUNNING", b"KUBERNETES_SERVICE_HOST"),
    b"SHIFTER_IMAGE",
)
FIREJAIL = b"firejail"
"""The value of ``container`` in a sandbox of Firejail, which shows the host's root with parts of it read-only."""
_SHUT = 1 | 2 | 4  # os.ST_RDONLY, os.ST_NOSUID, os.ST_NODEV
"""Flags of a root that no booted system can do with, but for the first: bubblewrap has all three."""
_BOOTED = range(0xEFFFFFF0, 0xF0000008)
"""Numbers of the mount namespace that the kernel boots with: the static one of Linux 6.18 (MNT_NS_INIT_INO), and the
first ones that it gave before, which nothing gives back."""
_root: "Optional[os.stat_result]" = None


def run() -> None:
    """Activate this process if it runs in a read-only image; never raise, never print to stdout, act once."""
    global state, failure
    # A venv runs .pth lines twice (python/cpython#75723): only then is it known whether it has its base's packages.
    if state != "not run" and not (state == "writable" and has_packages_of_base()):
        return
    state = "failed"
    try:
        data = environment()
        word = "" if SESSION.encode() in data else gate(data)
        state = word or follow("child").start(data)
    except KeyboardInterrupt:  # which is never of our making
        raise
    except BaseException as error:  # noqa: BLE001 - not even SystemExit of ours may stop an interpreter from starting
        let_pass(error)
        failure = error


def environment() -> "Mapping[bytes, bytes]":
    """Return the environment of this process as it is, without a copy: names and values are bytes."""
    return getattr(os.environ, "_data", os.environb)


def gate(data: "Mapping[bytes, bytes]") -> str:
    """Return why this process is left alone, or an empty string.

    ``off``: ``SIF_WRITABLE=off``; ``build``: an image build; ``host``: not in a container; ``writable``: nothing to
    do, as far as is known while the site directories of the environment are read.
    """
    mode = data.get(MODE.encode(), b"").decode("ascii", "replace").lower()
    if mode in OFF:
        return "off"
    if mode in ON:
        return ""
    for name in _BUILD:
        if name in data:
            return "build"
    if not in_container(data):
        return "host"
    access = os.access
    if not environment_writable(access) or data.get(DIR.encode()):  # which the user gave on purpose
        return ""
    home = data.get(b"HOME", b"")
    if home[:1] != b"/":
        home = os.fsencode(follow("home").home_directory(os.environ.get("HOME")))
    if home in (b"", b"/") or not access(home + b"/.", os.W_OK | os.X_OK):
        return ""
    if access(TARGET, os.F_OK) and follow("mounted").mounted_at(TARGET):
        return ""
    if LAYER.encode() in data or os.stat(sys.prefix).st_dev != (_root or os.stat("/")).st_dev:
        return "" if follow("mounted").is_layer_over_prefix(os.environ.get(LAYER)) else "writable"
    return "writable"


def follow(name: str) -> "Any":
    """Import a module of ours for the start, as the import system does, which takes three times as long.

    :param name: one directly in this package.
    """
    full = f"{__name__}.{name}"
    modules = sys.modules
    loader: Any = type(__spec__.loader)
    if full not in modules and loader.__name__ in ("SourceFileLoader", "SourcelessFileLoader"):
        before, _, suffix = __file__.rpartition("__init__")
        module: Any = type(sys)(full)
        module.__file__ = place = before + name + suffix
        module.__package__ = __name__
        module.__loader__ = found = loader(full, place)
        module.__spec__ = spec = type(__spec__)(full, found, origin=place)
        spec.has_location = True
        # Before anybody sees it: another thread shall not find half of it.
        exec(found.get_code(full), module.__dict__)  # noqa: S102
        globals()[name] = modules.setdefault(full, module)
    else:  # from an archive, or by somebody else's loader
        __import__(full)
    return modules[full]


def environment_writable(access: "Any") -> bool:
    """Whether this process may write where packages are imported from.

    That is the prefix and, where a virtual environment has the packages of its base or of another one besides, those.

    :param access: :func:`os.access`, or what notes the question.
    """
    if not access(sys.prefix, os.W_OK) or (has_packages_of_base() and not access(sys.base_prefix, os.W_OK)):
        return False
    return sys.prefix == sys.base_prefix or not packages_of_image(access)


def packages_of_image(access: "Any") -> str:
    """Return a read-only directory of the image's packages that a virtual environment has besides, or nothing.

    A virtual environment above another one, as images have it, gets at that one's packages by a ``.pth`` file or
    PYTHONPATH: ``--system-site-packages`` means those of the base. The image's are on the filesystem of its Python.

    :param access: as of :func:`environment_writable`.
    """
    own = f"{sys.prefix}/"
    for entry in sys.path:
        if not entry.endswith("-packages") or entry.startswith(own) or access(entry, os.W_OK):
            continue
        if access(entry, os.F_OK) and os.stat(entry).st_dev == os.stat(sys.base_prefix).st_dev:
            return entry
    return ""


def has_packages_of_base() -> bool:
    """Whether this is a virtual environment with ``--system-site-packages``, as soon as ``site`` knows it."""
    if sys.prefix == sys.base_prefix:
        return False
    prefixes = getattr(sys.modules.get("site"), "PREFIXES", ())
    return sys.prefix in prefixes and sys.base_prefix in prefixes


def has_sign(data: "Mapping[bytes, bytes]") -> bool:
    """Whether a container engine has left its sign, which may have leaked to a host or be left over there."""
    for name in _ENGINE:
        if name in data:
            return True
    container = data.get(b"container")
    if container in (b"podman", b"docker", b"oci", FIREJAIL):  # another one, such as lxc, names a whole machine
        return container != FIREJAIL  # whose files are the host's
    access = os.access
    return access("/.singularity.d", 0) or access("/.dockerenv", 0) or access("/run/.containerenv", 0)


def in_container(data: "Mapping[bytes, bytes]") -> bool:
    """Whether ``/`` is a container's, by its mount and its namespaces; which engine's is for :mod:`~.system.container`.

    It is looked at where an engine has left its sign, and where it could be no booted system's or is read-only. What
    takes more than a look is asked in :mod:`sif_writable.rootfs`.
    """
    global _root
    signed = has_sign(data)
    try:
        shut = not signed and os.statvfs("/").f_flag & _SHUT
        if not (signed or shut or data.get(b"container") == FIREJAIL):
            return False
        if int(os.readlink("/proc/self/ns/mnt")[5:-1]) in _BOOTED:  # PRoot makes no namespace
            return bool(shut or os.statvfs("/").f_flag & _SHUT) and bool(follow("rootfs").below_proot())
        if signed:
            _root = os.stat("/")
            if _root.st_uid not in (0, 65534):  # that of a booted system is root's
                return True
    except (OSError, ValueError) as error:
        let_pass(error)
        return signed  # no host is without /proc
    return bool(follow("rootfs").is_containers(data, signed=signed))


def let_pass(error: BaseException) -> None:
    """Raise an error again that is of a handler of the program; called wherever a class like OSError is caught."""
    trace = error.__traceback__
    if trace is None or trace.tb_next is None:  # a system call raised it
        return
    try:
        from sif_writable.signals import from_handler
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - files of ours are missing or damaged, which the error tells
        return
    if from_handler(error):
        raise error
