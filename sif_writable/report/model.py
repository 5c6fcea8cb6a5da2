"""The status model as types: what ``status --json`` prints, and what text and checks are made from. Sizes are in bytes.

The schema has a version and only grows: a key keeps its meaning until the version changes.
"""

from __future__ import annotations

from typing import TypedDict


class Advice(TypedDict):
    """What is wrong, and what to do about it."""

    text: str
    remedy: str


class Problem(Advice):
    """What could not be done, or not be read in the image's manifest; the code of a kind keeps its meaning."""

    code: str


class Hook(TypedDict):
    """Whether the hook has run in this process, and how it got there."""

    state: str
    """See :data:`sif_writable.report.text.STATES`."""
    active: bool
    by: str
    """Who decided: ``this process``, ``an ancestor``, or empty."""
    how: str
    """The file that starts it, or empty."""
    problem: str
    """Why it does not run at interpreter start, or empty."""
    remedy: str


class Container(TypedDict):
    """The engine and the image."""

    engine: str
    signs: list[str]
    """By what the engine was recognised."""
    image: str
    identity: str
    ingredients: list[str]
    """What the identity is made of."""


class Root(TypedDict):
    """The environment of this interpreter."""

    prefix: str
    writable: bool
    filesystem: str
    """Its type, or ``unknown``."""
    note: str
    """What is to be known of an overlay that the user gave."""


class Storage(TypedDict):
    """Where files of one kind go."""

    kind: str
    """``data``, ``compiled``, ``config`` or ``runtime``."""
    folder: str
    place: str
    """How it was found: a variable, HOME, ..."""
    filesystem: str
    free_bytes: int
    total_bytes: int
    free_inodes: int
    total_inodes: int
    lasting: str
    """``persistent``, ``memory``, or as long as a ``job`` or the like."""
    note: str


class Shortage(Advice):
    """What a filesystem runs short of."""

    lack: str
    """``bytes`` or ``inodes``."""


class Space(TypedDict):
    """The room on a filesystem that is written to."""

    path: str
    """The path at which it was measured."""
    what: str
    """What it is there for: ``storage``, ``the image, writable here``, ``HOME``."""
    kind: str
    """``overlay``, ``session``, ``memory``, ``home`` or ``disk``."""
    filesystem: str
    total_bytes: int
    free_bytes: int
    total_inodes: int
    """0: it does not count them."""
    free_inodes: int
    warnings: list[Shortage]


class Usage(TypedDict):
    """What images keep in one storage root, and what they may."""

    root: str
    images: int
    """How many have something there."""
    size_bytes: int
    """Of caches, copies, settings, homes."""
    files: int
    """Files, links and folders, as quotas count them."""
    written_bytes: int
    """What of it programs wrote: it never goes by itself."""
    written_files: int
    downloads_bytes: int
    """What images share; it goes only on request."""
    downloads_files: int
    complete: bool
    """Whether all was counted in time."""
    limit_bytes: int | None
    """What they may keep (``SIF_WRITABLE_MAX``); null: there is no limit."""
    limit_files: int | None
    warning: Advice | None


class Refused(TypedDict):
    """A place that storage was not put in."""

    place: str
    path: str
    why: str
    remedy: str
    """Empty where nobody asked for the place, and nothing in it is damaged."""


class Home(TypedDict):
    """HOME in this process."""

    value: str
    old: str | None
    """What it was before; null: as it was, or unset."""
    private: bool
    """Whether it was moved into storage."""
    why: str


class Redirect(TypedDict):
    """A variable that leads into storage."""

    variable: str
    value: str
    kind: str
    folder: str
    """Where it leads in storage; empty for a switch, and for what is pinned in its own place."""
    why: str
    """To be read after "because"."""
    offers: str
    """``linked`` or ``seeded``: what the image or the user has there already; or empty."""
    size_bytes: int
    size_complete: bool
    exists: bool


class UserSet(TypedDict):
    """A known variable that the user set; its problem is what is wrong with the place that it names, or empty."""

    variable: str
    value: str
    problem: str
    remedy: str
    level: str
    """``warn``, ``info`` where few programs miss it, or empty."""


