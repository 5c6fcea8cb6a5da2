"""What a trace saves for the next run, and where the watching of a command cannot be as it should."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from sif_writable import LAYER, importhook
from sif_writable.copies import ledger
from sif_writable.errors import SifWritableError
from sif_writable.image import manifest as writer
from sif_writable.layer import join, kernel
from sif_writable.overlay import decide, mounting, obstacles, path_queries
from sif_writable.overlay import kernel as overlay_kernel
from sif_writable.overlay.decide import GRAFT, OVERLAY, Target
from sif_writable.settings import IN_OVERLAY
from sif_writable.system import manifest
from sif_writable.system.mounts import Mount
from sif_writable.trace import judge, places, watch
from sif_writable.trace.findings import CREATED, Finding, Record

if TYPE_CHECKING:
    from pathlib import Path

IN_PACKAGE = Finding("/v/site-packages/pkg/data", CREATED, "Python", "pkg", "/v/site-packages", "")
OUTSIDE = Finding("/opt/tool/state", CREATED, "Python", "", "", "")


def refuse(*_: object, **__: object) -> NoReturn:
    """Fail as a filesystem that can only be read."""
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


# --- Saving ---


def test_what_is_found_while_an_image_is_built_goes_into_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "PURELIB", str(tmp_path))
    for _ in range(2):  # nothing is written twice
        assert judge.save([IN_PACKAGE, OUTSIDE]) == (["pkg", OUTSIDE.path], "")
        declared = manifest.read(str(tmp_path))
        assert declared["package"] == ["pkg seen by sif-writable trace"]
        assert declared["overlay"] == [f"{OUTSIDE.path} seen by sif-writable trace"]
    assert judge.save([IN_PACKAGE], ["/v"]) == ([], "")  # a layer serves it

    def fail(*_: object) -> NoReturn:
        raise SifWritableError("it cannot be written")

    monkeypatch.setattr(writer, "update", fail)
    assert judge.save([IN_PACKAGE]) == ([], "it cannot be written")


def test_what_is_found_in_a_read_only_image_goes_into_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "PURELIB", f"{tmp_path}/gone")
    monkeypatch.setattr(importhook, "folder", str)
    assert judge.save([]) == ([], "")
    assert judge.save([OUTSIDE]) == ([], "nothing was saved: there is no storage in use to save it in")
    (tmp_path / "packages").mkdir(mode=0o700)
    learned: list[str] = []
    monkeypatch.setattr(ledger, "learn", lambda lines, _: learned.extend(line.name for line in lines))
    monkeypatch.setattr(importhook, "folder", lambda: str(tmp_path / "packages"))
    assert judge.save([IN_PACKAGE]) == (["pkg"], "")
    kept, problem = judge.save([IN_PACKAGE, OUTSIDE])
    assert kept == ["pkg"]
    assert problem.startswith(f"{OUTSIDE.path} cannot be kept here: ")
    assert problem.endswith(f"Remedy: set SIF_WRITABLE_OVERLAY_PATHS={OUTSIDE.path}, or bind directories there")
    assert learned == ["pkg", "pkg"]


def test_a_directory_that_is_there_already_is_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = os.path.dirname(os.__file__)
    monkeypatch.setattr(places, "of_environment", lambda: [os.path.dirname(folder)])
    monkeypatch.setattr("sif_writable.system.mounts.mounts", lambda: [Mount("/", "ext4", "", "")])
    reported = [Record(1, "open", path) for path in (folder, f"{folder}/new-data/below", "/elsewhere/new")]
    found = judge.findings(watch.Traced(0, 1, "", [], [], reported), "python")
    assert [one.path for one in found] == [f"{folder}/new-data/below"]


# --- Watching ---


def test_a_signal_that_is_sent_to_the_trace_alone_reaches_the_command() -> None:
    command = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    handlers = watch._pass_signals_to(command.pid)
    try:
        os.kill(os.getpid(), signal.SIGINT)  # the command gets it from the terminal
        os.kill(os.getpid(), signal.SIGTERM)
        assert command.wait(10) == -signal.SIGTERM
        os.kill(os.getpid(), signal.SIGHUP)  # the command has ended
    finally:
        for number, handler in handlers:
            signal.signal(number, handler)
    assert [number for number, _ in handlers] == [signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture
def namespaces(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have namespaces and a tmpfs made without the kernel; return what was asked for."""
    asked: list[str] = []

    def separate(**_: object) -> str:
        asked.append("separate")
        return ""

    monkeypatch.setattr(obstacles, "threads", str)
    monkeypatch.setattr(obstacles, "switched_off", str)
    monkeypatch.setattr(mounting, "privileged", lambda: False)
    monkeypatch.setattr(mounting, "separate", separate)
    monkeypatch.setattr(kernel, "mount", lambda *_: asked.append("tmpfs"))
    monkeypatch.setattr(join, "drop_capabilities", lambda **_: asked.append("dropped"))
    return asked


