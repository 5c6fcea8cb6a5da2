"""The folder that `attach` makes: whole, its own, for every interpreter, and only where nobody else can change it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest

from sif_writable.attach import folder, sources
from sif_writable.errors import SifWritableError
from tests.conftest import or_skip
from tests.lab import attached

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Have this process find what serves the oldest Python, no pip, and compile nothing; return an empty folder."""
    needed = str(or_skip(attached.needed))
    installed = sources.installed
    monkeypatch.setattr(sources, "installed", lambda name, folders=None: installed(name, folders or [needed]))
    monkeypatch.setattr(sources, "fetched", lambda *_: None)
    monkeypatch.setattr(folder, "_compile", lambda _: [])
    place = tmp_path / "place"
    place.mkdir(0o755)
    place.chmod(0o755)
    return place


def test_it_holds_what_is_needed_and_is_made_once(host: Path) -> None:
    place = str(host / "a b" / "attached")
    before = os.umask(0o077)  # an administrator's, who makes it for everybody
    try:
        first = folder.make(place)
    finally:
        os.umask(before)
    assert os.stat(place).st_mode & 0o777 == 0o755
    assert (first.path, first.new, first.lacking, first.others) == (f"{place}/current", True, [], [])
    assert set(os.listdir(first.path)) >= {"sif_writable", "filelock", "platformdirs", "pynvml.py"}
    assert any(name.startswith("filelock-") for name in os.listdir(first.path))  # with its licence
    for here, folders, files in os.walk(place):
        assert "__pycache__" not in folders
        for name in files:
            assert os.stat(f"{here}/{name}").st_mode & 0o777 == 0o644 or name == folder.MARK
    made = {name: os.stat(f"{place}/{name}").st_ino for name in os.listdir(place)}
    again = folder.make(place)
    assert not again.new
    assert {name: os.stat(f"{place}/{name}").st_ino for name in os.listdir(place)} == made


def test_a_damaged_one_is_made_anew_and_an_earlier_one_stays(host: Path) -> None:
    made = folder.make(str(host / "attached"))
    version = os.path.realpath(made.path)
    with open(f"{version}/pynvml.py", "w", encoding="utf-8") as file:
        file.write("broken")
    os.unlink(f"{version}/sif_writable/warm.py")
    earlier = f"{os.path.dirname(version)}/0.0.1-0123456789ab"
    shutil.copytree(version, earlier)
    os.unlink(made.path)
    os.symlink(os.path.basename(earlier), made.path)
    again = folder.make(str(host / "attached"))
    assert again.new
    assert os.path.realpath(again.path) == version
    assert os.path.getsize(f"{version}/pynvml.py") > 1000
    assert os.path.exists(f"{version}/sif_writable/warm.py")
    assert again.others == [earlier]


def test_what_serves_newer_ones_only_lies_apart(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = sources.installed

    def newer(name: str, folders: list[str] | None = None) -> sources.Source | None:
        found = installed(name, folders)
        if found is None or folders is not None:
            return None
        return found._replace(minor=11) if name == "filelock" else None if name == "platformdirs" else found

    monkeypatch.setattr(sources, "installed", newer)
    made = folder.make(str(host / "attached"))
    assert [words.partition(",")[0] for words in made.lacking] == ["platformdirs is not installed", "filelock 3.19.1"]
    assert os.listdir(f"{made.path}/needs-3.11")[0].startswith("filelock")
    assert not os.path.exists(f"{made.path}/filelock")
    program = (
        "import sys; sys.path.append(sys.argv[1]); import sif_writable_attached as a; a.Last.folder = sys.argv[2]\n"
        "print(bool(a.Last.find_spec('filelock')), bool(a.Last.find_spec('json')), bool(a.Last.find_spec('pynvml')))"
    )
    words = [sys.executable, "-I", "-S", "-c", program, f"{made.path}/sif_writable/hook", made.path]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env={"SIF_WRITABLE": "off"})
    assert done.stdout.split() == [str(sys.version_info >= (3, 11)), "False", "True"]


def test_what_was_fetched_once_is_not_fetched_again(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = folder.make(str(host / "attached"))
    installed = sources.installed
    monkeypatch.setattr(sources, "installed", lambda name, folders=None: installed(name, folders) if folders else None)
    again = folder.make(str(host / "attached"))
    assert (again.new, again.taken) == (False, made.taken)


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        ("mkdir -m 755 x; touch x/somebodys", "is not empty and has no mark of ours"),
        ("touch x", "is no directory"),
        ("mkdir -m 755 x; touch x/.sif-writable-attached; chmod 775 x", "can be written by others (mode 0775)"),
        ("mkdir -m 755 x; touch x/.sif-writable-attached; chmod 777 x", "can be written by others (mode 0777)"),
    ],
)
def test_a_place_that_is_not_ours_alone_is_refused(host: Path, prepare: str, words: str) -> None:
    subprocess.run(["sh", "-c", prepare], cwd=host, check=True)
    before = sorted(os.listdir(host))
    with pytest.raises(SifWritableError) as caught:
        folder.make(str(host / "x"))
    assert str(host / "x") in str(caught.value)
    assert words in str(caught.value)
    assert "Remedy: " in str(caught.value)
    assert sorted(os.listdir(host)) == before


def test_a_directory_that_others_could_put_their_own_in_the_place_of_is_refused(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert host.is_dir()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as outer:
        os.chmod(outer, 0o777)
        with pytest.raises(SifWritableError, match=f"leads through {outer}, which others may write"):
            folder.make(f"{outer}/x")
        assert os.listdir(outer) == []
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")  # which leaks to hosts; there this is no volume
        with pytest.raises(SifWritableError):
            folder.make(f"{outer}/x")


def test_an_empty_directory_of_the_users_is_taken(host: Path) -> None:
    (host / "x").mkdir()
    (host / "x").chmod(0o2775)
    folder.make(str(host / "x"))
    assert (host / "x").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ("Version: 1.2\nRequires-Python: >=3.11\n\nbody", ("1.2", 11)),
        ("Version: 1.2\nRequires-Python: <4,>=3.8\n", ("1.2", 9)),
        ("Version: 1.2\nRequires-Python: ~=3.10\n", ("1.2", 10)),
        ("Version: 1.2\nRequires-Python: >=3.9, !=3.12.0\n", ("1.2", 9)),
        ("Version: 1.2\n\nRequires-Python: >=3.14\n", ("1.2", 9)),
    ],
)
def test_which_python_a_distribution_asks_for(tmp_path: Path, metadata: str, expected: tuple[str, int]) -> None:
    path = tmp_path / "METADATA"
    path.write_text(metadata, encoding="utf-8")
    assert sources._said(str(path)) == expected


def test_sources_that_the_oldest_python_cannot_read_serve_newer_ones(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("match 1:\n    case 1: pass\n", encoding="utf-8")
    assert sources._syntax({"module.py": str(path)}) == 10
