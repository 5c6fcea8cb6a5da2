"""Start the hook from a folder of the host's: one by ``sif-writable attach``, or by ``pip install --target``.

What the folder holds is found last, and only these names: the image's own packages come first, whatever is put on
``sys.path`` later. The folder is no entry of that, so it is no part of the environment either.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from typing import Any, Optional


class Last:
    """Finds this package, and what it needs, where nobody else has."""

    folder = ""

    @classmethod
    def find_spec(
        cls,
        name: str,
        path: "Optional[Sequence[str]]" = None,
        target: object = None,  # noqa: ARG003 - the protocol's
    ) -> "Optional[ModuleSpec]":
        """Find one of our names; of packages that need a newer Python than 3.9 there is a folder for each version."""
        if path is not None or name not in ("sif_writable", "platformdirs", "filelock", "pynvml"):
            return None
        from _frozen_importlib_external import PathFinder

        newer = [f"{cls.folder}/needs-3.{minor}" for minor in range(10, sys.version_info[1] + 1)]
        found: Optional[ModuleSpec] = PathFinder.find_spec(name, [cls.folder, *newer])
        return found


def _start() -> None:
    try:
        try:
            import sif_writable
        except ImportError:
            there = False
        else:
            there = hasattr(sif_writable, "run")  # not a folder of that name, such as a clone: a namespace of packages
        if not there:
            sif_writable = _attached()
    except Exception:  # noqa: BLE001 - the hook never hurts; `sif-writable status` says what is missing
        return
    sif_writable.run()


def _attached() -> "Any":
    """Load this package from the folder: not by its name, by which a folder of that name would be found again."""
    import os
    from _frozen_importlib import module_from_spec

    # The real place: what a link leads to may be another version before this process ends.
    Last.folder = os.path.realpath(__file__).rsplit("/", 3)[0]
    sys.meta_path.append(Last)
    spec: Any = Last.find_spec("sif_writable")
    sys.modules["sif_writable"] = module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules["sif_writable"]
        raise
    return module


_start()
