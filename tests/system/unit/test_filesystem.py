"""The fitness of a folder, decided in real folders on real mounts."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from sif_writable.redirects.locations import Locations
from sif_writable.sizes import human
from sif_writable.system.filesystem import explain, unfit, why_not_creatable
from sif_writable.system.probe import attempt_in
from tests.lab.store import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

UID = os.geteuid()


def test_a_good_folder_has_nothing_wrong_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir(0o700)
    assert unfit(str(folder), uid=UID, execute=True, lock=True, attempt=True) is None
    assert list(folder.iterdir()) == []


def test_each_fault_has_its_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir(0o700)
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    deep = tmp_path / ("d" * 60)
    deep.mkdir(0o700)
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    assert unfit(str(tmp_path / "missing"), uid=UID) == "does not exist"
    assert unfit(str(tmp_path / "link"), uid=UID) == "is a symbolic link, which another user may have planted"
    assert unfit(str(tmp_path / "file"), uid=UID) == "is not a directory"
    assert unfit(str(tmp_path / "file" / "x"), uid=UID) == "has a part that is not a directory"
    assert unfit(str(folder), uid=UID + 1) == f"belongs to uid {UID}, not to uid {UID + 1}"
    assert unfit(str(tmp_path / "open"), uid=UID) == "is open to other users (mode 0777, safe is 0755)"
    assert unfit(str(deep), uid=UID, socket=True) == (
        f"has a path of {len(str(deep))} bytes, too long for sockets (at most 40)"
    )
    sentence = unfit(str(folder), uid=UID, room=free * 2)
    assert sentence is not None
    assert sentence.endswith(f" free, {human(free * 2)} are needed")


def test_a_missing_folder_is_judged_by_the_nearest_one_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert why_not_creatable(str(tmp_path / "a" / "b")) == ""
    assert why_not_creatable("/proc/a/b").startswith("does not exist and cannot be made: '/proc' ")
    assert why_not_creatable(str(tmp_path / "file" / "a" / "b")) == (
        f"does not exist and cannot be made: '{tmp_path}/file' has a part that is not a directory"
    )
    assert why_not_creatable("relative") == "does not exist and cannot be made: '' does not exist"


def on_mounts(tmp_path: Path, mounts: str, calls: str) -> list[str | None]:
    """Evaluate a list of calls in a private mount namespace, as the mounts of a shell script make it.

    :param mounts: shell commands; ``$D`` is an empty directory.
    :param calls: a Python expression; ``D`` is the directory, ``U`` this user.
    """
    directory = tmp_path / "d"
    directory.mkdir(0o700, exist_ok=True)
    code = (
        "import json, os\nfrom sif_writable.system.filesystem import *\n"
        "from sif_writable.system import probe\n"
        "def attempt_in(path, **how):\n"
        "    problem = probe.attempt_in(path, **how)\n    return problem and problem.text\n"
        f"D, U = {str(directory)!r}, os.geteuid()\nprint(json.dumps({calls}))"
    )
    script = f"set -e; D={shlex.quote(str(directory))}; {mounts}; exec {sys.executable} -c {shlex.quote(code)}"
    # The user namespace lets an ordinary user mount, too.
    user = [] if UID == 0 else ["--user", "--map-root-user"]
    done = subprocess.run(
        ["unshare", *user, "--mount", "--propagation", "private", "sh", "-c", script],
        env={**os.environ, "PYTHONPATH": REPOSITORY, "SIF_WRITABLE": "off"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: list[str | None] = json.loads(done.stdout)
    return answers


def test_read_only_noexec_and_full_filesystems(tmp_path: Path) -> None:
    assert on_mounts(
        tmp_path,
        "mount -t tmpfs -o ro,mode=0700 none $D",
        "[unfit(D, uid=U), attempt_in(D)]",
    ) == ["is on a read-only filesystem", "is on a read-only filesystem"]
    assert on_mounts(
        tmp_path,
        "mount -t tmpfs -o noexec,mode=0700 none $D",
        "[unfit(D, uid=U), unfit(D, uid=U, execute=True), attempt_in(D), attempt_in(D, execute=True)]",
    ) == [
        None,
        "is on a filesystem mounted noexec, so object code cannot be loaded from it",
        None,
        "does not let object code be loaded from it (Operation not permitted)",
    ]
    assert on_mounts(
        tmp_path,
        "mount -t tmpfs -o size=8m,mode=0700 none $D; dd if=/dev/zero of=$D/x bs=1M count=9 2>/dev/null || true",
        "[unfit(D, uid=U), attempt_in(D)]",
    ) == ["has 0 B free, 16.0 MiB are needed", "has no space left (0 B of 8.0 MiB free)"]
    assert on_mounts(
        tmp_path,
        "mount -t tmpfs -o size=64m,nr_inodes=20,mode=0700 none $D",
        "[unfit(D, uid=U)]",
    ) == ["has 19 inodes free, 64 are needed"]
    assert on_mounts(
        tmp_path,
        "mount -t tmpfs -o size=64m,nr_inodes=3,mode=0700 none $D; touch $D/a $D/b",
        "[unfit(D, uid=U), attempt_in(D)]",
    ) == ["has 0 inodes free, 64 are needed", "has no inodes left (0 of 3 free, beside 64.0 MiB)"]


def test_no_space_is_distinguished_from_no_inodes_after_a_part_was_cleaned_up(tmp_path: Path) -> None:
    full = "OSError(28, 'No space left on device', D + '/made/not')"
    assert on_mounts(
        tmp_path,
        "mount -t tmpfs -o size=64m,nr_inodes=20,mode=0700 none $D; touch $D/a $D/b $D/c",
        f"[explain({full}), explain({full}, D), explain(OSError(28, 'No space left on device'))]",
    ) == [*["has no inodes left (16 of 20 free, beside 64.0 MiB)"] * 2, "has no space or no inodes left"]
    assert on_mounts(
        tmp_path,
        "mount -t tmpfs -o size=4m,nr_inodes=20,mode=0700 none $D; dd if=/dev/zero of=$D/x bs=1M count=2 2>/dev/null",
        f"[explain({full})]",
    ) == ["has no space left (2.0 MiB of 4.0 MiB free)"]


@pytest.mark.skipif(UID != 0, reason="only root can become another user to be refused")
def test_no_permission(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir(0o700)
    shutil.chown(folder, 1000, 1000)
    folder.chmod(0o500)
    for directory in (tmp_path, *tmp_path.parents):
        if str(directory).startswith("/tmp/pytest"):
            directory.chmod(0o755)
    code = (
        "from sif_writable.system.filesystem import unfit\nfrom sif_writable.system.probe import attempt_in\n"
        f"print(unfit({str(folder)!r}, uid=1000), attempt_in({str(folder)!r}), sep='|')"
    )
    copy = tmp_path / "lib"
    shutil.copytree(os.path.join(REPOSITORY, "sif_writable"), copy / "sif_writable")
    done = subprocess.run(
        ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "/usr/bin/python3", "-c", code],
        env={"PYTHONPATH": str(copy), "SIF_WRITABLE": "off"},
        capture_output=True,
        text=True,
        check=True,
    )
    words = "gives this user no permission to write"
    assert done.stdout.strip() == f"{words}|{words}"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("EROFS", "is on a read-only filesystem"),
        ("EACCES", "gives this user no permission to write"),
        ("ENOSPC", "has no space or no inodes left"),
        ("EDQUOT", "is over this user's disk quota"),
        ("ESTALE", "is on a network filesystem that lost it (stale file handle)"),
    ],
)
def test_errno_in_words(name: str, words: str) -> None:
    import errno

    number = getattr(errno, name)
    assert explain(OSError(number, os.strerror(number))) == words


def test_an_attempt_says_what_failed(tmp_path: Path) -> None:
    assert str(attempt_in(str(tmp_path / "missing"))) == "does not exist"


def test_locations(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".cache" / "there").mkdir(parents=True)
    (home / ".dangling").symlink_to("/nowhere/at/all")
    (home / ".rc").write_text("base_compiledir = x")
    ground = Locations(str(home))
    assert ground.state(str(home / ".cache" / "there")) == "writable"
    assert ground.state(str(home / ".cache" / "not")) == "absent"
    assert ground.state(str(home / ".none" / "below" / "it")) == "absent"
    assert ground.state(str(home / ".dangling")) == "read-only"
    assert ground.works(str(home / ".cache" / "not" / "yet"))
    assert not ground.works(str(home / ".dangling" / "x"))
    assert not ground.works("/proc/self/nothing/here")
    assert ground.holds(str(home / ".rc"), "compiledir")
    assert not ground.holds(str(home / ".rc"), "other")
    assert not ground.holds(str(home / ".missing"), "x")


def test_a_full_place_that_is_too_long_to_be_asked_about_is_called_full() -> None:
    said = explain(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/" + "x" * 5000))
    assert said == explain(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert said


def test_without_a_descriptor_every_mount_counts_as_one_that_answers() -> None:
    program = (
        "import resource; from sif_writable.system import timeouts\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))\n"
        "said = timeouts.may_hang()\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "print(said, timeouts.may_hang())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": REPOSITORY, "SIF_WRITABLE": "off"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("{} {}\n", "")
