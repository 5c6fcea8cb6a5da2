"""Where the files of the folder for containers come from, and what an image answers: stand-ins for pip and engines."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
import zipfile
from typing import TYPE_CHECKING, NoReturn

import pytest

from sif_writable.attach import folder, look, sources, variables
from sif_writable.errors import SifWritableError
from sif_writable.image import environments
from sif_writable.image.environments import Environment

if TYPE_CHECKING:
    from pathlib import Path


def program(path: Path, text: str) -> str:
    """Make a shell script; return its path."""
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def put(path: Path, text: str = "") -> None:
    """Write a file, with the folders that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


# --- Where the files come from ---


def test_what_is_installed_is_taken_without_bytecode_and_never_compiled_code(tmp_path: Path) -> None:
    here = [str(tmp_path)]
    assert sources.installed("filelock", here) is None
    put(tmp_path / "filelock" / "__init__.py")
    put(tmp_path / "filelock" / "old.pyc")
    put(tmp_path / "filelock" / "__pycache__" / "__init__.pyc")
    found = sources.installed("filelock", here)
    assert found is not None
    assert (found.words, found.minor, set(found.files)) == ("filelock", sources.OLDEST, {"filelock/__init__.py"})
    put(
        tmp_path / "filelock-7.dist-info" / "METADATA",
        "Name: filelock\nVersion: 7\nRequires-Python: >=3.11\n\nVersion: 8",
    )
    put(tmp_path / "filelock-7.dist-info" / "RECORD")
    found = sources.installed("filelock", here)
    assert found is not None
    assert (found.words, found.minor) == ("filelock 7", 11)
    assert set(found.files) == {"filelock/__init__.py", "filelock-7.dist-info/METADATA"}
    put(tmp_path / "filelock" / "fast.so")
    assert sources.installed("filelock", here) is None


def test_an_egg_says_nothing_of_a_version(tmp_path: Path) -> None:
    put(tmp_path / "pynvml.py")
    put(tmp_path / "nvidia_ml_py.egg-info" / "PKG-INFO", "Name: nvidia-ml-py\nVersion: 7\n")
    found = sources.installed("nvidia-ml-py", [str(tmp_path)])
    assert found is not None
    assert (found.version, set(found.files)) == ("", {"pynvml.py"})


def test_what_no_python_reads_is_for_the_newest_at_best(tmp_path: Path) -> None:
    put(tmp_path / "new.py", "match = 1\nmatch match:\n    case 1: pass\n")
    put(tmp_path / "none.py", "this is no Python\n")
    put(tmp_path / "data.txt", "nor is this\n")
    assert sources._syntax({"data": str(tmp_path / "data.txt")}) == sources.OLDEST
    assert sources._syntax({"none": str(tmp_path / "none.py")}) == sys.version_info[1]
    assert sources._syntax({"new": str(tmp_path / "new.py")}) == max(sources.OLDEST, min(10, sys.version_info[1]))


@pytest.mark.parametrize(
    ("downloads", "gets_it"), [(["a.whl"], True), ([], False), (["a.whl", "b.whl"], False), (["bad.whl"], False)]
)
def test_what_pip_downloads_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, downloads: list[str], *, gets_it: bool
) -> None:
    place, wheels = tmp_path / "place", tmp_path / "wheels"
    place.mkdir()
    wheels.mkdir()
    for name in ("a.whl", "b.whl"):
        with zipfile.ZipFile(wheels / name, "w") as file:
            file.writestr("filelock/__init__.py", "")
    put(wheels / "bad.whl", "no archive")
    names = " ".join(str(wheels / name) for name in downloads)
    monkeypatch.setattr(
        sys, "executable", program(tmp_path / "python", f"for file in {names}; do cp $file {place}; done")
    )
    found = sources.fetched("filelock", str(place))
    assert (found is not None) == gets_it
    monkeypatch.setattr(sys, "executable", program(tmp_path / "python", "exit 1"))
    assert sources.fetched("filelock", str(place)) is None
    monkeypatch.setattr(sys, "executable", f"{tmp_path}/gone")
    assert sources.fetched("filelock", str(place)) is None


# --- The folder ---


@pytest.mark.parametrize("has_module", [True, False])
def test_the_folder_is_among_the_users_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_module: bool
) -> None:
    if not has_module:
        monkeypatch.setitem(sys.modules, "platformdirs", None)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert folder.default() == f"{tmp_path}/.local/share/sif-writable/attached"
    monkeypatch.setenv("XDG_DATA_HOME", f"{tmp_path}/data")
    assert folder.default() == f"{tmp_path}/data/sif-writable/attached"
    if not has_module:
        monkeypatch.delenv("XDG_DATA_HOME")
        monkeypatch.setenv("HOME", "relative")
        with pytest.raises(SifWritableError, match=r"HOME names no directory. Remedy: "):
            folder.default()


