"""What bears which name in a storage root."""

NOTE = "image.txt"
"""In the folder of an image: which image it is, in ``key: value`` lines."""
USED = "used"
"""In the folder of an image where it has no kept plan: the time of the file is that of the image's last use."""
LOCKS = "locks"
LAYERS = "layer"
"""In the folder of an image: what its layers leave."""
PLAN = "plan-"
"""How the name of a kept plan begins, in the folder of an image (:data:`sif_writable.act.recall.PLAN`)."""


def is_image(name: str) -> bool:
    """Whether a name is that of an image's folder."""
    return name.startswith("image-") and len(name) == 22 and not name[6:].strip("0123456789abcdef")
