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


class Slot:
    """A place that was chosen, and a folder in it.

    No NamedTuple: the place is found first, and its folder is made and listed then.
    """

    __slots__ = ("folder", "place", "present", "root")

    def __init__(
        self, root: str, place: "Candidate", folder: str = "", present: "frozenset[str]" = frozenset()
    ) -> None:
        """:param root: the storage root; :param place: the candidate it came from; :param folder: below the root."""
        self.root = root
        self.place = place
        self.folder = folder
        self.present = present
        """The names in the folder."""


class Storage:
    """Where each kind goes, and what was refused on the way."""

    __slots__ = (
        "folders",
        "image",
        "loose",
        "refused",
        "roomy",
        "shared",
        "shares",
        "slots",
        "small",
        "take_over",
        "unshared",
    )

    def __init__(self) -> None:
        """Start with no place at all."""
        self.slots: dict[str, Slot] = {}
        """Kind to where it goes, the main one first."""
        self.image: Optional[Slot] = None
        """The image's own folder, which holds that of settings, the private home, and downloads that lead into the
        image."""
        self.refused: list[tuple[Candidate, str]] = []
        """Candidates that were not chosen, each with the predicate of a sentence: what is wrong with it."""
        self.folders: list[tuple[Candidate, str]] = []
        """Candidates that were not chosen because of a folder of ours in them, with that folder."""
        self.loose: list[tuple[Candidate, str]] = []
        """Candidates that keep no code, with the directory from which others could take our folder away."""
        self.small = False
        """Whether downloads had to go to the container session's small tmpfs."""
        self.roomy = False
        """Whether temporary files go to a place with room, since ``/tmp`` is that tmpfs."""
        self.take_over: Optional[TakeOver] = None
        self.shares = False
        """Whether the user wants to share downloads with a group."""
        self.shared: Optional[Slot] = None
        """The folder that has them, if any: directly in a place, beside the roots of its users."""
        self.unshared: Optional[Problem] = None
        """Why none has."""

    def root(self, kind: str) -> str:
        """Return the storage root of a kind, or an empty string."""
        return self.slots[kind].root if kind in self.slots else ""

    def folder(self, kind: str) -> str:
        """Return the folder of a kind, or an empty string."""
        return self.slots[kind].folder if kind in self.slots else ""

    def roots(self) -> "list[str]":
        """Return the storage roots, each once, the main one first."""
        return list(dict.fromkeys([slot.root for slot in self.slots.values()]))

    def all(self) -> "list[Slot]":
        """Return all that was chosen: what a group shares, each kind, the image's own folder."""
        return [slot for slot in (self.shared, *self.slots.values(), self.image) if slot is not None]


def needs_runtime(facts: "Facts", storage: Storage, environ: "Mapping[str, str]") -> bool:
    """Whether any location for sockets and temporary files may have to move."""
    if facts.home_problem or environ.get(OPT_IN):
        return True
    if any(slot.place.given for slot in storage.slots.values()):
        return True
    return not facts.tmp_works or tmp_is_small(facts, environ)


def tmp_is_small(facts: "Facts", environ: "Mapping[str, str]") -> bool:
    """Whether temporary files go to the container session's small tmpfs, without anybody having said where.

    Under MPI they stay: ranks meet their launcher below TMPDIR (openpmix: PMIX_SERVER_TMPDIR).
    """
    chosen = ("TMPDIR", "TEMP", "TMP", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
    return facts.session_device is not None and not any([environ.get(name) for name in chosen])  # noqa: C419
