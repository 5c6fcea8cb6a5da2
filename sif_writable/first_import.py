"""The first import that is not the standard library's: the finder takes the place of what has waited for it.

It imports only what is loaded already, and then the finder.
"""

import os
import sys

import sif_writable
from sif_writable import child, let_pass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any, Optional


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
    from sif_writable import importhook

    return importhook.install()


def go_on(name: str, path: "Optional[Sequence[str]]", target: "Optional[ModuleType]") -> "Optional[ModuleSpec]":
    """Put the finder in place, and return what it finds."""
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
