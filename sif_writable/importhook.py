"""The hook at import: what an activated process keeps.

One finder at the head of ``sys.meta_path`` sees the name of each module that is about to be imported. It waits for the
first heavy import, and it serves packages of read-only directories: from their writable copy where they have one, and
otherwise such that a failing import can be tried again from one (:mod:`sif_writable.copies.retry`).

On the start-up path: it imports only ``os``, ``sys`` and the import system, which are all loaded already. Whatever is
not an everyday case lives in modules that are loaded then.
"""

import _frozen_importlib_external as _external
import os
import sys

import sif_writable
from sif_writable import SESSION, child
from sif_writable.child import COPIES, MORE_HEAVY, OVERLAY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any, Optional

HEAVY = frozenset(
    (
        "torch", "tensorflow", "jax", "jaxlib", "cupy", "numba.cuda", "pycuda", "cudf", "cuml", "cugraph", "cuspatial",
        "rmm", "paddle", "mxnet", "triton", "onnxruntime", "vllm", "tensorrt", "warp", "pyopencl", "flashinfer",
        "deepspeed",
    )
)  # fmt: skip
"""Modules whose import is slow and pointless without the GPU or the storage that the job demands."""

OUTSIDE = frozenset(("certbot",))
"""Packages that write outside their directory and the prefix: :data:`sif_writable.overlay.decide.PLACES`."""
MOST_LEARNED = 1 << 20
"""Bytes of the learned list that are read; 10,000 packages."""
IN_OVERLAY = "SIF_WRITABLE_IN_OVERLAY"
"""The variable that tells descendants in which namespace paths of the image were made writable."""

ANYWHERE = "*"
"""In place of a directory: the package wherever it is found."""
TAKEN_BACK = "\ttaken back"
"""How the line of a package ends whose copy did not help: :data:`sif_writable.copies.policy.TAKEN_BACK`."""
NEVER = frozenset(
    (
        *("sif_writable", "filelock", "platformdirs", "pynvml", "typing_extensions"),
        *("sitecustomize", "usercustomize", "apport_python_hook"),
    )
)
"""What copying up needs itself, and what ``site`` and Debian's sitecustomize look for at every start."""

_STDLIB = getattr(sys, "stdlib_module_names", frozenset(sys.builtin_module_names))  # 3.9 has only the latter
_STDLIB_FOLDERS = (os.path.dirname(os.__file__), os.path.dirname(os.__file__) + "/lib-dynload")
_NAMESPACE_PATH = getattr(_external, "_NamespacePath", None) or _external.NamespacePath  # type: ignore[attr-defined]
_FILE_LOADERS = (_external.SourceFileLoader, _external.SourcelessFileLoader, _external.ExtensionFileLoader)
_PYTHON_LOADERS = (_external.SourceFileLoader, _external.SourcelessFileLoader)
_S_IFMT, _S_IFLNK, _S_IFREG = 0o170000, 0o120000, 0o100000

_installed: "dict[str, Finder]" = {}
_given_up = False
"""Whether storage was found to hang after the start."""
_own_places: "dict[str, _external.FileFinder]" = {}
"""The folders of our own modules, each listed once."""


# --- Was a write refused? ---

_DENIED = (1, 13, 30)
"""EPERM, EACCES, EROFS."""
_WORDS = (
    "read-only", "readonly", "read only", "permission denied", "not permitted", " writable", " writeable", "errno = ",
    "errno=", "errno: ", "errno 30", "errno 13", "error number ", "no locator available",
    "unable to open database file", "erofs", "eacces", "eperm",
)  # fmt: skip
"""Of which one is in every text that :mod:`sif_writable.copies.failures` understands."""
_FULL = (28, 122)
"""ENOSPC, EDQUOT."""
_FULL_WORDS = ("no space left on device", "disk quota exceeded", "disk is full", "errno = 28", "errno = 122")
_MOST_ERRORS, _MOST_TEXT = 50, 1 << 15
_SLOT = type(BaseException.__str__)


def chain(error: "Optional[BaseException]", leave: "Optional[BaseException]" = None) -> "Iterator[BaseException]":
    """Yield an error and what it came from, also the parts of a group and errors that others were made of, each once.

    :param leave: one that counts no more, nor what it came from.
    """
    waiting: list[Any] = [error]
    seen: set[int] = {id(leave)}
    while waiting and len(seen) <= _MOST_ERRORS:
        this = waiting.pop(0)
        if not isinstance(this, BaseException) or id(this) in seen:
            continue
        seen.add(id(this))
        yield this
        waiting += (this.__cause__, this.__context__)
        for more in (getattr(this, "exceptions", ()), this.args):
            if isinstance(more, (tuple, list)):
                waiting += [part for part in more[:_MOST_ERRORS] if isinstance(part, BaseException)]


