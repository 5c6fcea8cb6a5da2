"""Runs in the machine, as a script: makes each file system call of the hook and the cold paths fail, one per run.

`python -I -S injector.py STRACE PART PARTS SAMPLE` traces a healthy run of each scenario, and then starts the same
program once per fault: the same call fails (or the process is killed there) and nothing else does. After each fault a
healthy run follows. It prints one JSON object per line: the `Case`s, and last the calls that each scenario has.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from typing import NamedTuple

PYTHON = "/venv/bin/python"
HOME = "/home/user"
PLACES = ("/var/tmp", "/tmp", "/dev/shm")
"""Where storage may be, the best first; sockets go to the second one."""
WORK = "/work-folder"
SECONDS = 120

_MAKING = "ENOSPC EDQUOT EIO EROFS EACCES ESTALE ENOENT"
KINDS = {
    "open": ("EIO EACCES ESTALE ENOENT EMFILE EINTR", ("open", "openat")),
    "create": (_MAKING + " EMFILE EINTR", ()),
    "make": (
        _MAKING,
        ("mkdir", "mkdirat", "symlink", "symlinkat", "link", "linkat", "rename", "renameat", "renameat2"),
    ),
    "remove": ("EIO EROFS EACCES ESTALE ENOENT", ("unlink", "unlinkat", "rmdir")),
    "read": ("EIO ESTALE EINTR", ("read", "pread64")),
    "list": ("EIO EACCES ESTALE ENOENT", ("getdents64",)),
    "write": (
        "ENOSPC EDQUOT EIO EROFS ESTALE EINTR",
        ("write", "pwrite64", "sendfile", "copy_file_range", "ftruncate"),
    ),
    "look": (
        "EIO EACCES ESTALE ENOENT",
        (
            *("stat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2", "readlink", "readlinkat"),
            *("statfs", "getcwd", "chdir"),
        ),
    ),
    "look at open": ("EIO ESTALE", ("fstat", "fstatfs")),
    "change": ("EIO EROFS EACCES ESTALE ENOENT", ("chmod", "fchmod", "fchmodat", "utimensat")),
    "lock": ("ENOSYS EIO ESTALE EINTR", ("flock",)),
    "close": ("EIO EDQUOT ENOSPC", ("close",)),
    "mount": (
        "EPERM ENOSPC EINVAL EIO",
        ("mount", "umount2", "unshare", "fsopen", "fsconfig", "fsmount", "move_mount", "open_tree", "mount_setattr"),
    ),
}
"""Kind of call: the errors that such a call can have, and the calls; an `openat` that writes is a `create`."""
CHANGING = ("create", "make", "remove", "write", "change", "lock", "mount")
"""Kinds at which the process is also killed: between two of these, nothing changes that a later run could see."""
NO_FILE = (
    "lseek",
    "ioctl",
    "fcntl",
    "mmap",
    "dup",
    "dup2",
    "dup3",
    "poll",
    "select",
    "pselect6",
    "execve",
    "pipe2",
    "epoll_create1",
)
"""Calls with a descriptor or a path that ask no file system anything."""
KILL = "SIGKILL"
LIBRARY = re.compile(
    r"/lib/python3\.\d+(/(?!site-packages)|\"|>|/site-packages(/(filelock|platformdirs|sif_writable))?[\"/>])"
)
"""The import system's own calls. It has one way to meet any error: each of these fails once; those that look do not."""
LIBRARY_ERROR = {"open": "EMFILE", "read": "EIO", "list": "ESTALE", "look": "", "look at open": "", "close": ""}
ANSWERS = ("ENOENT", "EACCES", "ENOSYS")
"""What these say of a file is an answer, not a failure: it is believed, and nothing can show that it is wrong."""
WITHOUT_LOCKS = b"exec nolock "
"""What is kept of a place that has answered so."""
UNTRIED = b"untried "
"""What is kept of a place where a trial has failed for a cause that passes; the next start tries it again."""
EMPTY = re.compile(r"/image-\w+/(used|overlay/[^/]+/in-memory\.lock)$")
"""Empty files: what says when an image was used where no plan could be kept, and the lock of a mount that has to keep
its files in memory."""


