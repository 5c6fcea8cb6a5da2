"""Which variable is pointed where: row by row of the table of locations, HOME, the bytecode.

Loaded where no earlier start has left its plan (:mod:`sif_writable.warm`). It imports only the tables.
"""

from sif_writable import child, settings
from sif_writable.redirects.beside import DECIDED_IN, HIDING, LASTING, LEVELS, LINKED, STAYING, UNSEEDED, USED_BY
from sif_writable.redirects.catalog import ALWAYS, OPT_IN, ROWS
from sif_writable.redirects.decision import Decision, Redirect
from sif_writable.redirects.templates import OF_HOME, SET_BY, baked, companions, default_bases, linked, resolve
from sif_writable.storage.kinds import COMPILED, CONFIG, DATA, RUNTIME
from sif_writable.storage.layout import ALSO, HOME, OWN_DATA
from sif_writable.system.timeouts import TIMED_OUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    from sif_writable.redirects.row import Row
    from sif_writable.storage.chosen import Storage
    from sif_writable.system.surroundings import Facts

    class PathQueries(Protocol):
        """What decide() asks about default locations; :class:`sif_writable.redirects.locations.Locations` answers."""

        def state(self, path: str) -> str: ...  # noqa: D102
        def works(self, path: str) -> bool: ...  # noqa: D102
        def holds(self, path: str, text: str) -> bool: ...  # noqa: D102
        def installs(self, words: str) -> bool: ...  # noqa: D102
        def lies_on(self, path: str, device: int) -> bool: ...  # noqa: D102


def decide(facts: "Facts", storage: "Storage", queries: "PathQueries", environ: "Mapping[str, str]") -> Decision:
    """Decide every redirect, HOME, the user's name and the bytecode folder."""
    decision = Decision()
    decision.notes = settings.misunderstood(environ, [row.variable for row in OPT_IN])
    _decide_home(facts, storage, environ, decision)
    rows = _Rows(facts, storage, queries, environ, decision)
    for row in ROWS:
        rows.decide(row)
    opted = settings.opted(environ)
    for row in OPT_IN if opted or facts.session_device is not None else ():
        if row.variable in opted or (row.variable in LASTING and rows.has_to_leave_memory(row)):
            rows.decide(row)
    if storage.shared is not None:
        from sif_writable.redirects import sharing

        sharing.share(decision, storage)
    if COMPILED in storage.slots and not facts.ships_bytecode and "PYTHONPYCACHEPREFIX" not in environ:
        decision.pycache = storage.slots[COMPILED].folder + "/pycache"
    decision.companions = companions(decision, rows.bases, environ)
    return decision


_DECIDING = frozenset([variable for variable, _, _ in DECIDED_IN])
_LINKING = frozenset([variable for variable, _, _ in LINKED])
_LEVELS = dict(LEVELS)
_USED_BY = {variable: (words, in_any_case) for variable, words, in_any_case in USED_BY}


