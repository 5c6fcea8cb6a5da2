"""The hook for delivery by PYTHONPATH: put this folder on PYTHONPATH where a ``.pth`` file cannot be installed.

Python imports only the first ``sitecustomize`` on its path, so this one runs the next one afterwards: the user's own,
another tool's, or the one that Debian keeps in the standard library folder.
"""

import os
import sys


def _image_path() -> None:
    """Put the image's own PYTHONPATH back where the variable that brings us has taken its place."""
    try:
        here, _, host = os.environ.get("PYTHONPATH", "").partition(":")
        if here.startswith("/sif-writable-attached/") and (not host or host.startswith("/sif-writable-attached/host:")):
            import sif_writable_image_path as image

            image.restore(here)
    except Exception:  # noqa: BLE001 - the hook never hurts
        return


def _run_next() -> None:
    # What importlib.machinery and importlib.util have them from, which load other modules.
    from _frozen_importlib import module_from_spec
    from _frozen_importlib_external import PathFinder

    here = os.path.dirname(os.path.abspath(__file__))
    # Not what stands before: that has been, and has let us run.
    others = [p for p in sys.path[sys.path.index(here) + 1 if here in sys.path else 0 :] if p != here]
    spec = PathFinder.find_spec("sitecustomize", others)
    if spec and os.path.realpath(spec.origin or "") == os.path.realpath(__file__):  # by another name of this folder
        spec = PathFinder.find_spec(
            "sitecustomize", [p for p in others if os.path.realpath(p) != os.path.realpath(here)]
        )
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


_image_path()
import sif_writable_attached  # noqa: E402, F401 - which starts the hook

_run_next()
