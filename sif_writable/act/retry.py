"""Learn from failures: which package's copy would have cured this error, and try a failing import again from it.

Loaded when an import from a read-only directory fails, and at the end of a program that died of an error.
"""

from __future__ import annotations

import _frozen_importlib as _bootstrap
import importlib
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple, cast

from sif_writable import importhook
from sif_writable.act import copyup
from sif_writable.errors import SifWritableError
from sif_writable.facts import packages, sources
from sif_writable.plan import packages as plan
from sif_writable.plan.packages import PACKAGE, PATH, REFUSED, Line

if TYPE_CHECKING:
    import _frozen_importlib_external as _external
    from collections.abc import Iterable, Iterator
    from importlib.machinery import ModuleSpec

    from sif_writable.facts.packages import Unit

_tried: set[str] = set()
"""Packages whose import was tried a second time: there is no third."""
_JUDGED = "__sif_writable__"
"""The attribute of an error that was judged already: it passes through the import of each package on its way."""


class Again(NamedTuple):
    """The second try of an import, ready to go."""

    loader: _external.SourceFileLoader
    first: Exception
    words: str
    spec: ModuleSpec
    """Of the module in its second try."""

    def end(self) -> None:
        """Let other threads have the module: the import system knows of the first spec only."""
        self.spec._initializing = False  # type: ignore[attr-defined] # noqa: SLF001

    def failed(self, second: BaseException) -> None:
        """Let the second failure say that it is one, with the first as what it came from."""
        setattr(second, _JUDGED, True)
        last = second
        seen = {id(second)}
        while (before := last.__cause__ or last.__context__) is not None and id(before) not in seen:
            seen.add(id(before))
            last = before
        if last is not self.first and id(self.first) not in seen:
            last.__context__ = self.first
        _add_note(second, f"sif_writable: {self.words}; what happened the first time is shown above")


class Verdict(NamedTuple):
    """Whose copies would cure an error."""

    units: list[Unit]
    why: str
    """``import`` or ``use``."""
    detail: str
    """What was seen: the path that could not be written, or the line that writes."""


def prepare(module: ModuleType, error: Exception) -> Again | None:
    """Decide whether the failed import of a package is tried again, and make everything ready for it.

    :param module: the package or module, half executed.
    """
    finder, spec = importhook.finder(), module.__spec__
    if finder is None or spec is None or spec.name in _tried or type(module) is not ModuleType:
        return None
    if isinstance(error, SifWritableError) or any(hasattr(this, _JUDGED) for this in plan.chain(error)):
        return None
    setattr(error, _JUDGED, True)
    unit = _in_image(packages.unit_of_spec(spec), finder)
    verdict = _judge_import(unit, error, finder)
    cured = _outside_cured(verdict, error, finder)
    if cured:
        _tried.add(spec.name)
        new = _start_over(module, spec, [], finder)
        words = f"{spec.name} was imported a second time, with {cured} made writable"
        return Again(cast("_external.SourceFileLoader", new.loader), error, words, new)
    if not verdict.units:
        return None
    finder.busy.add(spec.name)
    try:
        problem = copyup.make(verdict.units, "import", verdict.detail)
    finally:
        finder.busy.discard(spec.name)
    if problem:
        _add_note(error, f"sif_writable: {problem}")
        return None
    _tried.add(spec.name)
    new = _start_over(module, spec, verdict.units, finder)
    names = plan.join(copied.name for copied in verdict.units)
    words = f"{spec.name} was imported a second time, with writable copies of {names}"
    return Again(cast("_external.SourceFileLoader", new.loader), error, words, new)


def _outside_cured(verdict: Verdict, error: Exception, finder: importhook.Finder) -> str:
    """Return the paths that an overlay has just made writable, where that cures an error, or an empty string."""
    from sif_writable.act import overlay
    from sif_writable.plan.overlay import ON, mode

    image = os.path.dirname(finder.folder)
    if verdict.units:
        paths = [unit.path for unit in verdict.units]
        on = mode(os.environ) == ON
        return plan.join(paths) if on and overlay.cures(paths, os.environ, image, declared=True) else ""
    paths = list(dict.fromkeys(failure.path for failure in plan.failures(error, _working_directory()) if failure.path))
    if not paths or not overlay.cures(paths, os.environ, image):
        return ""
    copyup.learn(Line(PATH, "-", path, plan.outside_words(path, ""), "import") for path in paths)
    return plan.join(paths)


def _in_image(unit: Unit, finder: importhook.Finder) -> Unit:
    """Return the unit of the image that a unit is the copy of, or the unit itself."""
    if unit.directory.startswith(finder.tree + "/"):
        return unit._replace(directory=unit.directory[len(finder.tree) :])
    return unit


