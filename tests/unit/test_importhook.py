"""The finder and what serves modules for it, where something of ours fails or somebody else does an odd thing."""

from __future__ import annotations

import multiprocessing
import os
import sys
from importlib.machinery import ModuleSpec
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import sif_writable
from sif_writable import child, first_import, importhook, layered, seldom, serving
from sif_writable.layer import enter as layer_enter
from sif_writable.serving import Serving

if TYPE_CHECKING:
    from pathlib import Path

REFUSED = OSError(30, "Read-only file system", "/sp/pkg/x")


class Failing:
    """Whatever is asked of it fails."""

    def __getattr__(self, name: str) -> Any:
        """Return a function that fails."""

        def fail(*_: object, **__: object) -> None:
            raise ValueError(f"{name} of ours")

        return fail


@pytest.fixture
def finder(monkeypatch: pytest.MonkeyPatch) -> importhook.Finder:
    """Return one that serves from copies, and is asked first."""
    made = importhook.Finder(frozenset(["heavy"]), "/copies")
    made.layer = False
    monkeypatch.setattr(sif_writable, "failure", None)
    monkeypatch.setattr(sys, "meta_path", [made, *sys.meta_path])
    monkeypatch.setattr(importhook, "storage_hangs", lambda: False)
    monkeypatch.setattr(serving, "storage_hangs", lambda: False)
    return made


def spec_of(name: str, folder: Path) -> ModuleSpec:
    """Return the spec of a package that is not there."""
    spec = ModuleSpec(name, Failing(), origin=f"{folder}/{name}/__init__.py", is_package=True)  # type: ignore[arg-type]
    spec.has_location = True
    return spec


def failure() -> str:
    """Return what went wrong with us."""
    return str(sif_writable.failure)


