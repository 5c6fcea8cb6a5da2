"""The names in a storage root: ``data``, ``run``, ``locks``, and a folder for each image.

What a warm start needs of it is named in :mod:`sif_writable.warm`. The hook at import spells the few names that it
needs, and so does :mod:`sif_writable.layer`: what they load is counted.
"""

from sif_writable import warm

IMAGE, PLAN = f"{warm.IMAGE}-", f"{warm.PLAN}-"

DATA, RUN, CONFIG = "data", "run", "config"
"""Downloads, and sockets, directly in the root; settings, in the folder of an image."""
HOME = "home"
"""In the folder of an image: the private HOME."""
LOCKS = "locks"
COMPILED, PACKAGES = "compiled-", "packages-"
"""In the folder of an image, followed by the interpreter tag: object code, and writable copies of packages."""
OWN_DATA = "data-"
"""In the folder of an image: downloads that lead into the image."""
ALSO = "@"
"""Between the name of a folder and an image's identity in the name of a file among the downloads, which says where that
image's own ones are (:mod:`sif_writable.redirects.own`). No folder has it in its name: :mod:`sif_writable.warm` relies
on that."""
NOTE = "image.txt"
"""In the folder of an image: which image it is, in ``key: value`` lines."""
USED = "used"
"""In the folder of an image without a kept plan: an empty file whose time is that of the image's last use."""
LAYERS = "layer"
"""In the folder of an image: what its layers leave."""
OVERLAY = "overlay"
"""In the folder of an image: what is written to other paths of the image."""
SHARED = f"{warm.FOLDER}-shared"
"""Beside the roots of the users of a place: what their group shares."""
LEARNED = "learned"
"""In a folder of copies: the list of the packages that have or shall have one."""


def is_image(name: str) -> bool:
    """Whether a name is that of an image's folder."""
    return name.startswith(IMAGE) and len(name) == 22 and not name[6:].strip("0123456789abcdef")


def image(identity: str) -> str:
    """Return the name of an image's folder."""
    return IMAGE + identity


def identity(name: str) -> str:
    """Return the identity of an image from the name of its folder."""
    return name[len(IMAGE) :]
