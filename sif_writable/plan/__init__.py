"""DECIDE: from facts to a plan. Nothing here changes the world, and each decision carries its reason.

On the start-up path: it imports only the table of locations.
"""

import os

from sif_writable.plan.catalog import (
    ALWAYS,
    CARRIED,
    COMPILED,
    CONFIG,
    DATA,
    IF_UNWRITABLE,
    LINKED,
    OPT_IN,
    ROWS,
    RUNTIME,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Protocol

    from sif_writable.facts import Facts

    class Ground(Protocol):
        """What decide() asks about default locations; :class:`sif_writable.facts.filesystem.Locations` answers."""

        def state(self, path: str) -> str: ...
        def works(self, path: str) -> bool: ...


KINDS = (COMPILED, CONFIG, DATA)
TARGET = "/sif-writable"
"""The well-known bind target."""

MODES = {
    "SIF_WRITABLE": ("auto", "on", "off"),
    "SIF_WRITABLE_HOME": ("auto", "keep", "redirect"),
    "SIF_WRITABLE_STRICT": ("0", "1"),
    "SIF_WRITABLE_DEBUG": ("0", "1"),
}
"""Variables of ours with a fixed set of values; the first is the default."""


class Place:
    """A candidate for storage."""

    __slots__ = ("base", "given", "label", "lasting", "make")

    def __init__(self, label: str, base: str, lasting: str, *, given: bool = False, make: bool = False) -> None:
        """:param label: the words for ``status``; :param lasting: ``persistent``, ``job``, ``node`` or ``memory``.

        :param given: the user gave it on purpose; :param make: the base may be made when it does not exist.
        """
        self.label = label
        self.base = base
        self.lasting = lasting
        self.given = given
        self.make = make


class Storage:
    """Where each kind goes, and what was refused on the way."""

    __slots__ = ("folders", "places", "present", "refused", "roots", "small")

    def __init__(self) -> None:
        """Start with no place at all."""
        self.roots: "dict[str, str]" = {}
        """Kind to the storage root chosen for it."""
        self.places: "dict[str, Place]" = {}
        """Kind to the candidate it came from."""
        self.folders: "dict[str, str]" = {}
        """Kind to the folder below that root; also ``image``, which holds the private home and the bytecode."""
        self.present: "dict[str, frozenset[str]]" = {}
        """Kind to the names in that folder."""
        self.refused: "list[tuple[Place, str]]" = []
        """Candidates that were not taken, with a sentence without subject."""
        self.small = False
        """Whether downloads had to go to the container session's small tmpfs."""


class Redirect:
    """One environment variable pointed into storage."""

    __slots__ = ("folder", "kind", "make", "seeds", "subfolder", "value", "variable", "why")

    def __init__(self, variable: str, value: str, kind: str, folder: str, why: str) -> None:
        """:param value: what the variable is set to; :param folder: the folder in storage it leads to, or empty."""
        self.variable = variable
        self.value = value
        self.kind = kind
        self.folder = folder
        self.why = why
        self.make = False
        """The folder must exist before the package looks."""
        self.seeds: "tuple[str, ...]" = ()
        """Read-only directories of the image whose files the folder starts with; empty when it exists already."""
        self.subfolder = ""
        """The part that the package itself appends to the value."""


class Decision:
    """The plan of one process."""

    __slots__ = ("home", "home_made", "home_why", "left", "notes", "pycache", "redirects", "user")

    def __init__(self) -> None:
        """Start with nothing to do."""
        self.redirects: "list[Redirect]" = []
        self.left: "list[tuple[str, str]]" = []
        """Variables that were left alone, with the reason."""
        self.home = ""
        """The private home, or empty when HOME is kept."""
        self.home_made = False
        """Whether the private home exists already."""
        self.home_why = ""
        self.user = ""
        """The value for USER and LOGNAME, or empty."""
        self.pycache = ""
        """The value for sys.pycache_prefix, or empty."""
        self.notes: "list[str]" = []
        """What ``status`` has to say besides: values that are not understood, requests that were not met."""


def places(facts: "Facts", environ: "Mapping[str, str]") -> "Iterator[Place]":
    """Yield the candidates for storage, best first."""
    if environ.get("SIF_WRITABLE_DIR"):
        base = os.path.abspath(environ["SIF_WRITABLE_DIR"])
        yield Place("SIF_WRITABLE_DIR", base, "persistent", given=True, make=True)
    yield Place("the bind at /sif-writable", TARGET, "persistent", given=True)
    if facts.prefix_writable:
        yield Place("the image's own /var/cache, writable here", "/var/cache", "as the overlay")
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


def own_folder(place: Place, *, shared: bool, uid: int) -> str:
    """Return the storage root within a place: per user where others can write, the place itself where it was given."""
    if shared:
        return f"{place.base}/sif-writable-{uid}"
    return place.base if place.given else place.base + "/sif-writable"


def needs_runtime(facts: "Facts", storage: Storage, environ: "Mapping[str, str]") -> bool:
    """Whether any location for sockets and temporary files may have to move."""
    if facts.home_problem or environ.get("SIF_WRITABLE_OPT_IN"):
        return True
    if any(place.given for place in storage.places.values()):
        return True
    return not facts.tmp_works


def decide(facts: "Facts", storage: Storage, ground: "Ground", environ: "Mapping[str, str]") -> Decision:
    """Decide every redirect, HOME, the user's name and the bytecode folder."""
    decision = Decision()
    decision.notes = misunderstood(environ)
    opted = frozenset(filter(None, environ.get("SIF_WRITABLE_OPT_IN", "").replace(",", " ").split()))
    bases = default_bases(facts, environ)
    for row in ROWS:
        _decide_row(row, facts, storage, ground, bases, environ, decision)
    if opted:
        for row in OPT_IN:
            if row[0] in opted:
                _decide_row(row, facts, storage, ground, bases, environ, decision)
        known = {row[0] for row in OPT_IN}
        decision.notes += [
            f"SIF_WRITABLE_OPT_IN names {name!r}, which can not be switched on; allowed: {', '.join(sorted(known))}"
            for name in sorted(opted - known)
        ]
    _decide_home(facts, storage, environ, decision)
    if COMPILED in storage.folders and not facts.ships_bytecode and "PYTHONPYCACHEPREFIX" not in environ:
        decision.pycache = storage.folders[COMPILED] + "/pycache"
    return decision


def default_bases(facts: "Facts", environ: "Mapping[str, str]") -> "dict[str, str]":
    """Map each base of a location template to the directory that packages resolve it to."""
    home = facts.home
    bases = {
        "HOME": home,
        "CACHE": environ.get("XDG_CACHE_HOME") or home + "/.cache",
        "CONFIG": environ.get("XDG_CONFIG_HOME") or home + "/.config",
        "DATA": environ.get("XDG_DATA_HOME") or home + "/.local/share",
        "STATE": environ.get("XDG_STATE_HOME") or home + "/.local/state",
        "TMP": environ.get("TMPDIR") or "/tmp",  # noqa: S108
        "CWD": ".",
        "PURELIB": facts.purelib,
        "PREFIX": facts.prefix,
    }
    if home == "/":
        for base, value in bases.items():
            bases[base] = value.replace("//", "/")
    return bases


_SET_BY = {"CACHE": "XDG_CACHE_HOME", "CONFIG": "XDG_CONFIG_HOME", "DATA": "XDG_DATA_HOME", "STATE": "XDG_STATE_HOME"}
_OF_HOME = ("HOME", "CACHE", "CONFIG", "DATA", "STATE")


def resolve(template: str, bases: "Mapping[str, str]", environ: "Mapping[str, str]") -> str:
    """Turn a location template such as ``CACHE/numba`` into a path; empty where HOME is needed and not set."""
    base, slash, rest = template.partition("/")
    if not base:
        path = template
    else:
        directory = bases[base]
        if not directory or (base != "HOME" and directory.startswith("/.") and bases["HOME"] != "/"):
            return ""
        path = directory.rstrip("/") + slash + rest
    return path.replace("{user}", environ.get("USER", "")) if "{" in path else path


def _decide_row(
    row: "tuple[str, str, str, tuple[str, ...], tuple[str, ...], str, str, str]",
    facts: "Facts",
    storage: Storage,
    ground: "Ground",
    bases: "Mapping[str, str]",
    environ: "Mapping[str, str]",
    decision: Decision,
) -> None:
    variable, kind, when, defaults, counts_as_set, form, name, _ = row
    form, _, subfolder = form.partition(":")
    if form == "value":
        if variable not in environ:
            decision.redirects.append(Redirect(variable, subfolder, kind, "", "switched on by SIF_WRITABLE_OPT_IN"))
        return
    if variable in environ and form != "flags":
        decision.left.append((variable, "set by the user"))
        return
    for parent in counts_as_set:
        if parent in environ:
            decision.left.append((variable, f"the user set {parent}, which decides it"))
            return
    given = kind in storage.places and storage.places[kind].given
    if when == IF_UNWRITABLE or not given:
        why = _reason(when, kind, defaults[0] if defaults else "", given, facts, storage, ground, bases, environ)
        if why.startswith("-"):
            decision.left.append((variable, why[1:]))
            return
    else:
        why = "goes to the place that the user gave"
    if kind not in storage.folders:
        decision.left.append((variable, f"no place was found for {kind} files"))
        return
    leaf = name.replace("/", "-")
    folder = f"{storage.folders[kind]}/{leaf}"
    value = _value(form, folder, variable, facts, ground, environ)
    if value.startswith("-"):
        decision.left.append((variable, value[1:]))
        return
    redirect = Redirect(variable, value, kind, folder, why)
    redirect.subfolder = subfolder
    if leaf not in storage.present[kind]:
        redirect.make = form in ("mkdir", "base", "path_list", "path_list_open")
        redirect.seeds = tuple(
            path
            for path in (resolve(template, bases, environ) for template in defaults)
            if path and ground.state(path) == "read-only"
        )
        if redirect.seeds or any(linked[0] == variable for linked in LINKED):
            redirect.make = True
    decision.redirects.append(redirect)


def _reason(
    when: str,
    kind: str,
    default: str,
    given: bool,
    facts: "Facts",
    storage: Storage,
    ground: "Ground",
    bases: "Mapping[str, str]",
    environ: "Mapping[str, str]",
) -> str:
    """Say why a location moves; a leading ``-`` says that it stays."""
    if given:
        return "goes to the place that the user gave"
    if when not in (ALWAYS, IF_UNWRITABLE):
        return "switched on by SIF_WRITABLE_OPT_IN"
    base = default.partition("/")[0]
    parent = _SET_BY.get(base, "")
    path = resolve(default, bases, environ)
    of_home = base in _OF_HOME and not environ.get(parent)
    if of_home and facts.home_problem:
        return f"HOME {facts.home_problem}"
    works = bool(path) and ground.works(path)
    if environ.get(parent) and works:
        return f"-the user set {parent}, which decides it"
    if when == ALWAYS:
        return "its files are valid for one image only"
    if works and of_home and kind == DATA and facts.home_small and not storage.small:
        return "HOME is on the container session's small tmpfs"
    if works:
        return "-its default location works"
    return f"{path or default} cannot be written"


def _value(
    form: str, folder: str, variable: str, facts: "Facts", ground: "Ground", environ: "Mapping[str, str]"
) -> str:
    """Return the value of a variable that leads to a folder; a leading ``-`` says why there is none."""
    if form == "flags":
        flags = environ.get(variable, "")
        if "compiledir=" in flags:
            return "-the user's flags name a compile directory"
        if any(character in folder for character in ", '\""):
            return "-the storage path has a comma, a space or a quote, which these flags cannot express"
        return f"{flags},base_compiledir={folder}".lstrip(",")
    if form in ("path_list", "path_list_open") and ":" in folder:
        return "-the storage path has a colon, which a path list cannot express"
    if form == "path_list_open":
        return folder + ":"
    if form == "comma_list":
        if "," in folder:
            return "-the storage path has a comma, which this list cannot express"
        own = facts.prefix + "/pkgs"
        return f"{folder},{own}" if ground.state(own) != "absent" else folder
    return folder


def _decide_home(facts: "Facts", storage: Storage, environ: "Mapping[str, str]", decision: Decision) -> None:
    mode = environ.get("SIF_WRITABLE_HOME", "").lower()
    if mode == "keep" or not (facts.home_problem or mode == "redirect"):
        decision.home_why = "kept, as SIF_WRITABLE_HOME says" if mode == "keep" else "works"
        return
    why = f"HOME {facts.home_problem}" if facts.home_problem else "SIF_WRITABLE_HOME=redirect"
    if "image" not in storage.folders:
        decision.home_why = f"{why}, but no place was found for another"
        return
    decision.home = storage.folders["image"] + "/home"
    decision.home_made = "home" in storage.present["image"]
    decision.home_why = why


def carried(decision: Decision, facts: "Facts", environ: "Mapping[str, str]") -> "Iterable[tuple[str, str]]":
    """Yield (variable, path) pairs that keep the user's own settings in force beside a redirect, if the file exists."""
    redirected = {redirect.variable for redirect in decision.redirects}
    bases = default_bases(facts, environ)
    for row_variable, variable, template in CARRIED:
        if row_variable in redirected and variable not in environ:
            path = resolve(template, bases, environ)
            if path:
                yield variable, path


def linked(redirect: Redirect, facts: "Facts", environ: "Mapping[str, str]") -> "Iterable[tuple[str, str]]":
    """Yield (name in the folder, old path) of what must still be found in a redirected folder: tokens, settings."""
    bases = default_bases(facts, environ)
    for variable, name, template in LINKED:
        if variable == redirect.variable:
            path = resolve(template, bases, environ)
            if path:
                yield name, path


def misunderstood(environ: "Mapping[str, str]") -> "list[str]":
    """List our variables whose value is not understood, with what is allowed; they count as unset."""
    notes = []
    for name, allowed in MODES.items():
        value = environ.get(name, "")
        if value and value.lower() not in allowed and not (name == "SIF_WRITABLE" and value.lower() in _SYNONYMS):
            notes.append(f"{name}={value[:80]!r} is not understood and counts as unset; allowed: {', '.join(allowed)}")
    return notes


_SYNONYMS = ("0", "1", "no", "yes", "false", "true", "never", "always")
