"""Smoke tests of the lab itself: each part is what its name says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.conftest import or_skip
from tests.lab import apptainer_root, apt, debian_pythons, pythons, store
from tests.lab.unavailable import LabUnavailable

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.apptainer_root import Apptainer
    from tests.lab.readonly_root import ReadonlyRoot
    from tests.lab.squashfs_root import SquashfsRoot


def _command_line(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:  # it has just ended
        return ""


# Says what a process in a read-only root sees; one line of JSON.
_PROBE = """
import errno, json, os, subprocess
def refusal(folder):
    try:
        open(os.path.join(folder, "x"), "w").close()
    except OSError as error:
        return errno.errorcode[error.errno]
    os.unlink(os.path.join(folder, "x"))
    return "written"
print(json.dumps({
    "uid": os.getuid(),
    "owner": os.stat("/opt/venv").st_uid,
    "image": refusal("/opt/venv"),
    "tmp": refusal("/tmp"),
    "data": refusal("/data"),
    "unshare": subprocess.run(["unshare", "--user", "true"], capture_output=True).returncode,
    "no_new_privs": next(line.split()[1] for line in open("/proc/self/status") if line.startswith("NoNewPrivs")),
}))
"""
# Says where an interpreter and what it has loaded come from.
_LIBRARIES = """
import ctypes, json, sqlite3, ssl, sys, zlib
with open("/proc/self/maps") as maps:
    libraries = sorted({line.split()[-1] for line in maps if ".so" in line})
print(json.dumps([sys.version_info[:2], sys.executable, sys.prefix, "sitecustomize" in sys.modules, libraries]))
"""
_MARK = "611.953"  # a number of seconds that nobody else sleeps
_ASK = ["/opt/venv/bin/python", "-c", _PROBE]


def _seen(result: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert result.returncode == 0, result.stderr
    seen: dict[str, object] = json.loads(result.stdout)
    return seen


def test_apptainer_runs_the_image_as_an_ordinary_user(apptainer: Apptainer, sif: str) -> None:
    seen = _seen(apptainer.exec(sif, _ASK))
    assert seen["uid"] == store.ORDINARY_UID
    assert (seen["image"], seen["tmp"]) == ("EROFS", "written")


def test_apptainer_passes_binds_environment_and_home(apptainer: Apptainer, sif: str) -> None:
    data = apptainer.places.new_folder("data")
    script = "echo $GREETING > /data/x; echo $HOME; touch ~/x"
    options = ["--bind", f"{apptainer.inside(data)}:/data"]
    result = apptainer.exec(sif, ["sh", "-c", script], options=options, env={"GREETING": "hello"})
    assert result.returncode == 0, result.stderr
    with open(os.path.join(data, "x"), encoding="utf-8") as file:
        assert file.read() == "hello\n"
    assert os.listdir(apptainer.places.home)


def test_kernel_mount_is_read_only_and_root_owned(squashfs_root: SquashfsRoot) -> None:
    seen = _seen(squashfs_root.run(_ASK, env={"SIF_WRITABLE": "off"}))
    expected = {"uid": store.ORDINARY_UID, "owner": 0, "image": "EROFS", "tmp": "written", "data": "EROFS"}
    assert seen == {**expected, "unshare": 0, "no_new_privs": "1"}


def test_kernel_mount_without_user_namespaces(squashfs_root: SquashfsRoot) -> None:
    seen = _seen(squashfs_root.run(_ASK, userns=False))
    assert seen["unshare"] != 0
    assert (seen["uid"], seen["image"]) == (store.ORDINARY_UID, "EROFS")


def test_kernel_mount_under_a_writable_overlay_denies_by_ownership(squashfs_root: SquashfsRoot) -> None:
    assert _seen(squashfs_root.run(_ASK, overlay_tmpfs=True))["image"] == "EACCES"


def test_kernel_mount_with_binds(squashfs_root: SquashfsRoot) -> None:
    folder = squashfs_root.places.new_folder("bound")
    assert _seen(squashfs_root.run(_ASK, binds=[f"{folder}:/data"]))["data"] == "written"
    assert _seen(squashfs_root.run(_ASK, binds=[f"{folder}:/data:ro"]))["data"] == "EROFS"
    assert _seen(squashfs_root.run(_ASK, writable=[]))["tmp"] == "EROFS"


def test_readonly_root_needs_no_engine(readonly: ReadonlyRoot) -> None:
    seen = _seen(readonly.run(_ASK, binds=[f"{readonly.places.work}:/data"]))
    assert (seen["uid"], seen["image"], seen["data"]) == (store.ORDINARY_UID, "EROFS", "written")
    assert _seen(readonly.run(_ASK, binds=[f"{readonly.places.work}:/data"], userns=False))["unshare"] != 0


def test_places_outlive_a_command(squashfs_root: SquashfsRoot) -> None:
    for folder in ("/tmp", "/var/tmp", "/dev/shm"):
        squashfs_root.run(["touch", f"{folder}/kept"])
        assert squashfs_root.run(["cat", f"{folder}/kept"]).returncode == 0


def test_a_timeout_ends_everything(squashfs_root: SquashfsRoot) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        squashfs_root.run(["sh", "-c", f"sleep {_MARK} & sleep {_MARK}"], timeout=2)
    deadline = time.monotonic() + 10  # the kernel ends the namespace a moment after its first process
    while running := [pid for pid in filter(str.isdigit, os.listdir("/proc")) if _MARK in _command_line(pid)]:
        assert time.monotonic() < deadline, running
        time.sleep(0.05)


def test_pythons_are_told_apart() -> None:
    names = [python.name for python in pythons.found()]
    assert names
    assert len(names) == len(set(names))
    assert not set(pythons.missing()) & {python.version for python in pythons.found()}


@pytest.mark.parametrize(
    ("variable", "folder"),
    [
        ("PYENV_ROOT", "versions/3.12.9"),
        ("UV_PYTHON_INSTALL_DIR", "cpython-3.12.9-linux-x86_64-gnu"),
        ("RUNNER_TOOL_CACHE", "Python/3.12.9/x64"),
    ],
)
def test_interpreters_are_found_where_tools_put_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, folder: str
) -> None:
    (tmp_path / folder / "bin").mkdir(parents=True)
    (tmp_path / folder / "bin" / "python3.12").touch()
    monkeypatch.setenv(variable, str(tmp_path))
    assert f"{tmp_path}/{folder}/bin/python3.12" in pythons._candidates("3.12")
    assert f"{tmp_path}/{folder}/bin/python3.12" not in pythons._candidates("3.1")


def test_an_interpreter_of_debian_keeps_to_its_own_folder() -> None:
    python = str(or_skip(debian_pythons.interpreter, "3.14"))
    done = subprocess.run([python, "-c", _LIBRARIES], capture_output=True, text=True, check=True)
    version, executable, prefix, hooks, libraries = json.loads(done.stdout)
    assert (version, executable, hooks) == ([3, 14], python, False)
    assert os.path.join(prefix, "bin", "python3.14") == python
    assert any("/libc.so." in library for library in libraries)
    assert not [library for library in libraries if not library.startswith(prefix)]


def test_one_program_that_cannot_be_had_keeps_no_other_from_being_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    installed: set[str] = set()

    def install(packages: list[str]) -> None:
        if "bindfs" in packages:
            raise LabUnavailable("no bindfs")
        installed.update(packages)

    monkeypatch.setattr(apt, "find", lambda _: None)
    monkeypatch.setattr(apt, "_install", install)
    assert apt.ensure_all() == ["no bindfs"]
    assert installed == set(apt.PROGRAMS.values()) - {"bindfs"}
    assert "bubblewrap" in installed


@pytest.mark.skipif(os.getuid() != 0 or apt.find("apt-get") is None, reason="needs root on Debian")
def test_the_archive_of_debian_is_found_before_the_first_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lists/partial").mkdir(parents=True)
    (tmp_path / "apt.conf").write_text(f'Dir::State::lists "{tmp_path}/lists";\n')
    usual = apt.debian_mirror()
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    assert apt.debian_mirror() == usual


def test_a_fuse_device_that_the_user_may_not_open_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not (path == "/dev/fuse" and mode & os.W_OK))
    with pytest.raises(LabUnavailable, match="may not open /dev/fuse"):
        apptainer_root.find.__wrapped__()


def test_a_folder_with_mounts_below_is_shown_read_only_with_mount_points(tmp_path: Path) -> None:
    program = """
