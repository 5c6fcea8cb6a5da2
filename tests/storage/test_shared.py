"""Downloads that a group shares: two users, whatever their umask is; and what one of the group cannot get by it."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from sif_writable import shared
from sif_writable.redirects.beside import OF_GROUP
from sif_writable.redirects.catalog import ROWS
from sif_writable.storage.kinds import DATA
from tests.lab import ordinary
from tests.lab.users import NEIGHBOUR, VICTIM, as_user, needs_two_users

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.lab.scratch import Scratch

GROUP = 4711
STRANGER = NEIGHBOUR + 1
SETTINGS = {"SIF_WRITABLE": "on", "SIF_WRITABLE_SHARE": "data", "SIF_WRITABLE_GPU": "off"}
CODE = ("HF_MODULES_CACHE", "MPLCONFIGDIR", "NUMBA_CACHE_DIR", "PIP_CACHE_DIR", "TORCH_HOME", "XDG_CACHE_HOME")
"""What is code, or may be, and settings."""
START = """
import os, sys, json
if "NO_ACL" in os.environ:
    def setxattr(*_): raise OSError(95, "Operation not supported")
    os.setxattr = setxattr
import sif_writable
sif_writable.run()
print(json.dumps([sif_writable.state, "sif_writable.redirects.decide" in sys.modules, dict(os.environ)]))
"""
COMMAND = """
import sys, sif_writable
sif_writable.run()
from sif_writable.commands.cli import main
sys.argv[0] = "sif-writable"
main()
"""
# As huggingface_hub does, and as what uses tempfile does: closed on purpose, then renamed.
FETCH = """
import tempfile
os.makedirs(os.environ["HF_HUB_CACHE"], exist_ok=True)
hub = os.path.realpath(os.environ["HF_HUB_CACHE"]) if "BY_REAL_PATH" in os.environ else os.environ["HF_HUB_CACHE"]
os.makedirs(f"{hub}/models--x/blobs", exist_ok=True)
for name in NAMES:
    with open(f"{hub}/models--x/blobs/{name}.incomplete", "w") as file:
        file.write("weights")
    os.replace(f"{hub}/models--x/blobs/{name}.incomplete", f"{hub}/models--x/blobs/{name}")
