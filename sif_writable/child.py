"""What does a child of an activated process need? What its ancestor has decided, and somebody who waits for imports.

Loaded by each process that is not left alone. It imports only what is loaded already, as its package does.
"""

import os
import sys
from _imp import source_hash

import sif_writable
from sif_writable import MODE, SESSION, let_pass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from typing import Any

    passed = library = ()  # type: tuple[str, ...]
    finders = []  # type: list[Any]
    this = None  # type: Any

FIELDS = 5
"""How many fields a session has. Only the last one may have a semicolon in it."""
PYCACHE = "SIF_WRITABLE_PYCACHE"
"""The variable by which bytecode in storage that may stop answering, or lies where others may write, is handed down.

``PYTHONPYCACHEPREFIX`` would have the interpreter look there before it can be asked whether it answers, and whether it
is still this user's: where a cleaner of ``/tmp`` has removed the folder, anybody may have made another one.
"""

COPIES = "SIF_WRITABLE_COPIES"
"""The variable that says where this image's copies are, for descendants: ``PREFIX:FOLDER``; PREFIX is sys.prefix."""
MORE_HEAVY = "SIF_WRITABLE_HEAVY"
"""The variable with further heavy modules, separated by commas: the user's, and those that the image declares."""
OVERLAY, PATHS = "SIF_WRITABLE_OVERLAY", "SIF_WRITABLE_OVERLAY_PATHS"
"""The variables that say what may be mounted, and for which other paths of the image."""
SHARED_IN = "SIF_WRITABLE_SHARED_IN"
"""The variable that names the folder in which a group shares downloads, for descendants."""
KEEP = "SIF_WRITABLE_KEEP"
"""The variable that says what is kept of a layer: :func:`sif_writable.layer.merge.mode`."""
OPT_IN = "SIF_WRITABLE_OPT_IN"
"""The variable with those that are redirected only on request, with commas or spaces between them."""

_INPUT_ENDS = (
    *(b"DIR", b"CACHE", b"_PATH", b"_FLAGS", b"HOME", b"DIRS", b"DIRECTORY", b"FOLDER", b"_cache", b"TMP", b"TEMP"),
    *(b"DATA", b"_PATHS", b"_ROOT", b"_BASE", b"_SHARE"),
)
"""How most variables end that a decision depends on, those of packages that are not in the table yet included: the most
frequent ends first."""
_INPUTS = frozenset(
    (
        *(b"USER", b"LOGNAME", b"LNAME", b"USERNAME", b"SCRATCH", b"PYTHONPYCACHEPREFIX", b"PYTHONNOUSERSITE"),
        *(MODE.encode(), MORE_HEAVY.encode(), OPT_IN.encode()),
        *(b"CCACHE_CONFIGPATH", b"CUDA_CACHE_MAXSIZE", b"CUPY_CACHE_IN_MEMORY", b"DGLBACKEND", b"GOPATH"),
        *(b"KIVY_DESKTOP_PATH_ID", b"MATPLOTLIBRC", b"PYTHON_JULIAPKG_PROJECT", b"R_LIBS_USER"),
    )
)
"""The others; tests/unit/test_session.py compares both with all that is asked for."""

stage = None  # type: Any
"""What waits in ``sys.meta_path`` for the first import that is not the standard library's."""
timed_out = ""
"""An ancestor's storage that did not answer in time: a new decision passes it over, and it is not asked again."""
handed = {}  # type: dict[str, bytes | None]
"""Variables that :mod:`sif_writable.importhook` goes by, as they were when this process began."""


def start(data):  # type: (dict[bytes, bytes]) -> str
    """Do as an ancestor has decided, where that holds here; otherwise decide; return the state."""
    damaged = None
    if SESSION.encode() in data:
        mode = data.get(MODE.encode(), b"").decode("ascii", "replace").lower()
        if is_current(os.environ[SESSION]) and mode not in sif_writable.OFF:
            if elevated():  # asked last, since a process that is left alone need not know
                return "elevated"
            if PYCACHE.encode() in data and sys.pycache_prefix is None:
                sys.pycache_prefix = os.environ[PYCACHE]
            install(data)
            return "inherited"
        if not elevated():
            # Of another container, or the user has changed his mind: what an ancestor set is not his wish.
            damaged = sif_writable.follow("session").take_back(os.environ)
        word = sif_writable.gate(data)
        if word:
            return word
    if elevated():
        return "elevated"
    state: str = "" if damaged or timed_out else sif_writable.follow("warm").start(data)
    return state or str(sif_writable.follow("start").run(damaged))


