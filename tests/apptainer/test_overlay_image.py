"""An ext3 image given with `--overlay`: how full it is, what helps, and who else may use it."""

from __future__ import annotations

import json
import os
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from subprocess import CompletedProcess

    from tests.lab.apptainer_root import Apptainer

PYTHON = "/opt/venv/bin/python"
IN_USE = "currently in use"

# Where the ext3 image is reached through FUSE, what does not fit is reported when a file is closed.
FILL = """
import os, sys
def fill(path, size):
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while size > 0:
            size -= os.write(descriptor, b"x" * min(size, 1 << 16))
    except OSError:
        pass
    try:
        os.close(descriptor)
    except OSError:
        pass
def free():
    space = os.statvfs("/opt/venv")
    return space.f_bavail * space.f_frsize
"""


class World:
    """The test image, and overlays in the working directory."""

    def __init__(self, apptainer: Apptainer, sif: str) -> None:
        """Take what to run, and with what."""
        self.apptainer = apptainer
        self.sif = sif

    def beside(self, script: str) -> CompletedProcess[str]:
        """Run a shell script beside Apptainer, in which $SIF is the image."""
        program = shlex.quote(self.apptainer.runtime.program)
        head = f'SIF={shlex.quote(self.apptainer.inside(self.sif))}\napptainer() {{ {program} "$@"; }}\nset -e\n'
        return self.apptainer.beside(["bash", "-c", head + script])

    def create(self, size: int = 64, inodes: int = 0) -> None:
        """Make o.img as users make one; where the number of inodes matters, as the README of Apptainer has it."""
        script = f"mkdir -p D/upper D/work; truncate -s {size}M o.img; mkfs.ext3 -q -N {inodes} -d D o.img"
        made = self.beside(script if inodes else f"apptainer overlay create --size {size} o.img")
        assert made.returncode == 0, made.stderr

    def run(self, argv: list[str], *options: str, overlay: str = "o.img", **env: str) -> CompletedProcess[str]:
        """Run a command in the image with the overlay."""
        given = ["--overlay", overlay] if overlay else []
        return self.apptainer.exec(self.sif, argv, options=[*given, *options], env=env)

    def doctor(self, *options: str, before: str = "", overlay: str = "o.img", **env: str) -> dict[str, dict[str, str]]:
        """Return the checks by name, after a program has run in the same container."""
        script = f"SIF_WRITABLE=off {PYTHON} -c {shlex.quote(FILL + before)} && sif-writable doctor --json"
        result = self.run(["sh", "-c", script], *options, overlay=overlay, **env)
        assert result.stderr == ""
        return {check["name"]: check for check in json.loads(result.stdout)["checks"]}


@pytest.fixture
def world(apptainer: Apptainer, sif: str) -> World:
    """Return the image."""
    return World(apptainer, sif)


def follow(world: World, remedy: str) -> None:
    """Do what a remedy says about growing the image."""
    check, grow = re.findall(r"(e2fsck -f o\.img|resize2fs o\.img \d+M)", remedy)
    done = world.beside(f"export PATH=$PATH:/usr/sbin:/sbin; {check} -y || test $? = 1; {grow}")
    assert done.returncode == 0, done


def test_an_image_that_fills_up_is_reported_before_and_the_remedy_helps(world: World) -> None:
    world.create()
    fresh = world.doctor()
    assert (fresh["hook"]["level"], fresh["space"]["level"]) == ("PASS", "PASS")
    assert "one container at a time can write an overlay image" in fresh["overlay"]["text"]
    filled = world.doctor(before="fill('/opt/venv/big', free() - (20 << 20))")["space"]
    assert filled["level"] == "WARN"
    assert re.fullmatch(r"the image, writable here: /opt/venv has (19|20)\.\d MiB of 60\.0 MiB free", filled["text"])
    assert "apptainer overlay create --size 120 new.img" in filled["remedy"]
    status = world.run(["sif-writable", "status", "--no-gpu"]).stdout
    assert "nearly full: /opt/venv has " in status
    assert re.search(
        r"the image, writable here: /opt/venv, fuse.fuse-overlayfs,\s+\S+\s+MiB\s+of\s+60\.0\s+MiB\s+and", status
    )
    follow(world, filled["remedy"])
    assert world.doctor()["space"]["level"] == "PASS"


def test_an_image_that_runs_out_of_inodes_is_reported_before_and_the_remedy_helps(world: World) -> None:
    world.create(inodes=600)
    filled = world.doctor(before="for n in range(500): fill(f'/opt/venv/f{n}', 0)")["space"]
    assert filled["level"] == "WARN"
    assert re.fullmatch(r"the image, writable here: /opt/venv has \d+ of 5\d\d inodes free", filled["text"])
    assert "mkfs.ext3 -N 10000 -d D o.img" in filled["remedy"]
    follow(world, filled["remedy"])
    assert world.doctor()["space"]["level"] == "PASS"


