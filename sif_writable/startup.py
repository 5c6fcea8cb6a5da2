"""The hook at interpreter start: gate, then see, decide, do.

Where the root is writable, on a host, and during a build, this module and its package are all that is loaded, so it
imports nothing that ``site`` has not loaded already. ``sif_writable.pth`` calls :func:`run`.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType
    from typing import Optional

    from sif_writable.act import Outcome

SESSION = "SIF_WRITABLE_SESSION"
"""The variable by which a process hands its decisions to its descendants: ``1;TOKEN;NAME,NAME;ROOT:ROOT``.

Where any of the roots may stop answering, the ``1`` is followed by a letter for each: :data:`STEADY`, :data:`NETWORK`
or :data:`FUSE`.
"""

STEADY, NETWORK, FUSE = "s", "n", "f"
"""What answers for a filesystem: the kernel itself, another machine, or a program that runs here."""

PATIENCE = 10.0
"""Seconds. A filesystem that has not answered by then is passed over."""

PYCACHE = "SIF_WRITABLE_PYCACHE"
"""The variable by which bytecode in storage that may stop answering is handed down.

``PYTHONPYCACHEPREFIX`` would have the interpreter look there before it can be asked whether it answers.
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
    except BaseException as error:  # noqa: BLE001 - not even SystemExit may stop an interpreter from starting
        failure = error


def _run(environ: "Mapping[str, str]") -> str:
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
        word = _activate()
    return word


def gate(environ: "Mapping[str, str]") -> str:
    """Return why this process is left alone (a word), ``inherited``, or an empty string: activate.

    ``off``: ``SIF_WRITABLE=off``; ``build``: an image build; ``host``: not in a container; ``writable``: nothing to
    do.
    """
    mode = environ.get("SIF_WRITABLE", "").lower()
    if mode in OFF:
        return "off"
    session = environ.get(SESSION)
    if session and is_current(session):
        return "inherited"
    if mode in ON:
        return ""
    for name in _BUILD_VARIABLES:
        if name in environ:
            return "build"
    if not in_container(environ):
        return "host"
    if os.access(sys.prefix, os.W_OK) and usable_home(environ.get("HOME")) and not given(environ):
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
    except OSError:  # without /proc there is nothing to go by but the ids
        return os.geteuid() != os.getuid() or os.getegid() != os.getgid()
    try:
        words = memoryview(os.read(descriptor, 4096)).cast("L")
    finally:
        os.close(descriptor)
    for at in range(0, len(words) - 1, 2):
        if words[at] == _AT_SECURE:
            return words[at + 1] != 0
    return False


def in_container(environ: "Mapping[str, str]") -> bool:
    """Whether any container engine has left its sign; which one is the business of :mod:`~.facts.container`."""
    for name in _ENGINE_VARIABLES:
        if name in environ:
            return True
    if environ.get("container") in ("podman", "docker", "oci"):
        return True
    for path in _ENGINE_FILES:  # noqa: SIM110 - a generator costs a frame at every start
        if os.access(path, os.F_OK):
            return True
    return False


def usable_home(home: "Optional[str]") -> bool:
    """Whether HOME is a directory that this process may write into."""
    return bool(home) and home != "/" and os.path.isdir(home) and os.access(home, os.W_OK | os.X_OK)  # type: ignore[arg-type]


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
    except (OSError, IndexError):
        return False


def token() -> str:
    """Name this very container run: the mount of ``/`` (its mtime is the container's start) and the user."""
    root = os.stat("/")
    return f"{root.st_dev:x}.{root.st_ino:x}.{root.st_mtime_ns:x}.{os.geteuid()}"


def is_current(session: str) -> bool:
    """Whether a session string was written in this container run, and its storage is still there and this user's."""
    fields = session.split(";", 3)
    if len(fields) != 4 or fields[0][:1] != "1" or fields[1] != token():
        return False
    if not fields[3]:
        return True
    for kind, root in zip(fields[0][1:], fields[3].split(":")):
        if kind != STEADY and silent(root, kind):
            from sif_writable.facts import filesystem

            filesystem.pass_over(root)
            return False
    uid = int(fields[1].rpartition(".")[2])
    try:
        for root in fields[3].split(":"):  # a cleaner of /tmp may have removed it, and somebody have taken the name
            status = os.lstat(root)
            if status.st_uid != uid or status.st_mode & 0o170322 != 0o040300:  # a directory that its owner may write
                return False
    except OSError:
        return False
    return os.access(fields[3].split(":", 1)[0], os.W_OK)  # it may have become read-only