class _Rows:
    """Decides row by row of the table."""

    __slots__ = (
        "baked",
        "baking",
        "bases",
        "cache_moves",
        "chosen",
        "decision",
        "environ",
        "facts",
        "given",
        "homeless",
        "queries",
        "storage",
    )

    def __init__(
        self,
        facts: "Facts",
        storage: "Storage",
        queries: "PathQueries",
        environ: "Mapping[str, str]",
        decision: Decision,
    ) -> None:
        self.facts = facts
        self.storage = storage
        self.queries = queries
        self.environ = environ
        self.decision = decision
        self.bases = default_bases(facts, environ)
        self.given = [kind for kind, slot in storage.slots.items() if slot.place.given]
        self.baking = any(slot.place.given and slot.place.of_image for slot in storage.slots.values())
        """Whether the place is the image that is being built: then all goes there, and nothing of the builder's."""
        self.chosen = [base for base, variable in SET_BY.items() if environ.get(variable)]
        """Bases that the user has chosen by a variable."""
        self.homeless = [base for base in OF_HOME if base not in self.chosen] if facts.home_problem else []
        """Bases below a HOME that cannot be used."""
        self.baked = baked(facts)
        self.cache_moves = False
        """Whether XDG_CACHE_HOME is redirected, so that what stays below ~/.cache must be pinned."""

    def decide(self, row: "Row") -> None:
        """Add the redirect of one row to the decision, or the reason why it is left alone."""
        variable, kind, when, defaults, counts_as_set, form, _, _ = row
        form, _, extra = form.partition(":")
        if form == "value":
            if variable not in self.environ:
                self.decision.redirects.append(Redirect(variable, extra, kind, "", _REQUESTED))
            return
        if variable in self.environ and form != "flags":
            self.decision.skipped.append((variable, "set by the user"))
            return
        for parent in counts_as_set:
            if parent in self.environ:
                self.decision.skipped.append((variable, f"the user set {parent}, which decides it"))
                return
        default = defaults[0] if defaults else ""
        own = self.baked.get(variable, "")
        word, why = self._reason(variable, kind, when, default, brought=bool(own))
        # All that has no variable of its own stays where the user has it, rather than being hidden by a few files.
        if own and word == _WORKS and not variable.startswith("XDG_"):
            word, why = _MOVES, "the image brings files for it"
        if word != _MOVES:
            self._leave(variable, default, form, extra, word, why)
            return
        # Nothing of this image needs the folder of the row to be there; while it is built, anything may.
        unused = variable in _USED_BY and not (own or self.baking or self.queries.installs(_USED_BY[variable][0]))
        file = self._decided_in(variable)
        if file or (unused and not _USED_BY[variable][1]):
            why = f"{file} of the user decides it" if file else "nothing that uses it is installed"
            self.decision.skipped.append((variable, why))
            return
        slot, image = self.storage.slots.get(kind), self.storage.image
        # Without a folder of this image, its files would be offered where other images look.
        if slot is None or (own and kind == DATA and image is None):
            if own and kind == DATA:
                why = "the image's own files are read where they are: no place was found for more"
                self.decision.redirects.append(Redirect(variable, own, kind, "", why))
            else:
                self.decision.skipped.append((variable, f"no place was found for {kind} files"))
            return
        leaf = row.leaf
        folder, there = f"{slot.folder}/{leaf}", leaf in slot.present
        # Downloads can be kept with the other things of this image where they are on the same filesystem.
        if own and kind == DATA and form != "path_list" and image and slot.root == self.storage.root(CONFIG):
            # What leads into this image must not lie where other images look.
            folder = f"{image.folder}/{OWN_DATA}{leaf}"
            there = OWN_DATA + leaf in image.present
        value, stays = folder, ""
        if form not in ("dir", "mkdir", "base"):
            value, stays = self._value(form, folder, variable, own, default + (f"/{extra}" if extra else ""))
        if stays:
            self.decision.skipped.append((variable, stays))
            return
        redirect = Redirect(variable, value, kind, folder, why)
        redirect.subfolder = extra if form == "base" else ""
        if form == "path_list":  # which names what the image brings
            own = ""
        if not self.baking:
            self._find(redirect, when, defaults, own, leaf)
        if not there:
            self._prepare(redirect, "" if unused else form, defaults, own)
        if variable == "XDG_CACHE_HOME":
            self.cache_moves = True
        self.decision.redirects.append(redirect)

    def _decided_in(self, variable: str) -> str:
        """Return the user's settings file that decides a row, or an empty string."""
        if variable in _DECIDING:
            for decided, template, text in DECIDED_IN:
                path = resolve(template, self.bases, self.environ) if decided == variable else ""
                if path and self.queries.holds(path, text):
                    return path
        return ""

    def _stays_though_given(self, variable: str, kind: str, default: str) -> bool:
        """Whether the user's own place for a row holds what would not be found, or not be whole, in another one."""
        if self.baking or not default:
            return False
        path = resolve(default, self.bases, self.environ)
        if variable in HIDING:
            return kind == DATA and (default.partition("/")[0] in self.homeless or self.queries.works(path))
        return variable in STAYING and self.queries.state(path) == "writable"

    def _is_repaired(self, default: str) -> bool:
        """Whether a default that cannot be used can be used in the private HOME: nothing read-only is linked there."""
        in_home = self.decision.home and default.partition("/")[0] in OF_HOME
        return bool(in_home) and self.queries.state(resolve(default, self.bases, self.environ)) == "absent"

    def _find(self, redirect: Redirect, when: str, defaults: "tuple[str, ...]", own: str, leaf: str) -> None:
        """Say what the folder must offer of the default locations: all that is there, or settings alone."""
        variable = redirect.variable
        if variable in _LINKING:
            redirect.linking = True
            for _, old in linked(redirect, self.facts, self.environ):
                self.queries.state(old)  # so that a later start asks it again
        levels = redirect.levels = _LEVELS.get(variable, 1 if redirect.kind in (DATA, CONFIG) else 0)
        if when == ALWAYS or not levels or variable in UNSEEDED:
            return
        found = []
        for template in defaults:
            path = resolve(template, self.bases, self.environ)
            if path[:1] == "/" and self.queries.state(path) in ("writable", "read-only"):
                found.append((path, levels))
                redirect.offers = "linked" if self.queries.state(path) == "writable" else redirect.offers or "seeded"
        if own:
            redirect.offers = redirect.offers or "seeded"
        if redirect.kind == DATA:  # what other images fetched
            downloads, itself = self.storage.slots[DATA], f"{leaf}{ALSO}{self.facts.identity}"
            others = [name for name in downloads.present if name.startswith(leaf + ALSO) and name != itself]
            if leaf in downloads.present and redirect.folder != f"{downloads.folder}/{leaf}":
                others.append(f"{leaf}/{redirect.subfolder}".rstrip("/"))
            found += [(f"{downloads.folder}/{name}", levels) for name in sorted(others)]
        redirect.sources = tuple(found)

    def _reason(self, variable: str, kind: str, when: str, default: str, *, brought: bool) -> "tuple[str, str]":
        """Return whether a location moves, and why it does or does not.

        :param brought: the image brings files for it, which only the variable leads to.
        """
        if kind in self.given and not self._stays_though_given(variable, kind, default):
            return _MOVES, "the user gave a place for it"
        word, why = self._reason_by_default(variable, when, kind, default)
        if word == _MOVES and variable in HIDING and not brought and self._is_repaired(default):
            return _STAYS, "the repaired HOME serves as well, and the variable would hide what packages bring"
        return word, why

    def _reason_by_default(self, variable: str, when: str, kind: str, default: str) -> "tuple[str, str]":
        if when == "opt_in":
            return _MOVES, _REQUESTED if variable in settings.opted(self.environ) else _IN_MEMORY
        base = default.partition("/")[0]
        path = resolve(default, self.bases, self.environ)
        if base in self.homeless:
            # Below a HOME that cannot be used there may still be a bind mount that can.
            if when != ALWAYS and path and self.queries.state(path) == "writable":
                return _WORKS, _BY_DEFAULT
            return _MOVES, f"HOME {self.facts.home_problem}"
        works = bool(path) and self.queries.works(path)
        if works and base in self.chosen:
            return _STAYS, f"the user set {SET_BY[base]}, which decides it"
        if when == ALWAYS:
            return _MOVES, "its default is not kept apart by image and user"
        if not works:
            return _MOVES, f"{path or default} cannot be written"
        if (variable == "TMPDIR" or kind != RUNTIME) and self._lies_in_memory(path):
            if self.storage.roomy if kind == RUNTIME else not self.storage.small:
                return _MOVES, _IN_MEMORY
            if variable == "TMPDIR":
                self.decision.notes.append(
                    f"{path} is the container session's small tmpfs, where large temporary files find no room, and "
                    "no other place serves. Remedy: bind a local directory, --bind DIR:/sif-writable, or --workdir DIR"
                )
        return _WORKS, _BY_DEFAULT

    def has_to_leave_memory(self, row: "Row") -> bool:
        """Whether the default of a row is on the small tmpfs of the session, and another place has room."""
        path = resolve(row.defaults[0], self.bases, self.environ)
        return not self.storage.small and self._lies_in_memory(path)

    def _lies_in_memory(self, path: str) -> bool:
        small = self.facts.session_device
        return small is not None and self.queries.lies_on(path, small)

    def _leave(self, variable: str, default: str, form: str, extra: str, word: str, why: str) -> None:
        """Leave a location where it is, and pin it there when what it hangs on moves away."""
        moves = False
        if word == _WORKS and (self.decision.home or self.cache_moves):
            base = default.partition("/")[0]
            moves = bool(self.decision.home and base in OF_HOME) or (self.cache_moves and base == "CACHE")
        if moves and form in ("dir", "mkdir", "base"):
            path = resolve(default, self.bases, self.environ)
            if extra and path.endswith("/" + extra):
                path = path[: -len(extra) - 1]
            self.decision.redirects.append(
                Redirect(variable, path, "", "", "it stays there, though HOME or ~/.cache moves")
            )
        else:
            self.decision.skipped.append((variable, why))

    def _value(self, form: str, folder: str, variable: str, own: str, template: str) -> "tuple[str, str]":
        """Return the value that leads to a folder, or why there is none: one of the two is empty.

        :param own: what the image brings for it; :param template: of the default that a list must name as well.
        """
        if form == "flags":
            flags = self.environ.get(variable, "")
            if "compiledir=" in flags:
                return "", "the user's flags name a compile directory"
            if any(character in folder for character in ", '\""):
                return "", "the storage path has a comma, a space or a quote, which these flags cannot express"
            return f"{flags},base_compiledir={folder}".lstrip(","), ""
        # Of a default with a pattern in it, the part before the pattern shows whether it is there.
        default = resolve(template, self.bases, self.environ)
        there = default and self.queries.state(default.partition("/%")[0]) not in ("absent", "silent")
        entries = [folder, default] if there and ":" not in default and not self.baking else [folder]
        if form == "comma_list":
            entries.append(self.facts.prefix + "/pkgs")
            if any("," in entry for entry in entries):
                return "", "the storage path has a comma, which this list cannot express"
            return ",".join([folder, *[each for each in entries[1:] if self.queries.state(each) != "absent"]]), ""
        if own and form == "path_list":
            entries.insert(1, own)
        return ":".join(entries) + (":" if form == "path_list_open" else ""), ""

    def _prepare(self, redirect: Redirect, form: str, defaults: "tuple[str, ...]", own: str) -> None:
        """Say what a folder that is not there yet must start with.

        :param form: of the row; empty: nobody needs the folder. :param own: what the image brings for it, or empty.
        """
        redirect.make = form in ("mkdir", "base", "path_list", "path_list_open")
        if redirect.kind != RUNTIME and redirect.variable not in UNSEEDED:
            paths = (resolve(template, self.bases, self.environ) for template in defaults)
            redirect.seeds = tuple(path for path in paths if path and self.queries.state(path) == "read-only")
        if own:
            redirect.seeds = (own, *redirect.seeds)
        offered = linked(redirect, self.facts, self.environ) if redirect.linking else ()
        if redirect.seeds or redirect.sources or any(self.queries.state(old) != "absent" for _, old in offered):
            redirect.make = True


_MOVES, _STAYS, _WORKS = "moves", "stays", "works"
"""What becomes of a location: it moves, it stays, it stays since its default works."""
_BY_DEFAULT = "its default location works"
_IN_MEMORY = "its default is on the container session's small tmpfs"
_REQUESTED = f"{child.OPT_IN} names it"


def _decide_home(facts: "Facts", storage: "Storage", environ: "Mapping[str, str]", decision: Decision) -> None:
    mode = settings.home(environ)
    if mode == "keep" or not (facts.home_problem or mode == "redirect"):
        decision.home_why = f"{facts.home_problem}; kept, as {settings.HOME} says" if facts.home_problem else "works"
        return
    if facts.home_timed_out:
        decision.home_why = f"{TIMED_OUT}; kept, since a private one must link to what is in it"
        return
    why = f"HOME {facts.home_problem}" if facts.home_problem else f"{settings.HOME}=redirect"
    if storage.image is None:
        decision.home_why = f"{facts.home_problem or 'works'}; no place was found for a private one"
        return
    decision.home = f"{storage.image.folder}/{HOME}"
    decision.home_made = HOME in storage.image.present
    decision.home_why = why
