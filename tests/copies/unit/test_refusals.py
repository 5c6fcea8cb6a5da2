"""Which paths an error says were refused to be written: by its attributes, or by its words."""

from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import traceback
from concurrent.futures.process import BrokenProcessPool
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest

from sif_writable.copies import failures
from sif_writable.evidence import chain, may_be_a_refusal, said
from tests.lab.store import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable

P, Q = "/sp/p/x", "/sp/p/y"

WORKER = f"""Caught OSError in DataLoader worker process 0.
Original Traceback (most recent call last):
  File "/sp/torch/utils/data/_utils/worker.py", line 351, in _worker_loop
    data = fetcher.fetch(index)  # type: ignore[possibly-undefined]
           ^^^^^^^^^^^^^^^^^^^^
  File "/sp/p/__init__.py", line 7, in use
    open('/not/evaluated', 'w')  # Permission denied: '/not/evaluated'
OSError: [Errno 30] Read-only file system: '{P}'
"""
HDF5 = f"""HDF5 error back trace

  File "H5F.c", line 620, in H5Fopen
    unable to open file
  File "H5FDsec2.c", line 352, in H5FD__sec2_open
    unable to open file: name = '{P}', errno = 30, error message = 'Read-only file system', flags = 1, o_flags = 2

End of HDF5 error back trace"""