def said(error: BaseException) -> str:
    """Return what an error says, and what a failed program said; of long texts the beginning and the end.

    Where the error's class does not make the text itself, what it was made of is not asked for its own: that may be
    large, such as the table of a KeyError.
    """
    if type(type(error).__str__) is _SLOT:
        parts = [part for part in error.args if isinstance(part, (str, bytes)) or hasattr(type(part), "__fspath__")]
    else:
        parts = [str(error)]
    if hasattr(error, "returncode"):  # subprocess.CalledProcessError
        parts += [getattr(error, "stderr", None), getattr(error, "output", None)]
    texts = []
    for part in parts:
        text = os.fsdecode(part) if part and not isinstance(part, str) else part or ""
        texts.append(text if len(text) <= 2 * _MOST_TEXT else f"{text[:_MOST_TEXT]}\n{text[-_MOST_TEXT:]}")
    return " ".join(texts)


def tells_of_a_refusal(error: BaseException, leave: "Optional[BaseException]" = None) -> bool:
    """Whether an error may tell of a refused write: asked of every error, so it loads and reads nothing."""
    for this in chain(error, leave):
        number = this.errno if isinstance(this, OSError) else None
        if number in _DENIED:
            return True
        if number is None:  # any other errno is the cause itself
            text = said(this).lower()
            for words in _WORDS:
                if words in text:
                    return True
    return False


def tells_of_a_full_disk(error: BaseException) -> bool:
    """Whether an error may be for want of space, wherever: asked of errors in a layer, and loads nothing either."""
    for this in chain(error):
        number = this.errno if isinstance(this, OSError) else None
        if number in _FULL:
            return True
        if number is None:
            text = said(this).lower()
            for words in _FULL_WORDS:
                if words in text:
                    return True
    return False


# --- Imports that fail for it ---

_outermost: "Any" = None
"""What :func:`hooks` returned when the outermost import that is under way began."""
_settled = 0
"""How much the imports of :data:`registered` have left for ``atexit`` in all."""
begun: "dict[str, Before]" = {}
"""Packages with what was when their execution began."""
registered: "dict[str, int]" = {}
"""Modules whose import has left something for ``atexit``, with how much."""
untried: "set[str]" = set()
"""Packages whose copy was made for the import that is under way: it is not known yet whether they bear it."""


def _callbacks() -> int:
    """Return how much is left for ``atexit``, but for what the standard library leaves there as it is imported."""
    import atexit

    count = atexit._ncallbacks()  # noqa: SLF001 - there is no other way to ask
    for name in ("logging", "multiprocessing.util"):
        if name in sys.modules:
            count -= 1
    finalize: Any = getattr(sys.modules.get("weakref"), "finalize", None)
    return count - bool(getattr(finalize, "_registered_with_atexit", False))


def hooks() -> "tuple[Any, ...]":
    """Return what a program has one of, or a list of: what a module that is executed twice would set or add twice."""
    import _signal  # type: ignore[import-not-found]
    import builtins

    return (
        [*map(_signal.getsignal, range(1, _signal.NSIG))],
        [*sys.meta_path],
        [*sys.path_hooks],
        (sys.excepthook, sys.displayhook, sys.unraisablehook, builtins.__import__),
        [*getattr(sys.modules.get("logging"), "_handlerList", ())],
    )


class Before:
    """What was when the execution of a module began, as far as a second one could double it."""

    __slots__ = ("callbacks", "handled", "hooks", "settled", "threads", "time")

    def __init__(self) -> None:
        """Look: no system call, and few microseconds."""
        import _thread
        import time

        self.handled = sys.exc_info()[1]
        """The error that is being handled: it is the context of all that happens, and no cause of it."""
        self.callbacks = _callbacks()
        self.settled = _settled
        self.threads = _thread._count()  # noqa: SLF001 - likewise
        self.time = time.clock_gettime(time.CLOCK_BOOTTIME)
        self.hooks = _outermost

    def callbacks_since(self) -> int:
        """Return how much more is left for ``atexit``, but for what other modules that were imported have left."""
        return _callbacks() - self.callbacks - (_settled - self.settled)


