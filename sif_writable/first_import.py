"""The first import that is not the standard library's: the finder takes the place of what has waited for it.

It imports only what is loaded already, and then the finder.
"""

import os
import sys
from _thread import get_ident  # built in, and loaded already

import sif_writable
from sif_writable import child, let_pass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any, Optional

_at_work: "set[int]" = set()
"""Threads that put the finder in place."""


def load(*names: str) -> None:
    """Load modules of ours past the import system, which takes twice as long; whoever imports them finds them loaded.

    Where that is impossible nothing is done, and the import system does it: in an archive, by somebody else's loader.

    :param names: ``module`` or ``folder.module``, each after those that it imports.
    """
    loader: Any = type(sif_writable.__spec__.loader)
    if loader.__name__ not in ("SourceFileLoader", "SourcelessFileLoader"):
        return
    modules = sys.modules
    for name in names:
        full = f"sif_writable.{name}"
        if full in modules:
            continue
        package, _, tail = full.rpartition(".")
        parent: Any = modules.get(package) or _folder(package, loader)
        start = parent.__file__.rpartition("__init__")
        place = f"{start[0]}{tail}{start[2]}"
        found = loader(full, place)
        found.get_data = _read  # which asks the kernel for half as much
        module = _module(full, package, found, place)
        exec(found.get_code(full), vars(module))  # noqa: S102 - before anybody sees it, as in `follow`
        setattr(parent, tail, modules.setdefault(full, module))


def _folder(full: str, loader: "Any") -> "Any":
    """Make the package of a folder of ours, whose ``__init__`` is empty: it need not be read."""
    package, _, tail = full.rpartition(".")
    parent: Any = sys.modules[package]
    start = parent.__file__.rpartition("__init__")
    place = f"{start[0]}{tail}/__init__{start[2]}"
    module = _module(full, full, loader(full, place), place)
    module.__path__ = module.__spec__.submodule_search_locations = [f"{start[0]}{tail}"]
    module = sys.modules.setdefault(full, module)
    setattr(parent, tail, module)
    return module


def _module(full: str, package: str, loader: "Any", place: str) -> "Any":
    """Make a module as the import system does."""
    module: Any = type(sys)(full)
    module.__file__ = place
    module.__package__ = package
    module.__loader__ = loader
    module.__spec__ = type(sif_writable.__spec__)(full, loader, origin=place)
    module.__spec__.has_location = True
    return module


def _read(path: str) -> bytes:
    """Return what is in a file.

    :raises OSError: it is not there, or cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = b""
        size = os.fstat(descriptor).st_size
        while len(text) < size and (more := os.read(descriptor, size)):
            text += more
        return text
    finally:
        os.close(descriptor)


def note(problem: BaseException) -> None:
    """Keep what went wrong with us, as :mod:`sif_writable.stderr` does, also where no more files can be opened."""
    let_pass(problem)
    sif_writable.failure = problem
    try:
        from sif_writable import stderr
    except Exception as error:  # noqa: BLE001 - then it is not printed, either
        let_pass(error)
    else:
        stderr.note(problem)


def age() -> None:
    """Have what is there by now count as old for the garbage collector, which counts anew.

    What we load stays to the end, and would bring on a collection that looks through all that the start has made
    (0.4 ms). One of the oldest generation still finds it. What the program itself has frozen is left so; PyPy has no
    generations of this kind, and a free-threaded interpreter would look at each object.
    """
    import gc

    if hasattr(gc, "freeze") and "t" not in sys.abiflags and not gc.get_freeze_count():
        gc.freeze()
        gc.unfreeze()


def of_ours(name: str, path: "Sequence[str]") -> "Optional[ModuleSpec]":
    """Find a module of ours as the interpreter does by itself: hooks that check or rewrite all code are for others'.

    Its folder is not listed, for which an image's FUSE server is asked three times.
    """
    import _frozen_importlib_external as external

    suffix = __file__[__file__.rindex(".") :]
    loader = external.SourceFileLoader if suffix == ".py" else external.SourcelessFileLoader
    for place in path:
        start = f"{place}/{name.rpartition('.')[2]}"
        for file, parts in ((start + suffix, None), (f"{start}/__init__{suffix}", [start])):
            if os.access(file, os.F_OK):
                found = loader(name, file)
                return external.spec_from_file_location(name, file, loader=found, submodule_search_locations=parts)
    return None


def finder() -> "Any":
    """Put the finder in place, and return it."""
    this = get_ident()
    _at_work.add(this)
    try:
        age()
        load("importhook")
        from sif_writable import importhook

        return importhook.install()
    finally:
        _at_work.discard(this)


def go_on(name: str, path: "Optional[Sequence[str]]", target: "Optional[ModuleType]") -> "Optional[ModuleSpec]":
    """Put the finder in place, and return what it finds."""
    if get_ident() in _at_work:  # where the standard library is asked for as well, what we import ourselves is
        return None
    stage = child.stage
    try:
        if sys.meta_path[0] is not stage and stage in sys.meta_path:  # our own modules are not others' to rewrite
            sys.meta_path.remove(stage)
            sys.meta_path.insert(0, stage)
        found = finder()
    except Exception as error:  # noqa: BLE001 - whatever goes wrong with us, the program goes on
        let_pass(error)
        sif_writable.failure = error
        if stage in sys.meta_path:
            sys.meta_path.remove(stage)
        return None
    spec: Optional[ModuleSpec] = found.find_spec(name, path, target)
    return spec