class Scenario(NamedTuple):
    """A program, what it starts from, and which part of its run is meant."""

    name: str
    program: str
    begin: str
    end: str
    cold: bool = False
    """Storage is empty; otherwise it is as a first start has left it."""
    inherited: bool = False
    """It is a child of an activated process."""
    again: bool = False
    """It has an import that is tried a second time."""
    more: tuple[tuple[str, str], ...] = ()
    """Further variables."""


_TRY = """
import os
os.access("/mark/program", 0)
try:
    import {0}
    {0}.use()
    said = "cured"
except OSError as error:
    said = "its own error"
os.access("/mark/done", 0)
print(said)
"""
_WRITE_SHARED = """
try:
    open("/venv/shared/made.txt", "w").close()
    said = "cured"
except OSError as error:
    said = "its own error"
print(said)
"""
SCENARIOS = (
    Scenario("cold start", "print('ran')", '"/mark/hook"', '"/mark/hooked"', cold=True),
    Scenario("warm start", "print('ran')", '"/mark/hook"', '"/mark/hooked"'),
    Scenario("child of a session", "print('ran')", '"/mark/hook"', '"/mark/hooked"', inherited=True),
    Scenario("import that fails, tried again", _TRY.format("failing"), '"/mark/program"', '"/mark/done"', again=True),
    Scenario("import of a declared package", _TRY.format("declared"), '"/mark/program"', '"/mark/done"'),
    Scenario("learning at the end", "import dying\ndying.use()\n", "", ""),
    Scenario(
        "mount at start",
        _WRITE_SHARED,
        "/sif_writable/overlay/__pycache__/enter",
        '"/mark/hooked"',
        more=(("SIF_WRITABLE_OVERLAY_PATHS", "/venv/shared"),),
    ),
)


class Call(NamedTuple):
    """One system call of a healthy run that may fail."""

    syscall: str
    number: int
    """Of its kind, counted from the start of the process."""
    kind: str
    text: str


class Case(NamedTuple):
    """What one fault did."""

    scenario: str
    kind: str
    error: str
    syscall: str
    number: int
    text: str
    outcome: str
    """`as healthy`, `as without us`, `killed`, or `not met` where the run went another way."""
    problem: str
    """What must not be; empty where all is well."""
    left: int
    """Things built aside that were left behind."""


class Result(NamedTuple):
    """What a program said, our own lines apart."""

    code: int
    out: str
    err: str
    said: tuple[str, ...] = ()
    """Our lines."""


Listing = dict[str, tuple[str, ...]]
_BEFORE = f"{WORK}/before"
_TRACE = f"{WORK}/trace"
LINK = oct(stat.S_IFLNK | 0o777)
_LEFTOVER = re.compile(r"(^|/)\.(new|try)-")
_SITE = re.compile(r"Error processing line 2 of /venv/\S+sif_writable.pth:\n.*?Remainder of file ignored\n", re.DOTALL)


# --- Running ---


def environ(scenario: Scenario) -> dict[str, str]:
    if scenario.inherited:
        with open(f"{WORK}/session.json", encoding="utf-8") as file:
            session: dict[str, str] = json.load(file)
        return session
    return {**PLAIN, **dict(scenario.more)}


PLAIN = {"PATH": "/venv/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": HOME, "USER": "user"}


