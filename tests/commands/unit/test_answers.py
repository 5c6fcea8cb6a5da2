"""What `prepare`, `prestage`, `trace` and `cache forget` answer where the image is odd, in this process."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import sif_writable
from sif_writable import importhook
from sif_writable.commands import attach, cli, forget, prepare, prestage, trace
from sif_writable.copies.forget import Taken
from sif_writable.errors import Problem, SifWritableError
from sif_writable.identity import MANIFEST
from sif_writable.image import manifest as writer
from sif_writable.image.prestage import Baked
from sif_writable.storage.leases import IN_USE
from sif_writable.system import manifest
from sif_writable.trace.findings import Finding
from sif_writable.trace.watch import Traced

if TYPE_CHECKING:
    from pathlib import Path


# --- prepare ---


@pytest.fixture
def lib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a site directory that stands for the image's own, with one distribution."""
    found = tmp_path / "site-packages"
    (found / "pkg-1.dist-info").mkdir(parents=True)
    (found / "pkg-1.dist-info" / "METADATA").write_text("Name: pkg\nVersion: 1\n")
    (found / "pkg-1.dist-info" / "RECORD").write_text("pkg/__init__.py,,\n")
    (found / "pkg").mkdir()
    (found / "pkg" / "__init__.py").write_text("")
    (tmp_path / "target").mkdir()
    for name, value in (("PURELIB", str(found)), ("TARGET", str(tmp_path / "target")), ("_quiet", False)):
        monkeypatch.setattr(prepare, name, value)
    monkeypatch.setattr(prepare, "_folders", lambda: [str(found)])
    monkeypatch.setattr(prepare.bytecode, "importable", lambda: [str(found)])  # type: ignore[attr-defined]
    return found


def options(*words: str, quiet: bool = False) -> argparse.Namespace:
    """Return parsed options of `prepare`."""
    parser = argparse.ArgumentParser()
    prepare.add(parser)
    return parser.parse_args(words, argparse.Namespace(quiet=quiet))


def test_what_has_changed_since_is_named(lib: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def stale() -> str:
        code = prepare.run(options("--check"))
        out = " ".join(capsys.readouterr().out.split())
        assert code == int("stale: " in out)
        assert ("remedy: call sif-writable prepare again" in out) == bool(code)
        return out

    assert "sif-writable prepare did not run here" in stale()
    assert prepare.run(options("--inner", quiet=True)) == 0
    assert capsys.readouterr().out == ""
    assert stale() == "up to date"
    (lib / "pkg" / "__init__.py").write_text("changed = True\n")
    (lib / "pkg-1.dist-info" / "RECORD").write_text("pkg/__init__.py,sha256=x,\n")
    assert "files of what is installed, or of what prestage has baked, have changed" in stale()
    os.rename(lib / "pkg-1.dist-info", lib / "pkg-2.dist-info")
    (lib / "pkg-2.dist-info" / "METADATA").write_text("Name: pkg\nVersion: 2\n")
    said = stale()
    assert "installed since: pkg 2" in said
    assert "no longer installed: pkg 1" in said
    assert prepare.run(options("--inner", quiet=True)) == 0
    missing = lib.parent / "no" / "python"
    first = manifest.read(str(lib))["interpreter"][0]
    program = lib.parent / "python"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    writer.update(str(lib), {"interpreter": [first, f"{missing} 3.9.1 /no", f"{program} 3.9.2 /other"]})
    assert f"stale: /no: {missing} does not exist" in stale()
    writer.update(str(lib), {"interpreter": [first], "prepared": ["0.0.1"], "seed": [f"HF_HOME {lib}/seed"]})
    said = stale()
    assert f"prepared by sif-writable 0.0.1, this is {sif_writable.__version__}" in said
    assert f"{lib}/seed, which holds files for a first start, is not there" in said
    os.rmdir(lib.parent / "target")
    assert "the target for bind mounts, is not there" in stale()


@pytest.mark.usefixtures("lib")
def test_options_that_are_wrong_are_named_together(tmp_path: Path) -> None:
    with pytest.raises(SifWritableError) as caught:
        prepare._demands(options("--packages=nowhere_at_all", "--overlay=relative", f"--overlay={tmp_path}"))
    text = str(caught.value)
    assert text.startswith("wrong options:")
    assert "nowhere_at_all" in text
    assert "--overlay 'relative' is no absolute path" in text
    # Another environment of the image need not have what this one has.
    found = prepare._demands(options("--inner", "--packages=os,nowhere_at_all,os.path", f"--overlay={tmp_path}/"))
    assert found["package"] == ["os"]
    assert found["overlay"] == [str(tmp_path)]


@pytest.mark.parametrize(
    ("name", "there"),
    [("os", True), ("json.decoder", True), ("json.nothing", False), (".", False), ("__main__", False), ("no", False)],
)
def test_what_is_installed(monkeypatch: pytest.MonkeyPatch, name: str, *, there: bool) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)  # which is a ValueError
    assert prepare._is_installed(name) is there