os.makedirs(os.environ["SKIMAGE_DATADIR"], exist_ok=True)
number, path = tempfile.mkstemp(dir=os.environ["SKIMAGE_DATADIR"])
os.replace(path, os.environ["SKIMAGE_DATADIR"] + "/" + NAMES[0])
"""


@pytest.fixture
def base(places: Scratch) -> str:
    """Return a directory of a group, as administrators make it."""
    needs_two_users()
    folder = places.new_folder("group")
    os.chown(folder, 0, GROUP)
    os.chmod(folder, 0o2770)
    for uid in (VICTIM, NEIGHBOUR, STRANGER):
        os.makedirs(f"{places.folder}/home-{uid}")
        os.chown(f"{places.folder}/home-{uid}", uid, uid)
    return folder


def run(
    base: str, uid: int, words: list[str], *, umask: int = 0o077, rootless: bool = False, **env: Any
) -> subprocess.CompletedProcess[str]:
    """Run an interpreter as a member of the group."""
    top = os.path.dirname(base)
    variables = {"HOME": f"{top}/home-{uid}", "SIF_WRITABLE_DIR": base, **SETTINGS, **env}
    return ordinary.run(
        top, words, env=variables, uid=uid, group=None if uid == STRANGER else GROUP, umask=umask, rootless=rootless
    )


def start(base: str, uid: int, program: str = "", **options: Any) -> tuple[str, bool, dict[str, str]]:
    """Start an interpreter; return its state, whether it decided for itself, and its environment."""
    done = run(base, uid, ["-c", START + program], **options)
    assert (done.returncode, done.stderr) == (0, ""), done
    state, decided, environ = json.loads(done.stdout.splitlines()[0])
    return state, decided, environ


def fetch(*names: str) -> str:
    """Return a program that downloads files of these names."""
    return FETCH.replace("NAMES", repr(names))


def mode(path: str) -> int:
    """Return the permission bits."""
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.mark.parametrize(
    "env", [{}, {"NO_ACL": "1", "BY_REAL_PATH": "1"}, {"rootless": True}], ids=["acl", "no acl", "rootless"]
)
def test_what_one_of_a_group_downloads_the_others_find_and_can_add_to(base: str, env: dict[str, Any]) -> None:
    folder = f"{base}/sif-writable-shared"
    first = start(base, VICTIM, fetch("a"), umask=0o077, **env)
    assert first[:2] == ("active", True)
    there = {name for name in first[2] if first[2][name].startswith(f"{folder}/")}
    assert {"HF_HUB_CACHE", "SKIMAGE_DATADIR"} <= there <= set(OF_GROUP)
    private = {name: first[2][name] for name in CODE}
    assert not [value for value in private.values() if value.startswith(folder)], private
    # What may be run lies where nobody of the group can put something else in its place.
    code = {private[name] for name in ("HF_MODULES_CACHE", "MPLCONFIGDIR", "NUMBA_CACHE_DIR")}
    assert not [value for value in code if value.startswith(base)], code
    assert mode(f"{base}/sif-writable-{VICTIM}") & 0o777 == 0o700
    # Without access lists it is open when the first one's process ends; with them at once, but for what tempfile makes.
    assert mode(f"{folder}/huggingface-hub/models--x/blobs") == 0o2770
    second = start(base, NEIGHBOUR, fetch("a", "b"), umask=0o022, **env)
    assert second[2]["HF_HUB_CACHE"] == first[2]["HF_HUB_CACHE"]
    third = start(base, VICTIM, fetch("b"), umask=0o022, **env)
    assert third[:2] == ("active", False), "a warm start goes by what was kept"
    for name in ("huggingface-hub/models--x/blobs/a", "huggingface-hub/models--x/blobs/b", "scikit-image/a"):
        status = os.stat(f"{folder}/{name}")
        assert (status.st_gid, stat.S_IMODE(status.st_mode) & 0o660) == (GROUP, 0o660), name
    assert os.stat(f"{folder}/huggingface-hub/models--x/blobs/b").st_uid == VICTIM
    words = ["-c", COMMAND]
    shown = " ".join(run(base, NEIGHBOUR, [*words, "status"], **env).stdout.split())
    assert f"{folder} " in shown, shown
    group = "the group of its directory" if "rootless" in env else f"group {GROUP}"
    assert f"{group} shares it: each of them can replace what programs read there; no code goes there" in shown
    assert ("Here umask counts" in shown) == ("NO_ACL" in env)
    checked = run(base, NEIGHBOUR, [*words, "doctor"], **env)
    assert "PASS storage:" in checked.stdout
    assert "no sticky bit" not in checked.stdout
    read = f"open('{folder}/huggingface-hub/models--x/blobs/a')"
    assert "PermissionError" in run(base, STRANGER, ["-c", read]).stderr
    assert run(base, NEIGHBOUR, ["-c", read]).stderr == ""


def test_nothing_is_shared_unless_the_user_wants_it(base: str) -> None:
    done = run(base, VICTIM, ["-c", START], SIF_WRITABLE_SHARE="none")
    assert "keeps no code and no settings" in done.stderr
    assert sorted(os.listdir(base)) == [f"sif-writable-{VICTIM}"]


@pytest.mark.parametrize(
    ("owner", "group", "bits", "why"),
    [
        (0, GROUP, 0o2777, "can be written by everybody"),
        (VICTIM, VICTIM, 0o755, "cannot be written by its group"),
        (VICTIM, GROUP, 0o2750, "cannot be written by its group"),
    ],
)
def test_a_place_that_no_group_shares_is_said(base: str, owner: int, group: int, bits: int, why: str) -> None:
    os.chown(base, owner, group)
    os.chmod(base, bits)
    done = run(base, VICTIM, ["-c", START])
    assert (done.returncode, why in done.stderr) == (0, True), done
    assert "Remedy: " in done.stderr
    assert "sif-writable-shared" not in os.listdir(base)
    doctor = run(base, VICTIM, ["-m", "sif_writable", "doctor"])
    assert "WARN storage: " in doctor.stdout, doctor
    assert why in doctor.stdout.replace("\n     ", " "), doctor


def test_what_one_has_alone_stays_found(base: str, places: Scratch) -> None:
    own = f"{places.folder}/home-{VICTIM}/.cache/huggingface/hub"
    as_user(VICTIM, lambda: os.makedirs(f"{own}/models--mine"))
    environ = start(base, VICTIM)[2]
    assert not environ["HF_HUB_CACHE"].startswith(f"{base}/sif-writable-shared")
    assert os.path.isdir(f"{environ['HF_HUB_CACHE']}/models--mine")
    assert environ["SKIMAGE_DATADIR"].startswith(f"{base}/sif-writable-shared")
    shown = " ".join(run(base, VICTIM, ["-c", COMMAND, "status", "--verbose"]).stdout.split())
    assert f"not shared, since {own} would not be found there" in shown, shown


@pytest.mark.parametrize("planted", ["link", "folder", "open"])
def test_what_bears_the_name_and_is_not_the_groups_shares_nothing(base: str, places: Scratch, planted: str) -> None:
    folder = f"{base}/sif-writable-shared"

    def plant() -> None:
        if planted == "link":
            os.symlink(places.tmp, folder)
            return
        os.mkdir(folder)
        os.chmod(folder, 0o2777 if planted == "open" else 0o2770)
        if planted == "open":
            with open(f"{folder}/.sif-writable", "w", encoding="utf-8"):
                pass

    as_user(NEIGHBOUR, plant, [GROUP])
    done = run(base, VICTIM, ["-c", START])
    assert (done.returncode, f"{base} is not shared: it has 'sif-writable-shared'" in done.stderr) == (0, True), done


def test_a_file_of_ones_own_elsewhere_is_not_opened(tmp_path: Path) -> None:
    """Whoever may write in the folder puts links there in the place of what was made: to a directory, to a file."""
    folder, private = tmp_path / "shared", tmp_path / "private"
    for each in (folder / "leaf" / "made", private):
        each.mkdir(parents=True, mode=0o700)
    (private / "key").touch(0o600)
    (folder / "leaf" / "fine").touch(0o600)
    noted = shared.Shared(str(folder))
    for name in ("leaf/link", "leaf/hard", "leaf/fine", "link/key", "leaf/made/in", "leaf/pipe", "../private/key"):
        noted.note("open", (f"{folder}/{name}", "w", os.O_WRONLY))
    noted.note("open", (f"{folder}/leaf/never", "r", os.O_RDONLY))
    noted.note("os.mkdir", (7, 0o777, -1))
    (folder / "leaf" / "link").symlink_to(private / "key")
    (folder / "link").symlink_to(private)
    (folder / "leaf" / "made").rmdir()
    (folder / "leaf" / "made").symlink_to(private)
    os.link(private / "key", folder / "leaf" / "hard")
    os.mkfifo(folder / "leaf" / "pipe", 0o600)
    (folder / "leaf" / "never").touch(0o600)
    noted.open_all()
    assert mode(str(private)) == 0o700
    assert mode(str(private / "key")) == 0o600
    assert mode(str(folder / "leaf" / "pipe")) == 0o600
    assert mode(str(folder / "leaf" / "never")) == 0o600
    assert mode(str(folder / "leaf" / "fine")) == 0o660


def test_no_row_that_is_shared_is_anything_but_downloads_in_one_folder() -> None:
    rows = {row.variable: row for row in ROWS}
    assert {(rows[name].kind, rows[name].shape in ("dir", "mkdir")) for name in OF_GROUP} == {(DATA, True)}
    assert not set(OF_GROUP).intersection(CODE)
