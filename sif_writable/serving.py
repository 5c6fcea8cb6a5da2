"""What a module gets that cannot be written where it lies: its package's copy, a second try.

Loaded where the environment is read-only and there is no layer, where a package has a copy, and for what is declared to
lie elsewhere; not on the path of a process that has a layer and no error.
"""

import _frozen_importlib_external as _external
import os
import sys

from sif_writable import LAYER, SESSION, child, first_import, importhook
from sif_writable.copies.store import ANYWHERE, Copies, learned_list, moved
from sif_writable.importhook import NEVER, STDLIB_FOLDERS, place_of, storage_hangs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any, Optional

    from sif_writable.copies.execution import Watcher


class Serving:
    """Serves modules of one image, for one finder."""

    def __init__(self, finder: importhook.Finder) -> None:
        """:param finder: sees each name first."""
        self.copies = Copies(finder.folder, finder.read_only)
        self._finder = finder
        self._in_use = False
        """Whether a package was imported from its copy, whose modules may be imported at any time."""
        self._places: Optional[set[str]] = None
        """Directories that hold packages with a copy."""
        self._followed: set[str] = set()
        """Packages whose modules are watched."""
        self._watcher: Optional[Watcher] = None
        self._layer: list[str] = []
        """The directories of the layer that this process is in, once it was asked for and there was one."""
        self._learned: Optional[str] = None
        """The list of packages that have copies, once somebody has asked."""

    def is_copying(self, name: str) -> bool:
        """Whether the copy of a package is being made: what that imports comes from the image."""
        return name in self.copies.being_copied

    def instead_of_copy(
        self, name: str, path: "Sequence[str]", target: "Optional[ModuleType]"
    ) -> "Optional[ModuleSpec]":
        """Return the image's own module of a package with a copy where storage is not this user's alone any more.

        :raises ModuleNotFoundError: the image has none.
        """
        if not self._in_use:
            return None
        places = [place for place in map(str, path) if place.startswith(self.copies.tree + "/")]
        if not places:
            return None
        root = os.path.dirname(os.path.dirname(self.copies.folder))
        if child.is_own(root, os.geteuid()):
            return None
        spec = self._finder.ask_others(name, [place[len(self.copies.tree) :] for place in places], target)
        if spec is None:
            raise ModuleNotFoundError(
                f"No module named {name!r} (the copy of its package is in {root}, which is gone or not this user's "
                "alone any more)",
                name=name,
            )
        return spec

    def checked(self, spec: "ModuleSpec") -> "ModuleSpec":
        """Return the spec of a heavy module such that its execution checks first what the work needs."""
        from sif_writable import preflight

        return preflight.with_check(spec, self._finder)

    def drop_bytecode(self) -> None:
        """Have the interpreter use bytecode of storage no more once that is not this user's alone."""
        root, self._finder.bytecode, sys.pycache_prefix = self._finder.bytecode, "", None
        for name in ("PYTHONPYCACHEPREFIX", child.PYCACHE):
            if os.environ.get(name, "").startswith(root + "/"):
                del os.environ[name]
        from sif_writable.stderr import say

        say([f"{root} is gone, or not this user's alone any more: the bytecode in it is not used"])

    def follow(
        self, name: str, path: "Optional[Sequence[str]]", target: "Optional[ModuleType]"
    ) -> "Optional[ModuleSpec]":
        """Find a module of a package that is watched, and watch it too."""
        if target is not None or name.rpartition(".")[0] not in self._followed:
            return None
        spec = self._finder.ask_others(name, path, target)
        if spec is not None and spec.has_location and spec.loader is not None:
            spec = self.watch(spec)
        return spec

    def serve(self, spec: "ModuleSpec", target: "Optional[ModuleType]") -> "ModuleSpec":
        """Return the spec of the copy, or this spec with a loader that can try again, or this spec."""
        directory, entry = place_of(spec)
        if directory.startswith(self.copies.tree + "/"):  # found there by the path's own finder, see _Served
            return spec if target is not None else self.watch(spec)
        if not self._finder.lies_in_image(directory):
            in_layer = self._finder.layer and directory not in STDLIB_FOLDERS
            return self._serve_in_layer(spec, directory, f"{directory}/{entry}", target) if in_layer else spec
        self._finder.listen()
        if self._places is None:
            self._places = {where for places in self.copies.wanted().values() for where in places}
        for place in (directory, *sys.path):
            of_path = sys.path_importer_cache.get(place)
            if type(of_path) is _external.FileFinder and (place is directory or place in self._places):
                of_path.__class__ = _Served
                vars(of_path).update(serving=self, finder=self._finder)
        for where in self.copies.wanted().get(spec.name, ()):
            if where in (directory, ANYWHERE):
                path = f"{directory}/{entry}"
                # Somebody may have mounted something writable on the package itself: a bind, an overlay.
                if not os.access(path, os.W_OK) and self.copies.provides(spec, path):
                    spec = moved(spec, self.copies.tree)
                    self._in_use = True
                break
        return spec if target is not None else self.watch(spec)

    def _serve_in_layer(
        self, spec: "ModuleSpec", directory: str, path: str, target: "Optional[ModuleType]"
    ) -> "ModuleSpec":
        """Serve what is another user's in a layer as it is served without one: there, too, it cannot be written."""
        if not self._is_covered(directory):
            return spec
        if self._needs_copy(spec.name, directory) and self.copies.provides(spec, path):
            spec = moved(spec, self.copies.tree)
            self._in_use = True
        elif os.access(path, os.W_OK):
            return spec
        return spec if target is not None else self.watch(spec)

    def _is_covered(self, directory: str) -> bool:
        """Whether a directory lies in the layer that this process is in."""
        if not self._layer:
            from sif_writable.mounted import in_layer

            self._layer = in_layer(os.environ.get(LAYER))[2:]
        return any(f"{directory}/".startswith(f"{top}/") for top in self._layer)

    def release(self) -> None:
        """Have the path's own finders be what they were: at its end an interpreter holds them longest, too."""
        for found in list(sys.path_importer_cache.values()):
            if type(found) is _Served:
                found.__class__ = _external.FileFinder  # type: ignore[assignment]
                for name in ("finder", "serving"):
                    vars(found).pop(name, None)

    def serve_to_others(self, spec: "ModuleSpec") -> "ModuleSpec":
        """Return the spec of the copy, or this one, to a finder that is asked before us."""
        if not self.copies.folder or spec.name in self.copies.being_copied or spec.name in NEVER:
            return spec
        self._finder.lead()
        try:
            return self.serve(spec, _NOBODY)
        except Exception as problem:  # noqa: BLE001 - whatever goes wrong with us, the image's own package is there
            first_import.note(problem)
            return spec

    def _needs_copy(self, name: str, directory: str) -> bool:
        """Whether a package of the layer was refused something there that it is refused still."""
        if self._learned is None:
            self._learned = ""
            try:
                self._learned = "" if storage_hangs() else learned_list(self.copies.folder)
            except FileNotFoundError:  # as it is where there was always a layer: none is begun
                return False
            except OSError as error:  # copies are not used, then; `status` says why
                from sif_writable.signals import let_pass

                let_pass(error)
        if not self._learned or directory not in self.copies.wanted().get(name, ()):
            return False
        from sif_writable.layer import others

        return others.are_needed(self._learned, name, directory)

    def learn(self, error: BaseException) -> None:
        """Learn from an error that ended something and may concern us."""
        from sif_writable import evidence

        if evidence.is_of_a_handler(error):
            return
        if not evidence.may_be_a_refusal(error):
            if evidence.may_be_a_full_disk(error):
                from sif_writable.copies import disk_full

                disk_full.report(evidence.chain(error), os.path.dirname(self.copies.folder))
            elif missing := evidence.misses_a_mount(error):
                from sif_writable.copies import sent

                sent.report_missing(missing)
        elif not storage_hangs():
            self._finder.lead()
            from sif_writable.copies import learning

            learning.learn(error, self.copies)

    def watch(self, spec: "ModuleSpec") -> "ModuleSpec":
        """Have the module of a spec, and a package's own modules, executed by us: a failing import is tried again."""
        if spec.submodule_search_locations is not None:
            self._followed.add(spec.name)
        if self._in_use and self._on_server():
            from sif_writable.copies import unchanged

            unchanged.read(spec, self.copies.tree)
        if self._watcher is None:
            first_import.load("evidence", "copies.execution")  # an error that follows costs not one call more
            from sif_writable.copies.execution import Watcher

            self._watcher = Watcher(self.copies, self._finder.lead)
        return self._watcher.watched(spec)

    def _on_server(self) -> bool:
        """Whether the copies lie on a filesystem that asks a server: a network's, or FUSE."""
        words = os.environ.get(SESSION, "")
        if words.startswith("2;"):
            return False
        from sif_writable.hanging import LOCAL
        from sif_writable.session import root_and_kind

        return root_and_kind(words, self.copies.tree)[1] != LOCAL

    def serve_outside(self, name: str) -> None:
        """Make paths of the image writable that neither a layer nor a copy serves.

        :param name: a package that is about to be imported; an empty string: what is declared, at the start.
        """
        try:
            self._serve_outside(name)
        except Exception as problem:  # noqa: BLE001 - whatever goes wrong with us, the program goes on
            first_import.note(problem)

    def _serve_outside(self, name: str) -> None:
        from sif_writable.settings import IN_OVERLAY

        # What an ancestor has decided holds in its namespace.
        if not name and os.environ.get(IN_OVERLAY, "").partition(";")[0] == os.readlink("/proc/self/ns/mnt"):
            return
        from sif_writable import layered
        from sif_writable.overlay import enter as outside

        image = os.path.dirname(self.copies.folder)
        if name:
            outside.before_import(name, os.environ, image, lambda: layered.enter(self._finder))
        else:
            outside.at_start(os.environ, image, lambda: layered.enter(self._finder))


class _Served(_external.FileFinder):
    """Finds packages in their copies for whoever asks the path's finders himself, such as jaxtyping and pytest."""

    def find_spec(self, fullname: str, target: "Optional[ModuleType]" = None) -> "Optional[ModuleSpec]":
        known = dict(vars(self))  # another thread may release it meanwhile
        spec = _external.FileFinder.find_spec(self, fullname, target)
        if spec is None or spec.loader is None or known.get("finder") not in sys.meta_path:
            return spec
        found: ModuleSpec = known["serving"].serve_to_others(spec)
        return found


_NOBODY: "Any" = object()
"""In place of a module: what is found is not watched."""
