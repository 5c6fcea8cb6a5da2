"""Which image is this? An identity that is equal in every mode of one image, and new after a rebuild.

Where an image is as most are, a warm start makes it by itself (:mod:`sif_writable.warm`). This imports only what is
loaded already.
"""

import os
import sys
from _imp import source_hash  # the keyed hash of .pyc files; hashlib costs 3 ms at interpreter start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Optional

LABELS = "/.singularity.d/labels.json"
MANIFEST = "sif_writable.manifest"
"""The file in :data:`PURELIB` in which the image describes itself: see :mod:`sif_writable.system.manifest`."""
HASH_KEY = 0x5349465F57524954


def manifest_text(purelib: str, *, whole: bool = False) -> bytes:
    """Return the text of the file in which the image describes itself, or nothing.

    :param whole: also what stands below the first empty line, which no start needs.
    :raises OSError: the image cannot be read at the moment. What it brings must not be taken for nothing, since what
        is made without it stays.
    """
    try:
        # Not blocking, as with any path that could be a named pipe.
        descriptor = os.open(f"{purelib}/{MANIFEST}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        _raise_if_passing(error)
        return b""
    try:
        text = os.read(descriptor, 1 << 16)
        if whole:
            while more := os.read(descriptor, 1 << 20):
                text += more
    except OSError as error:
        _raise_if_passing(error)
        return b""
    finally:
        os.close(descriptor)
    text = text[: text.rfind(b"\n") + 1]  # of a truncated file the last line would mean something else
    return text if whole else text.partition(b"\n\n")[0]


def declared_in(text: bytes) -> "dict[str, list[str]]":
    """Return what the text of a manifest declares, key to values in the order of the file."""
    found: dict[str, list[str]] = {}
    for line in text.decode("utf-8", "surrogateescape").split("\n"):
        key, colon, value = line.partition(": ")
        if colon and key[:1] not in ("", "#"):
            found.setdefault(key, []).append(value)
    return found


def declared(purelib: str, *, whole: bool = False) -> dict[str, list[str]]:
    """Return what the image declares, key to values in the order of the file; empty where there is no manifest.

    :param whole: also what stands below the first empty line, which no start needs.
    :raises OSError: the image cannot be read at the moment.
    """
    return declared_in(manifest_text(purelib, whole=whole))


def _raise_if_passing(error: OSError) -> None:
    if isinstance(error, (FileNotFoundError, PermissionError)):  # every day, and without a module more
        return
    from sif_writable.errors import is_passing

    if is_passing(error):
        raise error


def site_directories(purelib: str) -> "list[str]":
    """Return the directories of the image that installed distributions are recorded in, wherever we were loaded from.

    :param purelib: the folder that holds this package. Where it is no directory of the environment's, as with a bind on
        PYTHONPATH, it says nothing of the image.
    """
    version = os.path.basename(os.path.dirname(os.__file__))  # python3.11, python3.14t, pypy3.11
    if not version.startswith(("python3.", "pypy3.")) or version.endswith(".zip"):
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    if purelib.startswith(sys.prefix + "/") and purelib.endswith(("/site-packages", "/dist-packages")):
        found = [purelib]
        if purelib.endswith("/dist-packages"):  # Debian's: pip's own beside those of the system
            found += [f"{sys.prefix}/lib/python3/dist-packages", f"{sys.prefix}/local/lib/{version}/dist-packages"]
    else:
        places = [f"lib/{version}/site-packages", f"local/lib/{version}/dist-packages", "lib/python3/dist-packages"]
        found = [f"{sys.prefix}/{place}" for place in places]
    if sys.platlibdir != "lib":  # Fedora's: object code has a directory of its own, and pip's own lies beside both
        for top in (sys.prefix, f"{sys.prefix}/local"):
            found += [f"{top}/{library}/{version}/site-packages" for library in ("lib", sys.platlibdir)]
    return list(dict.fromkeys(found))


def identity_ingredients(
    purelib: str, manifest: "Optional[Mapping[str, list[str]]]" = None, at: "Callable[[str], str]" = str
) -> "list[tuple[str, bytes]]":
    """List what the image identity is made of, as (name, value) pairs; what an image lacks is left out.

    labels.json carries the build date in seconds and is equal in every mode of one SIF (measured, Apptainer 1.4.5); the
    names of the installed distributions catch what was installed in an upper layer. In images without labels (Docker,
    Charliecloud) sizes and times of the RECORDs take their place. The root directory's own times differ per run and are
    of no use.

    A manifest has a stamp that stands for the distributions of the image. What is installed in an upper layer later
    makes a directory in site-packages, whose time then changes; images keep whole seconds only.

    :param manifest: what the image declares, if it has been read.
    :param at: gives the path where a path of site-packages is seen as it is in the image.
    :raises OSError: the image cannot be read at the moment; less would make it equal to another one.
    """
    ingredients = [("prefix", os.fsencode(sys.prefix))]
    labels = b""
    try:
        with open(LABELS, "rb", buffering=0) as file:
            labels = file.read()
            seconds = int(os.fstat(file.fileno()).st_mtime)
        ingredients.append(("labels.json", b"%d %s" % (seconds, labels)))
    except OSError as error:  # not there, or not readable (apptainer/singularity#6223)
        _raise_if_passing(error)
    directories = site_directories(purelib)
    stamp = (declared_in(manifest_text(at(purelib))) if manifest is None else manifest).get("stamp")
    if stamp and purelib in directories:
        ingredients.append(("stamp", b"%d %s" % (int(os.stat(at(purelib)).st_mtime), os.fsencode(stamp[0]))))
        return ingredients
    for directory in directories:
        try:
            names = [n for n in os.listdir(at(directory)) if n.endswith((".dist-info", ".egg-info"))]
            # What programs write beside packages in a writable image is no other image, so the time of the directory
            # counts only where nothing else distinguishes two images.
            seconds = 0 if labels or names else int(os.stat(at(directory)).st_mtime)
        except OSError as error:
            _raise_if_passing(error)
            continue
        names.sort()
        ingredients.append((directory, b"%d %s" % (seconds, os.fsencode("\n".join(names)))))
        if not labels:
            ingredients.append(("records", b" ".join([_record(f"{at(directory)}/{name}/RECORD") for name in names])))
    return ingredients


def _record(path: str) -> bytes:
    try:
        status = os.stat(path)
    except OSError as error:
        _raise_if_passing(error)
        return b""
    return b"%d.%d" % (status.st_size, int(status.st_mtime))


def identity(purelib: str, manifest: "Optional[Mapping[str, list[str]]]", at: "Callable[[str], str]" = str) -> str:
    """Return the image identity as it is without a layer (:func:`sif_writable.system.image.identity`): 16 digits.

    The keyed hash of .pyc files is built in. hashlib costs 3 ms at interpreter start, its C module alone 0.1 ms.
    """
    ingredients = identity_ingredients(purelib, manifest, at)
    packed = b"".join([b"%s\0%d\0%s" % (os.fsencode(name), len(value), value) for name, value in ingredients])
    return source_hash(HASH_KEY, packed).hex()


def _packages(here: str) -> str:
    """Return the folder of packages of the image's that stands for it.

    :param here: the folder that holds this package.
    """
    if here.endswith(("/site-packages", "/dist-packages")) and here.startswith(
        (f"{sys.prefix}/", f"{sys.base_prefix}/")
    ):
        return here
    found = site_directories(here)
    return next((place for place in found if os.access(place, os.F_OK)), found[0])


PURELIB = _packages(__file__.rsplit("/", 2)[0])
"""The folder of packages that stands for the image, such as site-packages.

This package lies in there, unless it was brought in: ``sif-writable attach``, ``pip install --target`` or ``--user``.
"""
