"""The hook at interpreter start: gate, then see, decide, do.

Where the root is writable, on a host, and during a build, this module and its package are all that is loaded, so it
imports nothing that ``site`` has not loaded already. ``sif_writable.pth`` calls :func:`run`.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping
    from types import ModuleType
    from typing import Optional

    from sif_writable.act import Outcome
    from sif_writable.errors import Problem

SESSION = "SIF_WRITABLE_SESSION"
"""The variable by which a process hands its decisions to its descendants: ``2;TOKEN;SET,SET;INPUTS;ROOT:ROOT``.

Where any of the roots may stop answering, the ``2`` is followed by a letter for each: :data:`STEADY`, :data:`NETWORK`
or :data:`FUSE`. Each ``SET`` is a variable that was set, as :func:`was_set` writes it; ``INPUTS`` is what
:func:`inputs` returned.
"""
OLD = "SIF_WRITABLE_OLD_"
"""How the variables begin that hold what others had before a session set them: ``SIF_WRITABLE_OLD_HOME``."""
FIELDS = 5
"""How many fields a session has. Only the last one may have a semicolon in it."""

STEADY, NETWORK, FUSE = "s", "n", "f"
"""What answers for a filesystem: the kernel itself, another machine, or a program that runs here."""

PATIENCE = 10.0
"""Seconds. A filesystem that has not answered by then is passed over."""

PYCACHE = "SIF_WRITABLE_PYCACHE"
"""The variable by which bytecode in storage that may stop answering, or lies where others may write, is handed down.

``PYTHONPYCACHEPREFIX`` would have the interpreter look there before it can be asked whether it answers, and whether it
is still this user's: where a cleaner of ``/tmp`` has removed the folder, anybody may have made another one.
"""

TARGET = "/sif-writable"
"""The well-known bind target."""

state = "not run"
"""What :func:`run` did: a word of :func:`gate`, ``elevated``, ``active``, ``no storage`` or ``failed``."""

outcome: "Optional[Outcome]" = None
"""The facts and the plan of this process, when it decided for itself."""

failure: "Optional[BaseException]" = None
"""What went wrong in the hook; ``sif-writable status`` prints it."""

_AT_SECURE = 23
_HAS_VARARGS = 4
"""The flag of a code object with ``*arguments`` (``inspect.CO_VARARGS``)."""

_SET_KEY, _INPUTS_KEY = 0x5349465F53455400, 0x5349465F494E5055
_INPUT_ENDS = (
    *(b"HOME", b"DIR", b"DIRS", b"DIRECTORY", b"FOLDER", b"CACHE", b"_cache", b"TMP", b"TEMP", b"DATA", b"_FLAGS"),
    *(b"_PATH", b"_PATHS", b"_ROOT", b"_BASE"),
)
"""How most variables end that a decision depends on, those of packages that are not in the table yet included."""
_INPUTS = frozenset(
    (
        *(b"USER", b"LOGNAME", b"LNAME", b"USERNAME", b"SCRATCH", b"PYTHONPYCACHEPREFIX", b"PYTHONNOUSERSITE"),
        *(b"SIF_WRITABLE", b"SIF_WRITABLE_HEAVY", b"SIF_WRITABLE_OPT_IN"),
        *(b"CCACHE_CONFIGPATH", b"CUDA_CACHE_MAXSIZE", b"CUPY_CACHE_IN_MEMORY", b"DGLBACKEND", b"GOPATH"),
        *(b"KIVY_DESKTOP_PATH_ID", b"MATPLOTLIBRC", b"PYTHON_JULIAPKG_PROJECT", b"R_LIBS_USER"),
    )
)
"""The others; tests/unit/test_session.py compares both with all that is asked for."""
_NO_INPUTS = (b"LD_LIBRARY_PATH",)
"""What ends like one, differs often between a process and its child, and decides nothing."""

LAYER = "SIF_WRITABLE_LAYER"
"""The variable that tells descendants of a writable layer: ``mnt:[N]:MOUNTS:image-IDENTITY:PREFIX:PATH:…``.