@pytest.mark.parametrize(("how", "fails"), [(OVERLAY, False), (OVERLAY, True), (GRAFT, True)])
def test_a_directory_that_cannot_be_covered_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, namespaces: list[str], how: str, *, fails: bool
) -> None:
    (tmp_path / "point").mkdir()
    (tmp_path / "folder").mkdir()
    point = str(tmp_path / "point")
    monkeypatch.setattr(watch, "_targets", lambda: iter([Target(point, how, (), "why")]))
    monkeypatch.setattr(overlay_kernel, "overlay", refuse if fails else lambda *_, **__: None)
    monkeypatch.setattr(mounting, "graft", refuse)
    layers: list[Any] = []
    unwatched: list[str] = []
    before = len(os.listdir("/proc/self/fd"))
    said = watch._watch(str(tmp_path / "folder"), layers, unwatched)
    assert namespaces == ["separate", "tmpfs", "dropped"]
    if fails:
        assert unwatched == [said]
        assert said.startswith(f"{point} (")
        assert layers == []
        assert len(os.listdir("/proc/self/fd")) == before + 1  # of the memory
    else:
        assert (said, unwatched) == ("", [])
        assert [layer.point for layer in layers] == [point]
        os.close(layers[0].original)


def test_without_a_namespace_or_a_directory_nothing_is_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, namespaces: list[str]
) -> None:
    monkeypatch.setattr(watch, "_targets", lambda: iter(()))
    assert watch._watch(str(tmp_path), [], []) == "there is no directory of the image to watch"
    monkeypatch.setattr(mounting, "separate", lambda **_: "it is not permitted")
    assert watch._watch(str(tmp_path), [], []) == "it is not permitted"
    monkeypatch.setattr(obstacles, "switched_off", lambda: "they are switched off")
    assert watch._watch(str(tmp_path), [], []) == "they are switched off"
    assert namespaces == ["separate", "tmpfs", "dropped"]


def test_what_is_root_of_its_namespace_keeps_its_capabilities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, namespaces: list[str]
) -> None:
    monkeypatch.setattr(mounting, "privileged", lambda: True)
    monkeypatch.setattr(watch, "_targets", lambda: iter(()))
    assert watch._watch(str(tmp_path), [], []) == "there is no directory of the image to watch"
    assert namespaces == ["separate", "tmpfs"]


def test_what_the_kernel_shows_is_not_covered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("image", "kernel"):
        (tmp_path / name).mkdir()
    looked = path_queries.PathQueries()
    looked.table = [Mount(f"{tmp_path}/kernel", "sysfs", "", ""), Mount("/", "ext4", "", "")]
    monkeypatch.setattr(watch, "_Watched", lambda: looked)
    monkeypatch.setattr(places, "of_environment", lambda: None)
    monkeypatch.setattr(places, "is_of_host", lambda _: False)
    monkeypatch.setattr(looked, "entries", lambda _: [f"{tmp_path}/image"[1:], f"{tmp_path}/kernel"[1:]])
    monkeypatch.setattr(os, "access", lambda _, how: how != os.W_OK)
    monkeypatch.setattr(decide, "whole", lambda path, *_: iter([Target(path, OVERLAY, (), "")]))
    assert [target.point for target in watch._targets()] == [f"{tmp_path}/image"]


def hold(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what the process that holds the namespaces answers, which goes on here."""
    readable, writable = os.pipe()
    monkeypatch.setattr(os, "_exit", lambda _: None)
    monkeypatch.setattr(watch, "_pass_signals_to", lambda _: [])
    watch._be_holder(["true"], str(folder), writable, quiet=True, image="")
    with open(readable, "rb") as file:
        answer: dict[str, Any] = json.loads(file.read())
    return answer


def test_a_command_runs_though_the_image_cannot_be_covered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = subprocess.Popen(["true"])
    monkeypatch.setattr(watch, "_watch", refuse)
    monkeypatch.setattr(os, "fork", lambda: child.pid)
    answer = hold(tmp_path, monkeypatch)
    child.returncode = 0
    assert (answer["code"], answer["pid"], answer["changes"]) == (0, child.pid, [])
    assert answer["problem"] == "the image could not be covered: [Errno 30] Read-only file system"


def test_what_ends_the_watching_process_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hold(tmp_path / "gone", monkeypatch)["problem"].startswith("FileNotFoundError: [Errno 2]")


@pytest.mark.parametrize("quiet", [True, False])
def test_a_command_is_started_as_the_trace_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *, quiet: bool
) -> None:
    started: list[list[str]] = []
    ended: list[int] = []
    for name in (watch.LOG, "PYTHONPATH", IN_OVERLAY, LAYER):
        monkeypatch.setenv(name, "before")
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(os, "execvp", lambda _, words: started.append(words))
    monkeypatch.setattr(os, "_exit", ended.append)
    stdout = os.dup(1)
    layers = [] if quiet else [watch._Layer("/v", str(tmp_path), -1, {}, {})]
    try:
        watch._be_command(["program", "word"], "/log", layers, quiet=quiet, image="image-x")
        os.write(1, b"said")
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
    said = capfd.readouterr()
    assert (said.out, said.err) == (("", "said") if quiet else ("said", ""))
    assert started == [["program", "word"]]
    assert os.environ[watch.LOG] == "/log"
    assert os.environ["PYTHONPATH"] == f"{watch.HOOK}:before"
    if layers:
        assert os.environ[IN_OVERLAY] == f"{obstacles.namespace()};/v"
        assert os.environ[LAYER].startswith(f"{obstacles.namespace()}:")
        assert os.environ[LAYER].endswith(f":image-x:{sys.prefix}")
    else:
        assert (os.environ[IN_OVERLAY], os.environ[LAYER]) == ("before", "before")
    monkeypatch.setattr(os, "execvp", refuse)
    watch._be_command(["program"], "/log", [], quiet=False, image="")
    assert "program" in capfd.readouterr().err
    assert ended[0] == 127
    assert ended[1] in {126, 127}
