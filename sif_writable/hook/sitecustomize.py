"""The hook for delivery by PYTHONPATH: put this folder on PYTHONPATH where a ``.pth`` file cannot be installed.

Python imports only the first ``sitecustomize`` on its path, so this one runs the next one afterwards: the user's own,
another tool's, or the one that Debian keeps in the standard library folder.
"""

import os
import sys


def _run_hook() -> None:
    package_root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    try:
        try:
            import sif_writable
        except ImportError:  # `pip install --target`: the package is not on the path of this interpreter
            sys.path.append(package_root)
            import sif_writable
    except Exception:  # noqa: BLE001 - the hook never hurts; `sif-writable status` tells what is missing
        return
    sif_writable.run()


def _run_next() -> None:
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    here = os.path.realpath(os.path.dirname(os.path.abspath(__file__)))
    spec = PathFinder.find_spec("sitecustomize", [p for p in sys.path if os.path.realpath(p) != here])
    if spec is None or spec.loader is None:
        return
    module = module_from_spec(spec)
    ours = sys.modules.get("sitecustomize")
    sys.modules["sitecustomize"] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        # site reports a failing sitecustomize and goes on; it must see this one as it would have without us.
        if ours is not None:
            sys.modules["sitecustomize"] = ours
        raise


_run_hook()
_run_next()