def test_the_users_packages_are_switched_off_where_it_works_earliest(
    lib: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("APPTAINER_ENVIRONMENT", "SINGULARITY_ENVIRONMENT"):
        monkeypatch.delenv(name, raising=False)
    prepare._switch_user_site_off()
    assert "set PYTHONNOUSERSITE=1 in the image's environment" in capsys.readouterr().out
    script = lib.parent / "environment.sh"
    script.write_text("export A=1\n")
    monkeypatch.setenv("SINGULARITY_ENVIRONMENT", str(script))
    prepare._switch_user_site_off()
    prepare._switch_user_site_off()
    assert script.read_text() == f"export A=1\n{prepare.NO_USER_SITE}\n"
    monkeypatch.setenv("APPTAINER_ENVIRONMENT", str(lib))
    with pytest.raises(SifWritableError, match=r"cannot be set\. Remedy: set it in %environment"):
        prepare._switch_user_site_off()


def test_an_image_that_cannot_be_written_is_not_prepared(lib: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "PURELIB", f"{lib}/nothing")
    with pytest.raises(SifWritableError, match="so the image cannot be prepared"):
        prepare.run(options())
    (lib.parent / "file").write_text("")
    monkeypatch.setattr(prepare, "TARGET", f"{lib.parent}/file/target")
    with pytest.raises(SifWritableError, match="the target for bind mounts, cannot be made"):
        prepare._make_target()
    assert not os.path.exists(lib / MANIFEST)


def test_all_interpreters_are_asked_once_and_not_by_each_other(lib: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(prepare.usage, "warn_of_host", lambda _: None)  # type: ignore[attr-defined]

    def others(_: object) -> int:
        asked.append(str(lib))
        return 2

    monkeypatch.setattr(prepare, "_others", others)
    assert prepare.run(options("--all-interpreters", "--inner", quiet=True)) == 0
    assert prepare.run(options("--all-interpreters", quiet=True)) == 2
    assert asked == [str(lib)]


# --- prestage ---


def test_files_of_packages_that_a_failed_command_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("made", "changed", "kept"):
        (tmp_path / name).write_text("")
    before = {f"{tmp_path}/changed": (0, 1), f"{tmp_path}/kept": (0, 1)}
    after = {f"{tmp_path}/changed": (5, 2), f"{tmp_path}/kept": (0, 1), f"{tmp_path}/made": (1, 1)}
    prestage._take_back(before, after)
    assert sorted(os.listdir(tmp_path)) == ["changed", "kept"]
    assert f"stay as it left them: {tmp_path}/changed" in capsys.readouterr().err


def test_what_was_baked_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prestage.signs, "nodes", lambda: ("nvidia0",))  # type: ignore[attr-defined]
    (tmp_path / "new").write_text("")
    baked = [Baked("NUMBA_CACHE_DIR", f"{tmp_path}/numba", 3, 4096)]
    passing = {str(tmp_path): frozenset(["old"]), f"{tmp_path}/gone": frozenset(["x"])}
    prestage._report(baked, [f"{tmp_path}/token"], {"/a": (1, 1)}, {"/a": (1, 1), "/b": (1, 1)}, passing)
    said = " ".join(capsys.readouterr().out.split())
    assert "set NUMBA_CPU_NAME=generic" in said
    assert f"not baked, a secret: {tmp_path}/token" in said
    assert "written into packages, where it stays: /b" in said
    assert f"written to {tmp_path}/new: a run covers {tmp_path} with another" in said
    assert "there is no GPU here" not in said
    monkeypatch.setattr(prestage.signs, "nodes", lambda: ())  # type: ignore[attr-defined]
    prestage._report([], [], {}, {}, {})
    said = capsys.readouterr().out
    assert "baked: nothing was cached" in said
    assert "there is no GPU here" in said


# --- trace ---


def test_what_a_command_wrote_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        Finding(f"/sp/pkg/{number}", "created", "python", "pkg", "/sp", "a remedy") for number in range(trace.SHOWN + 2)
    ]
    monkeypatch.setattr(trace, "is_writable", lambda: True)
    traced = Traced(3, 1, "no layer", ["/proc"], [], [])
    said = " ".join(trace.render(traced, found, ["pkg"], ["other"], full=False).split())
    assert f"{len(found)} writes in the environment; the command ended with 3" in said
    assert "can be written here, so none of this fails here" in said
    assert "only writes of Python code were seen" in said
    assert "and 2 more (all: sif-writable trace --full)" in said
    assert "need not be declared, since programs have a layer here: other" in said
    assert said.endswith("saved: pkg")
    whole = trace.render(traced, found, [], [], full=True)
    assert all(each.path in whole for each in found)
    assert "more (all" not in whole
    said = " ".join(trace.render(traced, [], [], [], full=False).split())  # the path of an interpreter breaks lines
    assert "nothing would fail here" in said


