"""What happens when a name is imported, in an activated process.

One finder at the head of ``sys.meta_path`` sees the name of each module that is about to be imported. The first package
of a read-only directory makes the environment writable (:mod:`sif_writable.layered`); then nothing more is to be done.
Where that is impossible, and for heavy modules, :mod:`sif_writable.serving` does the rest; it is loaded only then.

Loaded at the first import of what is not the standard library's, with nothing that is not loaded already. Below are the
questions on modules that all ask who serve them.
"""

import _frozen_importlib_external as _external
import os
import sys

from sif_writable import SESSION, child, first_import
from sif_writable.child import COPIES, MORE_HEAVY, OVERLAY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any, Optional

    from sif_writable.copies.store import Copies
    from sif_writable.serving import Serving
    from sif_writable.uncaught import Listener

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
NEVER = frozenset(
    (
        *("sif_writable", "filelock", "platformdirs", "pynvml", "typing_extensions"),
        *("sitecustomize", "usercustomize", "apport_python_hook"),
    )
)
"""What copying needs itself, and what ``site`` and Debian's sitecustomize look for at every start."""
STDLIB_FOLDERS = (os.path.dirname(os.__file__), os.path.dirname(os.__file__) + "/lib-dynload")
NAMESPACE_PATH = getattr(_external, "_NamespacePath", None) or _external.NamespacePath  # type: ignore[attr-defined]
_STDLIB = getattr(sys, "stdlib_module_names", frozenset(sys.builtin_module_names))  # 3.9 has only the latter
_UNCAUGHT = ("threading", "multiprocessing.process")
"""Modules that run code whose errors nobody catches."""
_WATCHED = frozenset((*_UNCAUGHT, "IPython.core.interactiveshell"))
"""Where one of these is loaded, the last error is not all that there is to know at the end."""
_installed: "dict[str, Finder]" = {}
_given_up = False
"""Whether storage was found to hang after the start."""