REFUSED = {
    # Python, and what quotes its errors.
    f"[Errno 30] Read-only file system: '{P}'": [P],
    f"[Errno 13] Permission denied: '{P}'": [P],
    f"[Errno 1] Operation not permitted: '{P}'": [P],
    f"[Errno 30] Read-only file system: b'{P}'": [P],
    f"[Errno 30] Read-only file system: '{P}' -> '{Q}'": [P, Q],
    f"cannot move '{P}' -> '{Q}': Read-only file system": [P, Q],
    f'Building module hh failed: ["OSError: [Errno 30] Read-only file system: \'{P}\'\\n"]': [P],
    f"Unable to create local directories '{Q}': [Errno 30] Read-only file system: b'{P}'": [P],
    f"OSError [Errno 30] Read-only file system: '{P} with spaces'": [f"{P} with spaces"],
    "[Errno 30] Read-only file system: 'below/here'": ["below/here"],
    f"mkdir -p failed for path {Q}: [Errno 30] Read-only file system: '{P}'": [P],
    # Libraries.
    f"Unable to create file (unable to open file: name = '{P}', errno = 30, error message = 'Read-only')": [P],
    f"unable to open file: name = '{P}', errno = 13, error message = 'Permission denied', flags = 13": [P],
    HDF5: [P],
    f"cannot cache function 'f': no locator available for file '{P}.py'": [f"{P}.py"],
    f"[Errno 30] Failed to open local file '{P}' for writing. Detail: [errno 30] Read-only file system": [P],
    f"IO error: {P}/LOCK: Read-only file system": [f"{P}/LOCK"],
    f'IO Error: Cannot open file "{P}": Read-only file system': [P],
    f"lmdb.Error: {P}: Read-only file system": [P],
    f"Failed opening file {P} for writing: Read-only file system": [P],
    f"filesystem error: cannot create directories: Read-only file system [{P}]": [P],
    f'boost::filesystem::create_directory: Read-only file system [system:30]: "{P}"': [P],
    f"Unable to write to plugin cache {P}: error number 30": [P],
    f"{P} is not writable": [P],
    f"The directory {P} isn't writable": [P],
    f"{P} is on a read-only file system": [P],
    # Programs in other languages.
    f"cannot write {P}: Permission denied": [P],
    f"cannot open {P}.log: Read-only file system": [f"{P}.log"],
    f"mkdir: cannot create directory ‘{P}’: Read-only file system": [P],  # noqa: RUF001
    f"touch: cannot touch '{P}': Permission denied": [P],
    f"cp: cannot create regular file '{P}': Read-only file system": [P],
    f"mv: cannot move '/tmp/a' to '{P}': Read-only file system": [P],
    f"sh: 1: cannot create {P}: Read-only file system": [P],
    f"bash: line 1: {P}: Read-only file system": [P],
    f"/usr/bin/ld: cannot open output file {P}.so: Read-only file system": [f"{P}.so"],
    f"mkdir {P}: read-only file system": [P],
    f'error="error creating log directory: mkdir {P}: read-only file system"': [P],
    f'Read-only file system (os error 30) at path "{P}"': [P],
    f"java.io.FileNotFoundException: {P} (Read-only file system)": [P],
    f"EROFS: read-only file system, open '{P}'": [P],
    f"EACCES: permission denied, mkdir '{P}'": [P],
    f'IOError: mkdir("{P}"; mode=0o777): read-only file system (EROFS)': [P],
    f"cannot open file '{P}': Read-only file system": [P],
    f"See '/opt/guide.txt'.\nwriting failed\n{P}: Read-only file system.": [P],
    WORKER: [P],
    "".join(f"  | {line}\n" for line in WORKER.splitlines()): [P],
    f"Read-only file system @ rb_sysopen - {P}": [P],
    f"Read-only file system while trying to write to {P}": [P],
    f'fopen("{P}", "w") failed: Read-only file system': [P],
    f'open("{P}", O_RDWR|O_CREAT, 0666) = -1 EROFS (Read-only file system)': [P],
    f"Cannot mkdir {P} (errno: 30)": [P],
    f"failed to load settings: {P}: Read-only file system": [P],
    f"failed to load settings: [Errno 13] Permission denied: '{P}'": [P],
    # Another cause, another object, or none.
    f"could not load {P}: Permission denied": [],
    f"failed to load model from '{P}': Permission denied": [],
    f"cannot execute '{P}': execvp: Permission denied": [],
    f"fork/exec {P}: permission denied": [],
    f'exec: "{P}": permission denied': [],
    f"failed to spawn `{P}`: Permission denied (os error 13)": [],
    f"env: ‘{P}’: Permission denied": [],  # noqa: RUF001
    f"/bin/sh: {P}: Permission denied": [],
    f"/bin/bash: line 1: {P}: Permission denied": [],
    f"make: {P}: Permission denied": [],
    f"cannot connect to socket {P}: Permission denied": [],
    f"stat {P}: permission denied": [],
    f"dlopen({P}): Operation not permitted": [],
    f"mmap of {P} failed: Operation not permitted": [],
    f"scp: user@host:{P}: Permission denied": [],
    f"{P}: Permission denied (publickey)": [],
    f"{P}.h:12: fatal error: cannot write PCH file: No space left on device": [],
    f"[Errno 28] No space left on device: '{P}'": [],
    f"[Errno 122] Disk quota exceeded: '{P}'": [],
    f"[Errno 2] No such file or directory: '{P}'": [],
    f"Cannot open {P}/model.bin for reading": [],
    f"Cannot open {P}/model.bin for reading: Permission denied": [],
    f"{P}/libcudnn_graph.so.9: cannot open shared object file: No such file or directory": [],
    f"{P}.so: cannot open shared object file: Permission denied": [],
    f"{P}.so: failed to map segment from shared object: Operation not permitted": [],
    f"sh: 1: {P}: Permission denied": [],
    "compiled for another numpy": [],
    "no licence server": [],
    f"no such column: {P}": [],
    f"cannot write {P}": [],
    f"Permission denied by the licence server. See '{P}' for help.": [],
    f"Permission denied. {P} says more": [],
    f"{P} was loaded; connecting to the licence server: Permission denied": [],
    f"{P}:12: UserWarning: Permission denied": [],
    "[Errno 30] Read-only file system": [],
    "[Errno 13] Permission denied: 'gcc'": [],
    "attempt to write a readonly database": [],
    "unable to open database file": [],
    "the table is read-only": [],
    f"{P} is a read-only view": [],
    "https://example.org/a/b: Permission denied": [],
}  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_what_words_show(text: str) -> None:
    assert failures.refused(text) == REFUSED[text]
    if REFUSED[text]:
        assert may_be_a_refusal(RuntimeError(text))


def test_what_the_cases_of_the_corpus_say() -> None:
    """Whatever a real package said of a read-only file system names what it could not write."""
    with open(os.path.join(REPOSITORY, "tests", "corpus", "said.json"), encoding="utf-8") as file:
        said_then = json.load(file)
    assert len(said_then) > 20
    found = {text: failures.refused(text.replace("$PREFIX", "/venv")) for text in said_then}
    assert {text: [path.replace("/venv", "$PREFIX") for path in paths] for text, paths in found.items()} == said_then


