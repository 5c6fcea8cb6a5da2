"""What was chosen: where each kind goes, and whether temporary files have to move."""

from sif_writable.child import OPT_IN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Callable, Optional

    from sif_writable.errors import Problem
    from sif_writable.storage.candidates import Candidate
    from sif_writable.system.surroundings import Facts

    TakeOver = Callable[[str, str, str], None]


class Storage:
    """Where each kind goes, and what was refused on the way."""

    __slots__ = (
        *("folders", "loose", "places", "present", "refused", "roomy", "roots", "shared_by", "shares", "small"),
        *("take_over", "unshared"),
    )

    def __init__(self) -> None:
        """Start with no place at all."""
        self.roots: dict[str, str] = {}
        """Kind to the storage root chosen for it."""
        self.places: dict[str, Candidate] = {}
        """Kind to the candidate it came from."""
        self.folders: dict[str, str] = {}
        """Kind to the folder below that root; also ``image`` (private home, bytecode) and what a group shares."""
        self.present: dict[str, frozenset[str]] = {}
        """Kind to the names in that folder."""
        self.refused: list[tuple[Candidate, str]] = []
        """Candidates that were not taken, with a sentence without subject."""
        self.loose: list[tuple[Candidate, str]] = []
        """Candidates that keep no code, with the directory from which others could take our folder away."""
        self.small = False
        """Whether downloads had to go to the container session's small tmpfs."""
        self.roomy = False
        """Whether temporary files go to a place with room, since ``/tmp`` is that tmpfs."""
        self.take_over: Optional[TakeOver] = None
        self.shares = False
        """Whether the user wants to share downloads with a group."""
        self.shared_by: Optional[Candidate] = None
        """The place that has them, if any."""
        self.unshared: Optional[Problem] = None
        """Why none has."""


def needs_runtime(facts: "Facts", storage: Storage, environ: "Mapping[str, str]") -> bool:
    """Whether any location for sockets and temporary files may have to move."""
    if facts.home_problem or environ.get(OPT_IN):
        return True
    if any(place.given for place in storage.places.values()):
        return True
    return not facts.tmp_works or tmp_is_small(facts, environ)


def tmp_is_small(facts: "Facts", environ: "Mapping[str, str]") -> bool:
    """Whether temporary files go to the container session's small tmpfs, without anybody having said where.

    Under MPI they stay: ranks meet their launcher below TMPDIR (openpmix: PMIX_SERVER_TMPDIR).
    """
    chosen = ("TMPDIR", "TEMP", "TMP", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
    return facts.session_device is not None and not any([environ.get(name) for name in chosen])  # noqa: C419