class Finder:
    """Sees each name first, and finds what has to be served."""

    def __init__(self, awaited: "frozenset[str]", folder: str) -> None:
        """:param awaited: modules, top-level or dotted, whose import is heavy; :param folder: of the image's copies."""
        self.awaited = awaited
        self.folder = folder
        """Where this image's copies are, for this interpreter; empty: nothing is served."""
        self.layer = (handed(OVERLAY) or "").lower() != "off"
        """Whether there is a writable layer, or one may be made at the first import that needs it."""
        self.bytecode = ""
        """The storage root that holds the interpreter's bytecode, if it does."""
        self.read_only: dict[str, bool] = {}
        """Directories that packages were found in, and whether they are read-only."""
        self._serving: Optional[Serving] = None
        self._listens = False
        self._listener: Optional[Listener] = None

    @property
    def serving(self) -> "Serving":
        """Return what serves packages that cannot be written where they lie."""
        if self._serving is None:
            first_import.load("copies.store", "serving")
            from sif_writable import serving

            self._serving = serving.Serving(self)
        return self._serving

    @property
    def copies(self) -> "Copies":
        """Return the copies of this image's packages."""
        return self.serving.copies

    def find_spec(
        self, name: str, path: "Optional[Sequence[str]]" = None, target: "Optional[ModuleType]" = None
    ) -> "Optional[ModuleSpec]":
        """Find packages of read-only directories; what is awaited is found such that its execution checks first.

        Whoever stands before us is asked by us from now on: what he finds is served and watched, too.
        """
        self.lead()
        if path is not None and name[:13] == "sif_writable.":
            return first_import.of_ours(name, path)
        if self.bytecode and not child.is_own(self.bytecode, os.geteuid()):
            self.serving.drop_bytecode()
        if path is not None and self._serving is not None:
            spec = self._serving.instead_of_copy(name, path, target)
            if spec is not None:
                return spec
        if name not in self.awaited:
            return self._find(name, path, target)
        spec = self._find(name, path, target) or self.ask_others(name, path, target)
        return spec if spec is None else self.serving.checked(spec)

    def lead(self) -> None:
        """Be asked first: our own modules, too, are loaded as we find them."""
        if sys.meta_path[0] is not self and self in sys.meta_path:
            sys.meta_path.remove(self)
            sys.meta_path.insert(0, self)

    def has_checked(self) -> None:
        """Await nothing more: what the work needs is there. While it is not, the next heavy import is met again."""
        self.awaited = frozenset()
        if not self.folder:
            remove()

    def _find(
        self, name: str, path: "Optional[Sequence[str]]", target: "Optional[ModuleType]"
    ) -> "Optional[ModuleSpec]":
        if name in OUTSIDE and self.folder and path is None and not storage_hangs():
            self.serve_outside(name)
        if name in _UNCAUGHT and (self._listens or (name != "threading" and self.folder)):
            spec = self.ask_others(name, path, target)
            from sif_writable import uncaught

            return uncaught.watched(spec, self.listen)
        # Only what lies directly in a directory of sys.path, or of a namespace, is somebody's whole package.
        if path is None:
            if name in _STDLIB:
                return None
        elif is_part(name, path):
            return None if self._serving is None else self._serving.follow(name, path, target)
        if not self.folder or name in NEVER or (self._serving is not None and self._serving.is_copying(name)):
            return None
        spec = self.ask_others(name, path, target)
        if self.layer and not is_of_library(spec) and self._enters_layer(name, spec):
            spec = self.ask_others(name, path, target)  # an earlier run may have written it, or another one
        if spec is None or not spec.has_location or spec.loader is None:
            return spec
        try:
            return self._served(spec, target)
        except Exception as problem:  # noqa: BLE001 - whatever goes wrong with us, the image's own package is there
            first_import.note(problem)
            return spec

    def ask_others(
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

    def _served(self, spec: "ModuleSpec", target: "Optional[ModuleType]") -> "ModuleSpec":
        """Return the spec of a package that can be written where it lies, as far as that is seen from here."""
        if self._serving is None:
            directory, entry = place_of(spec)
            if not self.lies_in_image(directory):
                if not self.layer or directory in STDLIB_FOLDERS:
                    return spec
                from sif_writable import layered

                if os.access(f"{directory}/{entry}", os.W_OK) and not layered.may_need_copies(self.folder):
                    return spec
        return self.serving.serve(spec, target)

    def lies_in_image(self, directory: str) -> bool:
        """Whether the packages of a directory cannot be written; noted, since each import asks."""
        read_only = self.read_only.get(directory)
        if read_only is None:
            read_only = self.read_only[directory] = is_read_only(directory)
        return read_only

    def _enters_layer(self, name: str, spec: "Optional[ModuleSpec]") -> bool:
        try:
            first_import.load("layered")
            from sif_writable import layered

            anew = layered.enters(self, name, spec)
            self.layer = not layered.problem
        except Exception as problem:  # noqa: BLE001 - whatever goes wrong with us, the program goes on
            first_import.note(problem)
            return False
        return anew

    def listen(self) -> None:
        """See to it that errors which nobody catches are learned from; at the end it is seen whether there was one."""
        if not self._listens:
            self._listens = True
            import atexit

            atexit.register(self._learn_at_exit)
        if not _WATCHED.isdisjoint(sys.modules) or hasattr(sys, "ps1") or sys.flags.interactive:
            from sif_writable import uncaught

            self._listener = self._listener or uncaught.Listener(self.learn)
            self._listener.listen()

    def _learn_at_exit(self) -> None:
        # The interpreter still knows the error that it printed. So nobody's `sys.excepthook` is touched, whose mere
        # presence changes what some programs do (PyQt aborts or not).
        self.learn(getattr(sys, "last_exc", None) or getattr(sys, "last_value", None))

    def learn(self, error: "Optional[BaseException]") -> None:
        """Learn from an error that ended something, if it shows a refused write."""
        if isinstance(error, SystemExit) and type(error.code) is int and error.__context__ is error.__cause__ is None:
            return  # a worker that ends as it likes
        if isinstance(error, (Exception, SystemExit)):
            try:
                from sif_writable import evidence

                if evidence.may_concern_us(error):
                    self.serving.learn(error)
            except Exception as problem:  # noqa: BLE001 - the user has an error already
                first_import.note(problem)

    def serve_outside(self, name: str = "") -> None:
        """Make what is declared outside the environment writable, or what a package of :data:`OUTSIDE` writes to."""
        if self.folder and (name or os.environ.get(child.PATHS)):
            self.serving.serve_outside(name)


def install() -> Finder:
    """Put the finder in place, once: where its first stage is, or else at the head."""
    for found in sys.meta_path:
        if type(found) is Finder:
            return found
    more = handed(MORE_HEAVY)
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


def remove() -> None:
    """Leave ``sys.meta_path`` and the finders of the path as they were found."""
    finder = _installed.pop("finder", None)
    if finder is not None and finder._serving is not None:  # noqa: SLF001 - it is not made for this
        finder._serving.release()  # noqa: SLF001
    sys.meta_path[:] = [found for found in sys.meta_path if type(found).__module__ != __name__]


# --- Modules, and where they lie ---


def handed(name: str) -> "Optional[str]":
    """Return a variable as it was when this process began, whatever the program has made of it before it imports."""
    value = child.handed[name] if name in child.handed else os.environ.get(name)
    return None if value is None else os.fsdecode(value)


def folder() -> str:
    """Return the folder of this image's copies, for this interpreter, or an empty string."""
    prefix, _, image = (handed(COPIES) or "").rpartition(":")
    if not image.startswith("/"):  # not set, or damaged
        return ""
    if prefix != sys.prefix:  # another environment of the image than the one that the session began with
        from sif_writable.identity import PURELIB, declared
        from sif_writable.system.image import identity

        image = f"{image.rpartition('/')[0]}/image-{identity(PURELIB, declared(PURELIB))}"
    return f"{image}/packages-{sys.implementation.cache_tag}"


def storage_hangs() -> bool:
    """Whether the storage that holds the copies does not answer: then all is as without us, and it is not asked again.

    It did at the start. Whoever looks there later asks first, since neither an import nor an error shall be held up.
    """
    global _given_up
    words = os.environ.get(SESSION, "")
    if _given_up or words.startswith("2;"):  # all of it is steady
        return _given_up
    from sif_writable import hanging, session

    root, kind = session.root_and_kind(words, os.environ.get(COPIES, "").rpartition(":")[2])
    if kind == hanging.LOCAL:
        return False
    _given_up = hanging.times_out(root, kind)
    if _given_up:
        from sif_writable.stderr import say
        from sif_writable.storage.unserved import hanging as line

        say([line(root)])
    return _given_up


def is_part(name: str, path: "Any") -> bool:
    """Whether a module is a part of a package, and lies in no directory of ``sys.path`` or of a namespace itself."""
    return type(path) is not NAMESPACE_PATH and not _is_old_portion(name)


def _is_old_portion(name: str) -> bool:
    """Whether a name lies in a namespace that a ``-nspkg.pth`` file made, whose path may be a plain list."""
    parent = sys.modules.get(name.rpartition(".")[0])
    return getattr(parent, "__file__", None) is None


def is_of_library(spec: "Optional[ModuleSpec]") -> bool:
    """Whether a module is the standard library's: until CPython 3.10 its names are not known beforehand."""
    return spec is not None and place_of(spec)[0] in STDLIB_FOLDERS


def is_read_only(directory: str) -> bool:
    """Whether packages in a directory cannot be written, which the standard library need not be."""
    if not directory.startswith("/") or directory in STDLIB_FOLDERS:
        return False
    return not os.access(directory, os.W_OK)


def place_of(spec: "ModuleSpec") -> "tuple[str, str]":
    """Return the directory that holds a package or module, and its name in there."""
    directory, _, entry = (spec.origin or "").rpartition("/")
    if spec.submodule_search_locations is not None:
        directory, _, entry = directory.rpartition("/")
    return directory, entry
