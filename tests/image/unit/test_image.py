"""What an image says about itself, how that is found out, and what a plan makes of it."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING

import pytest

from sif_writable.errors import SifWritableError
from sif_writable.identity import MANIFEST, declared, identity_ingredients
from sif_writable.image import bytecode, environments, inventory, options
from sif_writable.image import manifest as writer
from sif_writable.redirects.decide import decide
from sif_writable.system import image, manifest
from sif_writable.system.parallel import parallel
from tests.lab.decisions import HOME_WORKS, Ground, make_facts, make_storage

if TYPE_CHECKING:
    from pathlib import Path

    from sif_writable.redirects.decision import Decision, Redirect
    from sif_writable.storage.chosen import Storage


# --- The manifest.


def test_a_manifest_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    lib = str(tmp_path)
    assert manifest.read(lib) == {}
    changes = {"seed": ["TORCH_HOME /opt/a b", "HOME /h"], "gpu": ["require"], "cuda": ["12.4 torch-2.4.0+cu124"]}
    assert writer.update(lib, changes) == changes
    assert manifest.read(lib) == changes
    assert declared(lib) == {"seed": changes["seed"], "gpu": ["require"]}  # no start needs the rest
    writer.update(lib, {"gpu": [], "package": ["a why", "b\nc: d"], "of-tomorrow": ["1"]})
    assert manifest.read(lib) == {
        "seed": changes["seed"],
        "cuda": changes["cuda"],
        "package": ["a why", "b c: d"],
        "of-tomorrow": ["1"],
    }
    assert os.listdir(lib) == [MANIFEST]
    assert os.stat(tmp_path / MANIFEST).st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    "text", [b"", b"\0\xff\n\n", b": x\n", b"# a: b\n", b"key\nkey:\n", b"\n\nstamp: late\n", b"gpu:require\n"]
)
def test_what_is_not_understood_declares_nothing(tmp_path: Path, text: bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(text)
    found = declared(str(tmp_path))
    assert "stamp" not in found
    assert manifest.demands(found) == {}


def test_a_named_pipe_and_a_directory_are_no_manifest(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / MANIFEST)
    assert declared(str(tmp_path)) == {}
    os.unlink(tmp_path / MANIFEST)
    (tmp_path / MANIFEST).mkdir()
    assert declared(str(tmp_path)) == {}


def test_a_manifest_that_cannot_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(SifWritableError, match=r"does not exist\. Remedy: call this in %post"):
        writer.update(str(tmp_path / "none"), {"gpu": ["warn"]})


def test_nothing_half_written_is_left_of_a_manifest(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).mkdir()
    with pytest.raises(SifWritableError, match="cannot be written"):
        writer.update(str(tmp_path), {"gpu": ["warn"]})
    assert os.listdir(tmp_path) == [MANIFEST]


def test_demands_become_variables() -> None:
    declared = {"gpu": ["require"], "gpu-min-memory": ["20GiB"], "stamp": ["x"]}
    assert manifest.demands(declared) == {"SIF_WRITABLE_GPU": "require", "SIF_WRITABLE_GPU_MIN_MEMORY": "20GiB"}


def test_identity_with_a_stamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lib = str(tmp_path / "site-packages")
    os.mkdir(lib)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    plain = image.identity(lib)
    writer.update(lib, {"stamp": ["abc"]})
    os.utime(lib, (1000, 1000))
    stamped = image.identity(lib)
    assert stamped != plain
    os.utime(lib, (1000, 1000.9))  # an image keeps whole seconds
    assert image.identity(lib) == stamped
    os.utime(lib, (1000, 1001))  # something was installed in an upper layer
    assert image.identity(lib) != stamped
    os.utime(lib, (1000, 1000))
    assert "stamp" in [name for name, _ in identity_ingredients(lib)]
    writer.update(lib, {"stamp": ["abd"]})
    os.utime(lib, (1000, 1000))
    assert image.identity(lib) != stamped


# --- What is installed.


@pytest.fixture
def lib(tmp_path: Path) -> Path:
    """Return a site-packages with a few distributions."""
    files = {
        "a/__init__.py": "import os\nx = os.environ.get('NUMBA_CACHE_DIR')\n",
        "a/w.py": "import os\nopen(os.path.join(os.path.dirname(__file__), 'c'), 'w')\n",
        "a/tests/t.py": "TORCH_HOME = open(__file__ + 'x', 'w')\n",
        "a_dist-1.5.dist-info/RECORD": "a/__init__.py,,\na/w.py,,\n../../../bin/a,,\n",
        "b.py": "MPLCONFIGDIR = XNUMBA_CACHE_DIRX = 1\n",
        "B-2.dist-info/RECORD": "b.py,,\nB-2.dist-info/RECORD,,\n",
        "old-0.1-py3.11.egg-info/top_level.txt": "old\n",
        "sif_writable/__init__.py": "TORCH_HOME\n",
        "bad.py": "def :\n",
        "torch-2.4.0+cu124.dist-info/RECORD": "",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_distributions(lib: Path) -> None:
    found = inventory.distributions([str(lib)])
    assert [each.whole for each in found] == ["B 2", "a_dist 1.5", "old 0.1", "torch 2.4.0+cu124"]
    assert [inventory.top_levels(each) for each in found] == [["b"], ["a"], ["old"], ["torch"]]
    assert inventory.cuda([str(lib)], "/nowhere")[0] == ("12.4", "torch-2.4.0+cu124")


def test_scan(lib: Path) -> None:
    shown: list[tuple[str, float]] = []
    found = inventory.scan([str(lib)], options.VARIABLES, lambda name, part: shown.append((name, part)))
    assert found.locations == [("MPLCONFIGDIR", "B"), ("NUMBA_CACHE_DIR", "a_dist")]
    assert found.writers == [("a", f"{lib}/a/w.py:2")]
    assert [name for name, _ in shown] == ["a", "b", "bad"]
    os.unlink(lib / "a" / "w.py")
    (lib / "a" / "w.py").symlink_to("nowhere")  # as some installers leave one
    assert inventory.scan([str(lib)], options.VARIABLES, lambda *_: None).writers == []
    assert all(0 <= part <= 1 for _, part in shown)


def test_stamp(lib: Path) -> None:
    first = inventory.stamp([str(lib)])
    assert first == inventory.stamp([str(lib)])
    (lib / "B-2.dist-info" / "RECORD").write_text("b.py,,\n")
    assert inventory.stamp([str(lib)]) != first
    (lib / "seed").mkdir()
    (lib / "seed" / "x").write_text("1")
    with_seed = inventory.stamp([str(lib)], [str(lib / "seed")])
    os.utime(lib / "seed" / "x", (5, 5))
    assert inventory.stamp([str(lib)], [str(lib / "seed")]) != with_seed


def test_bytecode(lib: Path) -> None:
    stale = bytecode.stale([str(lib)])
    assert f"{lib}/a/w.py" in stale
    left = bytecode.compile_all(stale, lambda _path, _part: None)
    assert left == [f"{lib}/bad.py"]
    assert bytecode.stale([str(lib)]) == left
    for source, flags in ((b"\0\0\0\0", 0), (importlib.util.MAGIC_NUMBER, 1)):
        compiled = importlib.util.cache_from_source(f"{lib}/b.py")
        with open(compiled, "r+b") as file:
            file.write(source + bytes([flags]))
        # Of another version; then of a hash, with which nothing is compared.
        assert bytecode.stale([str(lib)]) == ([f"{lib}/b.py", *left] if not flags else left)
    os.unlink(compiled)
    assert bytecode.compile_all([f"{lib}/b.py"], lambda _path, _part: None) == []
    os.utime(lib / "b.py", (5, 5))
    assert sorted(bytecode.stale([str(lib)])) == [f"{lib}/b.py", f"{lib}/bad.py"]


def test_many_files_are_compiled_by_many_processes(tmp_path: Path) -> None:
    for number in range(bytecode.MANY + 10):
        (tmp_path / f"m{number}.py").write_text("x = 1\n" if number % 50 else "def :\n")
    stale = bytecode.stale([str(tmp_path)])
    assert len(bytecode.compile_all(stale, lambda _path, _part: None)) == 5


def test_no_space_for_bytecode_is_reported(lib: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: str, **_: object) -> None:
        raise OSError(28, "No space left on device", path)

    monkeypatch.setattr("py_compile.compile", full)
    with pytest.raises(SifWritableError, match=r"__pycache__ has no (space|inodes) left \(.*Remedy"):
        bytecode.compile_all([f"{lib}/b.py"], lambda _path, _part: None)


def test_environments(tmp_path: Path) -> None:
    for folder in ("opt/env/bin", "usr/bin", "proc/1/bin", "opt/env/lib/site-packages/x/bin", "a/b/c/d/e/f/g/h/bin"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "python3").symlink_to(sys.executable)
    (tmp_path / "usr" / "bin" / "python3.99").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "usr" / "bin" / "python3.99").chmod(0o755)
    (tmp_path / "usr" / "bin" / "python3.98").symlink_to(sys.executable)  # is one that was asked
    (tmp_path / "srv").mkdir()
    (tmp_path / "srv" / "bin").symlink_to("bin")
    (tmp_path / "usr" / "bin" / "python3-config").symlink_to(sys.executable)
    found = [os.path.relpath(path, tmp_path) for path in environments.programs(str(tmp_path))]
    assert found == ["usr/bin/python3", "usr/bin/python3.98", "usr/bin/python3.99", "opt/env/bin/python3"]
    answers, silent = environments.found(str(tmp_path))
    assert {each.name for each in answers} == {sys.implementation.name}
    assert [program for program, _ in silent] == [f"{tmp_path}/usr/bin/python3.99"]
    assert answers[0].supported


@pytest.mark.parametrize("call", ["scandir", "listdir"])
def test_folders_that_cannot_be_listed_hold_no_interpreters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    (tmp_path / "closed" / "bin").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to(sys.executable)
    real = getattr(os, call)

    def closed(path: str) -> object:
        if "closed" in path:
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, call, closed)
    assert environments.programs(str(tmp_path)) == [f"{tmp_path}/bin/python3"]


def test_the_cuda_of_a_base_image_is_named_by_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VERSION", "12.6.3")
    for name in ("cuda-12.6", "cuda", "share"):
        (tmp_path / name).mkdir()
    assert inventory.cuda([], str(tmp_path)) == [("12.6", f"{tmp_path}/cuda-12.6"), ("12.6.3", "CUDA_VERSION")]
    monkeypatch.delenv("CUDA_VERSION")
    assert inventory.cuda([], f"{tmp_path}/nothing") == []


# --- What is planned with seeds.

TORCH, MPL, CACHE = "/seed/data/torch", "/seed/config/matplotlib", "/seed/data/cache"
DECLARED = {"seed": [f"TORCH_HOME {TORCH}", f"MPLCONFIGDIR {MPL}", f"XDG_CACHE_HOME {CACHE}", "NLTK_DATA /seed/nltk"]}


def planned(
    environ: dict[str, str] | None = None, storage: Storage | None = None, ground: Ground = HOME_WORKS
) -> tuple[Decision, dict[str, Redirect]]:
    decision = decide(make_facts(manifest=DECLARED), storage or make_storage(), ground, environ or {})
    return decision, {redirect.variable: redirect for redirect in decision.redirects}


def test_what_the_image_brings_is_offered_even_where_the_default_works() -> None:
    _, found = planned()
    assert found["TORCH_HOME"].why == "the image brings files for it"
    assert found["TORCH_HOME"].value == "/s/image-i/data-torch"  # its links lead into this image
    assert found["TORCH_HOME"].seeds == (TORCH,)
    assert found["MPLCONFIGDIR"].value == "/s/image-i/config/matplotlib"
    assert found["MPLCONFIGDIR"].seeds == (MPL,)
    assert found["NLTK_DATA"].value == "/s/data/nltk:/seed/nltk"  # a list: read where it is
    assert found["NLTK_DATA"].seeds == ()
    assert "XDG_CACHE_HOME" not in found  # everything would move for a few files
    assert "HF_HUB_CACHE" not in found


def test_what_the_user_has_is_offered_beside_the_images() -> None:
    ground = Ground(writable=("/home/u", "/tmp", "/home/u/.cache/torch"))
    _, found = planned(storage=make_storage(present=("torch",)), ground=ground)
    assert found["TORCH_HOME"].seeds == (TORCH,)
    assert found["TORCH_HOME"].sources == (("/home/u/.cache/torch", 3), ("/s/data/torch", 3))


def test_a_folder_that_is_there_needs_no_seed() -> None:
    _, found = planned(storage=make_storage(present=("data-torch", "matplotlib", "nltk")))
    assert [found[name].seeds for name in ("TORCH_HOME", "MPLCONFIGDIR", "NLTK_DATA")] == [(), (), ()]
    assert found["NLTK_DATA"].value == "/s/data/nltk:/seed/nltk"


def test_the_users_own_setting_wins_over_seeds() -> None:
    decision, found = planned({"TORCH_HOME": "/mine", "XDG_CACHE_HOME": "/home/u/c"}, ground=HOME_WORKS)
    assert "TORCH_HOME" not in found
    assert ("TORCH_HOME", "set by the user") in decision.skipped


def test_without_a_place_downloads_are_read_in_the_image() -> None:
    _, found = planned(storage=make_storage(without=("data",)))
    assert found["TORCH_HOME"].value == TORCH
    assert not found["TORCH_HOME"].make


def test_downloads_on_another_filesystem_stay_there() -> None:
    storage = make_storage()
    storage.slots["config"].root = "/elsewhere"
    _, found = planned(storage=storage)
    assert found["TORCH_HOME"].value == "/s/data/torch"
    assert found["TORCH_HOME"].seeds == (TORCH,)


def test_a_home_that_moves_has_the_general_cache_of_the_image() -> None:
    facts_ = make_facts(manifest=DECLARED, home_problem="does not exist", home="/none")
    decision = decide(facts_, make_storage(), Ground(), {})
    found = {redirect.variable: redirect for redirect in decision.redirects}
    assert found["XDG_CACHE_HOME"].seeds == (CACHE,)
    assert found["XDG_CACHE_HOME"].value == "/s/image-i/data-cache"


@pytest.mark.parametrize("name", sorted(options.NEED_GPU))
def test_rows_that_need_a_gpu_are_rows(name: str) -> None:
    assert name in options.VARIABLES


def _double(number: int) -> int:
    return 2 * number


def _dies_elsewhere(number: int) -> int:
    if number == 5 and os.environ.get("TEST_PARENT") != str(os.getpid()):
        os._exit(1)
    return 2 * number


def test_processes_that_die_cost_only_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_PARENT", str(os.getpid()))
    for function in (_double, _dies_elsewhere):
        assert list(parallel(function, range(40))) == [2 * number for number in range(40)]
