"""Writes down what a Python program is about to write, for ``sif-writable trace``, then runs the next sitecustomize.

Reached by PYTHONPATH. An audit hook sees each attempt, also one that fails, before it is made. One line per event in
the file that SIF_WRITABLE_TRACE names: process, event, and repr() of what it is about.
"""

import os
import sys

_LOG = os.environ.get("SIF_WRITABLE_TRACE", "")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Event to the positions of (path, dir_fd) pairs in its arguments; -1: it has no dir_fd.
_PATHS = {
    "os.mkdir": ((0, 2),),
    "os.rename": ((0, 2), (1, 3)),
    "os.link": ((1, 3),),
    "os.symlink": ((1, 2),),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.truncate": ((0, -1),),
    "os.chmod": ((0, 2),),
    "os.chown": ((0, 3),),
    "os.utime": ((0, 3),),
    "os.setxattr": ((0, -1),),
    "sqlite3.connect": ((0, -1),),
}
_PROGRAMS = {"subprocess.Popen": 0, "os.exec": 0, "os.posix_spawn": 0, "os.system": 0}


def _watch(event: str, arguments: "tuple[object, ...]") -> None:
    if event == "open":
        flags = arguments[2]
        if isinstance(flags, int) and flags & _WRITING:
            _note(event, arguments[0], -1)
    elif event in _PATHS:
        for path, folder in _PATHS[event]:
            _note(event, arguments[path], arguments[folder] if folder >= 0 else -1)
    elif event in _PROGRAMS:
        program = arguments[0] or (arguments[1] if len(arguments) > 1 else "")
        if isinstance(program, (list, tuple)):
            program = program[0] if program else ""
        _write("program", program)


def _note(event: str, path: object, folder: object) -> None:
    try:
        name = os.fsdecode(path)  # type: ignore[arg-type]
    except TypeError:  # a descriptor: what it stands for was opened before
        return
    if name in ("", ":memory:", _LOG) or name.startswith("file:"):
        return
    try:
        base = os.readlink(f"/proc/self/fd/{folder}") if isinstance(folder, int) and folder >= 0 else os.getcwd()
    except OSError:
        base = "/"
    _write(event, os.path.join(base, name))


def _write(event: str, what: object) -> None:
    # Opened each time: a descriptor that stays could be closed by the program, and its number become another file's.
    try:
        descriptor = os.open(_LOG, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            os.write(descriptor, f"{os.getpid()}\t{event}\t{what!r}\n".encode("utf-8", "backslashreplace"))
        finally:
            os.close(descriptor)
    except OSError:
        pass


def _run_next() -> None:
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    here = os.path.realpath(os.path.dirname(os.path.abspath(__file__)))
    spec = PathFinder.find_spec("sitecustomize", [p for p in sys.path if os.path.realpath(p) != here])
    if spec is None or spec.loader is None:
        return
    module = module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


if _LOG:
    _write("python", sys.executable)
    for _entry in sys.path:
        _write("path", _entry)
    sys.addaudithook(_watch)
_run_next()
