"""SEE: what this process can know about GPUs, cheapest first. Nothing here judges, and nothing starts CUDA.

:func:`nodes` and :func:`signs` look at files and variables and take microseconds. :func:`ask` asks NVML, in a process
of its own, since a driver at fault hangs in an uninterruptible call, and then neither a thread nor a signal helps
(NVIDIA/go-nvml#152; gpu.md, section 5).

How that process is started decides what the check costs (measured, CPython 3.11, a library that answers at once; bare
ctypes in this process: 1.9 ms). ``fork``: 2 ms more; a fresh ``python -I -S``: 10 ms more. A fork is safe only where
nothing is shared that the child would find broken: where this is the only thread (C threads counted), and no MPI, CUDA
or NVML is loaded. Else a fresh interpreter is started, by ``posix_spawn``, which runs no at-fork handlers and copies no
memory. ``tests/benchmarks/gpu.py`` prints both.
"""

from __future__ import annotations

import os
import sys

from sif_writable import startup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

TIMEOUT = 10.0
"""Seconds that NVML gets."""

LIBS = "/.singularity.d/libs"
"""Where ``--nv`` binds the host's driver libraries."""


class Libcuda:
    """A file that a CUDA program would load, or could."""

    __slots__ = ("path", "version")

    def __init__(self, path: str, version: str) -> None:
        """:param version: the driver version in the file's real name, such as 535.104.05; empty if it has none."""
        self.path = path
        self.version = version


class Signs:
    """What files and variables say about GPUs."""

    __slots__ = ("compat", "cuda", "cuda_from", "driver", "environ", "gpus", "host", "libcuda", "libs", "nodes")

    nodes: tuple[str, ...]
    """Names below /dev, sorted: nvidia0, nvidiactl, nvidia-uvm, dxg, kfd."""
    driver: str
    """Version of the running kernel driver (/proc/driver/nvidia/version), or empty."""
    gpus: int
    """GPUs that the kernel driver holds (/proc/driver/nvidia/gpus); a number of devices."""
    libs: tuple[str, ...] | None
    """File names in /.singularity.d/libs; None where that folder does not exist."""
    libcuda: Libcuda | None
    """The first libcuda.so.1 on LD_LIBRARY_PATH."""
    compat: tuple[Libcuda, ...]
    """The libcuda.so.1 of the image's forward-compatibility folders (/usr/local/cuda*/compat)."""
    cuda: str
    """CUDA version that the image's Python packages were built for, such as 12.4 or 12; empty if unknown."""
    cuda_from: str
    """What says so: the name of a distribution, or CUDA_VERSION."""
    host: str
    """Name of this node."""
    environ: Mapping[str, str]
    """The environment that was read."""


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
        "asking",
        "blind",
        "count",
        "cuda",
        "driver",
        "failure",
        "gpus",
        "path",
        "refused",
        "timed_out",
        "trouble",
        "version",
    )

    def __init__(self) -> None:
        """Start with no answer."""
        self.refused: list[tuple[str, str]] = []
        """Library names that could not be loaded, with the loader's own words."""
        self.path = ""
        """The file that was loaded."""
        self.failure: Failure | None = None
        """Why initialisation or counting failed."""
        self.count: int | None = None
        """GPUs that NVML counts, those without permission included."""
        self.gpus: list[Gpu] = []
        """Those that were looked at."""
        self.driver = ""
        """Driver version as NVML has it."""
        self.version = ""
        """NVML's own version."""
        self.cuda = ""
        """The highest CUDA version of the driver, such as 12.4."""
        self.blind = ""
        """Why names, memory and the like could not be read."""
        self.asking = "its start"
        """The call that did not come back; empty when all did."""
        self.timed_out = 0.0
        """Seconds that were waited in vain; 0 when NVML answered."""
        self.trouble = ""
        """Why NVML could not be asked at all."""


COMPUTE_MODES = ("default", "exclusive thread", "prohibited", "exclusive process")


def nodes(root: str = "/") -> tuple[str, ...]:
    """Return the device files of GPUs, as names below ``/dev``."""
    return tuple(name for name in _list(_at(root, "/dev")) or () if name.startswith("nvidia") or name in ("dxg", "kfd"))


