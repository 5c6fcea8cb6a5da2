"""Where storage goes on every kind of filesystem that people have: the place, and the words of `status`."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.conftest import NOT_RUN, or_skip
from tests.lab import apt, mounting, ordinary
from tests.lab.store import ORDINARY_UID

if TYPE_CHECKING:
    from tests.lab.scratch import Scratch

GIVEN, HOME, NEXT = "place/sif-writable", "home/.cache/sif-writable", f"/var/tmp/sif-writable-{ORDINARY_UID}"
OTHER = 4711
NO_MODES = "keeps no modes, so other users could reach what is made in it (0700 became {})"
GIVEN_AWAY = "gives what is made in it to uid {}, so nothing in it can be this user's alone"
OWN = f"chown {ORDINARY_UID}"
MOUNTING = f"{sys.executable} '{mounting.__file__}'"
USE_UP = f"timeout 20 setpriv --reuid={ORDINARY_UID} --clear-groups sh -c '! cat /dev/zero > $POINT/full' 2>/dev/null"
"""Fails where there is no quota: the disk is larger than can be written in that time, or full and not over a quota."""
BTRFS = (
    *("truncate -s 128M disk", "mkfs.btrfs -q disk >/dev/null", "mkdir all", "mount -o loop disk all", "cd all"),
    *("btrfs -q subvolume create $POINT", "btrfs quota enable .", "btrfs qgroup limit 2M $POINT", f"{OWN} $POINT"),
    *("chmod 700 $POINT", "cd ..", "mount --bind all/$POINT $POINT", USE_UP, "sync"),
)
EXT4 = (
    *("truncate -s 64M disk", "mkfs.ext4 -q -O quota -E quotatype=usrquota disk"),
    *("mount -o loop,usrquota disk $POINT", f"setquota -u {ORDINARY_UID} 0 2048 0 0 $TOP/$POINT", f"{OWN} $POINT"),
    *("chmod 700 $POINT", USE_UP),
)
SFTP = "setpriv --reuid=daemon --regid=daemon --clear-groups /usr/lib/openssh/sftp-server < pipe"
SSHFS = (
    *("chown daemon served", "mkfifo pipe", f"{{ {SFTP} | sshfs -f -o passive,$MORE x:$TOP/served place > pipe & }}"),
    "timeout 10 sh -c 'until mountpoint -q place; do sleep 0.1; done'",
)
RCLONE_MOUNT = "rclone mount :local:$TOP/served place --allow-other --daemon --vfs-cache-mode writes --config /dev/null"
RCLONE = (
    f"{RCLONE_MOUNT} --cache-dir $TOP/cached --uid {ORDINARY_UID} --gid {ORDINARY_UID} $MORE",
    "mountpoint -q place",
)
EXFAT = (
    *("truncate -s 512M disk", "mkfs.exfat disk >/dev/null", "loop=$(losetup -f --show disk)"),
    f"mount.exfat-fuse -o allow_other,uid={ORDINARY_UID},$MORE $loop place >&2",
    "losetup -d $loop",
)
"""The kernel lets go of the device when the last one that has it open does."""


class Row(NamedTuple):
    """A filesystem, and what becomes of it."""

    name: str
    programs: tuple[str, ...]
    mounts: tuple[str, ...]
    """Commands of root's, where there are folders `place`, `home` and `served` of the user's."""
    chosen: str
    why: str = ""
    """What `status` says of the better place that was not chosen."""
    point: str = "place"
    """The folder that commands mount on as $POINT; it is given, unless it is HOME."""
    more: str = ""
    """Their $MORE."""
    home: str = "home"


ROWS = (
    Row("quota used up (btrfs)", ("mkfs.btrfs",), BTRFS, HOME, "is over this user's disk quota"),
    Row("quota used up, of HOME (btrfs)", ("mkfs.btrfs",), BTRFS, NEXT, "is over this user's disk quota", point="home"),
    Row("quota used up (ext4)", ("mkfs.ext3", "setquota"), EXT4, HOME, "is over this user's disk quota"),
    Row("sshfs", ("sshfs", apt.SFTP), SSHFS, HOME, GIVEN_AWAY.format(1), more="allow_other"),
    Row("sshfs, mapped", ("sshfs", apt.SFTP), SSHFS, GIVEN, more=f"allow_other,uid={ORDINARY_UID},gid={ORDINARY_UID}"),
    Row("bindfs", ("bindfs",), ("bindfs --create-for-user=4711 served place",), HOME, GIVEN_AWAY.format(OTHER)),
    Row("bindfs without modes", ("bindfs",), ("bindfs --perms=a=rwx served place",), HOME, NO_MODES.format("0777")),
    Row(
        "bindfs without modes, our folder itself",
        ("bindfs",),
        (f"mkdir $POINT && {OWN} $POINT && bindfs --perms=u=rwx,go=rx served $POINT",),
        HOME,
        NO_MODES.format("0755"),
        point="sif-writable",
    ),
    Row("rclone", ("rclone",), RCLONE, HOME, NO_MODES.format("0755")),
    Row("rclone, private", ("rclone",), RCLONE, GIVEN, more="--dir-perms 0700 --file-perms 0600"),
    Row("exfat", ("mkfs.exfat", "mount.exfat-fuse"), EXFAT, HOME, NO_MODES.format("0755"), more="umask=022"),
    Row("exfat, private", ("mkfs.exfat", "mount.exfat-fuse"), EXFAT, GIVEN, more="umask=077"),
    Row(
        "idmapped",
        (),
        (f"chown {OTHER}:{OTHER} served", f"{MOUNTING} idmap served place {OTHER} {ORDINARY_UID}"),
        GIVEN,
    ),
    Row(
        "idmapped to another user",
        (),
        ("chown 0:0 served", "chmod 777 served", f"{MOUNTING} idmap served place 0 {OTHER}"),
        HOME,
        "has no number for this user, so nothing can be made in it (idmapped mount, user namespace)",
    ),
    Row("HOME is a link", (), ("ln -s home link",), "link/.cache/sif-writable", home="link"),
    Row(
        "HOME on autofs",
        (),
        ("mkdir auto", f"{MOUNTING} automount $TOP/auto $TOP/home | grep -q ready"),
        "auto/user/.cache/sif-writable",
        home="auto/user",
    ),
    Row(
        "HOME on autofs, whose server has none",
        (),
        ("mkdir auto", f"{MOUNTING} automount $TOP/auto | grep -q ready"),
        NEXT,
        home="auto/user",
    ),
)


def run(row: Row, places: Scratch, *words: str) -> Any:
    """Run the package where a row is mounted."""
    top = places.new_folder("top")
    for name in ("place", "home", "served"):
        os.makedirs(f"{top}/{name}", exist_ok=True)
        os.chown(f"{top}/{name}", ORDINARY_UID, ORDINARY_UID)
    names = [f"export TOP='{top}' POINT={row.point} MORE='{row.more}'"]
    env = {"SIF_WRITABLE": "on", "SIF_WRITABLE_GPU": "off", "HOME": f"{top}/{row.home}"}
    if row.point != "home" and row.home == "home":
        env["SIF_WRITABLE_DIR"] = f"{top}/{row.point}"
    tmpfs = [f"mount -t tmpfs -o mode=1777 none {folder}" for folder in ("/var/tmp", "/dev/shm")]
    done = ordinary.run(top, words, env=env, mounts=[*names, *tmpfs, *row.mounts])
    if done.returncode == ordinary.FAILED:
        pytest.skip(f"{NOT_RUN}{row.name}: not to be had on this kernel ({' '.join(done.stderr.split())[-120:]})")
    return done, top


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_where_storage_goes(row: Row, places: Scratch) -> None:
    if os.getuid() != 0:
        pytest.skip(f"{NOT_RUN}only root can mount filesystems")
    or_skip(apt.ensure, *row.programs)
    done, top = run(row, places, "-m", "sif_writable", "status", "--json", "--no-gpu")
    assert done.returncode == 0, done
    status = json.loads(done.stdout)
    roots = {entry["kind"]: entry["folder"] for entry in status["storage"] if entry["kind"] != "runtime"}
    chosen = os.path.join(top, row.chosen)
    assert {folder.startswith(f"{chosen}/") for folder in roots.values()} == {True}, (roots, status["refused"])
    assert len(roots) == 3
    said = [entry["why"] for entry in status["refused"]]
    assert bool(said) == bool(row.why), said
    assert all(row.why in why for why in said), said
    assert not status["problems"], status["problems"]
    if row.chosen != GIVEN and row.point != "home" and row.home == "home":
        assert f"sif_writable: SIF_WRITABLE_DIR={top}/{row.point} " in done.stderr
        assert f"{row.why}; using {chosen}. Remedy: " in done.stderr


def test_doctor_fails_where_nothing_can_be_written(places: Scratch) -> None:
    if os.getuid() != 0:
        pytest.skip(f"{NOT_RUN}only root can mount filesystems")
    or_skip(apt.ensure, "mkfs.btrfs")
    # HOME is over its quota, and everything else is read-only.
    shut = [
        f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}"
        for folder in ("/tmp", "/var/tmp", "/dev/shm")
    ]
    row = Row("", (), (*BTRFS, *shut), "", point="home")
    done, top = run(row, places, "-m", "sif_writable", "doctor")
    printed = " ".join(done.stdout.split())
    assert done.returncode == 1, done
    assert "FAIL storage: no place can be written" in printed
    assert f"'{top}/home/.cache' is over this user's disk quota" in printed
    assert "/dev/shm is on a read-only filesystem" in printed
