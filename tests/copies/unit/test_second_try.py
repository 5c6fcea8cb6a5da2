"""The parts of a second try of an import: what forbids it, what is made as it was, and what a failure shows."""

from __future__ import annotations

import _thread
import errno
import importlib.util
import os
import sys
import threading
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec, SourceFileLoader
from types import FunctionType, ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import sif_writable
from sif_writable.copies import (
    culprits,
    disk_full,
    execution,
    failures,
    fallback,
    learning,
    ledger,
    messages,
    provide,
    restart,
    retry,
    side_effects,
    store,
    transient,
    unchanged,
)
from sif_writable.copies.store import Copies
from sif_writable.copies.units import Unit
from sif_writable.errors import SifWritableError
from sif_writable.evidence import chain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

READ_ONLY = OSError(errno.EROFS, "Read-only file system", "/sp/pkg/x")
SO = EXTENSION_SUFFIXES[0]


@pytest.fixture(autouse=True)
def _modules() -> Iterator[None]:
    """Leave what was imported, and what was said, as it was."""
    modules, said = dict(sys.modules), set(messages._said)
    yield
    sys.modules.clear()
    sys.modules.update(modules)
    messages._said.clear()
    messages._said.update(said)


@pytest.fixture(autouse=True)
def _no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count no threads of what runs the tests."""
    before, count = _thread._count(), _thread._count
    monkeypatch.setattr(_thread, "_count", lambda: count() - before)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a directory of the image with a package."""
    folder = tmp_path / "sp" / "pkg"
    folder.mkdir(parents=True)
    for name in ("__init__", "part", "failing"):
        (folder / f"{name}.py").write_text(f"name = {name!r}\n")
    return tmp_path / "sp"


@pytest.fixture
def copies(tmp_path: Path, place: Path) -> Copies:
    """Return copies, one of them of the package."""
    found = Copies(f"{tmp_path}/copies")
    copy = tmp_path / f"copies/tree{place}/pkg"
    copy.mkdir(parents=True)
    for name in os.listdir(place / "pkg"):
        (copy / name).write_bytes((place / "pkg" / name).read_bytes())
    return found


def module(name: str, path: str = "", package: str = "") -> ModuleType:
    """Import nothing, and have a module of this name and file all the same."""
    spec = ModuleSpec(name, SourceFileLoader(name, path), origin=path, is_package=bool(package))
    spec.has_location = bool(path)
    made = importlib.util.module_from_spec(spec)
    if package:
        made.__path__ = [package]
    sys.modules[name] = made
    return made


def begun(name: str) -> execution.Before:
    """Note that the execution of a module has begun just now."""
    before = execution.begun[name] = execution.Before()
    return before


# --- Whether there is one ---


@pytest.mark.parametrize(
    ("case", "error"),
    [
        ("no spec", READ_ONLY),
        ("a type of its own", READ_ONLY),
        ("object code", READ_ONLY),
        ("as before", SifWritableError("of ours")),
        ("nobody is to blame", READ_ONLY),
    ],
)
def test_what_is_not_tried_again(case: str, error: BaseException, copies: Copies, place: Path) -> None:
    this = module("pkg", f"{place}/pkg/__init__{SO if case == 'object code' else '.py'}", f"{place}/pkg")
    if case == "no spec":
        this.__spec__ = None
    elif case == "a type of its own":
        this.__class__ = type("Own", (ModuleType,), {})
    assert retry.prepare(this, error, begun("pkg"), copies) is None
    assert sys.modules["pkg"] is this


