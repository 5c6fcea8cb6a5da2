"""The hook at import: what an activated process keeps.

One finder at the head of ``sys.meta_path`` sees the name of each module that is about to be imported. It waits for the
first heavy import, and it serves packages of read-only directories: from their writable copy where they have one, and
otherwise such that a failing import can be tried again from one (:mod:`sif_writable.act.retry`).

On the start-up path: it imports only ``os``, ``sys`` and the import system, which are all loaded already. Whatever is
not an everyday case lives in modules that are loaded then.
"""

import _frozen_importlib_external as _external
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
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

MORE_HEAVY = "SIF_WRITABLE_HEAVY"
"""The variable with further ones, separated by commas: the user's, and those that the image declares."""

OUTSIDE = frozenset(("certbot",))
"""Packages that write outside their directory and the prefix: :data:`sif_writable.plan.overlay.PLACES`."""
OUTSIDE_LEARNED = "/outside"
"""The file beside the learned list that is there when the list names paths which lie in no package."""
MOST_LEARNED = 1 << 20
"""Bytes of the learned list that are read; 10,000 packages."""
IN_OVERLAY = "SIF_WRITABLE_IN_OVERLAY"
"""The variable that tells descendants in which namespace paths of the image were made writable."""

COPIES = "SIF_WRITABLE_COPIES"
"""The variable that tells descendants where this image's copies are: ``PREFIX:FOLDER``; PREFIX is sys.prefix."""
ANYWHERE = "*"
"""In place of a directory: the package wherever it is found."""
NEVER = frozenset(
    ("sif_writable", "filelock", "platformdirs", "pynvml", "typing_extensions", "sitecustomize", "usercustomize")
)
"""What copying up needs itself, and what ``site`` looks for at every start."""

_STDLIB = getattr(sys, "stdlib_module_names", frozenset(sys.builtin_module_names))  # 3.9 has only the latter
_STDLIB_FOLDERS = (os.path.dirname(os.__file__), os.path.dirname(os.__file__) + "/lib-dynload")
_NAMESPACE_PATH = getattr(_external, "_NamespacePath", None) or _external.NamespacePath  # type: ignore[attr-defined]
_FILE_LOADERS = (_external.SourceFileLoader, _external.SourcelessFileLoader, _external.ExtensionFileLoader)
_S_IFMT, _S_IFLNK, _S_IFREG = 0o170000, 0o120000, 0o100000

_given_up = False
"""Whether storage was found to hang after the start."""


class Watched(_external.SourceFileLoader):
    """Executes a module, and once more from a writable copy where that cures its failure.

    The module sees the ordinary loader in its place.
    """

    ordinary: "type[Any]" = _external.SourceFileLoader

    def exec_module(self, module: "ModuleType") -> None:
        """Execute the module; its failure is raised as it would be without us."""
        loader = self.ordinary(self.name, self.path)
        module.__loader__ = loader
        if module.__spec__ is not None:
            module.__spec__.loader = loader
        again = None
        try:
            loader.exec_module(module)
        except Exception as error:
            again = _try_again(module, error)
            if again is None:
                raise
        else:
            if (found := finder()) is not None:
                found.listen()  # threads may have come with it
        if again is not None:  # outside the handler, so that the second try does not see the first one's exception
            try:
                again.loader.exec_module(module)
            except BaseException as second:
                again.failed(second)
                raise
            finally:
                again.end()

    # A traceback through an import shows none of the import system's frames: it is cut at a function of this name in
    # this file. Ours takes part, so that the user sees no more than without us.
    exec_module.__code__ = exec_module.__code__.replace(
        co_filename="<frozen importlib._bootstrap>", co_name="_call_with_frames_removed"
    )


class WatchedBytecode(_external.SourcelessFileLoader):
    """The same for a module of which there is only bytecode."""

    ordinary = _external.SourcelessFileLoader
    exec_module = Watched.exec_module


_WATCHED: "dict[Any, Any]" = {
    _external.SourceFileLoader: Watched,
    _external.SourcelessFileLoader: WatchedBytecode,
}