It counts in that mount namespace, and while MOUNTS is what :func:`covering` returns: an exported variable gets into
other containers, too, and the kernel gives the number of a namespace that has ended to another one. The identity is
that of the image for this prefix, and the paths can be written.
"""

OFF = ("off", "0", "no", "false", "never")
ON = ("on", "1", "yes", "true", "always")

# A value of `container` such as lxc names a whole machine, not an image.
_ENGINE_VARIABLES = ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER", "CH_RUNNING", "KUBERNETES_SERVICE_HOST")
_ENGINE_FILES = ("/.singularity.d", "/.dockerenv", "/run/.containerenv")
_BUILD_VARIABLES = ("APPTAINER_LABELS", "SINGULARITY_LABELS", "APPTAINER_ROOTFS", "SINGULARITY_ROOTFS")
"""The first two are set in %post, the others in %setup (apptainer 1.4: internal/pkg/build/stage.go)."""


def run() -> None:
    """Activate this process if it runs in a read-only image; never raise, never print to stdout, act once."""
    global state, failure
    if state != "not run":  # a venv runs .pth lines twice (python/cpython#75723)
        return
    state = "failed"
    try:
        state = _run(os.environ)
    except KeyboardInterrupt:  # which is never of our making
        raise
    except BaseException as error:  # noqa: BLE001 - not even SystemExit of ours may stop an interpreter from starting
        let_pass(error)
        failure = error


def _run(environ: "MutableMapping[str, str]") -> str:
    word = gate(environ)
    damaged: Optional[Problem] = None
    if SESSION in environ and word != "inherited" and not elevated():
        # Of another container, or the user has changed his mind: what an ancestor set is not his wish.
        from sif_writable import session

        damaged = session.take_back(environ)
        word = gate(environ)
    if word in ("inherited", "") and elevated():  # asked last, since a process that is left alone need not know
        return "elevated"
    if word == "inherited":
        if PYCACHE in environ and sys.pycache_prefix is None:
            sys.pycache_prefix = environ[PYCACHE]
        from sif_writable import importhook

        importhook.install()
        importhook.serve_outside()
    elif not word:
        word = _activate(damaged)
    return word


def from_handler(error: BaseException) -> bool:
    """Whether a signal handler of the program raised an error while our code ran: then it is not ours to swallow.

    It can be of any class, OSError included. The interpreter calls handlers between any two steps, with the number of
    the signal and the frame that it interrupts: no other function gets these two, one after the other. A handler that
    is written in C leaves no such trace, nor does one that gives both names another meaning.
    """
    trace = error.__traceback__
    while trace is not None:
        code, values = trace.tb_frame.f_code, trace.tb_frame.f_locals
        given = [values.get(name) for name in code.co_varnames[: code.co_argcount]]
        if code.co_flags & _HAS_VARARGS:
            given += values.get(code.co_varnames[code.co_argcount + code.co_kwonlyargcount], ())
        for number, frame in zip(given, given[1:]):
            if type(frame) is type(trace.tb_frame) and isinstance(number, int):
                return True
        trace = trace.tb_next
    return False


def let_pass(error: BaseException) -> None:
    """Raise an error again that is not ours (:func:`from_handler`); called wherever a class like OSError is caught."""
    if from_handler(error):
        raise error


def gate(environ: "Mapping[str, str]") -> str:
    """Return why this process is left alone (a word), ``inherited``, or an empty string: activate.

    ``off``: ``SIF_WRITABLE=off``; ``build``: an image build; ``host``: not in a container; ``writable``: nothing to
    do.
    """
    mode = environ.get("SIF_WRITABLE", "").lower()
    if mode in OFF:
        return "off"
    session = environ.get(SESSION)
    if session and is_current(session):  # and the user wants nothing else than what was decided on
        return "inherited"
    if mode in ON:
        return ""
    for name in _BUILD_VARIABLES:
        if name in environ:
            return "build"
    if not in_container(environ):
        return "host"
    if (
        os.access(sys.prefix, os.W_OK)
        and usable_home(home(environ))
        and not given(environ)
        and not _is_covered(environ)
    ):
        return "writable"
    return ""


def elevated() -> bool:
    """Whether this program has rights that its caller lacks, whose environment it then must not obey.

    It was set-user-id or set-group-id, or has file capabilities. The latter leave the ids alone; the kernel tells the
    program's loader (AT_SECURE in getauxval(3)).
    """
    try:
        descriptor = os.open("/proc/self/auxv", os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:  # which such a program gets where it may not be looked into
        return True
    except OSError as error:  # without /proc there is nothing to go by but the ids
        let_pass(error)
        return os.geteuid() != os.getuid() or os.getegid() != os.getgid()
    try:
        words = memoryview(os.read(descriptor, 4096)).cast("L")
    finally:
        os.close(descriptor)
    for at in range(0, len(words) - 1, 2):
        if words[at] == _AT_SECURE:
            return words[at + 1] != 0
    return False


def _is_covered(environ: "Mapping[str, str]") -> bool:
    """Whether the environment can be written since a layer is over it, also where a child has lost the variable."""
    if LAYER in environ:
        return bool(in_layer(environ))
    try:
        if os.stat(sys.prefix).st_dev == os.stat("/").st_dev:
            return False
        descriptor = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = b""
            while part := os.read(descriptor, 1 << 16):
                text += part
        finally:
            os.close(descriptor)
    except OSError as error:
        let_pass(error)
        return False
    return b" - overlay sif-writable " in text


def in_layer(environ: "Mapping[str, str]") -> "list[str]":
    """Return the fields of :data:`LAYER` from the image on, if this process is in it; it is not where it is not set.

    It can write in the environment and all the same is a process in a read-only image.
    """
    fields = environ.get(LAYER, "").split(":")
    if len(fields) < 5:
        return []
    try:
        if os.readlink("/proc/self/ns/mnt") == ":".join(fields[:2]) and covering(*fields[4:6]) == fields[2]:
            return fields[3:]
    except OSError as error:
        let_pass(error)
    return []


def covering(prefix: str, directory: str = "") -> str:
    """Tell a layer from the mounts of another container, by what is at ``/`` and what is over its first directory.

    :param directory: by default the layer is over `prefix`.
    :raises OSError: one of them is not there.
    """
    root = os.stat("/")
    return f"{root.st_dev:x}.{root.st_ino:x}.{root.st_mtime_ns:x}.{os.stat(directory or prefix).st_dev:x}"


def in_container(environ: "Mapping[str, str]") -> bool:
    """Whether any container engine has left its sign; which one is the business of :mod:`~.system.container`."""
    for name in _ENGINE_VARIABLES:
        if name in environ:
            return True
    if environ.get("container") in ("podman", "docker", "oci"):
        return True
    for path in _ENGINE_FILES:  # noqa: SIM110 - a generator costs a frame at every start
        if os.access(path, os.F_OK):
            return True
    return False


def home(environ: "Mapping[str, str]") -> str:
    """Return the directory that ``~`` stands for: HOME or, where that is not set, what the passwd entry says.

    :returns: an empty string where there is neither.
    """
    found = environ.get("HOME")
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
            let_pass(error)
    return found


def usable_home(home: str) -> bool:
    """Whether HOME is a directory that this process may write into."""
    return bool(home) and home != "/" and os.path.isdir(home) and os.access(home, os.W_OK | os.X_OK)


def given(environ: "Mapping[str, str]") -> bool:
    """Whether the user gave a place on purpose: ``SIF_WRITABLE_DIR``, or a mount at ``/sif-writable``."""
    return bool(environ.get("SIF_WRITABLE_DIR")) or mounted_at(TARGET)


def mounted_at(path: str) -> bool:
    """Whether something is mounted at a path of the image, where images have an empty directory for it."""
    try:
        if os.stat(path).st_dev != os.stat("/").st_dev:
            return True
        # A bind from the root's own filesystem: a sandbox, or a Charliecloud image that is a directory.
        with open("/proc/self/mountinfo", "rb", buffering=0) as file:
            points = [line.split(b" ", 5)[4] for line in file.read().splitlines()]
        return os.fsencode(path) in points
    except (OSError, IndexError) as error:
        let_pass(error)
        return False


def token() -> str:
    """Name this very container run: the mount of ``/`` (its mtime is the container's start) and the user."""
    root = os.stat("/")
    return f"{root.st_dev:x}.{root.st_ino:x}.{root.st_mtime_ns:x}.{os.geteuid()}"


def was_set(name: str, value: str, before: "Optional[str]") -> str:
    """Return how a session says that it set a variable: ``NAME=SUM``, and a ``+`` where it had a value before.

    What is equal by its check sum is still what was set; anything else is from the user or his program. The value
    before is in a variable of its own (:data:`OLD`), since one string of an environment is at most 128 KiB.
    """
    return f"{name}={check_sum(value)}" + ("" if before is None else "+")


def check_sum(value: str) -> str:
    """Return eight hexadecimal digits for a value."""
    from _imp import source_hash  # built in

    return source_hash(_SET_KEY, os.fsencode(value))[:4].hex()


def inputs() -> str:
    """Return sixteen hexadecimal digits for all variables of this process that a decision depends on, ours included."""
    from _imp import source_hash

    variables: Mapping[bytes, bytes] = getattr(os.environ, "_data", os.environb)  # what is behind both costs a fifth
    known = [
        b"%s=%s" % (name, variables[name])
        for name in variables
        if (name.endswith(_INPUT_ENDS) or name in _INPUTS) and name not in _NO_INPUTS
    ]
    known.sort()
    return source_hash(_INPUTS_KEY, b"\0".join(known)).hex()


def is_current(session: str) -> bool:
    """Whether a session was written in this container run, for what is wanted here, and its storage is still there."""
    fields = session.split(";", FIELDS - 1)
    if len(fields) != FIELDS or fields[0][:1] != "2" or fields[1] != token() or fields[3] != inputs():
        return False
    if not fields[4]:
        return True
    for kind, root in zip(fields[0][1:], fields[4].split(":")):
        if kind != STEADY:
            from sif_writable import hanging

            if hanging.silent(root, kind):
                from sif_writable.system import filesystem

                filesystem.pass_over(root)
                return False
    uid = int(fields[1].rpartition(".")[2])
    for root in fields[4].split(":"):  # a cleaner of /tmp may have removed it, and somebody have taken the name
        if not is_own(root, uid):
            return False
    return os.access(fields[4].split(":", 1)[0], os.W_OK)  # it may have become read-only


def is_own(root: str, uid: int) -> bool:
    """Whether a storage root is still a directory of this user's, which nobody else may write."""
    try:
        status = os.lstat(root)
    except OSError as error:
        let_pass(error)
        return False
    return status.st_uid == uid and status.st_mode & 0o170322 == 0o040300


def root_of(session: str, path: str) -> str:
    """Return which storage root of a session a path lies in, or an empty string."""
    for root in session.split(";", FIELDS - 1)[-1].split(":"):
        if root and path.startswith(root + "/"):
            return root
    return ""


def kept_by(session: str, path: str) -> "tuple[str, str]":
    """Return which storage root of a session a path lies in, and what answers for it; by default a blank, STEADY."""
    fields = session.split(";", FIELDS - 1)
    for kind, root in zip(fields[0][1:], fields[-1].split(":")):
        if path.startswith(root + "/"):
            return root, kind
    return "", STEADY


def _activate(damaged: "Optional[Problem]") -> str:
    global outcome
    from sif_writable import act, importhook, plan, system
    from sif_writable.act import recall

    system.find_layer()
    environ = dict(os.environ)  # os.environ encodes and decodes at each look-up
    debug: Optional[ModuleType] = None
    if environ.get("SIF_WRITABLE_DEBUG") == "1":
        from sif_writable.report import debug
        from sif_writable.stderr import say
    seen = system.see(environ)
    if debug:
        say(debug.facts_lines(seen))
    storage = act.settle(plan.places(seen, environ), seen, environ)
    if debug:
        say(debug.storage_lines(storage))
    recalled = recall.decision(seen, storage, environ)
    decision = recalled or act.decide(seen, storage, environ)
    if debug:
        say(debug.decision_lines(decision))
    outcome = act.apply(decision, seen, storage, environ, token())
    kept = recall.path(seen, storage)
    # Between two plans, a start that decided anew because something has come is as cheap as it can be.
    if not recalled and (not kept or recall.is_due(kept)):
        from sif_writable.act import remember
        from sif_writable.cleanup import housekeeping

        if kept:
            remember.keep(kept, outcome, environ)
        housekeeping.mark_used(storage, kept)
        housekeeping.keep_in_bounds(storage, seen.identity, environ)
    if damaged:
        outcome.failed.append(damaged)
    if debug:
        say(debug.outcome_lines(outcome))
    importhook.install()
    importhook.serve_outside()
    return "active" if storage.folders else "no storage"
