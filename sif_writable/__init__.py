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
_ENGINE = (b"APPTAINER_CONTAINER", b"SINGULARITY_CONTAINER", b"CH_RUNNING", b"KUBERNETES_SERVICE_HOST")


def run() -> None:
    """Activate this process if it runs in a read-only image; never raise, never print to stdout, act once."""
    global state, failure
    if state != "not run":  # a venv runs .pth lines twice (python/cpython#75723)
        return
    state = "failed"
    try:
        data = environment()
        word = "" if SESSION.encode() in data else gate(data)
        state = word or follow("child").start(data)
    except KeyboardInterrupt:  # which is never of our making
        raise
    except BaseException as error:  # not even SystemExit of ours may stop an interpreter from starting
        if _is_of_a_handler(error):
            raise
        failure = error


def environment() -> "Mapping[bytes, bytes]":
    """Return the environment of this process as it is, without a copy: names and values are bytes."""
    return getattr(os.environ, "_data", os.environb)


def gate(data: "Mapping[bytes, bytes]") -> str:
    """Return why this process is left alone, or an empty string.

    ``off``: ``SIF_WRITABLE=off``; ``build``: an image build; ``host``: not in a container; ``writable``: nothing to
    do.
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
    if os.access(sys.prefix, os.W_OK):
        home_set = data.get(b"HOME")
        if (
            usable_home(home(None if home_set is None else os.fsdecode(home_set)))
            and not data.get(DIR.encode())  # which the user gave on purpose, as he did with a mount at TARGET
            and not mounted_at(TARGET)
            and not _is_covered(data.get(LAYER.encode()))
        ):
            return "writable"
    return ""


def follow(name: str) -> "Any":
    """Import a module of ours for the start: without the search of the import system, which takes three times as long.

    :param name: one directly in this package.
    """
    full = f"{__name__}.{name}"
    file_loader: Any = type(__spec__.loader)
    if full not in sys.modules and file_loader.__name__ in ("SourceFileLoader", "SourcelessFileLoader"):
        from _frozen_importlib import module_from_spec

        place = __file__[: __file__.rindex("__init__.py")] + name + __file__[__file__.rindex(".") :]
        loader = file_loader(full, place)
        spec = type(__spec__)(full, loader, origin=place)
        spec.has_location = True
        module = sys.modules[full] = module_from_spec(spec)
        try:
            loader.exec_module(module)
        except BaseException:
            del sys.modules[full]
            raise
        globals()[name] = module
    else:  # from an archive, or by somebody else's loader
        __import__(full)
    return sys.modules[full]


def in_container(data: "Mapping[bytes, bytes]") -> bool:
    """Whether any container engine has left its sign; which one is the business of :mod:`~.system.container`."""
    for name in _ENGINE:
        if name in data:
            return True
    # Another value, such as lxc, names a whole machine, not an image.
    if data.get(b"container") in (b"podman", b"docker", b"oci"):
        return True
    access = os.access
    return access("/.singularity.d", 0) or access("/.dockerenv", 0) or access("/run/.containerenv", 0)


def home(found: "Optional[str]") -> str:
    """Return the directory that ``~`` stands for: HOME or, where that is not set, what the passwd entry says.

    :param found: the value of HOME.
    :returns: an empty string where there is neither.
    """
    if found is None:
        import pwd  # built in, and loaded already: site looks for the user's packages below the same directory

        try:
            found = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            return ""
    if found[:1] not in ("", "/"):  # from the working directory on, as everybody reads it
        try:
            return os.path.abspath(found)
        except OSError as error:  # which is gone
            if _is_of_a_handler(error):
                raise
    return found


def usable_home(home: str) -> bool:
    """Whether HOME is a directory that this process may write into."""
    return bool(home) and home != "/" and os.access(f"{home}/.", os.W_OK | os.X_OK)


def mounted_at(path: str) -> bool:
    """Whether something is mounted at a path of the image, where images have an empty directory for it."""
    if not os.access(path, os.F_OK):
        return False
    try:
        if os.stat(path).st_dev != os.stat("/").st_dev:
            return True
        # A bind from the root's own filesystem: a sandbox, or a Charliecloud image that is a directory.
        return os.fsencode(path) in [line.split(b" ", 5)[4] for line in _mount_table().splitlines()]
    except (OSError, IndexError) as error:
        if _is_of_a_handler(error):
            raise
        return False


def _mount_table() -> bytes:
    """Return the text of mountinfo (proc_pid_mountinfo(5))."""
    with open("/proc/self/mountinfo", "rb", buffering=0) as file:
        return file.read()


def in_layer(value: "Optional[str]") -> "list[str]":
    """Return the fields of :data:`LAYER` from the image on, if this process is in it; it is not where it is not set.

    It can write in the environment and all the same is a process in a read-only image.

    :param value: of the variable.
    """
    fields = (value or "").split(":")
    if len(fields) < 5:
        return []
    try:
        if os.readlink("/proc/self/ns/mnt") == ":".join(fields[:2]) and covering(*fields[4:6]) == fields[2]:
            return fields[3:]
    except OSError as error:
        if _is_of_a_handler(error):
            raise
    return []


def covering(prefix: str, directory: str = "") -> str:
    """Tell a layer from the mounts of another container, by what is at ``/`` and what is over its first directory.

    :param directory: by default the layer is over `prefix`.
    :raises OSError: one of them is not there.
    """
    root = os.stat("/")
    return f"{root.st_dev:x}.{root.st_ino:x}.{root.st_mtime_ns:x}.{os.stat(directory or prefix).st_dev:x}"


def _is_covered(value: "Optional[bytes]") -> bool:
    """Whether the environment can be written since a layer is over it, also where a child has lost the variable."""
    if value is not None:
        return bool(in_layer(os.fsdecode(value)))
    try:
        return os.stat(sys.prefix).st_dev != os.stat("/").st_dev and b" - overlay sif-writable " in _mount_table()
    except OSError as error:
        if _is_of_a_handler(error):
            raise
        return False


def let_pass(error: BaseException) -> None:
    """Raise an error again that is of a handler of the program; called wherever a class like OSError is caught."""
    trace = error.__traceback__
    if trace is not None and trace.tb_next is not None and _is_of_a_handler(error):  # else a system call raised it
        raise error


def _is_of_a_handler(error: BaseException) -> bool:
    """Whether a signal handler of the program raised an error while our code ran: then it is not ours to swallow."""
    try:
        from sif_writable.signals import from_handler
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - files of ours are missing or damaged, which the error tells
        return False
    return from_handler(error)
