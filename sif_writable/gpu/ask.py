"""How is NVML asked, in a process of its own, and what did it answer? Nothing here judges, and nothing starts CUDA.

A driver at fault hangs in an uninterruptible call, and then neither a thread nor a signal helps (NVIDIA/go-nvml#152).
So another process asks (:mod:`sif_writable.gpu.nvml`), with a time limit.

How that process is started decides what the check costs (measured, CPython 3.11, a library that answers at once; bare
ctypes in this process: 1.9 ms). ``fork``: 2 ms more; a fresh ``python -I -S``: 10 ms more. A fork is safe only where
nothing is shared that the child would find broken: where this is the only thread (C threads counted), and no MPI, CUDA
or NVML is loaded. Else a fresh interpreter is started, by ``posix_spawn``, which runs no at-fork handlers and copies no
memory. ``tests/benchmarks/gpu.py`` prints both.
"""

from __future__ import annotations

import os
import sys

from sif_writable import MODE
from sif_writable.signals import let_pass, own_child

TIMEOUT = 10.0
"""Seconds that NVML gets."""


class Instance:
    """One MIG instance."""

    __slots__ = ("free", "total", "uuid")

    def __init__(self, uuid: str, total: int | None, free: int | None) -> None:
        """:param total: memory in bytes; :param free: of it, free bytes."""
        self.uuid = uuid
        self.total = total
        self.free = free


class Gpu:
    """One GPU as NVML shows it; what was not asked or not answered is None or empty."""

    __slots__ = (
        *("capability", "code", "complete", "free", "index", "instances", "mig", "mode", "name", "text", "total"),
        "uuid",
    )

    def __init__(self, index: int, code: int = 0, text: str = "", mig: bool = False, complete: bool = True) -> None:
        """:param index: NVML's, in PCI order; :param code: NVML's answer to the request for a handle."""
        self.index = index
        self.code = code
        self.text = text
        """NVML's words for the code."""
        self.mig = mig
        """Whether it is in MIG mode."""
        self.instances: list[Instance] = []
        self.complete = complete
        """Whether all its MIG instances are known, also that it has none."""
        self.name = ""
        self.uuid = ""
        self.total: int | None = None
        """Memory in bytes."""
        self.free: int | None = None
        """Free memory in bytes."""
        self.capability: tuple[int, int] | None = None
        """CUDA compute capability, as (major, minor)."""
        self.mode = ""
        """Compute mode: default, exclusive thread, prohibited, exclusive process."""


class Failure:
    """A call that NVML refused."""

    __slots__ = ("call", "code", "text")

    def __init__(self, call: str, code: int, text: str) -> None:
        """:param code: an NVML return code; :param text: NVML's own words for it."""
        self.call = call
        self.code = code
        self.text = text


class Nvml:
    """What NVML answered."""

    __slots__ = (
        *("count", "cuda", "details_error", "driver", "failure", "gpus", "load_errors", "not_asked", "path"),
        *("pending_call", "timed_out", "version"),
    )

    def __init__(self) -> None:
        """Start with no answer."""
        self.load_errors: list[tuple[str, str]] = []
        """(library name, the loader's own words) of each that could not be loaded."""
        self.path = ""
        """The file that was loaded."""
        self.failure: Failure | None = None
        """Why initialisation or counting failed."""
        self.count: int | None = None
        """GPUs that NVML counts, those without permission included."""
        self.gpus: list[Gpu] = []
        """Those that NVML was asked about, in its order."""
        self.driver = ""
        """Driver version as NVML has it."""
        self.version = ""
        """NVML's own version."""
        self.cuda = ""
        """The highest CUDA version of the driver, such as 12.4."""
        self.details_error = ""
        """Why names, memory and the like could not be read."""
        self.pending_call = "its start"
        """The call that did not come back; empty when all did."""
        self.timed_out = 0.0
        """Seconds after which NVML was given up; 0 when it answered."""
        self.not_asked = ""
        """Why NVML could not be asked at all."""


COMPUTE_MODES = ("default", "exclusive thread", "prohibited", "exclusive process")


def ask(limit: int = 0, *, details: bool = False, timeout: float = TIMEOUT) -> Nvml:
    """Ask NVML, in another process, and come back within the time given, whatever the driver does.

    The library is initialised once and shut down; no descriptor and no child stays. On a hang the process is killed;
    if it cannot be, it belongs to the container's init, holds no descriptor and ends when its call returns.

    :param limit: how many of the GPUs that this process may use are asked about; 0: all. Each of them is woken.
    :param details: names, memory, UUIDs, capability and versions too (nvidia-ml-py; 30 ms).
    :param timeout: seconds for everything.
    """
    own = own_child()
    with own:
        return _ask(own, limit, details, timeout)


def _ask(own: own_child, limit: int, details: bool, timeout: float) -> Nvml:
    import select
    import time

    deadline = time.monotonic() + timeout
    answer = Nvml()
    text = b""
    pid = 0
    ended = False
    read_end, write_end = os.pipe()
    try:
        try:
            pid = own.pid = _start(write_end, limit, details)
        finally:
            os.close(write_end)
        poll = select.poll()
        poll.register(read_end, select.POLLIN)
        while not ended:
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                answer.timed_out = timeout
                break
            chunk = os.read(read_end, 65536)
            text += chunk
            ended = not chunk
    except OSError as error:
        let_pass(error)
        answer.not_asked = f"the process that asks NVML could not be started ({error.strerror})"
    finally:
        os.close(read_end)
        asker = _read(text.decode("utf-8", "replace"), answer)
        if pid:
            _end(pid, 0 if ended else asker or pid)
    if answer.pending_call and not answer.timed_out and not answer.not_asked:
        answer.not_asked = f"the process that asks NVML died in {answer.pending_call}"
    return answer