def _judge_import(unit: Unit, error: Exception, finder: importhook.Finder) -> Verdict:
    """Find whose copies cure the failing import of ``unit``."""
    found, detail = _owners(plan.failures(error, _working_directory()), finder)
    if unit not in found and not _is_copied(unit, finder) and not _is_foreign(unit, error):
        files = [path for path, _ in _frames(error) if unit.holds(path)]
        line = sources.Sources([*files, *_sources_of(unit)]).write()
        if line:
            found.append(unit)
            detail = detail or f"writes beside itself: {line}"
    return Verdict(found, "import", detail)


def _is_foreign(unit: Unit, error: Exception) -> bool:
    """Whether an error is one of the kinds that a writable copy never cures: something else cannot be loaded."""
    for this in plan.chain(error):
        if isinstance(this, ImportError):
            top = (this.name or unit.name).partition(".")[0]
            return top != unit.name.partition(".")[0] or packages.is_extension(this.path)
    return isinstance(error, SyntaxError)


def _owners(failed: Iterable[plan.Failure], finder: importhook.Finder) -> tuple[list[Unit], str]:
    """Return the packages of the image, without a copy so far, that hold the paths which could not be written.

    A path is read as it is written and as it is: ``pkg/../other/x`` needs both.
    """
    found: dict[Unit, None] = {}
    detail = ""
    where = packages.directories(finder.seen())
    for failure in failed:
        path = failure.path[len(finder.tree) :] if failure.path.startswith(finder.tree + "/") else failure.path
        for way in dict.fromkeys((path, os.path.normpath(path), os.path.realpath(path))):
            unit = packages.unit_at(way, where) if way else None
            if unit is None or _is_copied(unit, finder) or os.access(unit.directory, os.W_OK):
                continue
            if unit.name not in importhook.NEVER and not _is_unreadable(failure.path):
                found[unit] = None
                detail = detail or failure.path
    return list(found), detail


def _is_copied(unit: Unit, finder: importhook.Finder) -> bool:
    """Whether this process has a package from its copy; the copy itself may have come from another process since."""
    module = sys.modules.get(unit.name)
    path = getattr(module, "__file__", None)
    return str(path).startswith(finder.tree + "/") if path else finder.has(unit.path)


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return "/"


def _is_unreadable(path: str) -> bool:
    """Whether it was reading that was denied."""
    return os.path.exists(path) and not os.access(path, os.R_OK)


def _frames(error: BaseException) -> Iterator[tuple[str, str]]:
    """Yield (file, function) of an error's traceback and those of its causes, innermost first."""
    for this in plan.chain(error):
        found = []
        traceback = this.__traceback__
        while traceback is not None:
            code = traceback.tb_frame.f_code
            found.append((code.co_filename, code.co_name))
            traceback = traceback.tb_next
        yield from reversed(found)


def _sources_of(unit: Unit) -> list[str]:
    """Return the source files of the unit's modules that are loaded."""
    files = [
        getattr(module, "__file__", None)
        for name, module in list(sys.modules.items())
        if name == unit.name or name.startswith(unit.name + ".")
    ]
    return [path for path in files if isinstance(path, str) and path.endswith(".py")]


# --- Starting over ---


def _start_over(module: ModuleType, spec: ModuleSpec, units: list[Unit], finder: importhook.Finder) -> ModuleSpec:
    """Take back what the first try left behind, and return the module's spec for the second.

    The module itself stays the same object, since others may hold it, and starts empty. Other modules of it and of
    the copied packages go, where this very import brought them; those that were there before learn their new place.
    """
    names = list(sys.modules)
    since = names.index(spec.name) if spec.name in names else len(names)
    own = spec.name + "."
    kept: dict[str, ModuleType] = {}
    copied = [unit for each in units for unit in packages.mates(each)]
    for at, name in enumerate(names):
        this = sys.modules.get(name)
        if this is module or not isinstance(this, ModuleType):
            continue
        unit = next((u for u in copied if name == u.name or name.startswith(u.name + ".")), None)
        if unit is None and not name.startswith(own):
            continue
        path = getattr(this, "__file__", None)
        if packages.is_extension(path):  # the interpreter loads object code once
            if name.startswith(own):
                kept[name[len(own) :]] = this
        elif at > since and (name.startswith(own) or not _is_held(name, names[since:], units)):
            del sys.modules[name]
        elif unit is not None:
            _rebase(this, finder.tree)
    importlib.invalidate_caches()
    new = spec
    unit = _in_image(packages.unit_of_spec(spec), finder)
    if finder.has(unit.path) and not (spec.origin or "").startswith(finder.tree + "/"):
        new = importhook.moved(spec, finder.tree)
    module.__dict__.clear()
    _bootstrap._init_module_attrs(new, module, override=True)  # noqa: SLF001
    for name, child in kept.items():
        if "." not in name:
            setattr(module, name, child)
    new._initializing = True  # type: ignore[attr-defined] # noqa: SLF001 - other threads have to wait
    return new


