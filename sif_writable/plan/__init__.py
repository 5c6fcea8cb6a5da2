"""DECIDE: from facts to a plan. Nothing here changes the world, and each decision carries its reason.

This module holds what a plan consists of, and which places storage may have; every activated start loads it. What
goes there is decided in :mod:`sif_writable.redirects.decide`.
"""

import os

from sif_writable import DIR, TARGET
from sif_writable.child import OPT_IN
from sif_writable.signals import let_pass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sif_writable.system import Facts

DATA = "data"
"""Downloads, shared between images."""
COMPILED = "compiled"
"""Object code, and code that is valid for one image: per image and interpreter, where files can be executed."""
CONFIG = "config"
"""Settings and small files, per image."""
RUNTIME = "runtime"
"""Sockets and temporary files: short path, local filesystem."""
KINDS = (COMPILED, CONFIG, DATA)
FOLDER = "sif-writable"
"""The name of the one folder that we make in a place."""


class Place:
    """A candidate for storage."""

    __slots__ = ("base", "given", "label", "lasting", "make", "of_image")

    def __init__(
        self,
        label: str,
        base: str,
        lasting: str,
        *,
        given: bool = False,
        make: bool = False,
        of_image: bool = False,
    ) -> None:
        """:param label: the words for ``status``; :param lasting: ``persistent``, ``job``, ``node`` or ``memory``.

        :param given: the user gave it on purpose; :param make: the base may be made when it does not exist.
        :param of_image: it is a directory of the image itself, which an overlay or a sandbox makes writable.
        """
        self.label = label
        self.base = base
        self.lasting = lasting
        self.given = given
        self.make = make
        self.of_image = of_image


class Storage:
    """Where each kind goes, and what was refused on the way."""

    __slots__ = ("folders", "loose", "places", "present", "refused", "roots", "small")

    def __init__(self) -> None:
        """Start with no place at all."""
        self.roots: dict[str, str] = {}
        """Kind to the storage root chosen for it."""
        self.places: dict[str, Place] = {}
        """Kind to the candidate it came from."""
        self.folders: dict[str, str] = {}
        """Kind to the folder below that root; also ``image``, which holds the private home and the bytecode."""
        self.present: dict[str, frozenset[str]] = {}
        """Kind to the names in that folder."""
        self.refused: list[tuple[Place, str]] = []
        """Candidates that were not taken, with a sentence without subject."""
        self.loose: list[tuple[Place, str]] = []
        """Candidates that keep no code, with the directory from which others could take our folder away."""
        self.small = False
        """Whether downloads had to go to the container session's small tmpfs."""


class Redirect:
    """One environment variable pointed into storage."""

    __slots__ = (
        "folder",
        "kind",
        "linking",
        "make",
        "offers",
        "seeds",
        "sources",
        "subfolder",
        "value",
        "variable",
        "why",
    )

    def __init__(self, variable: str, value: str, kind: str, folder: str, why: str) -> None:
        """:param value: what the variable is set to; :param folder: the folder in storage it leads to, or empty."""
        self.variable = variable
        self.value = value
        self.kind = kind
        self.folder = folder
        self.why = why
        self.make = False
        """The folder must exist before the package looks."""
        self.seeds: tuple[str, ...] = ()
        """Read-only directories of the image whose files the folder starts with; empty when it exists already."""
        self.linking = False
        """Whether single files of the user's must be found in the folder, such as a token."""
        self.sources: tuple[tuple[str, int], ...] = ()
        """Default locations that hold something, with how deep their entries are linked in the folder."""
        self.offers = ""
        """What the folder offers besides its own: ``seeded`` with the image's files, ``linked`` to the user's."""
        self.subfolder = ""
        """The part that the package itself appends to the value."""


class Decision:
    """The plan of one process."""

    __slots__ = (
        "carried",
        "home",
        "home_made",
        "home_why",
        "left",
        "notes",
        "pycache",
        "redirects",
        "user",
    )

    def __init__(self) -> None:
        """Start with nothing to do."""
        self.redirects: list[Redirect] = []
        self.left: list[tuple[str, str]] = []
        """Variables that were left alone, with the reason."""
        self.carried: list[tuple[str, str, str]] = []
        """A redirected variable, another one, and the file of the user's own settings that the other keeps in force."""
        self.home = ""
        """The private home, or empty when HOME is kept."""
        self.home_made = False
        """Whether the private home exists already."""
        self.home_why = ""
        self.user = ""
        """The value for USER and LOGNAME, or empty."""
        self.pycache = ""
        """The value for sys.pycache_prefix, or empty."""
        self.notes: list[str] = []
        """What ``status`` has to say besides: values that are not understood, requests that were not met."""


def places(facts: "Facts", environ: "Mapping[str, str]") -> "Iterator[Place]":
    """Yield the candidates for storage, best first."""
    if environ.get(DIR):
        base = environ[DIR]
        try:
            base = os.path.abspath(base)
        except OSError as error:  # the working directory is gone: what is relative to it is refused when it is tried
            let_pass(error)
        yield Place(DIR, base, "persistent", given=True, make=True)
    if facts.target_mounted:
        yield Place("the bind at /sif-writable", TARGET, "persistent", given=True)
    if facts.prefix_writable:
        yield Place("the image's own /var/cache, writable here", "/var/cache", "overlay", of_image=True)
    cache = environ.get("XDG_CACHE_HOME", "")
    if cache.startswith("/"):
        yield Place("XDG_CACHE_HOME", cache, "persistent", make=True)
    if not facts.home_problem:
        yield Place("the user's cache directory", facts.home + "/.cache", "persistent", make=True)
    for name, lasting in (("SLURM_TMPDIR", "job"), ("SCRATCH", "persistent"), ("TMPDIR", "node")):
        if environ.get(name, "").startswith("/"):
            yield Place(name, environ[name], lasting)
    yield Place("/var/tmp", "/var/tmp", "node")  # noqa: S108
    yield from local_places()


def local_places() -> "Iterator[Place]":
    """Yield the candidates with a short path on a local filesystem, for sockets."""
    yield Place("/tmp", "/tmp", "node")  # noqa: S108
    yield Place("/dev/shm", "/dev/shm", "memory")  # noqa: S108


def own_folder(place: Place, *, shared: bool, user: int) -> str:
    """Return the one folder of ours in a place: per user where others can write."""
    return f"{place.base}/{FOLDER}-{user}" if shared else f"{place.base}/{FOLDER}"


def needs_runtime(facts: "Facts", storage: Storage, environ: "Mapping[str, str]") -> bool:
    """Whether any location for sockets and temporary files may have to move."""
    if facts.home_problem or environ.get(OPT_IN):
        return True
    if any(place.given for place in storage.places.values()):
        return True
    return not facts.tmp_works
