"""Make Python packages work in a read-only container image."""
# Imported at every interpreter start of an environment that has it installed. Here is the hook, as far as it finds out
# whether there is anything to do: on a host, where the root can be written, and during a build this module is all that
# is loaded. So it imports only os and sys, which `site` has loaded already, and looks into the dictionary behind
# os.environ, whose names and values are bytes: there a look-up takes a twentieth of the time.
#
# What costs here, and in the modules that each start of a child and a warm start load besides (`child`, `warm`,
# `hanging`), is less what is done than what is read: 5 thousand instructions for a function, 1.2 for each name that
# occurs for the first time, 1.2 for a long docstring, and for annotations a tuple (from Python 3.14 on a function). So
# types are in comments, and a docstring has only the first sentence of what is to be said.

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sif_writable.redirects.decision import Outcome  # noqa: F401

__version__ = "0.1.0"

state = "not run"
"""What :func:`run` did: a word of :func:`gate`, ``elevated``, ``inherited``, ``active``, ``no storage``, ``failed``."""

outcome = None  # type: Outcome | None
"""The facts and the plan of this process, when it decided for itself."""

failure = None  # type: BaseException | None
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
"""The variable that names a writable layer to descendants: ``mnt:[N]:MOUNTS:image-IDENTITY:PREFIX:PATH:…``.

It counts in that mount namespace, and while MOUNTS is what :func:`covering` returns: an exported variable gets into
other containers, too, and the kernel gives the number of a namespace that has ended to another one. The identity is
that of the image for this prefix, and the paths can be written.
"""
TARGET = "/sif-writable"
"""The well-known bind target."""

OFF = "off 0 no false never".split()  # noqa: SIM905 - one string is read faster than five
ON = "on 1 yes true always".split()  # noqa: SIM905

FIREJAIL = b"firejail"
"""The value of ``container`` in a sandbox of Firejail, which shows the host's root with parts of it read-only."""
_BOOTED = range(0xEFFFFFF0, 0xF0000008)
"""Numbers of the mount namespace that the kernel boots with: the static one of Linux 6.18 (MNT_NS_INIT_INO), and the
first ones that it gave before, which nothing gives back."""
_root = None  # type: os.stat_result | None


def run():  # type: () -> None
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


def environment():  # type: () -> dict[bytes, bytes]
    """Return the environment of this process as it is, without a copy: names and values are bytes."""
    return getattr(os.environ, "_data", os.environb)  # type: ignore[arg-type]


def gate(data):  # type: (dict[bytes, bytes]) -> str
    """Return why this process is left alone, or an empty string."""
    # `off`: SIF_WRITABLE=off; `build`: an image build; `host`: not in a container; `writable`: nothing to do, as far as
    # is known while the site directories of the environment are read.
    mode = data.get(MODE.encode(), b"").decode("ascii", "replace").lower()
    if mode in OFF:
        return "off"
    if mode in ON:
        return ""
    # The first two are set in %post, the others in %setup (apptainer 1.4: internal/pkg/build/stage.go).
    for name in (b"APPTAINER_LABELS", b"SINGULARITY_LABELS", b"APPTAINER_ROOTFS", b"SINGULARITY_ROOTFS"):
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


def follow(name):  # type: (str) -> Any
    """Import a module of this package for the start, as the import system does, which takes three times as long."""
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


def environment_writable(access):  # type: (Any) -> bool
    """Whether this process may write where packages are imported from.

    :param access: :func:`os.access`, or what notes the question.
    """
    # That is the prefix and, where a virtual environment has the packages of its base or of another one besides, those.
    prefix = sys.prefix
    if not access(prefix, os.W_OK) or (has_packages_of_base() and not access(sys.base_prefix, os.W_OK)):
        return False
    if prefix != sys.base_prefix:
        for entry in sys.path:
            if entry.endswith("-packages") and not entry.startswith(prefix + "/"):
                return not follow("mounted").packages_of_image(access)
    return True


def has_packages_of_base():  # type: () -> bool
    """Whether this is a virtual environment with ``--system-site-packages``, as soon as ``site`` knows it."""
    if sys.prefix == sys.base_prefix:
        return False
    prefixes = getattr(sys.modules.get("site"), "PREFIXES", ())
    return sys.prefix in prefixes and sys.base_prefix in prefixes


def has_sign(data):  # type: (dict[bytes, bytes]) -> bool
    """Whether a container engine has left its sign, which may have leaked to a host or be left over there."""
    for name in (
        b"APPTAINER_CONTAINER",
        b"SINGULARITY_CONTAINER",
        b"CH_RUNNING",
        b"KUBERNETES_SERVICE_HOST",
        b"SHIFTER_IMAGE",
    ):
        if name in data:
            return True
    container = data.get(b"container")
    if container in (b"podman", b"docker", b"oci", FIREJAIL):  # another one, such as lxc, names a whole machine
        return container != FIREJAIL  # whose files are the host's
    access = os.access
    return access("/.singularity.d", 0) or access("/.dockerenv", 0) or access("/run/.containerenv", 0)


def in_container(data):  # type: (dict[bytes, bytes]) -> bool
    """Whether ``/`` is a container's, by its mount and its namespaces."""
    # It is looked at where an engine has left its sign, and where it could be no booted system's (of ST_RDONLY,
    # ST_NOSUID and ST_NODEV such a one can do with the first alone: bubblewrap has all three) or is read-only. What
    # takes longer is asked in `rootfs`.
    global _root
    signed = has_sign(data)
    try:
        shut = not signed and os.statvfs("/").f_flag & 7
        if not (signed or shut or data.get(b"container") == FIREJAIL):
            return False
        if int(os.readlink("/proc/self/ns/mnt")[5:-1]) in _BOOTED:  # PRoot makes no namespace
            return bool(shut or os.statvfs("/").f_flag & 7) and bool(follow("rootfs").below_proot())
        if signed:
            _root = os.stat("/")
            if _root.st_uid not in (0, 65534):  # that of a booted system is root's
                return True
    except (OSError, ValueError) as error:
        let_pass(error)
        return signed  # no host is without /proc
    return bool(follow("rootfs").is_containers(data, signed=signed))


def let_pass(error):  # type: (BaseException) -> None
    """Raise an error again that is of a handler of the program; called wherever a class like OSError is caught."""
    trace = error.__traceback__
    if trace is None or trace.tb_next is None:  # a system call raised it
        return
    try:
        from sif_writable.signals import from_handler
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - files of ours are missing or damaged, and the error says which
        return
    if from_handler(error):
        raise error