def test_whatever_goes_wrong_with_us_the_images_own_package_is_found(
    finder: importhook.Finder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of("pkg", tmp_path)
    monkeypatch.setattr(sys, "meta_path", [finder, SimpleNamespace(find_spec=lambda *_: spec)])
    finder._serving = Failing()  # type: ignore[assignment]
    monkeypatch.setattr(finder._serving, "is_copying", lambda _: False, raising=False)
    assert finder.find_spec("pkg") is spec
    assert failure() == "serve of ours"
    finder.learn(REFUSED)
    assert failure() == "learn of ours"
    real = Serving(finder)
    monkeypatch.setattr(real, "serve", Failing().served)
    assert real.serve_to_others(spec) is spec
    assert failure() == "served of ours"
    monkeypatch.setattr(real, "_serve_outside", Failing().outside)
    real.serve_outside("certbot")
    assert failure() == "outside of ours"
    monkeypatch.setattr(layered, "enters", Failing().enters)
    assert not finder._enters_layer("pkg", spec)
    assert failure() == "enters of ours"
    monkeypatch.setattr(layered, "_enter", Failing().entered)
    for name in ("_asked", "_inside"):
        monkeypatch.setattr(layered, name, False)
    assert not layered.enter(finder)
    assert failure() == "entered of ours"


def test_what_finds_in_the_old_way_is_left_to_the_import_system(
    finder: importhook.Finder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of("pkg", tmp_path)
    last = SimpleNamespace(find_spec=lambda *_: spec)
    monkeypatch.setattr(sys, "meta_path", [last, finder, object(), last])
    assert finder.ask_others("pkg", None, None) is None
    monkeypatch.setattr(sys, "meta_path", [object(), finder, SimpleNamespace(find_spec=lambda *_: None), last])
    assert finder.ask_others("pkg", None, None) is spec
    monkeypatch.setattr(sys, "meta_path", [last])  # somebody has removed ours
    assert finder.ask_others("pkg", None, None) is None


def test_certbot_has_what_lies_outside_and_workers_are_listened_to(
    finder: importhook.Finder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    finder._serving = SimpleNamespace(  # type: ignore[assignment]
        serve_outside=asked.append, is_copying=lambda _: True, instead_of_copy=lambda *_: None, follow=lambda *_: None
    )
    assert finder.find_spec("certbot") is None  # its copy is being made
    assert asked == ["certbot"]
    spec = finder.find_spec("multiprocessing.process", multiprocessing.__path__)
    assert spec is not None
    assert "exec_module" in vars(spec.loader)
    listened: list[object] = []
    monkeypatch.setattr("atexit.register", listened.append)
    monkeypatch.setattr(importhook, "_WATCHED", frozenset())
    finder.listen()
    finder.listen()
    assert listened == [finder._learn_at_exit]
    assert finder._listener is None  # there is nobody to be listened to
    monkeypatch.delattr(sys, "last_exc", raising=False)
    monkeypatch.setattr(sys, "last_value", SystemExit(1), raising=False)
    finder._learn_at_exit()  # a worker that ends as it likes
    assert failure() == "None"


def test_one_that_has_checked_and_serves_nothing_goes(
    finder: importhook.Finder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importhook, "_installed", {"finder": finder})
    finder.has_checked()
    assert finder in sys.meta_path
    finder.folder = ""
    finder.has_checked()
    assert finder not in sys.meta_path


def test_it_is_installed_once_also_where_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importhook, "_installed", {})
    monkeypatch.setattr("atexit.register", lambda _: None)
    monkeypatch.setattr(child, "stage", None)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    monkeypatch.setattr(sys, "meta_path", [each for each in sys.meta_path if type(each) is not importhook.Finder])
    made = importhook.install()
    assert sys.meta_path[0] is made
    assert importhook.install() is made
    monkeypatch.setattr(sys, "meta_path", sys.meta_path[1:])
    another = importhook.Finder(frozenset(), "")
    monkeypatch.setattr(importhook, "_installed", {"finder": another})  # another thread was faster
    assert importhook.install() is another
    assert sys.meta_path.count(another) == 1


@pytest.mark.parametrize(
    ("words", "hangs"),
    [("2;token;;;/s", False), ("2r;token;;;{s}", True), ("2sr;token;;;{s}:/t", False)],
)
def test_storage_that_hangs_is_said_once_and_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str, *, hangs: bool
) -> None:
    from sif_writable import hanging

    asked: list[str] = []

    def times_out(root: str, _: str) -> bool:
        asked.append(root)
        return True

    monkeypatch.setattr(importhook, "_given_up", False)
    monkeypatch.setattr(hanging, "times_out", times_out)
    monkeypatch.setenv(sif_writable.SESSION, words.format(s=tmp_path))
    monkeypatch.setenv(child.COPIES, f"{sys.prefix}:{tmp_path}/image-x")
    assert [importhook.storage_hangs(), importhook.storage_hangs()] == [hangs, hangs]
    assert asked == ([str(tmp_path)] if hangs else [])
    assert capsys.readouterr().err.count(str(tmp_path)) == int(hangs)


@pytest.mark.parametrize("there", ["nothing", "a folder", "a list"])
def test_whether_a_package_of_the_layer_needs_a_copy(finder: importhook.Finder, tmp_path: Path, there: str) -> None:
    finder.folder = str(tmp_path)
    if there == "a folder":
        (tmp_path / "learned").mkdir()  # it cannot be read
    elif there == "a list":
        (tmp_path / "learned").write_text(f"package\tpkg\t{tmp_path}\tuse\t{tmp_path}/x\n")
    made = Serving(finder)
    assert not made._needs_copy("pkg", str(tmp_path))  # nothing there is refused still
    assert made._learned == ((tmp_path / "learned").read_text() if there == "a list" else "")
    assert not made._needs_copy("other", str(tmp_path))


def test_what_is_learned_from(
    finder: importhook.Finder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sif_writable.copies import learning

    learned: list[BaseException] = []
    monkeypatch.setattr(learning, "learn", lambda error, _: learned.append(error))
    made = Serving(finder)
    made.learn(OSError(28, "No space left on device", "/elsewhere"))  # there is no layer
    made.learn(FileNotFoundError(2, "No such file or directory", "/elsewhere"))
    assert (learned, capsys.readouterr().err) == ([], "")
    monkeypatch.setattr(serving, "storage_hangs", lambda: True)
    made.learn(REFUSED)
    assert learned == []
    monkeypatch.setattr(serving, "storage_hangs", lambda: False)
    made.learn(REFUSED)
    assert learned == [REFUSED]


def test_modules_of_ours_are_found_where_they_are() -> None:
    place = list(sif_writable.__path__)
    spec = first_import.of_ours("sif_writable.copies", ["/nowhere", *place])
    assert spec is not None
    assert spec.origin == f"{place[0]}/copies/__init__.py"
    assert spec.submodule_search_locations == [f"{place[0]}/copies"]
    assert first_import.of_ours("sif_writable.nothing", place) is None


@pytest.mark.parametrize("waits", [True, False])
def test_a_finder_that_cannot_be_loaded_is_not_asked_again(monkeypatch: pytest.MonkeyPatch, *, waits: bool) -> None:
    def stage(*_: object) -> None:
        """Stand for what waits in the path."""

    others = list(sys.meta_path)
    monkeypatch.setattr(child, "stage", stage)
    monkeypatch.setattr(sif_writable, "failure", None)
    monkeypatch.setattr(first_import, "finder", Failing().finder)
    monkeypatch.setattr(sys, "meta_path", [*others, *([stage] if waits else [])])
    assert first_import.go_on("pkg", None, None) is None
    assert failure() == "finder of ours"
    assert sys.meta_path == others


def test_what_has_come_since_is_compared_with_what_was_asked_for() -> None:
    asked = b"\0HOME\0TMPDIR\0"
    assert seldom.any_asked([b"x", b"TMPDIR"], asked)
    assert not seldom.any_asked([b"TMP", b"DIR"], asked)
    assert not seldom.any_asked([], asked)
    many = [b"x%d" % number for number in range(40)]
    assert not seldom.any_asked(many, asked)
    assert seldom.any_asked([*many, b"HOME"], asked)


def test_files_hold_what_they_held(tmp_path: Path) -> None:
    path = str(tmp_path / "settings")
    (tmp_path / "settings").write_text("cache = here\n")
    assert seldom.hold([(path, "cache", True), (path, "other", False), (f"{path}x", "cache", False)])
    assert not seldom.hold([(path, "cache", True), (path, "other", True)])


def test_whether_a_root_is_still_marked(tmp_path: Path) -> None:
    for name in ("plan", seldom.MARKER, "used"):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (1, 1))
    assert seldom.use(str(tmp_path), "plan", "")
    assert [os.stat(tmp_path / name).st_mtime == 1 for name in ("plan", "used")] == [False, True]
    assert seldom.use(str(tmp_path), "plan", f"{tmp_path}/used")
    assert os.stat(tmp_path / "used").st_mtime != 1
    assert seldom.use(str(tmp_path), "plan/x", "")  # of another kind: the plan is good nevertheless
    os.unlink(tmp_path / seldom.MARKER)
    assert not seldom.use(str(tmp_path), "plan", "")


def test_what_a_layer_names_is_read_from_a_file_alone(tmp_path: Path) -> None:
    (tmp_path / "learned").write_text("package\tpkg\t*\tcatalogue\t\n")
    (tmp_path / "named").write_text("package\tpkg\t/sp\tuse\t/sp/x\n")
    found = [layered._names_a_directory(f"{tmp_path}{name}") for name in ("/learned", "/named", "", "/nothing")]
    assert found == [False, True, False, False]


def test_names_that_are_nowhere_need_no_layer(finder: importhook.Finder, tmp_path: Path) -> None:
    finder.folder = f"{tmp_path}/packages"
    assert not layered._needs_layer(finder, "pkg.part", None)
    assert not layered._needs_layer(finder, "pkg", ModuleSpec("pkg", None))


def test_the_directories_of_a_layer_are_listed_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[str, Any] = {
        f"{tmp_path}": SimpleNamespace(invalidate_caches=lambda: calls.append("top")),
        f"{tmp_path}/inner": object(),  # somebody's, who keeps no list
        f"{tmp_path}/new": None,
        "/elsewhere": None,
    }
    calls: list[str] = []
    metadata = SimpleNamespace(MetadataPathFinder=SimpleNamespace(invalidate_caches=lambda: calls.append("metadata")))
    monkeypatch.setattr(sys, "path_importer_cache", known)
    monkeypatch.setitem(sys.modules, "importlib.metadata", metadata)
    epoch = getattr(importhook.NAMESPACE_PATH, "_epoch", None)
    monkeypatch.setattr(layer_enter, "current", SimpleNamespace(fresh=False, directories=[str(tmp_path)]))
    assert layered._looks_again()
    assert calls == ["top", "metadata"]
    assert list(known) == [str(tmp_path), f"{tmp_path}/inner", "/elsewhere"]
    assert epoch is None or vars(importhook.NAMESPACE_PATH)["_epoch"] == epoch + 1
    monkeypatch.setattr(layer_enter, "current", SimpleNamespace(fresh=True, directories=[str(tmp_path)]))
    assert not layered._looks_again()
    assert calls == ["top", "metadata"]
    monkeypatch.setattr(layer_enter, "current", None)
    assert layered._looks_again()