def _execute(loader: "Any", module: "ModuleType") -> None:
    """Execute a module in place of its loader, and once more from a writable copy where that cures its failure."""
    global _outermost
    vars(loader).pop("exec_module", None)  # from now on the loader is what it is without us
    outermost = _outermost is None
    if outermost:
        _outermost = hooks()
    before = Before()
    if "__path__" in vars(module):
        begun[module.__name__] = before
    again = first = None
    try:
        try:
            loader.exec_module(module)
        except (Exception, SystemExit) as error:
            again = _try_again(module, error, before)
            if again is None:
                raise
        else:
            _settle(module.__name__, before)
            untried.discard(module.__name__)
            if module.__name__ in _LISTENED and (found := finder()) is not None:
                found.listen()
        if again is not None:  # outside the handler, so that the next try does not see this one's exception
            try:
                while True:
                    try:
                        again.loader.exec_module(module)
                        break
                    except (Exception, SystemExit) as error:
                        if _is_of_a_handler(error):
                            raise
                        if not again.goes_on(error):
                            first = again.first
                            break
            finally:
                again.end()
                again = None
    finally:
        if outermost:
            _outermost = None
    if first is not None:
        context = first.__context__
        try:
            raise first.with_traceback(first.__traceback__ and first.__traceback__.tb_next)
        finally:
            first.__context__ = context  # not what is being handled around this import, as the raising has it
            del first


# A traceback through an import shows none of the import system's frames: it is cut at a function of this name in this
# file. Ours takes part, so that the user sees no more than without us.
_execute.__code__ = _execute.__code__.replace(
    co_filename="<frozen importlib._bootstrap>", co_name="_call_with_frames_removed"
)
_LISTENED = ("threading", "multiprocessing.process")


def _settle(name: str, before: Before) -> None:
    """Note what a module has left for ``atexit`` whose import has succeeded: it is not left again with another's."""
    global _settled
    more = before.callbacks_since()
    if more:
        registered[name] = more
        _settled += more


def _try_again(module: "ModuleType", error: BaseException, before: Before) -> "Any":
    try:
        refused = tells_of_a_refusal(error, before.handled)
        if not (refused or module.__name__ in untried) or _is_of_a_handler(error) or storage_hangs():
            return None
        _lead()
        if not refused:
            from sif_writable.copies import worse

            return worse.prepare(module, error, before)
        from sif_writable.copies import retry

        return retry.prepare(module, error, before)
    except Exception as problem:  # noqa: BLE001 - whatever goes wrong with us, the user gets his own error
        _note(problem)
        return None


