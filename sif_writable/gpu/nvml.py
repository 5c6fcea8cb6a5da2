"""What does NVML say? Asked in a process that may hang and be thrown away, which :mod:`sif_writable.gpu.ask` starts.

It imports nothing but the standard library, so that an interpreter without site-packages can run it too. Each line that
it writes is a word and its fields, separated by tabs; ``calls`` stands before every call that may not come back.

No CUDA context is made and ``cuInit`` is not called. Only with details is libcuda loaded, in this process, by
``nvmlSystemGetCudaDriverVersion_v2`` (NVIDIA's NVML reference: it calls ``cuDriverGetVersion`` of that library).
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes
    from typing import Any, NoReturn

LIBRARIES = ("libnvidia-ml.so.1", "/.singularity.d/libs/libnvidia-ml.so.1")
"""What is tried, in this order: the loader's own choice, then the file that ``--nv`` binds."""

_ALL_INITIALISED = 0
_INVALID, _NOT_SUPPORTED, _NO_PERMISSION, _NOT_FOUND = 2, 3, 4, 6
_FUNCTION_NOT_FOUND = 13
_STDOUT = 1


def run(out: int, limit: int, details: bool, path: str) -> NoReturn:
    """Ask NVML, write the answers to a descriptor, and end this process, which must hold nothing of its parent.

    :param limit: how many of the GPUs that this process may use are asked about; 0: all. Each of them is woken.
    :param details: names, memory and the like too, through nvidia-ml-py.
    :param path: the file of the module pynvml, or an empty string.
    """
    try:
        # A hung process cannot be killed. It must not hold the job's pipes and files open.
        os.dup2(out, _STDOUT)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 2)
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2:
                _close(int(name))
        _answer(limit, details, path)
    except BaseException as error:  # noqa: BLE001 - whatever it was, the reader learns of it, and the process ends
        _write("not-asked", f"{type(error).__name__}: {error}")
    finally:
        os._exit(0)


def _close(descriptor: int) -> None:
    try:  # noqa: SIM105 - contextlib would cost this interpreter 1 ms
        os.close(descriptor)
    except OSError:  # the one by which the folder was listed
        pass


def _write(*fields: object) -> None:
    line = "\t".join(" ".join(str(field).split()) for field in fields) + "\n"
    os.write(_STDOUT, line.encode("utf-8", "replace"))


def _answer(limit: int, details: bool, path: str) -> None:
    _write("pid", os.getpid())
    import ctypes

    library = _load()
    if library is None:
        _write("done")
        return

    def call(name: str, *arguments: object) -> int:
        _write("calls", name)
        try:
            return int(library[name](*arguments))
        except AttributeError:
            return _FUNCTION_NOT_FOUND

    def text(code: int) -> str:
        library.nvmlErrorString.restype = ctypes.c_char_p
        return str(library.nvmlErrorString(code).decode("utf-8", "replace"))

    name = "nvmlInitWithFlags"
    code = call(name, _ALL_INITIALISED)
    if code == _FUNCTION_NOT_FOUND:  # drivers before 2018
        name = "nvmlInit_v2"
        code = call(name)
    if code:
        _write("failed", name, code, text(code))
        _write("done")
        return
    try:
        count = ctypes.c_uint()
        code = call("nvmlDeviceGetCount_v2", ctypes.byref(count))
        if code:
            _write("failed", "nvmlDeviceGetCount_v2", code, text(code))
            return
        _write("count", count.value)
        handles: dict[int, ctypes.c_void_p] = {}
        usable = 0
        any_mig = False
        for index in range(count.value):
            if limit and usable == limit:
                break
            handle = ctypes.c_void_p()
            code = call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
            usable += code != _NO_PERMISSION
            mig, pending, known = ctypes.c_uint(), ctypes.c_uint(), False
            if not code:
                handles[index] = handle
                answer = call("nvmlDeviceGetMigMode", handle, ctypes.byref(mig), ctypes.byref(pending))
                known = answer in (0, _NOT_SUPPORTED, _FUNCTION_NOT_FOUND)
                if answer:
                    mig.value = 0
                any_mig = any_mig or bool(mig.value)
            _write("gpu", index, code, text(code), mig.value if known else "")
        if details or any_mig:
            _details(library, handles, path)
    finally:
        call("nvmlShutdown")
        _write("done")