def test_what_the_hook_itself_cannot_write_is_named_with_the_remedy(world: World) -> None:
    world.create(size=512, inodes=300)
    # Enough to begin with, and too few for a link to each file in HOME.
    begun = "for n in range(100): open(os.path.expanduser(f'~/.f{n}'), 'w').close()\n"
    begun += "n = 0\nwhile os.statvfs('/opt').f_favail > 72: fill(f'/opt/venv/f{n}', 0); n += 1"
    checks = world.doctor(before=begun, SIF_WRITABLE_DIR="/var/cache/mine", SIF_WRITABLE_HOME="redirect")
    assert checks["redirects"]["level"] == "WARN"
    words = r"\w+ stays as it was: /var/cache/mine/\S+ has no inodes left \(\d+ of \d\d\d free, beside [\d.]+ MiB\)"
    assert re.fullmatch(words, checks["redirects"]["text"])
    assert checks["redirects"]["remedy"].startswith("more inodes come with more size")


def test_a_full_image_is_found_full_although_writing_succeeds(world: World) -> None:
    world.create()
    program = """
from sif_writable.system.probe import attempt_in
fill("/opt/venv/big", free() + (1 << 20))
n = 0
while free() >= 4096 and n < 1000:
    fill(f"/opt/venv/small{n}", 4096)
    n += 1
print(attempt_in("/opt/venv"))
"""
    result = world.run([PYTHON, "-c", FILL + program])
    assert re.fullmatch(r"has no space left \([\d.]+ (Ki)?B of (59|60)\.\d MiB free\)\n", result.stdout)
    assert not result.stderr


def test_who_meets_an_image_that_is_in_use(world: World) -> None:
    world.create()
    result = world.beside("""
    hold() {  # until the end of the line that follows
        apptainer --silent exec --overlay "$1" "$SIF" sh -c 'echo in; read end' <&3 >in &
        while ! grep -q in in; do sleep 0.1; done
    }
    mkfifo pipe
    exec 3<>pipe
    for held in o.img o.img:ro; do
        : >in
        hold $held
        for wanted in o.img o.img:ro; do
            apptainer --silent exec --overlay $wanted "$SIF" sif-writable status --json --no-gpu >status 2>problem &&
                echo "$held $wanted $(tr -d '\\n' <status)" || echo "$held $wanted $(tail -1 problem)"
        done
        echo >&3
        wait
    done
    """)
    assert result.returncode == 0, result
    answers = {tuple(line.split(" ", 2)[:2]): line.split(" ", 2)[2] for line in result.stdout.splitlines()}
    for pair in (("o.img", "o.img"), ("o.img", "o.img:ro"), ("o.img:ro", "o.img")):
        assert IN_USE in answers[pair]
    shared = json.loads(answers["o.img:ro", "o.img:ro"])
    assert (shared["hook"]["active"], shared["root"]["writable"]) == (True, False)
    assert shared["root"]["note"].startswith("an overlay is there, read-only")


def test_an_image_that_this_user_may_not_write_is_read_only(world: World) -> None:
    world.create()
    os.chmod(os.path.join(world.apptainer.places.work, "o.img"), 0o400)
    checks = world.doctor()
    assert checks["overlay"]["level"] == "PASS"
    assert "a file that this user may not write" in checks["overlay"]["text"]
    assert checks["storage"]["level"] == "PASS"


def test_where_nothing_else_can_be_written_a_read_only_overlay_is_part_of_the_reason(world: World) -> None:
    world.create()
    world.apptainer.places.new_folder("empty")
    empty = world.apptainer.inside(os.path.join(world.apptainer.places.folder, "empty"))
    binds = ["--no-home", "--no-mount", "tmp,home,cwd", "--bind", f"{empty}:/dev/shm:ro"]
    check = world.doctor(*binds, overlay="o.img:ro")["storage"]
    assert check["level"] == "FAIL"
    assert check["text"].endswith("; the overlay that was given is read-only")
    assert "give the overlay without :ro" in check["remedy"]


@pytest.mark.parametrize(
    ("options", "kind"), [(["--overlay", "folder"], "disk"), (["--writable-tmpfs"], "session")], ids=["folder", "tmpfs"]
)
def test_other_writable_roots_are_no_overlay_image(world: World, options: list[str], kind: str) -> None:
    assert world.beside("mkdir folder").returncode == 0
    result = world.run(["sif-writable", "status", "--json", "--no-gpu"], *options, overlay="")
    model: dict[str, Any] = json.loads(result.stdout)
    (root,) = [entry for entry in model["space"] if entry["what"] == "the image, writable here"]
    assert (root["kind"], root["warnings"], model["root"]["note"]) == (kind, [], "")