class Finder:
    """Waits for the first heavy import, and finds packages in their writable copies."""

    def __init__(self, awaited: "frozenset[str]", folder: str) -> None:
        """:param awaited: modules, top-level or dotted, whose import is heavy.

        :param folder: the folder of this image's copies, for this interpreter; empty: nothing is copied up.
        """
        self.awaited = awaited
        self.folder = folder
        self.tree = folder + "/tree"
        """What mirrors the root of the image: a copy of ``/opt/x`` is ``TREE/opt/x``."""
        self.busy: set[str] = set()
        """Names whose copy is being made: what that imports is none of our business."""
        self._in_use = False
        """Whether a package was imported from its copy, whose modules may be imported at any time."""
        self.layer = (_handed(OVERLAY) or "").lower() != "off"
        """Whether there is a writable layer, or one may be made at the first import that needs it."""
        self.bytecode = ""
        """The storage root that holds the interpreter's bytecode, if it does."""
        self._wanted: Optional[dict[str, tuple[str, ...]]] = None
        self._places: Optional[set[str]] = None
        """Directories that hold packages with a copy."""
        self._read_only: dict[str, bool] = {}
        self._followed: set[str] = set()
        """Packages whose modules are watched."""
        self._listening = False
        self._threads = False
        self._processes = False
        self._prompts = False

    def find_spec(
        self, name: str, path: "Optional[Sequence[str]]" = None, target: "Optional[ModuleType]" = None
    ) -> "Optional[ModuleSpec]":
        """Find packages of read-only directories; what is awaited is found such that its execution checks first.

        Whoever stands before us is asked by us from now on: what he finds is served and watched, too.
        """
        self.lead()
        if path is not None and name[:13] == "sif_writable.":
            return _of_ours(name, path)
        if self.bytecode:
            self._check_bytecode()
        if self._in_use and path is not None:
            spec = self._instead_of_copy(name, path, target)
            if spec is not None:
                return spec
        if name not in self.awaited:
            return self._find(name, path, target)
        spec = self._find(name, path, target) or self._ask_others(name, path, target)
        if spec is not None:
            from sif_writable import preflight

            spec = preflight.with_check(spec, self)
        return spec

    def lead(self) -> None:
        """Be asked first: our own modules, too, are loaded as we find them."""
        if sys.meta_path[0] is not self and self in sys.meta_path:
            sys.meta_path.remove(self)
            sys.meta_path.insert(0, self)

    def _instead_of_copy(
        self, name: str, path: "Sequence[str]", target: "Optional[ModuleType]"
    ) -> "Optional[ModuleSpec]":
        """Return the image's own module of a package with a copy, where storage is not this user's alone any more.

        :raises ModuleNotFoundError: the image has none.
        """
        places = [place for place in map(str, path) if place.startswith(self.tree + "/")]
        if not places:
            return None
        root = os.path.dirname(os.path.dirname(self.folder))
        if child.is_own(root, os.geteuid()):
            return None
        spec = self._ask_others(name, [place[len(self.tree) :] for place in places], target)
        if spec is None:
            raise ModuleNotFoundError(
                f"No module named {name!r} (the copy of its package is in {root}, which is gone or not this user's "
                "alone any more)",
                name=name,
            )
        return spec

    def _check_bytecode(self) -> None:
        """Have the interpreter use bytecode of storage no more once that is not this user's alone."""
        if child.is_own(self.bytecode, os.geteuid()):
            return
        root, self.bytecode, sys.pycache_prefix = self.bytecode, "", None
        for name in ("PYTHONPYCACHEPREFIX", child.PYCACHE):
            if os.environ.get(name, "").startswith(root + "/"):
                del os.environ[name]
        from sif_writable.stderr import say

        say([f"{root} is gone, or not this user's alone any more: the bytecode in it is not used"])

    def has_checked(self) -> None:
        """Await nothing more: what the work needs is there. While it is not, the next heavy import is met again."""
        self.awaited = frozenset()
        if not self.folder:
            remove()

    def _find(
        self, name: str, path: "Optional[Sequence[str]]", target: "Optional[ModuleType]"
    ) -> "Optional[ModuleSpec]":
        if name in OUTSIDE and self.folder and path is None and not storage_hangs():
            serve_outside(name)
        if (name == "multiprocessing.process" and self.folder) or (name == "threading" and self._listening):
            spec = self._ask_others(name, path, target)
            return spec if spec is None else _watched(spec)
        # Only what lies directly in a directory of sys.path, or of a namespace, is somebody's whole package.
        if path is None:
            if name in _STDLIB:
                return None
        elif type(path) is not _NAMESPACE_PATH and not _is_old_portion(name):
            return self._follow(name, path, target)
        if not self.folder or name in self.busy or name in NEVER:
            return None
        spec = self._ask_others(name, path, target)
        if self.layer and not _is_of_library(spec) and self._enters_layer(name, spec):
            spec = self._ask_others(name, path, target)  # an earlier run may have written it, or another one
        if spec is None or not spec.has_location or spec.loader is None:
            return spec
        try:
            return self._serve(spec, target)
        except Exception as problem:  # noqa: BLE001 - whatever goes wrong with us, the image's own package is there
            _note(problem)
            return spec

    def _ask_others(
        self, name: str, path: "Optional[Sequence[str]]", target: "Optional[ModuleType]"
    ) -> "Optional[ModuleSpec]":
        """Ask the finders after us, as the import system does when we find nothing."""
        after = False
        for finder in list(sys.meta_path):
            if after:
                if not hasattr(finder, "find_spec"):  # an old one, which the import system knows how to ask
                    return None
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    return spec
            elif finder is self:
                after = True
        return None

    def _follow(
        self, name: str, path: "Optional[Sequence[str]]", target: "Optional[ModuleType]"
    ) -> "Optional[ModuleSpec]":
        """Find a module of a package that is watched, and watch it too."""
        if target is not None or name.rpartition(".")[0] not in self._followed:
            return None
        spec = self._ask_others(name, path, target)
        if spec is not None and spec.has_location and spec.loader is not None:
            if spec.submodule_search_locations is not None:
                self._followed.add(name)
            spec = _watched(spec)
        return spec

    def _serve(self, spec: "ModuleSpec", target: "Optional[ModuleType]") -> "ModuleSpec":
        """Return the spec of the copy, or this spec with a loader that can try again, or this spec."""
        directory, entry = place_of(spec)
        if directory.startswith(self.tree + "/"):  # found there by the path's own finder, see _Served
            return spec if target is not None else self._watch(spec)
        read_only = self._read_only.get(directory)
        if read_only is None:
            read_only = self._read_only[directory] = _is_read_only(directory)
        if not read_only:
            return spec
        self.listen()
        if self._places is None:
            self._places = {where for places in self.wanted().values() for where in places}
        for place in (directory, *sys.path):
            of_path = sys.path_importer_cache.get(place)
            if type(of_path) is _external.FileFinder and (place is directory or place in self._places):
                of_path.__class__ = _Served
        name = spec.name
        for where in self.wanted().get(name, ()):
            if where in (directory, ANYWHERE):
                path = f"{directory}/{entry}"
                # Somebody may have mounted something writable on the package itself: a bind, an overlay.
                if not os.access(path, os.W_OK) and self._has_good_copy(spec, path):
                    spec = moved(spec, self.tree)
                    self._in_use = True
                break
        return spec if target is not None else self._watch(spec)

    def _watch(self, spec: "ModuleSpec") -> "ModuleSpec":
        if spec.submodule_search_locations is not None:
            self._followed.add(spec.name)
        return _watched(spec)

    def serve_to_others(self, spec: "ModuleSpec") -> "ModuleSpec":
        """Return the spec of the copy, or this one, to a finder that is asked before us."""
        if not self.folder or spec.name in self.busy or spec.name in NEVER:
            return spec
        self.lead()
        try:
            return self._serve(spec, _NOBODY)
        except Exception as problem:  # noqa: BLE001 - whatever goes wrong with us, the image's own package is there
            _note(problem)
            return spec

    def _enters_layer(self, name: str, spec: "Optional[ModuleSpec]") -> bool:
        try:
            from sif_writable import layered

            entered = layered.enters(self, name, spec)
            self.layer = not layered.problem
            if not entered:
                return False
        except Exception as problem:  # noqa: BLE001 - whatever goes wrong with us, the program goes on
            _note(problem)
            return False
        self._read_only.clear()
        return True

    def seen(self) -> "list[str]":
        """Return the read-only directories that packages were found in."""
        return [directory for directory, read_only in self._read_only.items() if read_only]

    def has(self, path: str) -> bool:
        """Whether a path of the image has a writable copy; what was only linked, or lies in what was, has none."""
        try:
            copy, own = os.lstat(self.tree + path), os.lstat(path)
        except OSError as error:
            from sif_writable.signals import let_pass

            let_pass(error)
            return False
        return copy.st_mode & _S_IFMT != _S_IFLNK and (copy.st_dev, copy.st_ino) != (own.st_dev, own.st_ino)

    def _has_good_copy(self, spec: "ModuleSpec", path: str) -> bool:
        """Whether a package has a copy of what the image has now; one that is missing or outdated is made."""
        from sif_writable import lease
        from sif_writable.copies import validity

        lease.hold(self.folder)  # before it is seen whether there is a copy
        state = validity.state(self.folder, path)
        if state == validity.UNTRUSTED:
            from sif_writable.copies import provide
            from sif_writable.stderr import say

            say([provide.untrusted_words(spec.name, self.tree + path)])
        if state == validity.GOOD:
            return True
        if state == validity.UNTRUSTED or not self._make(spec):
            return False
        if state == validity.ABSENT:
            untried.add(spec.name)
        return True

    def _make(self, spec: "ModuleSpec") -> bool:
        self.busy.add(spec.name)
        try:
            from sif_writable.copies import provide

            return provide.provide(spec)
        finally:
            self.busy.discard(spec.name)

    def wanted(self) -> "dict[str, tuple[str, ...]]":
        """Return which packages are to be imported from a copy, with the directories of the image that they lie in."""
        if self._wanted is None:
            self._wanted = {}  # first, since what follows may import
            if storage_hangs():
                return self._wanted
            try:
                text = learned_list(self.folder)
            except FileNotFoundError:
                from sif_writable.copies import provide

                text = provide.begin(self.folder)
            except OSError as error:  # copies are not used, then; `status` says why
                from sif_writable.signals import let_pass

                let_pass(error)
                text = ""
            wanted: dict[str, tuple[str, ...]] = {}
            for line in text.split("\n"):
                if line[:8] == "package\t":
                    fields = line.split("\t")
                    if len(fields) == 5:
                        wanted[fields[1]] = (*wanted.get(fields[1], ()), fields[2])
                elif line[:8] == "refused\t" and line.endswith(TAKEN_BACK):
                    fields = line.split("\t")
                    wanted[fields[1]] = tuple([where for where in wanted.get(fields[1], ()) if where != fields[2]])
                elif line[:10] == "forgotten\t":
                    wanted.pop(line.split("\t", 2)[1], None)
            for name in os.environ.get("SIF_WRITABLE_PACKAGES", "").replace(",", " ").split():
                wanted[name] = (ANYWHERE,)
            self._wanted = wanted
        return self._wanted

    def listen(self) -> None:
        """See to it that errors which nobody catches are learned from.

        At the end the interpreter still knows the error that it printed. So nobody's ``sys.excepthook`` is touched,
        whose mere presence changes what some programs do (PyQt aborts or not). Threads leave no
        such trace, nor do processes of multiprocessing: what these are about to run is wrapped.
        """
        if not self._listening:
            self._listening = True
            import atexit

            atexit.register(_at_exit)
        if not self._threads:
            threading = sys.modules.get("threading")
            previous = getattr(threading, "excepthook", None)
            if previous is not None:
                self._threads = True

                def excepthook(arguments: "Any", /) -> None:
                    previous(arguments)
                    _learn(arguments.exc_value)

                threading.excepthook = excepthook  # type: ignore[union-attr]
        if not self._prompts and (
            hasattr(sys, "ps1") or sys.flags.interactive or "IPython.core.interactiveshell" in sys.modules
        ):
            from sif_writable.copies import prompts

            self._prompts = prompts.listen(_learn)
        if not self._processes:
            process: Any = getattr(sys.modules.get("multiprocessing.process"), "BaseProcess", None)
            bootstrap = getattr(process, "_bootstrap", None)
            if bootstrap is not None:
                self._processes = True
                from functools import partial  # adds no line to a traceback

                def _bootstrap(self: "Any", *arguments: "Any", **named: "Any") -> "Any":
                    if "run" not in vars(self):
                        self.run = partial(_run, self)
                    return bootstrap(self, *arguments, **named)

                process._bootstrap = _bootstrap  # noqa: SLF001 - the only way into processes of each kind


