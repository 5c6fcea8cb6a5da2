"""What one process has decided, and what it did of it."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

    from sif_writable.errors import Problem
    from sif_writable.redirects.watch import Watch
    from sif_writable.storage.chosen import Storage
    from sif_writable.system.surroundings import Facts


class Redirect:
    """One environment variable pointed into storage."""

    __slots__ = (
        "folder",
        "kind",
        "levels",
        "linking",
        "make",
        "offers",
        "seeds",
        "shared",
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
        self.shared = False
        """Whether it leads to where a group shares downloads."""
        self.linking = False
        """Whether single files of the user's must be found in the folder, such as a token."""
        self.sources: tuple[tuple[str, int], ...] = ()
        """Default locations that hold something, with how deep their entries are linked in the folder."""
        self.levels = 1
        """How deep the entries of what it is filled from are offered (:data:`.beside.LEVELS`)."""
        self.offers = ""
        """What the folder offers besides its own: ``seeded`` with the image's files, ``linked`` to the user's."""
        self.subfolder = ""
        """The part that the package itself appends to the value."""


class Decision:
    """The plan of one process."""

    __slots__ = (
        "companions",
        "home",
        "home_made",
        "home_why",
        "notes",
        "pycache",
        "redirects",
        "skipped",
        "user",
    )

    def __init__(self) -> None:
        """Start with nothing to do."""
        self.redirects: list[Redirect] = []
        self.skipped: list[tuple[str, str]] = []
        """Variables that were left alone, with the reason."""
        self.companions: list[tuple[str, str, str]] = []
        """(redirected variable, companion variable, settings file): with the companion, the user's own settings
        still apply."""
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


class Outcome:
    """What this process saw, decided and did."""

    __slots__ = ("decision", "facts", "failed", "replaced", "said", "storage", "watch")

    def __init__(self, facts: "Facts", storage: "Storage", decision: "Decision") -> None:
        """:param decision: what was decided; what of it could not be done is in ``failed``."""
        self.facts = facts
        self.storage = storage
        self.decision = decision
        self.watch: Optional[Watch] = None
        """The directories that were listed to make links to what is in them, where any were."""
        self.said: list[str] = []
        """What was said on stderr of the place that the user gave, and of storage that does not answer."""
        self.failed: list[Problem] = []
        """What could not be done."""
        self.replaced: dict[str, Optional[str]] = {}
        """Variables that were set, with their value before."""