def test_a_copy_that_somebody_asked_for_is_not_given_up(
    copies: Copies, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = f"{copies.tree}{place}/pkg"
    this = module("pkg", f"{copied}/__init__.py", copied)
    before = begun("pkg")
    broken = ValueError("not of a refusal")
    assert fallback.prepare(this, broken, before, copies) is None  # it was not learned of
    line = ledger.Line(ledger.PACKAGE, "pkg", str(place), "import", "/x")
    with open(f"{copies.folder}/learned", "w", encoding="utf-8") as file:
        file.write(f"{line}\n")
    monkeypatch.setenv(store.PACKAGES, "pkg")
    asked = Copies(copies.folder)
    assert fallback.prepare(this, broken, before, asked) is None
    monkeypatch.delenv(store.PACKAGES)
    learned = Copies(copies.folder)
    module("pkg.native", f"{copied}/native{SO}")
    assert fallback.prepare(this, broken, before, learned) is None
    assert "it has loaded object code" in capsys.readouterr().err
    spec, this.__spec__ = this.__spec__, None
    assert fallback.prepare(this, broken, before, learned) is None
    this.__spec__ = spec
    del sys.modules["pkg.native"]
    part = module("pkg.part", f"{copied}/part.py")
    this.__dict__["half"] = "done"
    again = fallback.prepare(this, broken, before, learned)
    assert again is not None
    assert this.__file__ == f"{place}/pkg/__init__.py"
    assert "pkg.part" not in sys.modules
    module("pkg.late", f"{place}/pkg/late.py")
    assert not again.goes_on(broken)  # the image's own fails, too
    again.end()
    assert (sys.modules["pkg.part"], "pkg.late" in sys.modules, vars(this)["half"]) == (part, False, "done")
    assert "not used any more" not in capsys.readouterr().err


def test_whatever_goes_wrong_the_user_gets_his_own_error(copies: Copies, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ValueError("of ours")

    monkeypatch.setattr(sif_writable, "failure", None)
    monkeypatch.setattr(execution, "storage_hangs", lambda: False)
    watcher = execution.Watcher(copies, fail)
    assert watcher.try_again(module("pkg"), READ_ONLY, begun("pkg")) is None
    assert str(sif_writable.failure) == "of ours"


# --- What forbids a fresh start of a package whose module fails ---


def obstacle(place: Path, copies: Copies) -> str:
    """Ask for the package."""
    return restart.obstacle(Unit("pkg", str(place), "pkg"), "pkg.failing", copies)


def test_what_speaks_against_a_fresh_start(copies: Copies, place: Path) -> None:
    folder = f"{place}/pkg"
    assert obstacle(place, copies) == "pkg was imported before"
    package = module("pkg", f"{folder}/__init__.py", folder)
    failing = module("pkg.failing", f"{folder}/failing.py")
    begun("pkg")
    assert obstacle(place, copies) == ""
    package.__spec__.origin = f"{copies.tree}{folder}/__init__.py"  # type: ignore[union-attr]
    assert obstacle(place, copies) == "pkg comes from its copy"
    package.__spec__.origin = f"{folder}/__init__.py"  # type: ignore[union-attr]
    module("pkg.native", f"{folder}/native{SO}")
    assert obstacle(place, copies) == "pkg.native is object code, which is loaded once"
    del sys.modules["pkg.native"]
    other = module("other")
    vars(other).update(first=package, second=failing)  # which stay the same objects
    assert obstacle(place, copies) == ""
    part = module("pkg.part", f"{folder}/part.py")
    vars(other)["part"] = part
    assert obstacle(place, copies) == "other uses pkg.part"
    del part
    vars(other).clear()  # also its name
    assert obstacle(place, copies) == ""
    wait = threading.Event()
    thread = threading.Thread(target=wait.wait)
    thread.start()
    try:
        assert obstacle(place, copies) == "other threads run"
    finally:
        wait.set()
        thread.join()
    held = FunctionType(obstacle.__code__, {"__name__": "pkg.part"}, "held")  # a function of the package
    assert obstacle(place, copies) == f"{test_what_speaks_against_a_fresh_start.__name__}() uses pkg.part.held"
    assert held.__module__ == "pkg.part"


def test_code_of_the_package_that_runs_speaks_against_it(copies: Copies, place: Path) -> None:
    folder = f"{place}/pkg"
    module("pkg", f"{folder}/__init__.py", folder)
    part = module("pkg.part", f"{folder}/part.py")
    begun("pkg")
    exec("def work(ask):\n    return ask()\n", vars(part))  # noqa: S102 - as the import system does
    assert vars(part).pop("work")(lambda: obstacle(place, copies)) == "pkg.part.work() is running"


def test_a_fresh_start_and_all_as_it_was(copies: Copies, place: Path) -> None:
    folder, copied = f"{place}/pkg", f"{copies.tree}{place}/pkg"
    unit = Unit("pkg", str(place), "pkg")
    package = module("pkg", f"{folder}/__init__.py", folder)
    early = module("pkg.early", f"{folder}/early.py")
    early.__dict__.pop("__cached__", None)
    built = sys.modules["pkg.built"] = ModuleType("pkg.built")  # without a file and a spec
    elsewhere = module("pkg.elsewhere", f"{copied}/elsewhere.py", f"{copied}/elsewhere")
    failing = module("pkg.failing", f"{folder}/failing.py")
    native = module("pkg.failing.native", f"{folder}/native{SO}")
    deep = module("pkg.failing.native.deep", f"{folder}/deep{SO}")
    part = module("pkg.part", f"{folder}/part.py")
    holder = module("holder")
    vars(holder)["part"] = part  # what others hold cannot be made anew
    before = dict(sys.modules)
    assert failing.__spec__ is not None
    new = restart.Restart(failing, failing.__spec__, [unit], copies)
    assert (failing.__file__, early.__file__) == (f"{copied}/failing.py", f"{copied}/early.py")
    assert early.__spec__ is not None
    assert early.__spec__.origin == early.__file__
    assert (list(elsewhere.__path__), list(package.__path__)) == ([f"{copied}/elsewhere"], [copied])
    assert vars(failing)["native"] is native
    assert "native.deep" not in vars(failing)
    assert sys.modules["pkg.failing.native.deep"] is deep
    assert sys.modules["pkg.part"] is part
    assert (built.__spec__, part.__file__) == (None, f"{copied}/part.py")
    module("pkg.brought", f"{copied}/brought.py")
    new.restart(unit)
    assert vars(package)["name"] == "__init__"
    assert "pkg.part" not in sys.modules
    new.undo()
    assert dict(sys.modules) == before
    assert (early.__file__, list(package.__path__)) == (f"{folder}/early.py", [folder])
    assert early.__spec__.origin == early.__file__


# --- What an error says of a copy ---


@pytest.mark.parametrize(
    ("error", "passed"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.ESTALE, "Stale file handle"), True),
        (OSError(errno.EROFS, "Read-only file system", "{tree}/x"), True),
        (READ_ONLY, False),
        (ModuleNotFoundError("No module named 'pkg.part'", name="pkg.part"), True),
        (ModuleNotFoundError("No module named 'pkg.nothing'", name="pkg.nothing"), False),
        (ModuleNotFoundError("No module named"), False),
        (ImportError("cannot import name 'part' from 'pkg'", name="pkg"), True),
        (ImportError("cannot import name 'nothing' from 'pkg'", name="pkg"), False),
        (ImportError("of its own"), False),
        (ValueError(), False),
    ],
)
def test_whether_storage_has_failed_or_the_copy(error: Exception, copies: Copies, place: Path, *, passed: bool) -> None:
    if isinstance(error, OSError) and str(error.filename).startswith("{tree}"):
        error = OSError(error.errno, error.strerror, f"{copies.tree}/x")
    units = [Unit("other", str(place), "other"), Unit("pkg", str(place), "pkg")]
    assert transient.has_passed(RuntimeError(error), units, copies) is passed