def test_what_cannot_be_saved_makes_a_success_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sif_writable.trace import judge, watch

    monkeypatch.setattr(trace, "layer", list)
    monkeypatch.setattr(watch, "run", lambda *_, **__: Traced(0, 1, "", [], [], []))
    monkeypatch.setattr(judge, "save", lambda *_: ([], "it cannot be saved"))
    arguments = argparse.Namespace(argv=["true"], json=False, save=True, quiet=True, full=False)
    assert trace.run(arguments) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", "sif_writable: it cannot be saved\n")


# --- cache forget ---


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what the folder of copies answers: whether it can be had alone, and what is taken away."""
    answers: dict[str, Any] = {"problem": None, "taken": None}

    def set_aside(path: str, _: str) -> Taken:
        if isinstance(answers["taken"], OSError):
            raise answers["taken"]
        return Taken(path, f"{tmp_path}/kept", ("a", "b"))

    monkeypatch.setattr(importhook, "folder", lambda: f"{tmp_path}/image-x/packages")
    monkeypatch.setattr(forget, "alone", lambda _: contextlib.nullcontext(answers["problem"]))
    monkeypatch.setattr(forget.forgetting, "known", lambda _: {"pkg": ["/sp/pkg"]})  # type: ignore[attr-defined]
    monkeypatch.setattr(forget.forgetting, "set_aside", set_aside)  # type: ignore[attr-defined]
    monkeypatch.setattr(forget.forgetting, "forget", lambda *_: None)  # type: ignore[attr-defined]
    monkeypatch.setattr(forget.trial, "proven", lambda _: [])  # type: ignore[attr-defined]
    monkeypatch.setattr(forget.trial, "forget", lambda *_: None)  # type: ignore[attr-defined]
    return answers


def forgets(capsys: pytest.CaptureFixture[str], *, yes: bool = False) -> tuple[int, str]:
    """Forget the package, and return the exit code and what is said."""
    arguments = argparse.Namespace(names=["pkg"], all=False, yes=yes, json=False, quiet=False)
    code = forget.run(arguments)
    return code, " ".join(capsys.readouterr().out.split())


def test_a_copy_that_cannot_be_taken_away_is_named(
    copied: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    copied["problem"] = Problem(IN_USE, "is imported from by process 7")
    code, said = forgets(capsys)
    assert code == 1
    assert "/sp/pkg: its copy is imported from by process 7; programs that start from now on do not use it" in said
    copied.update(problem=None, taken=OSError(28, "No space left on device"))
    code, said = forgets(capsys)
    assert code == 1
    assert "/sp/pkg: its copy cannot be moved (No space left on device)" in said
    copied["taken"] = None
    (tmp_path / "kept").mkdir()
    assert f"what programs wrote to the copy of /sp/pkg is kept in {tmp_path}/kept (a, b)" in forgets(capsys)[1]
    assert (tmp_path / "kept").is_dir()
    code, said = forgets(capsys, yes=True)
    assert (code, (tmp_path / "kept").exists()) == (0, False)
    assert "removed what programs wrote to the copy of /sp/pkg" in said


def test_a_generation_that_cannot_be_made_is_as_before(tmp_path: Path) -> None:
    layers = forget.Layers("")
    assert (layers.units, layers.names()) == ([], [])
    layers.units = [SimpleNamespace(names=("pkg",), tops=("pkg",))]  # type: ignore[list-item]
    (tmp_path / "file").write_text("")
    layers.folder = f"{tmp_path}/file/layer"
    result: dict[str, Any] = {"failed": [], "kept": [], "removed": []}
    layers.forget(["pkg"], result, remove=False)
    (failed,) = result["failed"]
    assert failed["why"].startswith("no generation without pkg can be made: Not a directory")
    assert forget._failures(result) == [f"{layers.folder}: {failed['why']}; it is as before"]


# --- attach, and the command line ---


def test_a_program_of_the_hosts_is_no_command_of_an_image(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    attached = SimpleNamespace(Last=SimpleNamespace(folder="/x"))
    monkeypatch.setitem(sys.modules, "sif_writable_attached", attached)
    monkeypatch.setattr(sys, "argv", ["/host/bin/sif-writable"])
    monkeypatch.setattr(sif_writable, "state", "off")
    monkeypatch.setattr(cli.layered, "leave_out", lambda: None)  # type: ignore[attr-defined]
    assert cli.main(["status", "--json"]) == 2
    assert capsys.readouterr().err.endswith("as python -m sif_writable status --json\n")


@pytest.mark.parametrize("quiet", [True, False])
def test_what_is_reported_of_an_attached_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, quiet: bool
) -> None:
    made: Any = SimpleNamespace(
        path="/place/1.0",
        new=True,
        taken=["sif_writable 1.0"],
        compiled=[],
        lacking=["no filelock"],
        others=["/place/0.9"],
    )
    monkeypatch.setattr(attach, "_quiet", quiet)
    attach._report_folder(made)
    said = " ".join(capsys.readouterr().err.split())
    assert ("earlier versions, to be removed when no job runs with them: /place/0.9" in said) is not quiet
    assert bool(said) is not quiet
