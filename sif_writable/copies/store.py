"""Which packages have a writable copy, and where it is.

Loaded with the first package that may have one. Whatever is not an everyday case lies in modules that are loaded then.
"""

import _frozen_importlib_external as _external
import os

from sif_writable.importhook import storage_hangs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from typing import Any, Optional

MOST_LEARNED = 1 << 20
"""Bytes of the learned list that are read; 10,000 packages."""
PACKAGES = "SIF_WRITABLE_PACKAGES"
"""The variable with packages that the user wants to have copied."""
ANYWHERE = "*"
"""In place of a directory: the package wherever it is found."""
TAKEN_BACK = "\ttaken back"
"""How the line of a package ends whose copy did not help: :data:`sif_writable.copies.ledger.TAKEN_BACK`."""
FILE_LOADERS = (_external.SourceFileLoader, _external.SourcelessFileLoader, _external.ExtensionFileLoader)

_S_IFMT, _S_IFLNK, _S_IFREG = 0o170000, 0o120000, 0o100000


class Copies:
    """The writable copies of one image's packages, for one interpreter."""

    def __init__(self, folder: str, read_only: "Optional[dict[str, bool]]" = None) -> None:
        """:param folder: where they are; empty: nothing is copied; :param read_only: what is kept in that attribute."""
        self.folder = folder
        self.tree = folder + "/tree"
        """What mirrors the root of the image: a copy of ``/opt/x`` is ``TREE/opt/x``."""
        self.read_only: dict[str, bool] = {} if read_only is None else read_only
        """Directories that packages were found in, and whether they are read-only."""
        self.being_copied: set[str] = set()
        """Packages whose copy is being made: what that imports comes from the image."""
        self.untried: set[str] = set()
        """Packages whose copy was made for the import under way: it is not known yet whether they work there."""
        self._wanted: Optional[dict[str, tuple[str, ...]]] = None

    def seen(self) -> "list[str]":
        """Return the read-only directories that packages were found in."""
        return [directory for directory, read_only in self.read_only.items() if read_only]

    def has(self, path: str) -> bool:
        """Whether a path of the image has a writable copy; what was only linked, or lies in what was, has none."""
        try:
            copy, own = os.lstat(self.tree + path), os.lstat(path)
        except OSError as error:
            from sif_writable.signals import let_pass

            let_pass(error)
            return False
        return copy.st_mode & _S_IFMT != _S_IFLNK and (copy.st_dev, copy.st_ino) != (own.st_dev, own.st_ino)

    def provides(self, spec: "ModuleSpec", path: str) -> bool:
        """Whether a package has a copy of what the image has now; one that is missing or outdated is made."""
        from sif_writable import lease
        from sif_writable.copies import validity

        lease.hold(self.folder)  # before the copy is checked
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
            self.untried.add(spec.name)
        return True

    def _make(self, spec: "ModuleSpec") -> bool:
        self.being_copied.add(spec.name)
        try:
            from sif_writable.copies import provide

            return provide.provide(spec, self)
        finally:
            self.being_copied.discard(spec.name)

    def wanted(self) -> "dict[str, tuple[str, ...]]":
        """Return which packages are to be imported from a copy, with the directories of the image that they lie in."""
        if self._wanted is None:
            self._wanted = {}  # first, since what follows may import
            if storage_hangs():
                return self._wanted
            try:
                text = learned_list(self.folder)
            except FileNotFoundError:
                from sif_writable.copies import ledger

                text = ledger.begin(self.folder)
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
            for name in os.environ.get(PACKAGES, "").replace(",", " ").split():
                wanted[name] = (ANYWHERE,)
            self._wanted = wanted
        return self._wanted


def learned_list(folder: str) -> str:
    """Return the text of the learned list.

    :param folder: the folder of copies.
    :raises FileNotFoundError: there is none yet.
    :raises OSError: it cannot be read, is no ordinary file (a pipe would hold the program up), or is somebody else's.
    """
    descriptor = os.open(f"{folder}/learned", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if status.st_mode & _S_IFMT != _S_IFREG:
            raise OSError("it is not an ordinary file")
        if status.st_uid != os.geteuid():
            raise OSError("it belongs to somebody else")
        return os.read(descriptor, MOST_LEARNED).decode("utf-8", "replace")
    finally:
        os.close(descriptor)


# --- From the image to a copy, and back ---


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
    if type(loader) in FILE_LOADERS:
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
        elif isinstance(value, FILE_LOADERS) and value is not loader and value.path == origin:
            changed[name] = _moved_loader(value, origin, new)
    if not changed:
        return loader
    other = object.__new__(type(loader))
    vars(other).update(values)
    vars(other).update(changed)
    vars(other).pop("exec_module", None)
    return other