def test_code_is_read_from_the_image_as_long_as_the_copy_is_the_same(copies: Copies, place: Path) -> None:
    own, copied = f"{place}/pkg/part.py", f"{copies.tree}{place}/pkg/part.py"
    loader = SourceFileLoader("pkg.part", copied)
    unchanged.read(ModuleSpec("pkg.part", loader, origin=own), copies.tree)
    assert "get_data" not in vars(loader)  # it lies in no copy
    spec = ModuleSpec("pkg.part", loader, origin=copied)
    spec.cached = f"{copied}c"
    unchanged.read(spec, copies.tree)
    with open(f"{copied}c", "wb") as file:
        file.write(b"bytecode of the copy")
    times = os.stat(own)
    os.utime(copied, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert loader.get_data(f"{copied}c") == b"bytecode of the copy"  # the image has none
    with open(own, "r+b") as file:
        file.write(b"N")  # to see from where it is read
    os.utime(own, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert loader.get_data(copied)[:1] == b"N"
    os.utime(copied, (1, 1))
    assert loader.get_data(copied)[:1] == b"n"
    os.unlink(own)
    assert loader.get_data(copied)[:1] == b"n"


class Wrapping:
    """A loader that holds one of Python's, as those of instrumenting packages."""

    def __init__(self, inner: Any, **more: Any) -> None:
        """Hold the loader, and more."""
        self.__dict__.update(inner=inner, **more)


def test_loaders_of_others_find_the_copy() -> None:
    inner = SourceFileLoader("pkg", "/sp/pkg/__init__.py")
    wrapping = Wrapping(inner, exec_module=print, path="/sp/pkg/__init__.py", word="word")
    spec = ModuleSpec("pkg", wrapping, origin="/sp/pkg/__init__.py", is_package=True)  # type: ignore[arg-type]
    spec.submodule_search_locations = ["/sp/pkg"]
    moved: Any = store.moved(spec, "/copies/tree")
    loader: Any = moved.loader
    assert type(moved.loader) is Wrapping
    assert (loader.inner.path, loader.path, loader.word) == (*["/copies/tree/sp/pkg/__init__.py"] * 2, "word")
    assert "exec_module" not in vars(loader)
    assert (inner.path, moved.submodule_search_locations) == ("/sp/pkg/__init__.py", ["/copies/tree/sp/pkg"])
    back: Any = store.moved_back(moved, "/copies/tree")
    assert (back.origin, back.loader.inner.path) == ("/sp/pkg/__init__.py",) * 2
    for knows_no_path in (Wrapping(None), Wrapping(None, exec_module=print), object()):
        other = ModuleSpec("pkg", knows_no_path, origin="/sp/pkg/__init__.py")  # type: ignore[arg-type]
        assert store.moved(other, "/copies/tree").loader is knows_no_path


# --- What is said ---


def test_a_sentence_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    messages.say("a sentence")
    messages.say("a sentence")
    assert capsys.readouterr().err == "sif_writable: a sentence\n"


def test_what_is_said_where_a_package_has_its_copy_already(
    copies: Copies, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        ledger.Line(ledger.PACKAGE, "pkg", str(place), "import", "/x"),
        ledger.Line(ledger.PACKAGE, "none", str(place), "import", "/x"),
        ledger.Line(ledger.PACKAGE, "large", str(place), "import", "/x"),
        ledger.Line(ledger.REFUSED, "large", str(place), "large is too large for a copy", ""),
    ]
    with open(f"{copies.folder}/learned", "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
    monkeypatch.setattr(provide, "was_taken_back", lambda *_: False)
    units = [Unit(name, str(place), name) for name in ("pkg", "none", "large")]
    verdict = culprits.Verdict(units, f"{place}/pkg/x", [])
    monkeypatch.setattr(culprits, "judge", lambda *_: verdict)
    learning.learn(SifWritableError("of ours"), copies)
    assert capsys.readouterr().err == ""
    error = OSError(errno.EROFS, "Read-only file system")
    learning.learn(error, copies)
    learning.learn(error, copies)  # it was answered
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert f"pkg has a writable copy, but something else imports it from {place}" in said[0]
    assert "large is too large for a copy" in said[1]
    assert len(ledger.listed(copies.folder)[0]) == len(lines)


def test_a_copy_that_did_not_help_is_taken_back(
    copies: Copies, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = f"{place}/outside"
    with open(f"{copies.folder}/learned", "w", encoding="utf-8") as file:
        file.write(f"{ledger.Line(ledger.PACKAGE, 'pkg', str(place), 'import', refused)}\n")
    module("pkg", f"{copies.tree}{place}/pkg/__init__.py")
    failure = failures.Failure(refused, errno.EROFS)
    inside = failures.Failure(f"{copies.tree}{place}/x", errno.EROFS)
    verdict = culprits.Verdict([], "", [failure, inside])
    monkeypatch.setattr(culprits, "judge", lambda *_: verdict)
    monkeypatch.setenv("HOME", "/no/such/home")
    learning.learn(OSError(errno.ENOENT, "No such file or directory", "/no/such/home/.cache"), copies)
    said = capsys.readouterr().err
    assert f"The writable copy of pkg did not help, since {refused} cannot be written with it either" in said
    assert "HOME=/no/such/home does not exist here. Remedy: " in said
    assert [line for line in ledger.listed(copies.folder)[0] if line.what == ledger.PACKAGE] == []


# --- A full filesystem ---


@pytest.mark.parametrize(
    ("error", "room", "write", "words"),
    [
        (OSError(errno.ENOSPC, "full", "{layer}/x"), "space", 0, "it has no space left"),
        (OSError(errno.ENOSPC, "full", b"{layer}/x"), "", 0, "it has no space left"),
        (OSError(errno.ENOSPC, "full"), "", errno.ENOSPC, "it has no space left"),
        (OSError(errno.EDQUOT, "full"), "", errno.EDQUOT, "its quota is used up"),
        (OSError(errno.ENOSPC, "full"), "", 0, ""),
        (OSError(errno.ENOSPC, "full", "/elsewhere/x"), "space", 0, ""),
        (ValueError("full"), "inodes", 0, "it has no inodes left"),
    ],
)
def test_a_layer_that_is_full_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    room: str,
    write: int,
    words: str,
) -> None:
    from sif_writable.layer import full

    if isinstance(error, OSError) and "layer" in str(error.filename):
        text = f"{tmp_path}/x"
        error = OSError(error.errno, "full", os.fsencode(text) if isinstance(error.filename, bytes) else text)

    def fails(*_: object) -> None:
        raise OSError(write, os.strerror(write))

    monkeypatch.setattr(disk_full, "in_layer", lambda _: ["image", "number", str(tmp_path)])
    monkeypatch.setattr(disk_full, "_folder", lambda _: str(tmp_path))
    monkeypatch.setattr(full, "lack", lambda _: room)
    monkeypatch.setattr(full, "reported", False)
    if write:
        monkeypatch.setattr(os, "write" if write == errno.EDQUOT else "fsync", fails)
    with monkeypatch.context():
        disk_full.report(chain(RuntimeError(error)), "/image")
    monkeypatch.undo()
    said = capsys.readouterr().err
    assert words in said
    assert bool(said) == bool(words)
    assert os.listdir(tmp_path) == []


def test_without_a_layer_none_is_full(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    error = OSError(errno.ENOSPC, "full")
    disk_full.report([error], "/image")
    monkeypatch.setattr(disk_full, "in_layer", lambda _: ["image", "number", "/sp"])
    monkeypatch.setattr(disk_full, "_folder", lambda _: "")  # it is another one's, and gone
    disk_full.report([error], "/image")
    assert capsys.readouterr().err == ""


# --- What a second execution would double ---


def test_what_a_module_did_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    import logging
    import signal

    def done() -> str:
        return side_effects.since(before, ["pkg"])

    before = begun("pkg")
    before.hooks = execution.hooks()
    assert done() == ""
    null = logging.NullHandler()
    assert done() == ""
    handler = logging.StreamHandler()
    assert done() == "it has added a handler to logging"
    del handler, null
    previous = signal.signal(signal.SIGUSR2, lambda *_: None)
    assert done() == "it has set a handler for a signal"
    signal.signal(signal.SIGUSR2, previous)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, object()])
    assert done() == "it has hooked into the interpreter"
    before.hooks = None  # it was not looked
    assert done() == ""


def test_threads_of_a_module_are_distinguished_from_others() -> None:
    wait, others = threading.Event(), begun("pkg")
    thread = threading.Thread(target=wait.wait)
    thread.start()
    try:
        assert side_effects.since(others, ["pkg"]) == "it has started a thread"
        before = begun("pkg")
        names: dict[str, Any] = {"__name__": "pkg.x", "wait": wait}
        exec("def run(): wait.wait()", names)  # noqa: S102 - code of the package
        own = threading.Thread(target=names["run"])
        own.start()
        assert side_effects.since(before, ["pkg"]) == "it has started a thread"
        assert side_effects.since(before, ["another"]) == ""
    finally:
        wait.set()
        thread.join()
    own.join()


def test_what_a_class_of_another_module_holds_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    own, other = module("pkg"), module("other")
    few = SimpleNamespace(modules={"pkg": own, "other": other})  # all take a second
    monkeypatch.setattr(side_effects, "sys", few)
    exec("def made(): pass", vars(own))  # noqa: S102 - as the import system does
    made = vars(own)["made"]
    exec("class Holder: pass", vars(other))  # noqa: S102 - likewise
    holder = vars(other)["Holder"]
    holder.registry = {"key": [], "made": made}
    del made
    assert side_effects.handed_out(["pkg"]) == "other.Holder.registry holds a part of it"
    holder.registry = vars(own)["made"]
    assert side_effects.handed_out(["pkg"]) == "it is in use as other.Holder.registry"
