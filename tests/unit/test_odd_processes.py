"""What is found in odd processes: the working directory is gone, or /proc; nothing may be started; one is debugged."""

from __future__ import annotations

import _thread
import os
import subprocess
import sys
import tempfile
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

import sif_writable
from sif_writable import fuse, hanging, home, identity, mounted, prompts, rootfs, session, signals, stderr
from sif_writable.copies import culprits
from sif_writable.rootfs import FIRST_PIDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GONE = FileNotFoundError(2, "No such file or directory")


def fails(error: Exception) -> Callable[..., None]:
    """Return a function that raises an error."""

    def failing(*_: object, **__: object) -> None:
        raise error

    return failing


def test_a_home_from_a_directory_that_is_gone_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    assert home.home_directory("mine") == f"{gone}/mine"
    assert culprits.working_directory() == str(gone)
    gone.rmdir()
    assert home.home_directory("mine") == "mine"
    assert home.home_directory("/mine") == "/mine"
    assert home.home_directory("") == ""
    assert culprits.working_directory() == "/"


def test_a_manifest_of_any_length_is_read_whole(tmp_path: Path) -> None:
    lines = [f"location: {number:060}" for number in range(3_000)]
    text = "\n".join(["gpu: warn", "", *lines]) + "\n"
    (tmp_path / identity.MANIFEST).write_text(text + "cut sho")
    assert identity.manifest_text(str(tmp_path), whole=True) == text.encode()
    assert identity.declared(str(tmp_path)) == {"gpu": ["warn"]}
    assert len(identity.declared(str(tmp_path), whole=True)["location"]) == len(lines)


@pytest.mark.parametrize("library", ["/somewhere/python.zip/os.py", "/somewhere/lib/os.py"])
def test_packages_lie_where_the_version_says_if_the_library_does_not(
    monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    monkeypatch.setattr(os, "__file__", library)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    assert f"{sys.prefix}/lib/{version}/site-packages" in identity.site_directories("/elsewhere")


def test_without_proc_there_is_no_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    value = f"{os.readlink('/proc/self/ns/mnt')}:x:image:/no/such/directory:/no/such/directory"
    assert mounted.in_layer(value) == []
    assert mounted.in_layer("") == []
    monkeypatch.setattr(os, "readlink", fails(GONE))
    assert mounted.in_layer(value) == []
    monkeypatch.setattr(mounted, "_mount_table", fails(GONE))
    monkeypatch.setattr(os, "stat", lambda path: SimpleNamespace(st_dev=len(path)))
    assert not mounted.is_layer_over_prefix("")
    monkeypatch.setattr(mounted, "_mount_table", lambda: b"1 2 0:3 / /venv rw - overlay sif-writable rw\n")
    assert mounted.is_layer_over_prefix("")


@pytest.mark.parametrize(
    ("read_only", "data", "pids", "found"),
    [
        (False, {}, "pid:[1]", False),
        (True, {b"container": sif_writable.FIREJAIL}, FIRST_PIDS, False),
    ],
)
def test_what_is_no_containers_root(
    monkeypatch: pytest.MonkeyPatch, data: dict[bytes, bytes], pids: str, *, read_only: bool, found: bool
) -> None:
    monkeypatch.setattr(rootfs, "_is_read_only", lambda _: read_only)
    monkeypatch.setattr(rootfs, "below_proot", lambda: False)
    monkeypatch.setattr(os, "readlink", lambda _: pids)
    assert rootfs.is_containers(data, signed=False) is found


def test_below_proot_it_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rootfs, "below_proot", lambda: True)
    assert rootfs.is_containers({}, signed=True)
    monkeypatch.setattr(rootfs, "below_proot", fails(GONE))
    assert rootfs.is_containers({}, signed=True)
    monkeypatch.setattr(rootfs, "_is_read_only", lambda _: False)
    assert not rootfs.is_containers({}, signed=False)