def _try_again(module: "ModuleType", error: Exception) -> "Any":
    own = module.__name__.partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] != own:
        return None  # something is not installed: the everyday failure
    if _is_of_a_handler(error) or storage_hangs():
        return None
    try:
        from sif_writable.act import retry

        return retry.prepare(module, error)
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
        self.bytecode = ""
        """The storage root that holds the interpreter's bytecode, if it does."""
        self._wanted: Optional[dict[str, tuple[str, ...]]] = None
        self._read_only: dict[str, bool] = {}
        self._listening = False
        self._threads = False
        self._processes = False

    def find_spec(
        self, name: str, path: "Optional[Sequence[str]]" = None, target: "Optional[ModuleType]" = None
    ) -> "Optional[ModuleSpec]":
        """Find packages of read-only directories; what is awaited is found such that its execution checks first."""
        if self.bytecode:
            self._check_bytecode()
        if name not in self.awaited:
            return self._find(name, path, target)
        spec = self._find(name, path, target) or self._ask_others(name, path, target)
        if spec is not None:
            from sif_writable.act import heavy

            spec = heavy.with_check(spec, self)
        return spec

    def _check_bytecode(self) -> None:
        """Have the interpreter use bytecode of storage no more once that is not this user's alone."""
        from sif_writable import startup

        if startup.is_own(self.bytecode, os.geteuid()):
            return
        root, self.bytecode, sys.pycache_prefix = self.bytecode, "", None
        for name in ("PYTHONPYCACHEPREFIX", startup.PYCACHE):
            if os.environ.get(name, "").startswith(root + "/"):
                del os.environ[name]
        from sif_writable.report.startup import say

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
            return None
        if not self.folder or name in self.busy or name in NEVER:
            return None
        spec = self._ask_others(name, path, target)
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

    def _serve(self, spec: "ModuleSpec", target: "Optional[ModuleType]") -> "ModuleSpec":
        """Return the spec of the copy, or this spec with a loader that can try again, or this spec."""
        directory, entry = place_of(spec)
        read_only = self._read_only.get(directory)
        if read_only is None:
            read_only = self._read_only[directory] = _is_read_only(directory)
        if not read_only:
            return spec
        self.listen()
        name = spec.name
        for where in self.wanted().get(name, ()):
            if where in (directory, ANYWHERE):
                path = f"{directory}/{entry}"
                # Somebody may have mounted something writable on the package itself: a bind, an overlay.
                if not os.access(path, os.W_OK):
                    from sif_writable import lease

                    lease.hold(self.folder)  # before it is seen whether there is a copy
                    if self.has(path) or self._make(spec):
                        spec = moved(spec, self.tree)
                break
        return spec if target is not None else _watched(spec)

    def seen(self) -> "list[str]":
        """Return the read-only directories that packages were found in."""
        return [directory for directory, read_only in self._read_only.items() if read_only]

    def has(self, path: str) -> bool:
        """Whether a path of the image has a writable copy; what was only linked, or lies in what was, has none."""
        try:
            copy, own = os.lstat(self.tree + path), os.lstat(path)
        except OSError:
            return False
        return copy.st_mode & _S_IFMT != _S_IFLNK and (copy.st_dev, copy.st_ino) != (own.st_dev, own.st_ino)

    def _make(self, spec: "ModuleSpec") -> bool:
        self.busy.add(spec.name)
        try:
            from sif_writable.act import copyup

            return copyup.provide(spec)
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
                from sif_writable.act import copyup

                text = copyup.begin(self.folder)
            except OSError:  # copies are not used, then; `status` says why
                text = ""
            wanted: dict[str, tuple[str, ...]] = {}
            for line in text.split("\n"):
                if line[:8] == "package\t":
                    fields = line.split("\t")
                    if len(fields) == 5:
                        wanted[fields[1]] = (*wanted.get(fields[1], ()), fields[2])
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
    except Exception as error:
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
    kind = _WATCHED.get(type(spec.loader))
    if kind is not None:
        spec.loader = kind(spec.name, spec.loader.path)  # type: ignore[union-attr]
    return spec


def place_of(spec: "ModuleSpec") -> "tuple[str, str]":
    """Return the directory that holds a package or module, and its name in there."""
    directory, _, entry = (spec.origin or "").rpartition("/")
    if spec.submodule_search_locations is not None:
        directory, _, entry = directory.rpartition("/")
    return directory, entry


def moved(spec: "ModuleSpec", tree: str) -> "ModuleSpec":
    """Return this spec with every path of it below ``tree``; what no file loader loads stays where it is."""
    kind = type(spec.loader)
    if kind not in _FILE_LOADERS:
        return spec
    origin = tree + (spec.origin or "")
    places = spec.submodule_search_locations
    found = _external.spec_from_file_location(
        spec.name,
        origin,
        loader=kind(spec.name, origin),
        submodule_search_locations=None if places is None else [tree + place for place in places],
    )
    return found or spec


