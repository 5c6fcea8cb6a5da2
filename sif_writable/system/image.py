"""Which image this is, and which writable layer this process is in."""

import os
import sys

from sif_writable import LAYER
from sif_writable import identity as of_image
from sif_writable.mounted import in_layer
from sif_writable.signals import let_pass
from sif_writable.system.timeouts import overlays, responds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Optional


def identity(purelib: str, manifest: "Optional[Mapping[str, list[str]]]" = None) -> str:
    """Return the image identity: 16 hexadecimal digits, equal in every mode of one image, new after a rebuild.

    Below a writable layer it is what it was without: what is written there changes times that it is made of. An
    environment that is not the layer's own has another one.
    """
    if fields := in_layer(os.environ.get(LAYER)):
        known = fields[0].partition("-")[2]
        if fields[1] == sys.prefix and _is_identity(known):
            return known
        here = layer()
        if here:
            from sif_writable.layer import inherited

            try:
                known = inherited.identity(here, sys.prefix, lambda at: of_image.identity(purelib, None, at))
            except OSError as error:
                let_pass(error)
            else:
                if _is_identity(known):
                    return known
    return of_image.identity(purelib, manifest)


def _is_identity(text: str) -> bool:
    return len(text) == 16 and text.isalnum()  # it becomes part of a path


def find_layer() -> None:
    """Say in the environment which layer an ancestor has made, where somebody has cleaned that of this process."""
    if not in_layer(os.environ.get(LAYER)) and (here := layer()):
        from sif_writable.layer import inherited

        inherited.export(here)


def layer() -> str:
    """Return the folder of the writable layer that this process is in by its mounts, or an empty string."""
    lines = overlays()
    if not lines:
        return ""
    from sif_writable.layer import inherited

    found = inherited.folder(lines)
    return found if found and responds(found) and inherited.is_ours(found) else ""