import os, sys
from tests.lab import enter
folder = sys.argv[1]
enter._show_read_only(f"{folder}/points", f"{folder}/opt", f"{folder}/shown")
os.chdir(f"{folder}/shown")
seen = [f"{folder}/{name}" for folder, *names in os.walk(".") for name in sum(names, [])]
refused = [name for name in (".", "software", "local") if os.statvfs(name).f_flag & os.ST_RDONLY]
print(sorted(seen), refused, open("local/file").read(), os.readlink("link"))
"""
    for name in ("points/venv/lib", "points/local/new", "opt/software", "opt/local", "shown"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "opt/local/file").write_text("text")
    (tmp_path / "opt/plain").touch()
    (tmp_path / "opt/link").symlink_to("local")
    script = """
mount -t tmpfs none "$1/opt/software"
touch "$1/opt/software/x"
exec unshare --user --map-root-user --mount "$0" -c "$2" "$1"
"""
    words = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-ec",
        script,
        sys.executable,
        str(tmp_path),
        program,
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    below = ["link", "local", "local/file", "local/new", "plain", "software", "software/x", "venv", "venv/lib"]
    shown = [f"./{name}" for name in below]
    assert done.stdout == f"{shown} {['.', 'software', 'local']} text local\n", done.stderr


def test_an_unfinished_part_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LAB", str(tmp_path))
    calls = []

    def make(path: str) -> None:
        calls.append(path)
        os.mkdir(path)
        if len(calls) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.provide("part", 1, make)
    assert store.provide("part", 1, make) == store.provide("part", 1, make)
    assert len(calls) == 2
    assert store.provide("part", 2, make) not in calls[:2]
