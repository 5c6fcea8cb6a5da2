"""The hook for delivery by PYTHONPATH: put this folder on PYTHONPATH where a ``.pth`` file cannot be installed.

Python imports only the first ``sitecustomize`` on its path, so this one runs the next one afterwards: the user's own,
another tool's, or the one that Debian keeps in the standard library folder.

PYTHONPATH is for every Python of an image, also for those that this package does not run on, such as the 2.7 and 3.6 of
an installer of packages. So what each of them reads, here and in the first module that is imported, is written in what
all of them know, and leaves all as without us there.
"""

import os
import sys


def _image_path():
    # type: () -> None
    """Put the image's own PYTHONPATH back where the variable that brings us has taken its place."""
    try:
        here, _, host = os.environ.get("PYTHONPATH", "").partition(":")
        if here.startswith("/sif-writable-attached/") and (not host or host.startswith("/sif-writable-attached/host:")):
            import sif_writable_image_path as image

            image.restore(here)
    except Exception:  # noqa: BLE001 - the hook never hurts
        return


def _run_next():
    # type: () -> None
    # What importlib.machinery and importlib.util have them from, which load other modules.
    from _frozen_importlib import module_from_spec
    from _frozen_importlib_external import PathFinder

    here = os.path.dirname(os.path.abspath(__file__))
    others = _after(here)
    spec = PathFinder.find_spec("sitecustomize", others)
    if spec and os.path.realpath(spec.origin or "") == os.path.realpath(__file__):  # by another name of this folder
        others = [p for p in others if os.path.realpath(p) != os.path.realpath(here)]
        spec = PathFinder.find_spec("sitecustomize", others)
    if spec is None or spec.loader is None:
        return
    module = module_from_spec(spec)
    this = sys.modules.get("sitecustomize")
    sys.modules["sitecustomize"] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        # site reports a failing sitecustomize and goes on; it must see this one as it would have without us.
        if this is not None:
            sys.modules["sitecustomize"] = this
        raise


def _after(here):
    # type: (str) -> list[str]
    """Return what follows a folder on the path. What stands before has been, and has let us run."""
    at = sys.path.index(here) + 1 if here in sys.path else 0
    return [path for path in sys.path[at:] if path != here]


def _run_next_of_old():
    # type: () -> None
    """Do the same with what Python 2.7 has."""
    if sys.version_info < (3, 5):
        import imp

        here = os.path.dirname(os.path.abspath(__file__))
        others = [path for path in _after(here) if os.path.realpath(path) != os.path.realpath(here)]
        try:
            found = imp.find_module("sitecustomize", others)
        except ImportError:
            return
        try:
            imp.load_module("sitecustomize", *found)
        finally:
            if found[0]:
                found[0].close()


_image_path()
if sys.version_info >= (3, 9):
    import sif_writable_attached  # noqa: F401 - which starts the hook
if sys.version_info >= (3, 5):
    _run_next()
else:
    _run_next_of_old()