def test_what_was_put_aside_long_ago_is_removed(tmp_path: Path) -> None:
    put(tmp_path / "folder" / "file")
    put(tmp_path / "file")
    (tmp_path / "link").symlink_to("folder")
    for name in ("folder", "file", "link"):
        folder._remove_if_old(f"{tmp_path}/{name}")
    assert len(os.listdir(tmp_path)) == 3  # it may be made just now
    old = time.time() - 2 * 86400
    for name in ("link", "file", "folder"):
        os.utime(tmp_path / name, (old, old), follow_symlinks=False)
        folder._remove_if_old(f"{tmp_path}/{name}")
        folder._remove_if_old(f"{tmp_path}/{name}")  # another process was faster
    assert os.listdir(tmp_path) == []


def test_who_is_slower_than_another_process_uses_what_that_has_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "source" / "module.py", "text")
    found = [sources.Source("one", "1", sources.OLDEST, {"module.py": f"{tmp_path}/source/module.py"})]
    place = tmp_path / "place"
    place.mkdir()
    rename = os.rename

    def faster(source: str, target: str) -> NoReturn:
        rename(source, target)  # it is the other one's now
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))

    monkeypatch.setattr(os, "rename", faster)
    folder._publish(str(place), "1-abc", found)
    assert os.listdir(place) == ["1-abc"]

    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(OSError, match="No space left"):
        folder._publish(str(place), "2-abc", found)
    assert os.listdir(place) == ["1-abc"]


def test_an_empty_directory_that_others_may_write_is_closed_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    place.chmod(0o777)
    monkeypatch.setattr(folder, "way", lambda path, _: ("", os.path.realpath(path)))  # nothing shuts others out
    folder._own(str(place))
    assert place.stat().st_mode & 0o777 == 0o755
    place.chmod(0o777)
    with pytest.raises(SifWritableError, match="others"):  # now they may have put something in it
        folder._own(str(place))


# --- Looking into an image ---


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("exec sleep 60", r"was not looked through within 0 seconds. Remedy: leave --image out"),
        ("echo FATAL: no such image >&2; exit 255", r"cannot be looked into: .*engine said: FATAL: no such image"),
        ("exit 3", r"engine said: exit code 3"),
        ("exit 44", r"has no Python 3.9 or newer"),
    ],
)
def test_why_an_image_cannot_be_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, said: str
) -> None:
    monkeypatch.setattr(look, "_SECONDS", 0.05 if "sleep" in answer else 60.0)
    with pytest.raises(SifWritableError, match=said):
        look.into(program(tmp_path / "engine", answer), "x.sif", str(tmp_path))


def test_what_an_image_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = str(tmp_path / "sites")
    point = str(tmp_path / "point")
    os.mkdir(point)
    compiled = tmp_path / "compiled"
    python = program(tmp_path / "python3", f'echo "$@" >> {compiled}')

    def one(name: str, version: str = "3.11.2", package: str = "", sites: tuple[str, ...] = (here,)) -> Environment:
        return Environment(name, version, "cpython", "/usr", here, (), package, sites)

    has = [one(python), one(python, sites=(f"{here}/.",)), one("/old/python", "3.8.1")]
    has += [one("/has/python", package="/has/sif_writable/__init__.py"), one("/none/python", sites=())]
    monkeypatch.setattr(environments, "found", lambda: (list(has), []))
    monkeypatch.setattr(environments, "ask", lambda _: one("/this/python", sites=(f"{here}/this:one",)))
    monkeypatch.setattr(variables, "POINT", point)
    look.main()
    line = capsys.readouterr().out
    looked = look.Looked([here, f"{here}/this:one"], ["/has/sif_writable/__init__.py"], ["/old/python (3.8.1)"])
    assert json.loads(line[len(look._MARK) :]) == [*looked]
    assert compiled.read_text(encoding="utf-8") == f"-I -S -m compileall -q {point}\n" * 2

    (tmp_path / "line").write_text(line, encoding="utf-8")
    engine = program(tmp_path / "engine", f"echo noise; cat {tmp_path}/line")
    assert look.into(engine, "x.sif", str(tmp_path)) == looked
    has[0] = one(sys.executable, sites=())
    monkeypatch.setattr(environments, "ask", lambda _: "it did not answer")
    look.main()
    assert json.loads(capsys.readouterr().out[len(look._MARK) :])[0] == [here]
