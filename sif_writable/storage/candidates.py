"""Which places storage may have, the best first."""

import os

from sif_writable import DIR, TARGET, warm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sif_writable.system.surroundings import Facts

FOLDER = warm.FOLDER
"""The name of the one folder that we make in a place."""


class Candidate:
    """A candidate for storage."""

    __slots__ = ("base", "given", "label", "lasting", "make", "of_image", "of_pod")

    def __init__(
        self,
        label: str,
        base: str,
        lasting: str,
        *,
        given: bool = False,
        make: bool = False,
        of_image: bool = False,
        of_pod: bool = False,
    ) -> None:
        """:param label: the words for ``status``; :param lasting: ``persistent``, ``job``, ``node`` or ``memory``.

        :param given: the user gave it on purpose; :param make: the base may be made when it does not exist.
        :param of_image: it is a directory of the image itself, which an overlay or a sandbox makes writable.
        :param of_pod: it may be a volume of a Kubernetes pod, which is for the containers of that pod alone.
        """
        self.label = label
        self.base = base
        self.lasting = lasting
        self.given = given
        self.make = make
        self.of_image = of_image
        self.of_pod = of_pod


def places(facts: "Facts", environ: "Mapping[str, str]") -> "Iterator[Candidate]":
    """Yield the candidates for storage, best first."""
    pod = "KUBERNETES_SERVICE_HOST" in environ
    if environ.get(DIR):
        # What is relative would be another place in each working directory: it is refused when it is tried.
        base = environ[DIR]
        base = os.path.normpath(base) if base[:1] == "/" else base
        yield Candidate(DIR, base, "persistent", given=True, make=True, of_pod=pod)
    if facts.target_mounted:
        yield Candidate("the bind at /sif-writable", TARGET, "persistent", given=True, of_pod=pod)
    if facts.prefix_writable:
        yield Candidate("the image's own /var/cache, writable here", "/var/cache", "overlay", of_image=True)
    cache = environ.get("XDG_CACHE_HOME", "")
    if cache.startswith("/"):
        yield Candidate("XDG_CACHE_HOME", cache, "persistent", make=True)
    if not facts.home_problem:
        yield Candidate("the user's cache directory", facts.home + "/.cache", "persistent", make=True)
    for name, lasting in (("SLURM_TMPDIR", "job"), ("SCRATCH", "persistent"), ("TMPDIR", "node")):
        if environ.get(name, "").startswith("/"):
            yield Candidate(name, environ[name], lasting)
    yield Candidate("/var/tmp", "/var/tmp", "node")  # noqa: S108
    yield from local_places()


def local_places() -> "Iterator[Candidate]":
    """Yield the candidates with a short path on a local filesystem, for sockets."""
    yield Candidate("/tmp", "/tmp", "node")  # noqa: S108
    yield Candidate("/dev/shm", "/dev/shm", "memory")  # noqa: S108


def storage_root(place: Candidate, *, shared: bool, user: int) -> str:
    """Return the one folder of ours in a place: per user where others can write."""
    return f"{place.base}/{FOLDER}-{user}" if shared else f"{place.base}/{FOLDER}"