def _is_read_only(directory: str) -> bool:
    if not directory.startswith("/") or directory in _STDLIB_FOLDERS:
        return False
    return not os.access(directory, os.W_OK)


def storage_hangs() -> bool:
    """Whether the storage that holds the copies does not answer: then all is as without us, and it is not asked again.

    It did at the start. Whoever looks there later asks first, since neither an import nor an error shall be held up.
    """
    global _given_up
    from sif_writable import startup

    root, kind = startup.kept_by(os.environ.get(startup.SESSION, ""), os.environ.get(COPIES, "").rpartition(":")[2])
    if kind == startup.STEADY or _given_up:
        return _given_up
    _given_up = startup.silent(root, kind)
    if _given_up:
        from sif_writable.report.startup import say, silence

        say([silence(root)])
    return _given_up


def _at_exit() -> None:
    _learn(getattr(sys, "last_exc", None) or getattr(sys, "last_value", None))


def _learn(error: "Optional[BaseException]") -> None:
    if not isinstance(error, Exception) or _is_of_a_handler(error) or storage_hangs():
        return
    try:
        from sif_writable.act import learning

        learning.learn(error)
    except Exception as problem:  # noqa: BLE001 - the user has an error already
        _note(problem)


def _is_of_a_handler(error: BaseException) -> bool:
    from sif_writable import startup

    return startup.from_handler(error)


def _note(problem: BaseException) -> None:
    """Keep what went wrong with us where ``status`` looks, and where somebody who debugs us does.

    :raises Exception: the problem itself, where it is none of ours but from a signal handler of the program.
    """
    from sif_writable import startup

    startup.let_pass(problem)
    startup.failure = problem
    if os.environ.get("SIF_WRITABLE_DEBUG") == "1" and sys.stderr is not None:
        sys.stderr.write(f"sif_writable: {type(problem).__name__}: {problem}\n")


def finder() -> "Optional[Finder]":
    """Return the finder of this process, if it is in place."""
    for found in sys.meta_path:
        if type(found) is Finder:
            return found
    return None


def install() -> None:
    """Put the finder in place, once."""
    for found in sys.meta_path:
        if type(found).__name__ == "Finder" and type(found).__module__ == __name__:
            return
    more = os.environ.get(MORE_HEAVY)
    awaited = HEAVY.union(more.replace(",", " ").split()) if more else HEAVY
    new = Finder(awaited, folder())
    if sys.pycache_prefix:
        from sif_writable import startup

        new.bytecode = startup.root_of(os.environ.get(startup.SESSION, ""), sys.pycache_prefix)
    sys.meta_path.insert(0, new)


def serve_outside(name: str = "") -> None:
    """Make paths of the image writable that no copy can serve, where they are known to be needed.

    :param name: a package of :data:`OUTSIDE` that is about to be imported; by default what is known at start.
    """
    this = finder()
    if this is None or not this.folder:
        return
    try:
        if not name:
            named = (
                os.environ.get("SIF_WRITABLE_OVERLAY_PATHS")
                or os.environ.get("SIF_WRITABLE_OVERLAY", "").lower() == "on"
            )
            if not named and not os.access(this.folder + OUTSIDE_LEARNED, os.F_OK):
                return
            # What an ancestor has decided holds in its namespace.
            if os.environ.get(IN_OVERLAY, "").partition(";")[0] == os.readlink("/proc/self/ns/mnt"):
                return
        from sif_writable.act import overlay

        image = os.path.dirname(this.folder)
        if name:
            overlay.before_import(name, os.environ, image)
        else:
            overlay.at_start(os.environ, image)
    except Exception as problem:  # noqa: BLE001 - whatever goes wrong with us, the program goes on
        _note(problem)


def folder() -> str:
    """Return the folder of this image's copies, for this interpreter, or an empty string."""
    prefix, _, image = os.environ.get(COPIES, "").rpartition(":")
    if not image.startswith("/"):  # not set, or damaged
        return ""
    if prefix != sys.prefix:  # another environment of the image than the one that the session began with
        from sif_writable import facts

        purelib = __file__.rsplit("/", 2)[0]
        image = f"{image.rpartition('/')[0]}/image-{facts.identity(purelib, facts.declared(purelib))}"
    return f"{image}/packages-{sys.implementation.cache_tag}"


def remove() -> None:
    """Leave ``sys.meta_path`` as it was found."""
    sys.meta_path[:] = [found for found in sys.meta_path if type(found).__module__ != __name__]
