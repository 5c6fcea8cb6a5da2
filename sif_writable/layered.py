"""The writable layer in the hook at import: when it is asked for, over what, and not for whom.

Loaded at the first import of what is not the standard library, unless ``SIF_WRITABLE_OVERLAY=off``. The layer itself
(:mod:`sif_writable.layer`) knows nothing of the rest.
"""

import os
import sys

from sif_writable import LAYER, child, first_import, importhook, let_pass
from sif_writable.importhook import NAMESPACE_PATH, is_read_only, place_of, storage_hangs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from typing import Any, Optional


INSTALLERS = frozenset(("pip", "conda", "mamba", "uv", "poetry", "pdm", "flit"))
"""Programs that ask whether the environment can be written, and then change it: they find it as without a layer."""
SETUP_COMMANDS = frozenset(("install", "develop", "easy_install"))
"""Those of a setup.py that do so."""

problem = ""
"""Why this process has no layer."""
_asked = False
"""Whether it is decided whether there is a layer."""
_begun = False
"""Whether the program has imported something of an environment, whose name says what it is."""
_without = False
"""Whether this process is an installer."""
_inside = LAYER in os.environ
_written: "Optional[frozenset[str]]" = None
_learned: "Optional[bool]" = None
_left_out = False
"""Whether this is a command of ours."""


def leave_out() -> None:
    """Make no layer for what this process imports: our own commands report the image as it is."""
    global _left_out
    _left_out = True


def enters(finder: importhook.Finder, name: str, spec: "Optional[ModuleSpec]") -> bool:
    """Enter a layer at the first import from a read-only directory; return whether the module is to be found anew.

    :param name: what is about to be imported: no standard library, nor part of a package.
    :param spec: what was found, if anything.
    """
    global _begun
    if _left_out:
        return False
    if not _begun and _in_site():  # each start pays for what a .pth or sitecustomize imports, also one of nothing else
        return False
    if not _without and _is_installer(name):
        _be_without()
    if not _begun and not _without and child.KEEP in os.environ:
        _note_wish()
    if spec is not None:  # the standard library tries names that are nowhere, such as `org`
        _begun = True
    if not _asked and _needs_layer(finder, name, spec) and _enter(finder):
        _begun = True
        finder.listen()
        return _looks_again()
    if _inside and spec is not None and spec.has_location and spec.loader is not None:
        finder.listen()  # for what fails outside the layer's directories
    return False


def _note_wish() -> None:
    """Say what is to be kept of the layer that an ancestor has made or joined, with another setting or none."""
    if not os.access(sys.prefix, os.W_OK):
        return
    from sif_writable.layer import enter

    text = enter.read("/proc/self/mountinfo")
    if enter.MOUNTED in text:
        from sif_writable.layer import inherited

        inherited.note_wish(text.splitlines())


def _in_site() -> bool:
    """Whether the interpreter still starts: ``site`` looks for packages."""
    frame: Any = sys._getframe(1)  # noqa: SLF001 - there is no other way to ask
    while frame is not None:
        if frame.f_globals.get("__name__") == "site":
            return True
        frame = frame.f_back
    return False


def enter(finder: importhook.Finder) -> bool:
    """Enter a layer now, if this process may have one; return whether it was not in it before."""
    if not finder.folder or _asked or _inside:
        return False
    try:
        return _enter(finder)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong with us, the program goes on
        from sif_writable.stderr import note

        note(error)
        return False


def _is_installer(name: str) -> bool:
    """Whether this process was started for an installer: it is the first that is imported, or what was started."""
    arguments = getattr(sys, "argv", None) or [""]
    started = os.path.basename(arguments[0])
    if name in INSTALLERS:
        return not _begun or started == "-m" or started.startswith(name)
    return name == "setuptools" and started == "setup.py" and not SETUP_COMMANDS.isdisjoint(arguments)


def _be_without() -> None:
    """Have no layer; where this process is in one, have the environment read-only as without it."""
    global _asked, _without
    _asked = _without = True
    from sif_writable.layer import installers

    installers.without(os.environ)


def _needs_layer(finder: importhook.Finder, name: str, spec: "Optional[ModuleSpec]") -> bool:
    """Whether this is the first import from a read-only directory, or of what an earlier run has written."""
    global _written
    if spec is not None:
        if not spec.has_location or spec.loader is None:
            return False
        return is_read_only(place_of(spec)[0])
    if "." in name:
        return False
    if _written is None:
        _written = frozenset()
        folder = f"{os.path.dirname(finder.folder)}/layer"
        if os.access(folder, os.F_OK) and not storage_hangs():
            from sif_writable.layer import names

            _written = names.written(folder, sys.path)
    return name in _written


def _enter(finder: importhook.Finder) -> bool:
    """Have the environment writable as a whole, if that changes nothing else."""
    global _asked, _inside, problem
    _asked = True
    if storage_hangs():
        return False
    first_import.age()
    first_import.load("layer.enter")
    from sif_writable.layer import enter

    image = os.path.dirname(finder.folder)
    problem = enter.enter(_directories, image, os.path.basename(image), os.environ)
    if problem:
        return False
    _inside = True
    finder.read_only.clear()
    return True


def _directories() -> "list[str]":
    from sif_writable.system import image_mounts

    return image_mounts.directories_to_cover()


def _looks_again() -> bool:
    """Have the import system list the directories of a layer anew, if something was written to it; return whether so.

    Their times are those of the image's.
    ``PathFinder.invalidate_caches`` would drop the standard library's, too, and loads 95 modules since CPython 3.13.
    """
    from sif_writable.layer import enter

    if enter.current is None:
        return True
    if enter.current.fresh:
        return False
    directories = enter.current.directories
    for path, found in list(sys.path_importer_cache.items()):
        if any(path == directory or path.startswith(f"{directory}/") for directory in directories):
            if found is None:  # it was not there
                del sys.path_importer_cache[path]
            elif hasattr(found, "invalidate_caches"):
                found.invalidate_caches()
    places: Any = NAMESPACE_PATH
    if hasattr(places, "_epoch"):  # which extending sys.path does not renew
        places._epoch += 1  # noqa: SLF001 - as the import system itself does
    if "importlib.metadata" in sys.modules:
        sys.modules["importlib.metadata"].MetadataPathFinder.invalidate_caches()
    return True


def may_need_copies(folder: str) -> bool:
    """Whether some package has ever been refused a write in a directory: then it may be refused in a layer, too.

    :param folder: of copies. Their list begins with names of packages, which are served by the layer.
    """
    global _learned
    if _learned is None:
        _learned = not storage_hangs() and _names_a_directory(f"{folder}/learned")
    return _learned


def _names_a_directory(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:  # there is none: there was always a layer
        let_pass(error)
        return False
    try:
        return b"\t/" in os.read(descriptor, 1 << 20)
    except OSError as error:  # no file: copies are not used, then; `status` says why
        let_pass(error)
        return False
    finally:
        os.close(descriptor)
