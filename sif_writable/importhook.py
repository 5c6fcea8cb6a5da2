"""What happens when a name is imported, in an activated process.

One finder at the head of ``sys.meta_path`` sees the name of each module that is about to be imported. It waits for the
first heavy import, and it serves packages of read-only directories: from their writable copy where they have one, and
otherwise such that a failing import can be tried again from one (:mod:`sif_writable.copies.retry`).

Loaded at the first import of what is not the standard library's. What is not an everyday case is loaded when it occurs.
"""

import _frozen_importlib_external as _external
import os
import sys

from sif_writable import SESSION, child, first_import
from sif_writable.child import MORE_HEAVY, OVERLAY
from sif_writable.copies.store import (
    ANYWHERE,
    NEVER,
    STDLIB_FOLDERS,
    Copies,
    folder,
    handed,
    is_of_library,
    is_part,
    moved,
    place_of,
    storage_hangs,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any, Optional

    from sif_writable.copies.evidence import Listener
    from sif_writable.copies.execution import Watcher

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
_STDLIB = getattr(sys, "stdlib_module_names", frozenset(sys.builtin_module_names))  # 3.9 has only the latter
_installed: "dict[str, Finder]" = {}


class Finder:
    """Waits for the first heavy import, and finds packages in their writable copies."""

    def __init__(self, awaited: "frozenset[str]", copies: Copies) -> None:
        """:param awaited: modules, top-level or dotted, whose import is heavy; :param copies: of this image."""
        self.awaited = awaited
        self.copies = copies
        self._in_use = False
        """Whether a package was imported from its copy, whose modules may be imported at any time."""
        self.layer = (handed(OVERLAY) or "").lower() != "off"
        """Whether there is a writable layer, or one may be made at the first import that needs it."""
        self.bytecode = ""
        """The storage root that holds the interpreter's bytecode, if it does."""
        self._places: Optional[set[str]] = None
        """Directories that hold packages with a copy."""
        self._followed: set[str] = set()
        """Packages whose modules are watched."""
        self._listener: Optional[Listener] = None
        self._watcher: Optional[Watcher] = None

    def find_spec(
        self, name: str, path: "Optional[Sequence[str]]" = None, target: "Optional[ModuleType]" = None
    ) -> "Optional[ModuleSpec]":
        """Find packages of read-only directories; what is awaited is found such that its execution checks first.

        Whoever stands before us is asked by us from now on: what he finds is served and watched, too.
        """
        self.lead()
        if path is not None and name[:13] == "sif_writable.":
            return first_import.of_ours(name, path)
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
        places = [place for place in map(str, path) if place.startswith(self.copies.tree + "/")]
        if not places:
            return None
        root = os.path.dirname(os.path.dirname(self.copies.folder))
        if child.is_own(root, os.geteuid()):
            return None
        spec = self._ask_others(name, [place[len(self.copies.tree) :] for place in places], target)
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
        if not self.copies.folder:
            remove()

    def _find(
        self, name: str, path: "Optional[Sequence[str]]", target: "Optional[ModuleType]"
    ) -> "Optional[ModuleSpec]":
        if name in OUTSIDE and self.copies.folder and path is None and not storage_hangs():
            self.serve_outside(name)
        if (name == "multiprocessing.process" and self.copies.folder) or (
            name == "threading" and self._listener is not None
        ):
            spec = self._ask_others(name, path, target)
            return spec if spec is None else self._watch(spec)
        # Only what lies directly in a directory of sys.path, or of a namespace, is somebody's whole package.
        if path is None:
            if name in _STDLIB:
                return None
        elif is_part(name, path):
            return self._follow(name, path, target)
        if not self.copies.folder or name in self.copies.being_copied or name in NEVER:
            return None
        spec = self._ask_others(name, path, target)
        if self.layer and not is_of_library(spec) and self._enters_layer(name, spec):
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
            spec = self._watch(spec)
        return spec

    def _serve(self, spec: "ModuleSpec", target: "Optional[ModuleType]") -> "ModuleSpec":
        """Return the spec of the copy, or this spec with a loader that can try again, or this spec."""
        directory, entry = place_of(spec)
        if directory.startswith(self.copies.tree + "/"):  # found there by the path's own finder, see _Served
            return spec if target is not None else self._watch(spec)
        if not self.copies.lies_in_image(directory):
            in_layer = self.layer and directory not in STDLIB_FOLDERS
            return self._serve_in_layer(spec, directory, f"{directory}/{entry}", target) if in_layer else spec
        self.listen()
        if self._places is None:
            self._places = {where for places in self.copies.wanted().values() for where in places}
        for place in (directory, *sys.path):
            of_path = sys.path_importer_cache.get(place)
            if type(of_path) is _external.FileFinder and (place is directory or place in self._places):
                of_path.__class__ = _Served
                vars(of_path)["serving"] = self
        for where in self.copies.wanted().get(spec.name, ()):
            if where in (directory, ANYWHERE):
                path = f"{directory}/{entry}"
                # Somebody may have mounted something writable on the package itself: a bind, an overlay.
                if not os.access(path, os.W_OK) and self.copies.provides(spec, path):
                    spec = moved(spec, self.copies.tree)
                    self._in_use = True
                break
        return spec if target is not None else self._watch(spec)

    def _serve_in_layer(
        self, spec: "ModuleSpec", directory: str, path: str, target: "Optional[ModuleType]"
    ) -> "ModuleSpec":
        """Serve what is another user's in a layer as it is served without one: there, too, it cannot be written."""
        from sif_writable import layered

        if not layered.covers(directory):
            return spec
        if layered.needs_copy(self.copies, spec.name, directory) and self.copies.provides(spec, path):
            spec = moved(spec, self.copies.tree)
            self._in_use = True
        elif os.access(path, os.W_OK):
            return spec
        return spec if target is not None else self._watch(spec)

    def serve_to_others(self, spec: "ModuleSpec") -> "ModuleSpec":
        """Return the spec of the copy, or this one, to a finder that is asked before us."""
        if not self.copies.folder or spec.name in self.copies.being_copied or spec.name in NEVER:
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
        self.copies.read_only.clear()
        return True

    def listen(self) -> None:
        """See to it that errors which nobody catches are learned from."""
        if self._listener is None:
            from sif_writable.copies.evidence import Listener

            self._listener = Listener(self.copies, self.lead)
        self._listener.listen()

    def _watch(self, spec: "ModuleSpec") -> "ModuleSpec":
        """Have the module of a spec, and a package's own modules, executed by us: a failing import is tried again."""
        if spec.submodule_search_locations is not None:
            self._followed.add(spec.name)
        if self._watcher is None:
            from sif_writable.copies.execution import Watcher

            self._watcher = Watcher(self.copies, self.lead, self.listen)
        return self._watcher.watched(spec)

    def serve_outside(self, name: str = "") -> None:
        """Make paths of the image writable that no copy can serve, where the user or the image has declared them.

        :param name: a package of :data:`OUTSIDE` that is about to be imported; by default what is declared at start.
        """
        if not self.copies.folder or not (name or os.environ.get(child.PATHS)):
            return
        try:
            from sif_writable import layered

            layered.serve_outside(self, name)
        except Exception as problem:  # noqa: BLE001 - whatever goes wrong with us, the program goes on
            _note(problem)


class _Served(_external.FileFinder):
    """Finds packages in their copies for whoever asks the path's finders himself, such as jaxtyping and pytest."""

    serving: Finder

    def find_spec(self, fullname: str, target: "Optional[ModuleType]" = None) -> "Optional[ModuleSpec]":
        spec = super().find_spec(fullname, target)
        if spec is None or spec.loader is None or self.serving not in sys.meta_path:
            return spec
        return self.serving.serve_to_others(spec)


_NOBODY: "Any" = object()
"""In place of a module: what is found is not watched."""


def install() -> Finder:
    """Put the finder in place, once: where its first stage is, or else at the head."""
    for found in sys.meta_path:
        if type(found) is Finder:
            return found
    more = handed(MORE_HEAVY)
    awaited = HEAVY.union(more.replace(",", " ").split()) if more else HEAVY
    new = Finder(awaited, Copies(folder()))
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
    """Leave ``sys.meta_path`` as it was found."""
    _installed.clear()
    sys.meta_path[:] = [found for found in sys.meta_path if type(found).__module__ != __name__]


def _note(problem: BaseException) -> None:
    from sif_writable.stderr import note

    note(problem)