def _run(process: "Any") -> None:
    """Do the work of a process of multiprocessing, and hear of the error that ends it."""
    del process.run  # the program finds its process as it knows it
    try:
        process.run()
    except (Exception, SystemExit) as error:
        _learn(error)
        if error.__traceback__ is not None:
            error.__traceback__ = error.__traceback__.tb_next  # without this frame
        raise


def learned_list(folder: str) -> str:
    """Return the text of the learned list.

    :param folder: the folder of copies.
    :raises FileNotFoundError: there is none yet.
    :raises OSError: it cannot be read, is no ordinary file (a pipe would hold the program up), or is somebody else's.
    """
    descriptor = os.open(folder + "/learned", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if status.st_mode & _S_IFMT != _S_IFREG:
            raise OSError("it is not an ordinary file")
        if status.st_uid != os.geteuid():
            raise OSError("it belongs to somebody else")
        return os.read(descriptor, MOST_LEARNED).decode("utf-8", "replace")
    finally:
        os.close(descriptor)


def _is_old_portion(name: str) -> bool:
    """Whether a name lies in a namespace that a ``-nspkg.pth`` file made, whose path may be a plain list."""
    parent = sys.modules.get(name.rpartition(".")[0])
    return getattr(parent, "__file__", None) is None


def _watched(spec: "ModuleSpec") -> "ModuleSpec":
    """Have the module of a spec executed by us.

    Its loader stays what it is, whoever's: it only gets an attribute of its own, for as long as nothing is executed.
    Another stands for one that several modules share.
    """
    loader: Any = spec.loader
    if isinstance(loader, _PYTHON_LOADERS) and loader.path == spec.origin and "exec_module" not in vars(loader):
        loader.exec_module = _execute.__get__(loader)  # type: ignore[method-assign]
    elif (
        str(spec.origin).endswith(".py")
        and type(loader).__module__ != "zipimport"
        and not isinstance(loader, (*_FILE_LOADERS, _Standing))
    ):
        spec.loader = _Standing(loader)  # type: ignore[assignment] # it is what a loader is by __getattr__
    return spec


class _Standing:
    """Stands for a loader that several modules share, until it is asked to execute one."""

    def __init__(self, loader: "Any") -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> "Any":
        return getattr(self._loader, name)

    def exec_module(self, module: "ModuleType") -> None:
        """Put the loader in its place, and execute the module as :func:`_execute` does."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        _execute(self._loader, module)

    exec_module.__code__ = exec_module.__code__.replace(
        co_filename="<frozen importlib._bootstrap>", co_name="_call_with_frames_removed"
    )


class _Served(_external.FileFinder):
    """Finds packages in their copies for whoever asks the path's finders himself, such as jaxtyping and pytest."""

    def find_spec(self, fullname: str, target: "Optional[ModuleType]" = None) -> "Optional[ModuleSpec]":
        spec = super().find_spec(fullname, target)
        if spec is None or spec.loader is None or (this := finder()) is None:
            return spec
        return this.serve_to_others(spec)


def _of_ours(name: str, path: "Sequence[str]") -> "Optional[ModuleSpec]":
    """Find a module of ours as the interpreter does by itself: hooks that check or rewrite all code are for others'."""
    for place in path:
        found = _own_places.get(place)
        if found is None:
            loaders = (_external.SourceFileLoader, [".py"]), (_external.SourcelessFileLoader, [".pyc"])
            found = _own_places[place] = _external.FileFinder(place, *loaders)
        spec = found.find_spec(name)
        if spec is not None:
            return spec
    return None


_NOBODY: "Any" = object()
"""In place of a module: what is found is not watched."""


def place_of(spec: "ModuleSpec") -> "tuple[str, str]":
    """Return the directory that holds a package or module, and its name in there."""
    directory, _, entry = (spec.origin or "").rpartition("/")
    if spec.submodule_search_locations is not None:
        directory, _, entry = directory.rpartition("/")
    return directory, entry


def moved(spec: "ModuleSpec", tree: str) -> "ModuleSpec":
    """Return this spec with every path of it below ``tree``."""
    return _relocated(spec, tree, 0)


def moved_back(spec: "ModuleSpec", tree: str) -> "ModuleSpec":
    """Return the spec of a copy with every path of it in the image."""
    return _relocated(spec, "", len(tree))


def _relocated(spec: "ModuleSpec", more: str, less: int) -> "ModuleSpec":
    origin = more + (spec.origin or "")[less:]
    places = spec.submodule_search_locations
    found = _external.spec_from_file_location(
        spec.name,
        origin,
        loader=_moved_loader(spec.loader, spec.origin, origin),
        submodule_search_locations=None if places is None else [more + place[less:] for place in places],
    )
    return found or spec


def _moved_loader(loader: "Any", origin: "Optional[str]", new: str) -> "Any":
    """Return the like of a loader for another path, whoever's it is.

    Those of beartype and jaxtyping are file loaders of a class of their own, others hold such a loader. One that knows
    no path, such as pytest's, goes by the spec's, or does what it does wherever the module lies.
    """
    if type(loader) in _FILE_LOADERS:
        return type(loader)(loader.name, new)
    values = getattr(loader, "__dict__", None)
    if not values:
        return loader
    changed = {}
    for name, value in values.items():
        if name == "exec_module":
            continue
        if isinstance(value, str) and value == origin:
            changed[name] = new
        elif isinstance(value, _FILE_LOADERS) and value is not loader and value.path == origin:
            changed[name] = _moved_loader(value, origin, new)
    if not changed:
        return loader
    other = object.__new__(type(loader))
    vars(other).update(values)
    vars(other).update(changed)
    vars(other).pop("exec_module", None)
    return other


def _is_of_library(spec: "Optional[ModuleSpec]") -> bool:
    """Whether a module is the standard library's: until CPython 3.10 its names are not known beforehand."""
    return spec is not None and place_of(spec)[0] in _STDLIB_FOLDERS


def _is_read_only(directory: str) -> bool:
    if not directory.startswith("/") or directory in _STDLIB_FOLDERS:
        return False
    return not os.access(directory, os.W_OK)


def storage_hangs() -> bool:
    """Whether the storage that holds the copies does not answer: then all is as without us, and it is not asked again.

    It did at the start. Whoever looks there later asks first, since neither an import nor an error shall be held up.
    """
    global _given_up
    words = os.environ.get(SESSION, "")
    if _given_up or words.startswith("2;"):  # all of it is steady
        return _given_up
    from sif_writable import hanging, session

    root, kind = session.kept_by(words, os.environ.get(COPIES, "").rpartition(":")[2])
    if kind == hanging.STEADY:
        return False

    _given_up = hanging.silent(root, kind)
    if _given_up:
        from sif_writable.stderr import say
        from sif_writable.storage.unserved import silence

        say([silence(root)])
    return _given_up


def _at_exit() -> None:
    _learn(getattr(sys, "last_exc", None) or getattr(sys, "last_value", None))


def _learn(error: "Optional[BaseException]") -> None:
    try:
        if not isinstance(error, (Exception, SystemExit)):
            return
        if not tells_of_a_refusal(error):
            if tells_of_a_full_disk(error) and not _is_of_a_handler(error):
                from sif_writable.copies import full

                full.hear(chain(error), os.path.dirname(folder()))
            return
        if _is_of_a_handler(error) or storage_hangs():
            return
        _lead()
        from sif_writable.copies import learning

        learning.learn(error)
    except Exception as problem:  # noqa: BLE001 - the user has an error already
        _note(problem)


def _lead() -> None:
    this = finder()
    if this is not None:
        this.lead()


def _is_of_a_handler(error: BaseException) -> bool:
    from sif_writable.signals import from_handler

    return from_handler(error)


def _note(problem: BaseException) -> None:
    """Keep what went wrong with us where ``status`` looks, and where somebody who debugs us does.

    :raises Exception: the problem itself, where it is none of ours but from a signal handler of the program.
    """
    from sif_writable.signals import let_pass

    let_pass(problem)
    sif_writable.failure = problem
    if os.environ.get("SIF_WRITABLE_DEBUG") == "1" and sys.stderr is not None:
        sys.stderr.write(f"sif_writable: {type(problem).__name__}: {problem}\n")


def finder() -> "Optional[Finder]":
    """Return the finder of this process, if it is in place; for what waits in its place, it is put there."""
    for found in sys.meta_path:
        if type(found) is Finder:
            return found
    return install() if child.stage in sys.meta_path else None


def install() -> "Finder":
    """Put the finder in place, once: where its first stage is, or else at the head."""
    for found in sys.meta_path:
        if type(found) is Finder:
            return found
    more = _handed(MORE_HEAVY)
    awaited = HEAVY.union(more.replace(",", " ").split()) if more else HEAVY
    new = Finder(awaited, folder())
    if sys.pycache_prefix:
        from sif_writable import session

        new.bytecode = session.root_of(os.environ.get(SESSION, ""), sys.pycache_prefix)
    new = _installed.setdefault("finder", new)  # another thread may have been here meanwhile
    if child.stage in sys.meta_path:
        sys.meta_path[:] = [new if found is child.stage else found for found in sys.meta_path]
    elif new not in sys.meta_path:
        sys.meta_path.insert(0, new)
    # What sys.meta_path holds lives to the very end of an interpreter, and is gone through there once more.
    import atexit

    atexit.register(remove)
    return new


def _handed(name: str) -> "Optional[str]":
    """Return a variable as it was when this process began, whatever the program has made of it before it imports."""
    return child.handed[name] if name in child.handed else os.environ.get(name)


def serve_outside(name: str = "") -> None:
    """Make paths of the image writable that no copy can serve, where the user or the image has declared them.

    :param name: a package of :data:`OUTSIDE` that is about to be imported; by default what is declared at start.
    """
    this = finder()
    if this is None or not this.folder:
        return
    try:
        if not name:
            if not os.environ.get("SIF_WRITABLE_OVERLAY_PATHS"):
                return
            # What an ancestor has decided holds in its namespace.
            if os.environ.get(IN_OVERLAY, "").partition(";")[0] == os.readlink("/proc/self/ns/mnt"):
                return
        from sif_writable import layered
        from sif_writable.overlay import enter

        image = os.path.dirname(this.folder)
        if name:
            enter.before_import(name, os.environ, image, layered.enter)
        else:
            enter.at_start(os.environ, image, layered.enter)
    except Exception as problem:  # noqa: BLE001 - whatever goes wrong with us, the program goes on
        _note(problem)


def folder() -> str:
    """Return the folder of this image's copies, for this interpreter, or an empty string."""
    prefix, _, image = (_handed(COPIES) or "").rpartition(":")
    if not image.startswith("/"):  # not set, or damaged
        return ""
    if prefix != sys.prefix:  # another environment of the image than the one that the session began with
        from sif_writable import system

        purelib = __file__.rsplit("/", 2)[0]
        image = f"{image.rpartition('/')[0]}/image-{system.identity(purelib, system.declared(purelib))}"
    return f"{image}/packages-{sys.implementation.cache_tag}"


def remove() -> None:
    """Leave ``sys.meta_path`` as it was found."""
    _installed.clear()
    sys.meta_path[:] = [found for found in sys.meta_path if type(found).__module__ != __name__]