def _load() -> ctypes.CDLL | None:
    """Load the library, say which file it is, and keep the loader's words where it refuses.

    nvidia-ml-py calls every failure of the loader "not found", so it is not asked.
    """
    import ctypes

    for name in LIBRARIES:
        try:
            library = ctypes.CDLL(name)
        except OSError as error:
            _write("not-loaded", name, error)
            continue
        path = name
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
            for line in maps:
                at = line.find("/")
                if at > 0 and "libnvidia-ml" in line[line.rfind("/") :]:
                    path = line[at:].rstrip("\n")
        _write("loaded", path)
        return None if "/stubs/" in path else library
    return None


def _pynvml(path: str) -> Any:
    """Import nvidia-ml-py, which is one file; the old distribution pynvml is a package of the same name beside it."""
    from _frozen_importlib_external import SourceFileLoader

    if not path.endswith("/pynvml.py"):
        sys.path.insert(
            0, path.rsplit("/", 2)[0]
        )  # before a working directory that is anybody's; this process ends soon
        import pynvml

        return pynvml
    module: Any = type(sys)("pynvml")
    module.__file__ = path
    sys.modules["pynvml"] = module  # where it looks itself up
    SourceFileLoader("pynvml", path).exec_module(module)
    return module


def _details(library: ctypes.CDLL, handles: dict[int, ctypes.c_void_p], path: str) -> None:
    _write("calls", "nvidia-ml-py")
    if not path:
        _write("no-details", "nvidia-ml-py is not installed")
        return
    try:
        pynvml = _pynvml(path)
        # What its functions call: the file that was judged above, and no other of the same name. Where they stand in
        # a module of a package, its own name for the library is only a copy.
        pynvml.nvmlDeviceGetUUID.__globals__["nvmlLib"] = library
        error_type = pynvml.NVMLError
    except Exception as error:  # noqa: BLE001 - whatever it is that bears this name
        _write("no-details", f"{path} is not nvidia-ml-py ({type(error).__name__}: {error})")
        return
    code = 0
    refusals: dict[str, None] = {}
    answers = 0

    def ask(name: str, *arguments: object) -> Any:
        nonlocal answers, code
        _write("calls", name)
        code = 0
        try:
            answer = getattr(pynvml, name)(*arguments)
        except error_type as error:  # not supported, no permission
            code = getattr(error, "value", -1)
            refusals[str(error)] = None
            return None
        except Exception as error:  # noqa: BLE001 - not known to this version, or otherwise than we think
            code = -1
            refusals[f"{type(error).__name__}: {error}"] = None
            return None
        answers += 1
        return answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer

    def memory(handle: object) -> tuple[object, object]:
        answer = None
        if hasattr(pynvml, "nvmlMemory_v2"):
            answer = ask("nvmlDeviceGetMemoryInfo", handle, pynvml.nvmlMemory_v2)
        answer = answer or ask("nvmlDeviceGetMemoryInfo", handle)
        return (answer.total, answer.free) if answer else ("", "")

    cuda = ask("nvmlSystemGetCudaDriverVersion_v2") or 0
    _write(
        "system",
        ask("nvmlSystemGetDriverVersion") or "",
        ask("nvmlSystemGetNVMLVersion") or "",
        f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else "",
    )
    for index, handle in handles.items():
        capability = ask("nvmlDeviceGetCudaComputeCapability", handle) or ("", "")
        mode = ask("nvmlDeviceGetComputeMode", handle)
        _write(
            "detail",
            index,
            ask("nvmlDeviceGetName", handle) or "",
            ask("nvmlDeviceGetUUID", handle) or "",
            *memory(handle),
            *capability,
            "" if mode is None else mode,
        )
        most = ask("nvmlDeviceGetMaxMigDeviceCount", handle)
        complete = most is not None
        for number in range(most or 0):
            instance = ask("nvmlDeviceGetMigDeviceHandleByIndex", handle, number)
            complete = complete and code in (0, _INVALID, _NOT_FOUND, _NO_PERMISSION)
            if instance is not None:
                uuid = ask("nvmlDeviceGetUUID", instance) or ""
                _write("instance", index, uuid, *memory(instance))
                complete = complete and bool(uuid)
        if complete:
            _write("instances", index)
    if handles and not answers:
        _write("no-details", f"{path} does not answer ({', '.join(list(refusals)[:3])})")


def main(limit: str, details: str, path: str) -> NoReturn:
    """Ask from an interpreter that was started for it; the parameters are those of :func:`run`, as words."""
    # The caller reaps this process; the one that asks is nobody's child, so that it may hang and leave no zombie.
    if os.fork() == 0:
        run(_STDOUT, int(limit), details == "details", path)
    os._exit(0)