class LeftAlone(TypedDict):
    """A variable that was not set."""

    variable: str
    why: str


class Package(TypedDict):
    """A package that writes into its own directory, and has a copy or is to have one."""

    name: str
    why: str
    how: str
    """``copy``, ``mount`` (writable where it is), ``next import``, or ``refused: ...``."""
    where: str
    size_bytes: int
    written: list[str]
    """Files of the copy that are not the image's own."""


class Kept(TypedDict):
    """What the newest generation of a layer holds."""

    bytes: int
    files: int
    node: str
    """The machine that published it."""
    written: list[str]
    """Packages and paths of the environment that have something in it."""
    overridden: list[str]
    """Files of the image in whose place it has others, or none."""


class Pending(TypedDict):
    """What was written to the layer of this container and is not in a generation yet."""

    folder: str
    bytes: int
    files: int
    written: list[str]
    """As in :class:`Kept`."""


class Layer(Kept):
    """The writable layer."""

    inside: bool
    """Whether this process is in one."""
    hides: str
    """What it changes about users and groups, where the user has asked for it all the same."""
    over: list[str]
    """Directories that can be written in it."""
    why: str
    """Why a program that begins now would get none; empty: it may, or it is tried when one begins."""
    place: str
    """The folder where layers lie while programs run; empty: not chosen yet."""
    in_memory: bool
    """Whether they are in memory, since no filesystem here can carry one."""
    filesystem: str
    free_bytes: int
    pending: Pending | None
    folder: str
    """Where generations are."""
    number: int
    """Of the newest generation; 0: nothing was kept yet."""
    set_aside: list[str]
    """Folders with files of the side that was not taken, or that were forgotten."""
    keep: str
    """``new``, ``all`` or ``none``."""


class Entered(TypedDict):
    """A path outside packages that this process made writable."""

    path: str
    how: str
    """``graft`` or ``overlay``."""
    kept: str
    note: str
    why: str


class NotEntered(TypedDict):
    """A path that was asked for and is not writable."""

    path: str
    why: str


class Overlay(TypedDict):
    """Paths outside packages that were declared to be writable."""

    mode: str
    """``auto``, ``on`` or ``off``."""
    possible: str
    """Why this process could not make one writable now; empty: it may try."""
    inside: list[str]
    """Directories that are writable in this namespace thanks to us, by whichever process."""
    entered: list[Entered]
    refused: list[NotEntered]
    uids: str
    """Which uids there are in this user namespace."""


class Device(TypedDict):
    """One GPU."""

    index: int
    name: str | None
    uuid: str | None
    memory_total: int | None
    memory_free: int | None
    capability: str | None
    mig: list[str] | None
    """UUIDs of its instances; null: MIG is off."""
    compute_mode: str | None
    visible: bool | None
    """Null: not known."""
    problem: str | None


class Gpu(TypedDict):
    """The GPUs: a GPU is present, never "CUDA works"."""

    cause: str
    severity: str
    """``ok``, ``info``, ``warn`` or ``fail``."""
    fact: str
    remedy: str
    expected: str | None
    """Why one is expected here."""
    driver: str | None
    highest_cuda: str | None
    image_cuda: str | None
    image_cuda_from: str | None
    runs_image_cuda: bool | None
    """Null: not known."""
    unknown: str | None
    """Why names, memory and the like could not be read."""
    settings: list[str]
    """Values that are not understood."""
    devices: list[Device]
    policy: str
    demanded: dict[str, str]


class Status(TypedDict):
    """All of it."""

    schema: int
    version: str
    hook: Hook
    container: Container
    root: Root
    storage: list[Storage]
    space: list[Space]
    usage: list[Usage]
    refused: list[Refused]
    home: Home
    redirects: list[Redirect]
    user_set: list[UserSet]
    left_alone: list[LeftAlone]
    packages: list[Package]
    layer: Layer | None
    overlay: Overlay | None
    """Both null where the hook is not active."""
    gpu: Gpu | None
    """Null with ``--no-gpu``."""
    settings: list[str]
    """Values of variables that are not understood or cannot be followed."""
    problems: list[Problem]
    notes: list[str]
    """All that, and what else is to be known."""