def _os_error(number: int, *names: str | bytes) -> OSError:
    return OSError(number, os.strerror(number), *names[:1], *((None, names[1]) if len(names) > 1 else ()))


@pytest.mark.parametrize(
    ("error", "paths"),
    [
        (_os_error(errno.EROFS, P), [P]),
        (_os_error(errno.EACCES, b"/sp/p/\xff"), ["/sp/p/\udcff"]),
        (_os_error(errno.EPERM, P), [P]),
        (_os_error(errno.EROFS, "x"), ["/cwd/x"]),
        (_os_error(errno.EROFS, P, Q), [P, Q]),
        (_os_error(errno.ENOENT, P), []),
        (_os_error(errno.ENOSPC, P), []),
        (_os_error(errno.EDQUOT, P), []),
        (OSError(errno.ENOSPC, f"cannot write {P}: Permission denied"), []),
        (OSError(errno.EROFS, f"Failed to open local file '{P}'. Detail: [errno 30] Read-only file system"), [P]),
        (OSError(f"Unable to create file (unable to open file: name = '{P}', errno = 30)"), [P]),
        (RuntimeError("cannot write", PurePosixPath(P), ": Read-only file system"), [P]),
        (RuntimeError(_os_error(errno.EROFS, P)), [P]),
        (KeyError({"a": f"{P}: Read-only file system"}), []),
        (SystemExit(f"{P}: Read-only file system"), [P]),
        (SystemExit(1), []),
        (
            subprocess.CalledProcessError(1, "cc", stderr=f"can't open {P}.o: Read-only file system".encode()),
            [f"{P}.o"],
        ),
        (subprocess.CalledProcessError(1, "cc", output=f"mkdir {P}: permission denied"), [P]),
        (BrokenProcessPool("A process in the process pool was terminated abruptly"), []),
        (OSError(errno.EROFS, "Read-only file system"), []),
    ],
)
def test_what_errors_show(error: BaseException, paths: list[str]) -> None:
    found = failures.failures(chain(error), "/cwd")
    assert [failure.path for failure in found] == paths
    if paths:
        assert may_be_a_refusal(error)


def test_a_relative_name_lies_where_rmtree_is() -> None:
    def _rmtree_safe_fd(path: object, error: OSError) -> None:  # noqa: ARG001 - it is looked for in the frame
        raise error

    for path, found in (("/sp/p", ["/sp/p/x"]), (b"/sp/p", ["/sp/p/x"]), (7, ["/cwd/x"])):
        error = _raised(lambda path=path: _rmtree_safe_fd(path, _os_error(errno.EROFS, "x")))  # type: ignore[misc]
        assert [failure.path for failure in failures.failures(chain(error), "/cwd")] == found


def test_errors_that_others_were_made_of_are_found_whatever_they_call_exceptions() -> None:
    class Odd(Exception):  # noqa: N818 - as a program may
        exceptions = 3

    inner = _os_error(errno.EROFS, P)
    assert list(chain(Odd(inner, "text")))[1:] == [inner]
    assert list(chain(Odd(inner), inner))[1:] == []


def _raised(work: Callable[[], object]) -> BaseException:
    try:
        work()
    except BaseException as error:  # noqa: BLE001 - it is looked at
        return error
    raise AssertionError


def _in_context() -> None:
    try:
        raise _os_error(errno.EROFS, P)
    except OSError:
        raise ValueError("could not initialise") from None


def _behind_an_exit() -> None:
    try:
        raise _os_error(errno.EROFS, P)
    except OSError:
        raise SystemExit(1)  # noqa: B904 - the context is the question


@pytest.mark.parametrize("work", [_in_context, _behind_an_exit])
def test_what_an_error_came_from_counts(work: Callable[[], None]) -> None:
    error = _raised(work)
    assert may_be_a_refusal(error)
    assert [failure.path for failure in failures.failures(chain(error), "/")] == [P]


def test_what_was_handled_before_does_not_count() -> None:
    before = _os_error(errno.EROFS, P)
    error = ValueError("mine")
    error.__context__ = before
    assert may_be_a_refusal(error)
    assert not may_be_a_refusal(error, before)


def test_the_parts_of_a_group_count() -> None:
    class GroupError(Exception):
        exceptions = (ValueError("a"), _os_error(errno.EROFS, P))

    assert [failure.path for failure in failures.failures(chain(GroupError("two")), "/")] == [P]