def run(words: list[str], env: dict[str, str]) -> Result:
    try:
        done = subprocess.run(
            words,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Result(-1, "", f"it did not end within {SECONDS} seconds")
    lines = done.stderr.splitlines(keepends=True)
    said = tuple(line for line in lines if line.startswith("sif_writable: "))
    return Result(done.returncode, done.stdout, "".join(line for line in lines if line not in said), said)


def start(scenario: Scenario, **more: str) -> Result:
    return run([PYTHON, "-c", scenario.program], {**environ(scenario), **more})


def mounted() -> frozenset[str]:
    """Return what leads to a mount in the places: an interpreter of the lab, where that lies below one of them."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        points = [line.split()[4] for line in file]
    below = ((place, point[len(place) + 1 :]) for place in PLACES for point in points if point.startswith(f"{place}/"))
    return frozenset(f"{place}/{rest.partition('/')[0]}" for place, rest in below)


MOUNTED = mounted()


def _of_mounts(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if f"{folder}/{name}" in MOUNTED]


def empty(folder: str) -> None:
    for name in os.listdir(folder):
        path = f"{folder}/{name}"
        if path in MOUNTED:
            continue
        if os.path.isdir(path) and not os.path.islink(path):
            for inner, names, _ in os.walk(path):
                for each in names:
                    if each == "work":  # an overlay's, which the kernel leaves with mode 000
                        os.chmod(f"{inner}/{each}", 0o700)
            shutil.rmtree(path)
        else:
            os.unlink(path)


def reset(scenario: Scenario) -> None:
    """Bring storage back to what the scenario starts from."""
    for place in PLACES:
        empty(place)
        for name in [] if scenario.cold else os.listdir(_BEFORE + place):
            shutil.copytree(f"{_BEFORE}{place}/{name}", f"{place}/{name}", symlinks=True)


# --- Looking at storage ---


def listing(*, passing: bool = False) -> tuple[Listing, int]:
    """Return everything in storage that a later run can see, and how many things were left aside.

    :param passing: a fault was there just now, and what the next run mends may be left.
    """
    found: Listing = {}
    left = 0
    for where, folders, files in (step for place in PLACES for step in os.walk(place)):
        folders[:] = [name for name in folders if os.path.join(where, name) not in MOUNTED]
        for name in (*folders, *files):
            path = os.path.join(where, name)
            if _LEFTOVER.search(path):
                left += _LEFTOVER.match("/" + name) is not None
            elif "/locks" not in path:
                found[path] = _described(path, passing=passing)
    return found, left


def _described(path: str, *, passing: bool) -> tuple[str, ...]:
    status = os.lstat(path)
    if stat.S_ISDIR(status.st_mode):  # of which mode does not matter, below a root of 0700
        return ("directory",)
    mode = oct(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        return (mode, os.readlink(path))
    if not stat.S_ISREG(status.st_mode):
        return (mode,)
    with open(path, "rb") as file:
        content = file.read()
    if path.endswith("/.sif-writable"):
        for words in (WITHOUT_LOCKS, UNTRIED) if passing else (WITHOUT_LOCKS,):
            if content.startswith(words):
                content = b"exec".ljust(len(words)) + content[len(words) :]
    if "/plan-" in path:  # it says what its start has met, a fault among it; whether it fits is asked anew each time
        return (mode, "whole" if _is_sealed(content) else "half")
    if "@" in os.path.basename(path):  # it names what the image has brought: what could not be read is left out of both
        return (mode,) if _names_all(path, content) else (mode, "half")
    if path.endswith("/overlay/proven"):  # it says under which circumstances, and a tracer is one
        return (mode,)
    if path.endswith("/learned"):  # which packages, for whatever reason, in whatever order, however often
        fields = [line.split("\t") for line in content.decode().splitlines()]
        assert all(len(each) in (1, 5) for each in fields), content
        return (mode, *sorted({f"{each[0]} {each[1]}" for each in fields if each[0] in ("package", "path")}))
    return (mode, str(len(content)), hashlib.sha256(content).hexdigest()[:16])


def _names_all(path: str, content: bytes) -> bool:
    """Whether a note names the files that came with the image, which is before the folder is there."""
    folder, *names = content.decode().split("\0")
    own = os.path.join(os.path.dirname(os.path.dirname(path)), folder)
    files = [os.path.join(where, name) for where, _, found in os.walk(own) for name in found]
    brought = {os.path.relpath(file, own) for file in files if not os.path.islink(file)}
    return brought <= set(names) and (
        not os.path.exists(own) or all(os.path.lexists(f"{own}/{name}") for name in names)
    )


def _is_sealed(plan: bytes) -> bool:
    """Whether both check sums of a kept plan are right, as the installed package sees it."""
    sys.path.extend(glob.glob("/venv/lib/python3*/site-packages"))
    from sif_writable import warm

    size = 12 + int.from_bytes(plan[8:12], "little")
    return warm.checksum(plan[8:size]) == plan[:8] and warm.checksum(plan[size + 8 :]) == plan[size : size + 8]


def difference(found: Listing, wanted: Listing) -> str:
    names = [name for name in sorted({*found, *wanted}) if found.get(name) != wanted.get(name)]
    lines = [f"{name}: {found.get(name, 'missing')} for {wanted.get(name, 'nothing')}" for name in names]
    return "; ".join(lines[:3])


# --- What is tried ---


def calls(scenario: Scenario, strace: str) -> list[Call]:
    """Trace a healthy run and return the calls of the part that is meant."""
    words = [
        strace,
        "-f",
        "-y",
        "-qq",
        "-s",
        "300",
        "-e",
        f"trace=%file,%desc,{','.join(KINDS['mount'][1])}",
        "-o",
        _TRACE,
    ]
    run([*words, PYTHON, "-c", scenario.program], environ(scenario))
    with open(_TRACE, encoding="utf-8", errors="replace") as file:
        pids, lines = zip(*(line.rstrip("\n").split(maxsplit=1) for line in file))
    first, last = 0, len(lines)
    if scenario.begin:
        first = next(at for at, line in enumerate(lines) if scenario.begin in line)
        last = next(at for at, line in enumerate(lines) if scenario.end in line)
    else:  # all that comes after the traceback
        first = max(at for at, line in enumerate(lines) if line.startswith("write(2<") and "sif_writable:" not in line)
    counted: dict[str, int] = {}
    found = []
    for at, (pid, line) in enumerate(zip(pids, lines)):
        if pid != pids[0]:  # strace counts anew for each child, and would meet the program at the same number
            continue
        syscall = line.partition("(")[0]
        counted[syscall] = counted.get(syscall, 0) + 1
        if not first < at < last or syscall in NO_FILE or re.search(r"\([012]<|^\+\+\+|^---|^<", line):
            continue
        if "sif_writable.pth" in line:
            continue
        kind = next((kind for kind, (_, names) in KINDS.items() if syscall in names), "")
        if not kind:
            raise LookupError(f"no errors are known for this call: {line}")
        if "AT_EMPTY_PATH" in line:
            kind = "look at open"
        if kind == "open" and re.search("O_CREAT|O_WRONLY|O_RDWR", line):
            kind = "create"
        found.append(Call(syscall, counted[syscall], kind, line[:300]))
    return found


def faults(of: list[Call]) -> list[tuple[Call, str]]:
    """Return what is tried with each call, and a kill after the last one."""
    found = [(call, error) for call in of for error in errors(call)]
    return found + [(call, KILL) for call in of if call.kind in CHANGING]


def errors(call: Call) -> list[str]:
    if is_library(call):
        return [LIBRARY_ERROR[call.kind]] if LIBRARY_ERROR[call.kind] else []
    return KINDS[call.kind][0].split()


def is_library(call: Call) -> bool:
    return call.kind in LIBRARY_ERROR and "/sif-writable" not in call.text and bool(LIBRARY.search(call.text))


SHOWN = (
    ("cold start", "EDQUOT", r"close\(4</var/tmp/sif-writable-\d+/image-\w+>"),
    ("cold start", "ESTALE", r"getdents64\(5</venv/baked/torch"),
    ("cold start", "ESTALE", r'"/home/user/.config", .*NOFOLLOW'),
    ("cold start", "EIO", r'newfstatat.*"/home/user", '),
    ("cold start", "EMFILE", r'"/var/tmp/.*/\.try-'),
    ("cold start", "ENOSYS", r"/locks/ipython.lock>, LOCK_EX"),
    ("cold start", "EIO", r"sif_writable.manifest|labels.json"),
    ("cold start", KILL, r"/image-\w+/\.new-image.txt.*O_CREAT"),
    ("cold start", "ENOSPC", r'mkdir\("/var/tmp/sif-writable-\d+/data"'),
    ("cold start", "ESTALE", r"getdents64\(4</var/tmp/sif-writable-\d+/data>"),
    ("cold start", "EMFILE", r'openat.*"/var/tmp/sif-writable-\d+/data", O_RDONLY'),
    ("cold start", "EACCES", r"openat.*labels.json"),
    ("import of a declared package", "ESTALE", r"\.new-learned.*O_CREAT"),
    ("import that fails, tried again", "EIO", r"openat.*failing-1.0.dist-info/RECORD"),
    ("import that fails, tried again", "ESTALE", r'newfstatat.*/tree/venv/lib/python[\d.]+/site-packages/failing", '),
    ("import of a declared package", "ENOSPC", r"records/\.new-declared.*O_CREAT"),
    ("import of a declared package", KILL, r'rename\(.*/site-packages/declared.py"'),
    ("import that fails, tried again", "EACCES", r"getdents64.*\.new-failing-\d.*/sub/__pycache__"),
    ("import that fails, tried again", "ENOENT", r"getdents64.*\.new-failing-\d.*/sub>"),
    ("import that fails, tried again", "ESTALE", r'newfstatat.*/tree/.*/failing_mate", .*NOFOLLOW'),
    ("import that fails, tried again", "ENOENT", r"openat.*/tree/venv/.*/failing/made.txt"),
    ("import that fails, tried again", "EROFS", r"openat.*/tree/venv/.*/failing/made.txt"),
    ("import that fails, tried again", "ENOSPC", r"write.*/tree/venv/.*/failing/made.txt"),
    ("mount at start", "ESTALE", r"getdents64\(4</venv/shared>"),
)
"""The rows that have shown something to mend: program, error, call. They belong to each sample."""


def sampled(everything: list[tuple[Scenario, Call, str]], size: int) -> list[tuple[Scenario, Call, str]]:
    """Return so many of them, evenly spread, and what has shown something once; all where `size` is 0."""
    if not size:
        return everything
    spread = {at * len(everything) // size for at in range(size)}
    for at, (scenario, call, error) in enumerate(everything):
        if any(scenario.name == name and error == what and re.search(text, call.text) for name, what, text in SHOWN):
            spread.add(at)
    return [everything[at] for at in sorted(spread)]


# --- Judging ---


class Reference(NamedTuple):
    """What never-disturbed runs say, and what storage holds after each of them."""

    off: Result
    runs: list[Result]
    after: list[Listing]


def reference(scenario: Scenario) -> Reference:
    reset(scenario)
    off = start(scenario, SIF_WRITABLE="off")
    runs, after = [], []
    for _ in range(3):
        runs.append(start(scenario))
        after.append(listing()[0])
    assert after[1] == after[2], f"{scenario.name} does not come to rest: {difference(after[2], after[1])}"
    return Reference(off, runs, after)


def same(one: Result, other: Result) -> bool:
    return one[:3] == other[:3]


def judge(scenario: Scenario, call: Call, error: str, strace: str, wanted: Reference) -> Case:
    """Inject one fault, and look at the run, at what it left, and at the healthy run that follows."""
    reset(scenario)
    what = "signal=SIGKILL" if error == KILL else f"error={error}"
    inject = ["-e", f"trace={call.syscall}", "-e", f"inject={call.syscall}:{what}:when={call.number}"]
    quick = [] if error == KILL else ["--seccomp-bpf"]  # with it, no signal is ever sent
    words = [strace, "-f", "-qq", "-s", "300", *quick, *inject, "-o", _TRACE]
    result = run([*words, PYTHON, "-c", scenario.program], environ(scenario))
    with open(_TRACE, encoding="utf-8", errors="replace") as file:
        trace = file.read()
    problems = []
    if is_library(call):  # the modules site and hashlib say themselves that they could not load something
        reported = result.err.startswith("ERROR:root:code for hash") and wanted.runs[0].err == ""
        result = result._replace(err="" if reported else _SITE.sub("", result.err))
    if call.syscall == "getcwd" and "mpd_setminalloc" in result.err:  # of _decimal, which is imported twice then
        result = result._replace(err="")
    if error == KILL:
        outcome = "killed" if result.code == -9 else "not met"  # strace ends as the program did
    elif "(INJECTED)" not in trace or re.search(r"\([012], .*\(INJECTED\)", trace):
        outcome = "not met"  # or the run went another way, and the fault has hit what the program itself says
    elif any(same(result, run) for run in wanted.runs):
        outcome = "as healthy"
    elif same(result, wanted.off):
        outcome = "as without us"
    else:
        outcome = "another"
        problems.append(f"the program is another one: {result}")
    if len(result.said) > 2:
        problems.append(f"it says too much: {result.said}")
    believed = error in ANSWERS or call.syscall.startswith(("access", "faccess"))
    found, left = listing(passing=True)
    if broken := strange(found, wanted.after):
        problems.append(f"half: {broken}")
    again = start(scenario)
    expected = wanted.runs
    refused = call.syscall == "write" and error == "EROFS"  # no kernel refuses a write to an open file so
    if scenario.again and "/made.txt" in call.text and (refused or error == "ENOENT"):
        # The error that the program gets in the copy reads as if that had not helped, and the copy is taken back.
        expected = [*wanted.runs, wanted.off]
    if not any(same(again, run) for run in expected):
        problems.append(f"the next run: {again}")
    found = listing()[0]
    if broken := strange(found, wanted.after):
        problems.append(f"the next run leaves: {broken}")
    if lacking := lacks(found, wanted.after):
        if believed:
            outcome += ", believed"
        else:
            problems.append(f"the next run lacks: {lacking}")
    return Case(scenario.name, call.kind, error, *call[:2], call.text, outcome, "; ".join(problems), left)


def usual(path: str, content: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Return a path of storage and what is there as if it were in the best place, whatever the image is called."""
    for place in PLACES[1:]:
        path = PLACES[0] + path[len(place) :] if path.startswith(place + "/") else path
        content = tuple(part.replace(place + "/", PLACES[0] + "/") for part in content)
    return re.sub("(/image|@)-?[0-9a-f]{16}", r"\1", path), content


def strange(found: Listing, after: list[Listing]) -> str:
    """Say what is in storage that never-disturbed runs do not leave there; a link to the image serves for a copy."""
    whole = [dict(usual(*item) for item in listed.items()) for listed in after]
    for path, content in sorted(found.items()):
        name, normal = usual(path, content)
        wanted = [listed[name] for listed in whole if name in listed]
        if normal in wanted or content == ("directory",) or (path.endswith("/learned") and wanted):
            continue
        if EMPTY.search(path) and content[1:2] == ("0",):
            continue
        if path.endswith("/made.txt") and content[1] == "0":  # the program's own file, half written by the program
            continue
        if "/graft/" in path and content[1:2] == ("0",):  # no file, but a point to mount the image's own on
            continue
        if path.endswith((".pyc", "/__pycache__")) or (normal[0] == LINK and os.path.exists(path)):
            continue
        return f"{path}: {content} for {wanted or 'nothing'}"
    return ""


def lacks(found: Listing, after: list[Listing]) -> str:
    """Say what is not in storage that is there after a first never-disturbed run."""
    for path, content in after[0].items():
        above = [path[:at] for at, letter in enumerate(path) if letter == "/"]
        if path not in found and not any(found.get(each, ("",))[0] == LINK for each in above):
            return path
        if path.endswith("/learned") and not set(content[1:]) <= set(found[path]):
            return f"{path}: {set(content) - set(found[path])}"
    return ""


def main() -> None:
    """Try what belongs to this part, and print what came of it."""
    strace, part, parts, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    for place in PLACES:
        empty(place)
    code = "import json, os; json.dump(dict(os.environ), open('/work-folder/session.json', 'w'))"
    assert run([PYTHON, "-c", code], PLAIN).code == 0
    for place in PLACES:
        shutil.copytree(place, _BEFORE + place, symlinks=True, ignore=_of_mounts)
    everything: list[tuple[Scenario, Call, str]] = []
    references = {}
    counted: dict[str, dict[str, int]] = {}
    for scenario in SCENARIOS:
        references[scenario.name] = reference(scenario)
        reset(scenario)
        found = calls(scenario, strace)
        counted[scenario.name] = {kind: sum(call.kind == kind for call in found) for kind in KINDS}
        everything += [(scenario, call, error) for call, error in faults(found)]
    for scenario, call, error in sampled(everything, size)[part::parts]:
        print(json.dumps(judge(scenario, call, error, strace, references[scenario.name])._asdict()), flush=True)
    print(json.dumps({"calls": counted, "faults": len(everything)}))


if __name__ == "__main__":
    main()
