"""Write what the image says about itself, in place of what it said before."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sif_writable import aside
from sif_writable.errors import SifWritableError
from sif_writable.identity import MANIFEST
from sif_writable.system import manifest
from sif_writable.system.filesystem import explain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def update(purelib: str, changes: Mapping[str, Sequence[str]]) -> manifest.Declared:
    """Replace the values of some keys, keep those of all others, and return everything.

    :param changes: key to its values; without any, the key goes.
    :raises SifWritableError: it cannot be written; what was there is there still.
    """
    declared = manifest.read(purelib)
    for key, values in changes.items():
        declared[key] = [value.replace("\n", " ") for value in values]
    more = [key for key in declared if key not in (*manifest.HOT, *manifest.COLD)]
    lines = ["# sif_writable: what this image says about itself; see sif_writable/system/manifest.py"]
    lines += [f"{key}: {value}" for key in manifest.HOT for value in declared.get(key, ())]
    lines += ["", *(f"{key}: {value}" for key in (*manifest.COLD, *more) for value in declared.get(key, ()))]
    path = f"{purelib}/{MANIFEST}"
    new = ""
    try:
        descriptor, new = aside.create(purelib, MANIFEST)
        with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write("\n".join(lines) + "\n")
        os.chmod(new, 0o644)  # whoever runs the image reads it
        os.rename(new, path)
    except OSError as error:
        if os.path.lexists(new):
            os.unlink(new)
        raise SifWritableError(
            f"{path} cannot be written: {purelib} {explain(error)}. "
            "Remedy: call this in %post (or RUN), while the image is built and its root can be written."
        ) from error
    return {key: values for key, values in declared.items() if values}
