"""Read a module's code from the image, which is on this node, where its copy on a server is still what the image has.

Nothing else is different: the module lies in the copy, where it writes and where its files are found. Whether the copy
of its source has been changed is asked at each import; the import system has just asked what shows it.

Loaded where storage is on a network filesystem or on FUSE, with the first module of a copy.
"""

import _frozen_importlib_external as _external
import os

from sif_writable.signals import let_pass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec, SourceFileLoader

_S_IFMT, _S_IFREG = 0o170000, 0o100000


class Reader:
    """Reads one module's source and bytecode; stands for ``get_data`` of its loader, whose class stays."""

    def __init__(self, loader: "SourceFileLoader", source: str, bytecode: str, tree: str) -> None:
        """Take whose it is, both paths in the copy, and the tree of copies."""
        self._loader, self._paths, self._source, self._tree = loader, (source, bytecode), source, tree

    def __call__(self, path: str) -> bytes:
        """Do as ``FileLoader.get_data``."""
        if path in self._paths and path.startswith(f"{self._tree}/") and self._is_unchanged():
            try:
                return _external.FileLoader.get_data(self._loader, path[len(self._tree) :])
            except OSError as error:  # an image without bytecode
                let_pass(error)
        return _external.FileLoader.get_data(self._loader, path)

    def _is_unchanged(self) -> bool:
        """Whether the copy of the source still has the size and the time of the image's, as it was copied."""
        try:
            copy, own = os.lstat(self._source), os.stat(self._source[len(self._tree) :])
        except OSError as error:  # a module that a program has made, which the image has not
            let_pass(error)
            return False
        return (
            copy.st_mode & _S_IFMT == _S_IFREG and copy.st_size == own.st_size and copy.st_mtime_ns == own.st_mtime_ns
        )


def read(spec: "ModuleSpec", tree: str) -> None:
    """Have a module of a copy read so, if it is one that Python loads from its source.

    :param tree: of the copies.
    """
    loader, source = spec.loader, spec.origin or ""
    if type(loader) is _external.SourceFileLoader and source.startswith(f"{tree}/"):
        loader.get_data = Reader(loader, source, spec.cached or "", tree)  # type: ignore[method-assign]