def test_where_nobody_can_be_started_storage_counts_as_what_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuse, "_is_alone", lambda: True)
    monkeypatch.setattr(signals, "fork", fails(BlockingIOError(11, "Resource temporarily unavailable")))
    assert not hanging.times_out(str(tmp_path), hanging.FUSE)
    monkeypatch.setattr(_thread, "start_new_thread", fails(RuntimeError("can't start new thread")))
    assert not hanging.times_out(str(tmp_path), hanging.REMOTE)
    monkeypatch.undo()
    monkeypatch.setattr(os, "listdir", fails(GONE))
    assert not fuse._is_alone()
    assert not hanging.times_out(str(tmp_path), hanging.FUSE)  # a thread has asked
    assert not hanging.times_out(f"{tmp_path}/gone\0", hanging.REMOTE)  # an error is an answer


def test_a_child_that_does_not_even_die_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[tuple[int, int]] = []
    with subprocess.Popen(["sleep", "60"]) as child:
        with monkeypatch.context() as patch:
            patch.setattr(hanging, "TIMEOUT", -5)  # which has passed already, and one second more
            patch.setattr(os, "kill", lambda *arguments: killed.append(arguments))
            assert fuse._is_given_up(child.pid, "/")
        assert killed == [(child.pid, 9)]
        with monkeypatch.context() as patch:
            patch.setattr(hanging, "TIMEOUT", 0.001)
            assert fuse._is_given_up(child.pid, "/")  # it was killed
        child.returncode = -9  # and reaped there
    assert not fuse._is_given_up(child.pid, "/")  # it is nobody's child any more


def test_a_session_that_is_not_there_yet_is_not_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    learned: list[BaseException | None] = []
    monkeypatch.delattr(sys, "ps1", raising=False)
    monkeypatch.delitem(sys.modules, "IPython.core.interactiveshell", raising=False)
    hook = sys.excepthook
    assert not prompts.listen(learned.append)
    assert sys.excepthook is hook
    shell = SimpleNamespace(initialized=lambda: False)
    monkeypatch.setitem(sys.modules, "IPython.core.interactiveshell", SimpleNamespace(InteractiveShell=shell))
    assert not prompts.listen(learned.append)
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    monkeypatch.setitem(sys.modules, "code", None)
    monkeypatch.setattr(sys, "excepthook", lambda *_: None)
    assert prompts.listen(learned.append)
    error = ValueError("of a line")
    sys.excepthook(ValueError, error, None)
    assert learned == [error]


@pytest.mark.parametrize("debugged", [True, False])
def test_what_goes_wrong_with_us_is_printed_where_somebody_debugs_us(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, debugged: bool
) -> None:
    monkeypatch.setattr(sif_writable, "failure", None)
    monkeypatch.setenv(sif_writable.DEBUG, str(int(debugged)))
    error = ValueError("of ours")
    stderr.note(error)
    assert sif_writable.failure is error
    assert capsys.readouterr().err == ("sif_writable: ValueError: of ours\n" if debugged else "")


def test_the_root_of_a_path_in_a_session() -> None:
    roots = "2ss;token;;inputs;/s:/t"
    paths = ("/s/x", "/t/x", "/s", "/st/x")
    assert [session.root_of(roots, path) for path in paths] == ["/s", "/t", "", ""]
    assert session.root_of("", "/s/x") == session.root_of("2;token;;inputs;", "/s/x") == ""


def test_a_session_that_is_taken_back_leaves_no_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {
        sif_writable.SESSION: f"2s;token;{session.was_set('TMPDIR', '/s/tmp', None)};inputs;/s",
        "TMPDIR": "/s/tmp",
    }
    monkeypatch.setattr(session, "taken_back", {})
    monkeypatch.setattr(tempfile, "tempdir", "/s/tmp")
    session.take_back(environ)
    assert "TMPDIR" not in environ
    assert tempfile.tempdir is None