def kept_by(session: str, path: str) -> "tuple[str, str]":
    """Return which storage root of a session a path lies in, and what answers for it; by default a blank, STEADY."""
    fields = session.split(";", 3)
    for kind, root in zip(fields[0][1:], fields[-1].split(":")):
        if path.startswith(root + "/"):
            return root, kind
    return "", STEADY


def silent(path: str, kind: str) -> bool:
    """Whether the filesystem under a path does not answer for :data:`PATIENCE` seconds.

    No call has a time limit, so somebody else has to ask. A thread costs a third of a child. But from a FUSE server
    that has taken a request and is stuck with it, not even SIGKILL frees who asked (request_wait_answer in the kernel's
    fs/fuse/dev.c), and no process ends before its threads.

    :param kind: :data:`NETWORK` or :data:`FUSE`.
    """
    return _silent_to_child(path) if kind == FUSE and _is_alone() else _silent_to_thread(path)


def _is_alone() -> bool:
    """Whether this process may fork: what other threads have locked would stay locked in the child."""
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False


def _ask(path: str) -> None:
    try:
        os.statvfs(path)  # the one question that is always passed on: attributes may be known from before
    except (OSError, ValueError):
        return  # which is an answer, too


def _silent_to_thread(path: str) -> bool:
    import _thread

    asked = _thread.allocate_lock()
    asked.acquire()
    names: list[str] = []

    def ask() -> None:
        names.append(f"/proc/self/task/{_thread.get_native_id()}")
        _ask(path)
        asked.release()

    try:
        _thread.start_new_thread(ask, ())
    except RuntimeError:  # this process may have no more threads: then all is as with a filesystem that answers
        return False
    if not asked.acquire(True, PATIENCE):
        return True
    # It has done its work and is about to end. The program must not meet it: with two threads os.fork warns, since
    # CPython 3.12, and unshare(2) makes no user namespace.
    for _ in range(1000):
        if not os.access(names[0], os.F_OK):
            break
        asked.acquire(True, 0.00002)
    return False


def _silent_to_child(path: str) -> bool:
    import time

    try:
        child = os.fork()
    except (OSError, RuntimeError):  # no more processes, or none from here: as above
        return False
    if not child:
        try:
            # Who reads what this process writes waits until the last one that could write has ended.
            os.closerange(0, 1 + max([int(name) for name in os.listdir("/proc/self/fd")]))
            _ask(path)
        finally:
            os._exit(0)
    begun, pause, killed = time.monotonic(), 0.0002, False
    try:
        while os.waitpid(child, os.WNOHANG)[0] == 0:
            if killed and time.monotonic() > begun + PATIENCE + 1:
                return True
            if not killed and time.monotonic() > begun + PATIENCE:
                os.kill(child, 9)
                killed = True
            time.sleep(pause)
            pause = min(1.5 * pause, 0.02)
    except OSError:  # nobody waits for children here (SIGCHLD is ignored), and this one has ended
        return killed
    return killed


def _activate() -> str:
    global outcome
    from sif_writable import act, facts, importhook, plan
    from sif_writable.act import recall

    damaged = ""
    if SESSION in os.environ:  # of another container: what it set is not the user's wish
        damaged = act.forget(os.environ)
    environ = dict(os.environ)  # os.environ encodes and decodes at each look-up
    told: Optional[ModuleType] = None
    if environ.get("SIF_WRITABLE_DEBUG") == "1":
        from sif_writable.report import startup as narrator

        told = narrator
    seen = facts.see(environ)
    if told:
        told.say(told.facts_lines(seen))
    storage = act.settle(plan.places(seen, environ), seen, environ)
    if told:
        told.say(told.storage_lines(storage))
    recalled = recall.decision(seen, storage, environ)
    decision = recalled or act.decide(seen, storage, environ)
    if told:
        told.say(told.decision_lines(decision))
    outcome = act.apply(decision, seen, storage, environ, token())
    kept = recall.path(seen, storage)
    if not recalled and kept and recall.is_due(kept):
        from sif_writable.act import remember

        remember.keep(kept, outcome, environ)
    if damaged:
        outcome.failed.append(damaged)
    if told:
        told.say(told.outcome_lines(outcome))
    importhook.install()
    importhook.serve_outside()
    return "active" if storage.folders else "no storage"