def _start(out: int, limit: int, details: bool) -> int:
    """Start the process that asks, and return the pid of our child between the two, which ends at once.

    So the one that asks is no child of the job's: it may hang and leaves no zombie.
    """
    # What was installed with us first, and never the working directory, which may be anybody's.
    folders = (_OURS, *filter(None, sys.path))
    names = ("pynvml.py", "pynvml/__init__.py")
    paths = [f"{folder}/{name}" for name in names for folder in folders]
    path = next(filter(os.path.exists, paths), "")
    if _may_fork():
        import ctypes  # noqa: F401 - costs half of what it costs in the child, whose memory is copied

        from sif_writable import signals
        from sif_writable.gpu import nvml

        try:
            pid = signals.fork()
        except RuntimeError as error:  # subinterpreters may not
            let_pass(error)
        else:
            if pid == 0:
                try:
                    if os.fork() == 0:
                        nvml.run(out, limit, details, path)
                finally:
                    os._exit(0)
            return pid
    if not sys.executable or not hasattr(os, "posix_spawn"):
        raise FileNotFoundError(2, "sys.executable is empty" if not sys.executable else "PyPy has no os.posix_spawn")
    words = [_OURS, str(limit), "details" if details else "", path]
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", "-B", "-c", _PROGRAM, *words],
        {**os.environ, MODE: "off"},
        file_actions=[(os.POSIX_SPAWN_DUP2, out, 1)],
    )


_OURS = __file__.rsplit("/", 3)[0]
"""The directory that holds this package; in the fresh interpreter it comes last, since it may hold anything besides."""

_PROGRAM = "import sys; sys.path.append(sys.argv[1]); from sif_writable.gpu import nvml; nvml.main(*sys.argv[2:])"


def _may_fork() -> bool:
    try:
        if len(os.listdir("/proc/self/task")) > 1:
            return False
        with open("/proc/self/maps", "rb") as file:
            maps = file.read()
    except OSError as error:
        let_pass(error)
        return False
    return not any(name in maps for name in (b"/libnvidia-ml.", b"/libcuda.", b"/libmpi", b"/libibverbs."))


def _end(pid: int, victim: int) -> None:
    """Reap our child; kill first the process that hangs, if one does: the asking one, or ours before it got so far."""
    import time

    if victim:
        try:
            os.kill(victim, 9)
        except OSError as error:
            let_pass(error)  # it has ended meanwhile
    for pause in (0, 0.001, 0.01, 0.1, 0.5):  # bounded: an interpreter on a dead filesystem cannot even be killed
        time.sleep(pause)
        try:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return
        except OSError as error:  # reaped by somebody else
            let_pass(error)
            return


def _read(text: str, answer: Nvml) -> int:
    """Fill in what the asking process wrote; return its pid, or 0 if it did not come so far."""
    pid = 0
    for line in text.splitlines():
        word, *fields = line.split("\t")
        if word == "pid":
            pid = int(fields[0])
        elif word == "calls":
            answer.pending_call = fields[0]
        elif word == "done":
            answer.pending_call = ""
        elif word == "not-loaded":
            answer.load_errors.append((fields[0], fields[1]))
        elif word == "loaded":
            answer.path = fields[0]
        elif word == "failed":
            answer.failure = Failure(fields[0], int(fields[1]), fields[2])
        elif word == "count":
            answer.count = int(fields[0])
        elif word == "gpu":
            answer.gpus.append(Gpu(int(fields[0]), int(fields[1]), fields[2], fields[3] == "1", fields[3] == "0"))
        elif word == "instances":
            _gpu(answer, fields[0]).complete = True
        elif word == "system":
            answer.driver, answer.version, answer.cuda = fields
        elif word == "detail":
            _read_detail(fields, answer)
        elif word == "instance":
            gpu = _gpu(answer, fields[0])
            gpu.instances.append(Instance(fields[1], _number(fields[2]), _number(fields[3])))
        elif word == "no-details":
            answer.details_error = fields[0]
        elif word == "not-asked":
            answer.not_asked = fields[0]
    return pid


def _read_detail(fields: list[str], answer: Nvml) -> None:
    gpu = _gpu(answer, fields[0])
    gpu.name, gpu.uuid = fields[1:3]
    gpu.total, gpu.free = _number(fields[3]), _number(fields[4])
    major, minor, mode = (_number(field) for field in fields[5:8])
    gpu.capability = None if major is None or minor is None else (major, minor)
    gpu.mode = COMPUTE_MODES[mode] if mode is not None and mode < len(COMPUTE_MODES) else ""


def _gpu(answer: Nvml, index: str) -> Gpu:
    return next(gpu for gpu in answer.gpus if gpu.index == int(index))


def _number(field: str) -> int | None:
    return int(field) if field else None