RUNS: dict[str, Callable[[str], object]] = {
    "a child": lambda path: subprocess.run([path], check=True),
    "posix_spawn": lambda path: os.posix_spawn(path, [path], {}),
    "a child by posix_spawn": lambda path: subprocess.run([path], check=True, close_fds=False),
    "a child by what wraps posix_spawn": lambda path: _wrapped(
        lambda: subprocess.run([path], close_fds=False, check=True)
    ),
    "a worker's child by what wraps posix_spawn": lambda path: _as_from_a_worker(
        lambda: _wrapped(lambda: subprocess.run([path], close_fds=False, check=True))
    ),
    "a worker's child": lambda path: _as_from_a_worker(lambda: subprocess.run([path], check=True)),
    "a worker's child by posix_spawn": lambda path: _as_from_a_worker(
        lambda: subprocess.run([path], check=True, close_fds=False)
    ),
}


def _wrapped(work: Callable[[], object]) -> None:
    """Start with an ``os.posix_spawn`` that a tracer has put its own function around."""
    spawn: Any = os.posix_spawn

    def traced(*arguments: Any, **options: Any) -> int:
        number: int = spawn(*arguments, **options)
        return number

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "posix_spawn", traced)
        work()


def _as_from_a_worker(work: Callable[[], object]) -> None:
    """Raise an error as a pool of processes brings it: without a traceback, but the text of it."""
    try:
        work()
    except OSError as error:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        again: BaseException = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    raise again from RuntimeError(f'\n"""\n{text}"""')


@pytest.mark.parametrize("how", RUNS)
def test_what_may_not_be_run_is_no_refused_write(tmp_path: object, how: str) -> None:
    program = f"{tmp_path}/program"
    with open(program, "w", encoding="utf-8"):
        pass
    error = _raised(lambda: RUNS[how](program))
    assert isinstance(error, PermissionError)
    assert failures.failures(chain(error), "/") == []


def test_errors_without_end() -> None:
    """Cycles, long chains and huge texts cost no more than a bounded part of them."""
    first, second = ValueError("a"), ValueError("b")
    first.__context__, second.__cause__ = second, first
    assert [*chain(first)] == [first, second]
    top = ValueError("top")
    this: BaseException = top
    for _ in range(1000):
        this.__context__ = ValueError("further")
        this = this.__context__
    assert len([*chain(top)]) == 50
    huge = RuntimeError("x" * 50_000_000 + f"\n{P}: Read-only file system")
    assert len(said(huge)) < 100_000
    assert may_be_a_refusal(huge)

    class Costly:
        def __repr__(self) -> str:
            raise AssertionError

    assert not may_be_a_refusal(KeyError(Costly()))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("could not parse '1 +'"),
        ModuleNotFoundError("No module named 'x'", name="x"),
        ImportError("compiled for another numpy"),
        RuntimeError(f"{P}.h:12: fatal error: cannot write PCH file: No space left on device"),
        OSError(f"{P}/libcudnn_graph.so.9: cannot open shared object file: No such file or directory"),
        RuntimeError(f"Cannot open {P}/model.bin for reading"),
        _os_error(errno.ENOENT, P),
        _os_error(errno.ENOSPC, P),
        SystemExit(3),
    ],
    ids=str,
)
def test_other_errors_are_passed_over_at_once(error: BaseException) -> None:
    assert not may_be_a_refusal(error)


def test_a_traceback_in_words_is_recognised() -> None:
    assert failures.frames(RuntimeError(WORKER)) == ["/sp/p/__init__.py", "/sp/torch/utils/data/_utils/worker.py"]
    assert failures.frames(RuntimeError(f"cannot write {P}")) == []


def test_a_database_is_not_named() -> None:
    assert failures.is_of_a_database(RuntimeError("(sqlite3.OperationalError) unable to open database file"))
    assert failures.is_of_a_database(RuntimeError("attempt to write a readonly database"))
    assert not failures.is_of_a_database(RuntimeError("no such table: x"))


def test_enoent_below_a_missing_home() -> None:
    error = _os_error(errno.ENOENT, "/home/gone/.config/x")
    assert failures.missing_home(error, "/home/gone") == "/home/gone/.config/x"
    assert failures.missing_home(error, "/home/go") == ""
    assert failures.missing_home(_os_error(errno.EROFS, "/home/gone/x"), "/home/gone") == ""