def _is_held(name: str, names: list[str], units: list[Unit]) -> bool:
    """Whether a module of neither the importing package nor a copied one holds this module, or what it defines."""
    mine = tuple(unit.name for unit in units)
    this = sys.modules[name]
    for other in names[1:]:
        module = sys.modules.get(other)
        if not isinstance(module, ModuleType) or other.startswith((*mine, names[0])):
            continue
        for value in list(vars(module).values()):
            if value is this or getattr(value, "__module__", None) == name:
                return True
    return False


def _rebase(module: ModuleType, tree: str) -> None:
    """Let a module that stays know its new place: what it works out from now on lands in the copy."""
    for name in ("__file__", "__cached__"):
        path = getattr(module, name, None)
        if isinstance(path, str) and path.startswith("/") and not path.startswith(tree):
            setattr(module, name, tree + path)
    places = getattr(module, "__path__", None)
    if isinstance(places, list):
        places[:] = [place if place.startswith(tree) else tree + place for place in places]
    spec = module.__spec__
    if spec is not None and spec.origin and not spec.origin.startswith(tree):
        spec.origin = tree + spec.origin


# --- Errors that nobody caught ---


def learn(error: BaseException | None) -> None:
    """Learn from an error that ended a program or a thread, and say in one line what that means for the next run."""
    finder = importhook.finder()
    if finder is None or not isinstance(error, Exception) or isinstance(error, SifWritableError):
        return
    failed = plan.failures(error, _working_directory())
    units, detail = _owners(failed, finder)
    if not units:
        unit, detail = _writer(error, finder, everywhere=bool(failed))
        units = [] if unit is None else [unit]
    if units:
        known = finder.wanted()
        units = [mate for unit in units for mate in packages.mates(unit)]
        if all(unit.directory in known.get(unit.name, ()) and not finder.has(unit.path) for unit in units):
            refused = {line.name: line.why for line in copyup.listed(finder.folder)[0] if line.what == REFUSED}
            for sentence in {refused[unit.name] for unit in units if unit.name in refused}:
                _say(sentence)
            return
        copyup.learn(Line(PACKAGE, unit.name, unit.directory, "use", detail) for unit in units)
        names = plan.join(unit.name for unit in units)
        _say(
            f"{names} writes into its own directory, which cannot be written here; from the next run on it is "
            f"imported from a writable copy in {finder.folder}."
        )
        return
    for sentence in _outside(error, failed, finder):
        _say(sentence)


def _writer(error: Exception, finder: importhook.Finder, *, everywhere: bool) -> tuple[Unit | None, str]:
    """Return the innermost package of a traceback that writes beside itself, and where it does.

    :param everywhere: any of its functions counts; otherwise only those on the traceback.
    """
    where = packages.directories(finder.seen())
    functions: dict[Unit, dict[str, set[str]]] = {}
    for path, function in _frames(error):
        unit = packages.unit_at(path, where)
        if unit is None or unit.name in importhook.NEVER or _is_copied(unit, finder):
            continue
        if not os.access(unit.directory, os.W_OK):
            functions.setdefault(unit, {}).setdefault(path, set()).add(function)
    for unit, within in functions.items():
        if _is_foreign(unit, error):
            continue
        line = sources.Sources([*within, *_sources_of(unit)]).write(None if everywhere else within)
        if line:
            return unit, f"writes beside itself: {line}"
    return None, ""


def _outside(error: Exception, failed: list[plan.Failure], finder: importhook.Finder) -> Iterator[str]:
    """Record the paths of the image that no copy can serve, and yield what to do about each."""
    home = os.environ.get("HOME", "")
    missing = plan.missing_home(error, home) if not os.path.isdir(home) else ""
    if missing:
        yield f"HOME={home} does not exist here. Remedy: unset SIF_WRITABLE_HOME, or bind a directory to {home}."
    image = {os.stat(place).st_dev for place in ("/", sys.prefix)}
    for path in dict.fromkeys(os.path.normpath(failure.path) for failure in failed if failure.path):
        parent = path
        while not os.path.exists(parent):
            parent = os.path.dirname(parent)
        if os.stat(parent).st_dev not in image or os.access(parent, os.W_OK) or path.startswith(finder.tree):
            continue
        if _is_unreadable(path):
            continue
        sentence = plan.outside_words(path, _variable_for(path))
        copyup.learn([Line(PATH, "-", path, sentence, "")])
        yield sentence


def _variable_for(path: str) -> str:
    """Return the variable that moves what is kept at a path, where one is known."""
    from sif_writable import facts
    from sif_writable.plan import catalog, redirects

    bases = redirects.default_bases(facts.see(os.environ), os.environ)
    for row in (*catalog.ROWS, *catalog.OPT_IN):
        for template in row[3]:
            default = redirects.resolve(template, bases, os.environ)
            if "/" not in template or default in ("", "/tmp"):  # noqa: S108 - below /tmp lies what is anybody's
                continue
            if path == default or path.startswith(default + "/"):
                return row[0]
    return ""


def _add_note(error: BaseException, text: str) -> None:
    if sys.version_info >= (3, 11):
        error.add_note(text)


def _say(sentence: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(f"sif_writable: {sentence}\n")