def signs(environ: Mapping[str, str], path: Sequence[str], wanted: str = "", root: str = "/") -> Signs:
    """Read the files and variables that tell about GPUs; microseconds, and no GPU is woken.

    :param path: folders with installed distributions, such as sys.path.
    :param wanted: the package whose CUDA version matters most (:func:`image_cuda`).
    :param root: where the files are; another than ``/`` is for tests.
    """
    seen = Signs()
    seen.environ = environ
    seen.host = os.uname().nodename
    seen.nodes = nodes(root)
    seen.driver = _driver_version(_at(root, "/proc/driver/nvidia/version"))
    seen.gpus = len(_list(_at(root, "/proc/driver/nvidia/gpus")) or ())
    seen.libs = _list(_at(root, LIBS))
    folders = [folder for folder in environ.get("LD_LIBRARY_PATH", "").split(":") if folder]
    seen.libcuda = next(_libcudas(folders, root), None)
    toolkits = [name for name in _list(_at(root, "/usr/local")) or () if name.startswith("cuda")]
    seen.compat = tuple(_libcudas([f"/usr/local/{name}/compat" for name in toolkits], root))
    seen.cuda, seen.cuda_from = image_cuda(path, environ, wanted)
    return seen


def _at(root: str, path: str) -> str:
    return root.rstrip("/") + path


def _list(folder: str) -> tuple[str, ...] | None:
    try:
        return tuple(sorted(os.listdir(folder)))
    except OSError as error:
        startup.let_pass(error)
        return None


def _driver_version(path: str) -> str:
    """Read the version out of "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 ..."."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            words = file.readline().split()
    except OSError as error:
        startup.let_pass(error)
        return ""
    return next((word for word in words if "." in word and word.replace(".", "").isdigit()), "")


def _libcudas(folders: Iterable[str], root: str) -> Iterator[Libcuda]:
    for folder in folders:
        path = f"{folder.rstrip('/')}/libcuda.so.1"
        inside = _at(root, path)
        if os.path.exists(inside):
            version = os.path.basename(os.path.realpath(inside))[len("libcuda.so.") :]
            yield Libcuda(path, version if "." in version else "")


def image_cuda(path: Sequence[str], environ: Mapping[str, str], wanted: str = "") -> tuple[str, str]:
    """Return the CUDA version that the image's Python packages need, and what says so; empty where nothing does.

    Read from the names of ``*.dist-info`` folders; the highest counts. ``CUDA_VERSION``, which CUDA base images set, is
    asked only where no package tells.

    :param wanted: the package that matters, such as torch: if its own name tells, the others are not heard.
    """
    found = []
    for folder in path:
        for entry in _list(folder or ".") or ():
            if entry.endswith(".dist-info"):
                name = entry[: -len(".dist-info")]
                version = distribution_cuda(name)
                if version:
                    found.append(([int(part) for part in version.split(".")], version, name))
    found = [row for row in found if wanted and row[2].startswith(wanted)] or found
    if found:
        _, version, name = max(found)
        return version, name
    version = _first_two(environ.get("CUDA_VERSION", ""))
    return version, "CUDA_VERSION" if version else ""


def _first_two(version: str) -> str:
    parts = version.split(".")[:2]
    return ".".join(parts) if all(part.isdigit() for part in parts) else ""


def distribution_cuda(distribution: str) -> str:
    """Return the CUDA version in a distribution's name and version ("torch-2.4.0+cu124"), or an empty string.

    How they spell it: ``nvidia_cuda_runtime_cu12-12.4.127``, ``nvidia_cuda_runtime-13.0.48``, ``torch-2.4.0+cu124``,
    ``jaxlib-0.4.20+cuda12.cudnn89``, ``cupy_cuda12x-13.3.0``, ``jax_cuda12_plugin-0.4.30``, ``torch-1.3.0+cu92``.
    """
    name, _, version = distribution.lower().partition("-")
    if name.startswith("nvidia_cuda_runtime"):
        return _first_two(version)
    for tag in (*version.partition("+")[2].split("."), *name.split("_")):
        digits = tag[4 if tag.startswith("cuda") else 2 :].rstrip("x") if tag.startswith("cu") else ""
        if digits.isdigit() and len(digits) >= 2:
            major = 1 if digits[0] > "4" else 2  # cu92 is 9.2, cu12 is 12
            return ".".join(part for part in (digits[:major], digits[major:]) if part)
    return ""


def has_distribution(prefix: str, path: Sequence[str]) -> bool:
    """Say whether one of the folders holds a distribution whose folder name starts so (``onnxruntime_gpu-``)."""
    return any(entry.startswith(prefix) for folder in path for entry in _list(folder or ".") or ())


def ask(limit: int = 0, *, details: bool = False, timeout: float = TIMEOUT) -> Nvml:
    """Ask NVML, in another process, and come back within the time given, whatever the driver does.

    The library is initialised once and shut down; no descriptor and no child stays. On a hang the process is killed;
    if it cannot be, it belongs to the container's init, holds no descriptor and ends when its call returns.

    :param limit: how many GPUs that this process may use are looked at; 0: all. Each one looked at is woken.
    :param details: names, memory, UUIDs, capability and versions too (nvidia-ml-py; 30 ms).
    :param timeout: seconds for everything.
    """
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
            pid = _start(write_end, limit, details)
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
        startup.let_pass(error)
        answer.trouble = f"the process that asks NVML could not be started ({error.strerror})"
    finally:
        os.close(read_end)
        asker = _read(text.decode("utf-8", "replace"), answer)
        if pid:
            _end(pid, 0 if ended else asker or pid)
    if answer.asking and not answer.timed_out and not answer.trouble:
        answer.trouble = f"the process that asks NVML died in {answer.asking}"
    return answer


def _start(out: int, limit: int, details: bool) -> int:
    """Start the process that asks, as nobody's child, and return the pid of the one between, which ends at once."""
    # What was installed with us first, and never the working directory, which may be anybody's.
    folders = (__file__.rsplit("/", 3)[0], *filter(None, sys.path))
    names = ("pynvml.py", "pynvml/__init__.py")
    paths = [f"{folder}/{name}" for name in names for folder in folders]
    path = next(filter(os.path.exists, paths), "")
    if _may_fork():
        import ctypes  # noqa: F401 - half as dear here as in the copied memory of the child

        from sif_writable import signals
        from sif_writable.gpu import nvml

        try:
            pid = signals.fork()
        except RuntimeError as error:  # subinterpreters may not
            startup.let_pass(error)
        else:
            if pid == 0:
                try:
                    if os.fork() == 0:
                        nvml.run(out, limit, details, path)
                finally:
                    os._exit(0)
            return pid
    if not sys.executable:
        raise FileNotFoundError(2, "sys.executable is empty")
    words = [os.path.dirname(__file__), str(limit), "details" if details else "", path]
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", "-B", "-c", _PROGRAM, *words],
        {**os.environ, "SIF_WRITABLE": "off"},
        file_actions=[(os.POSIX_SPAWN_DUP2, out, 1)],
    )