def elevated():  # type: () -> bool
    """Whether this program has rights that its caller lacks, whose environment it then must not obey."""
    # It was set-user-id or set-group-id, or has file capabilities. The latter leave the ids alone; the kernel tells the
    # program's loader: AT_SECURE in getauxval(3), which is 23.
    try:
        descriptor = os.open("/proc/self/auxv", os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:  # which such a program gets where it may not be looked into
        return True
    except OSError as error:  # without /proc there is nothing to go by but the ids
        let_pass(error)
        return os.geteuid() != os.getuid() or os.getegid() != os.getgid()
    try:
        words = memoryview(os.read(descriptor, 4096)).cast("L").tolist()
    finally:
        os.close(descriptor)
    names = words[::2]
    return 23 in names and words[2 * names.index(23) + 1] != 0


def token():  # type: () -> str
    """Name this very container run: the mount of ``/`` (its mtime is the container's start) and the user."""
    root = os.stat("/")
    return f"{root.st_dev:x}.{root.st_ino:x}.{root.st_mtime_ns:x}.{os.geteuid()}"


def inputs():  # type: () -> str
    """Return sixteen hexadecimal digits for all variables of this process that a decision depends on, ours included."""
    variables = sif_writable.environment()
    names = []
    for name in variables:
        if name.endswith(_INPUT_ENDS) or name in _INPUTS:
            names.append(name)  # noqa: PERF401 - before Python 3.12 a comprehension is a function to be read
    if b"LD_LIBRARY_PATH" in names:  # it differs often between a process and its child, and decides nothing
        names.remove(b"LD_LIBRARY_PATH")
    names.sort()
    names.extend(map(variables.__getitem__, names[:]))
    return source_hash(0x5349465F494E5056, b"\0".join(names)).hex()


def is_current(session):  # type: (str) -> bool
    """Whether a session was written in this container run, for what is wanted here, and its storage is still there."""
    global timed_out
    fields = session.split(";", FIELDS - 1)
    if len(fields) != FIELDS or fields[0][:1] != "2" or fields[1] != token() or fields[3] != inputs():
        return False
    if not fields[4]:
        return True
    roots = fields[4].split(":")
    if fields[0].strip("2s"):  # not all of it is served by this kernel
        timed_out = sif_writable.follow("hanging").first_that_times_out(fields[0][1:], roots)
        if timed_out:
            return False
    uid = int(fields[1].rpartition(".")[2])
    for root in roots:  # a cleaner of /tmp may have removed it, and somebody have taken the name
        if not is_own(root, uid):
            return False
    return os.access(roots[0], os.W_OK)  # it may have become read-only


def is_own(root, uid):  # type: (str, int) -> bool
    """Whether a storage root is still a directory of this user's, which nobody else may write."""
    try:
        status = os.lstat(root)
    except OSError as error:
        let_pass(error)
        return False
    return status.st_uid == uid and status.st_mode & 0o170322 == 0o040300


def install(data):  # type: (dict[bytes, bytes]) -> None
    """Wait for the first import of somebody's package, once; only then :mod:`sif_writable.importhook` is loaded."""
    # What waits is a function that holds nothing: sys.meta_path lives to the very end of an interpreter, and with it
    # all that the globals of a finder lead to. With `os` among them the end of each process takes longer by 1.3 % of a
    # start.
    global stage
    if stage is not None:
        return
    for name in (COPIES, MORE_HEAVY, OVERLAY):
        handed[name] = data.get(name.encode())
    passed: Any = ("sif_writable", "sitecustomize", "usercustomize", "apport_python_hook")  # asked for at every start
    library: Any = getattr(sys, "stdlib_module_names", sys.builtin_module_names)  # 3.9 has only the latter
    if sys.pycache_prefix:  # bytecode in storage, of the standard library too: who owns it is asked at each import
        passed = library = ()
    names = {"__builtins__": __builtins__, "__name__": __name__, "finders": sys.meta_path, "passed": passed}
    names["library"] = library
    function: Any = type(install)
    stage = function(_find_spec.__code__, names, "find_spec", (None, None))
    stage.find_spec = names["this"] = stage
    sys.meta_path.insert(0, stage)
    if SHARED_IN.encode() in data:
        sif_writable.follow("shared").watch(os.environ[SHARED_IN])
    if PATHS.encode() in data:
        sif_writable.follow("first_import").finder().serve_outside()


def _find_spec(
    name,  # type: str
    path=None,  # type: list[str] | None
    target=None,  # type: Any
):
    # type: (...) -> ModuleSpec | None
    """Find nothing, or as the finder does that is in place from now on."""
    # That is put in place where this was not asked first, too: whoever stands before it is asked by it. The names that
    # are seen here are those that `install` gives.
    top = name.partition(".")[0]
    ours = top == "sif_writable" and path is not None
    if not ours:
        if top in passed:
            return None
        if top in library and name != "multiprocessing.process" and finders[0] is this:
            return None
    elif name == "sif_writable.first_import":
        return None
    import sif_writable  # it is not among the names that this function sees

    found: Any = sif_writable.follow("first_import")
    spec: ModuleSpec | None = found.of_ours(name, path) if ours else found.go_on(name, path, target)
    return spec