# The modules beside it bear names that others have too, so they come last. Imported, it needs no compiling.
_PROGRAM = "import sys; sys.path.append(sys.argv[1]); import nvml; nvml.main(*sys.argv[2:])"


def _may_fork() -> bool:
    try:
        if len(os.listdir("/proc/self/task")) > 1:
            return False
        with open("/proc/self/maps", "rb") as file:
            maps = file.read()
    except OSError as error:
        startup.let_pass(error)
        return False
    return not any(name in maps for name in (b"/libnvidia-ml.", b"/libcuda.", b"/libmpi", b"/libibverbs."))


def _end(pid: int, victim: int) -> None:
    """Reap our child; kill first the process that hangs, if one does: the asking one, or ours before it got so far."""
    import time

    if victim:
        try:
            os.kill(victim, 9)
        except OSError as error:
            startup.let_pass(error)  # it has ended meanwhile
    for pause in (0, 0.001, 0.01, 0.1, 0.5):  # bounded: an interpreter on a dead filesystem cannot even be killed
        time.sleep(pause)
        try:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return
        except OSError as error:  # reaped by somebody else
            startup.let_pass(error)
            return


def _read(text: str, answer: Nvml) -> int:
    """Fill in what the asking process wrote; return its pid, or 0 if it did not come so far."""
    pid = 0
    for line in text.splitlines():
        word, *fields = line.split("\t")
        if word == "pid":
            pid = int(fields[0])
        elif word == "asking":
            answer.asking = fields[0]
        elif word == "done":
            answer.asking = ""
        elif word == "refused":
            answer.refused.append((fields[0], fields[1]))
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
        elif word == "blind":
            answer.blind = fields[0]
        elif word == "trouble":
            answer.trouble = fields[0]
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
