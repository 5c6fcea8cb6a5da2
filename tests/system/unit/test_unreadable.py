"""What cannot be read of a machine is not known, and never taken for something else."""

from __future__ import annotations

import errno
import mmap
import os
import sys
from typing import TYPE_CHECKING, NoReturn

import pytest

from sif_writable import LAYER, identity, rootfs, warm
from sif_writable.layer import inherited
from sif_writable.system import (
    container,
    filesystem,
    image,
    image_mounts,
    listing,
    probe,
    surroundings,
    timeouts,
    world,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def refuse(number: int) -> Callable[..., NoReturn]:
    """Return a function that fails with an errno."""

    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return fail


def test_an_engine_without_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rootfs, "below_proot", lambda: True)
    assert container._unsigned().name == "PRoot"
    monkeypatch.setattr(rootfs, "below_proot", lambda: False)
    for table, name in (
        (b"1 0 0:1 /newroot / rw - tmpfs tmpfs rw\n", "bubblewrap"),
        (b"1 0 0:1 /newroot / rw - tmpfs tmpfs rw\n2 1 0:2 / / ro - ext4 /dev/a ro\nbroken\n", "unknown"),
        (b"", "unknown"),
    ):
        monkeypatch.setattr(rootfs, "read", lambda _, table=table: table)
        assert container._unsigned().name == name
    monkeypatch.setattr(rootfs, "below_proot", refuse(errno.EACCES))
    assert container._unsigned().name == "unknown"
    assert not image_mounts._is_below_proot()


def test_roots_own_group_is_private_only_where_its_numbers_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o770)
    status = os.stat_result((*os.stat(tmp_path)[:4], 0, 0, *os.stat(tmp_path)[6:10]))
    maps = {"/proc/self/uid_map": "0 0 4294967295", "/proc/self/gid_map": "0 0 4294967295"}
    monkeypatch.setattr(world, "text", maps.__getitem__)
    assert filesystem.is_private(str(tmp_path), status, 0)
    maps["/proc/self/gid_map"] = "0 1000 1"
    assert not filesystem.is_private(str(tmp_path), status, 0)
    monkeypatch.setattr(world, "text", refuse(errno.EACCES))
    assert not filesystem.is_private(str(tmp_path), status, 0)


def test_an_identity_that_a_layer_does_not_know_is_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LAYER, "x")
    monkeypatch.setattr(image, "in_layer", lambda _: ("image-", "/another"))
    monkeypatch.setattr(image, "layer", lambda: "/a/upper-1")
    monkeypatch.setattr(identity, "identity", lambda *_: "of the image")
    known = "0123456789abcdef"
    for answer, found in ((lambda *_: known, known), (lambda *_: "../x", "of the image")):
        monkeypatch.setattr(inherited, "identity", answer)
        assert image.identity("/v") == found
    monkeypatch.setattr(inherited, "identity", refuse(errno.EACCES))
    assert image.identity("/v") == "of the image"
    monkeypatch.setattr(image, "layer", str)
    assert image.identity("/v") == "of the image"
    monkeypatch.setattr(image, "in_layer", lambda _: (f"image-{known}", sys.prefix))
    assert image.identity("/v") == known


@pytest.mark.parametrize(("failures", "mounts"), [(1, 1), (2, 0)])
def test_a_table_of_mounts_that_cannot_be_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int, mounts: int
) -> None:
    (tmp_path / "mountinfo").write_text("1 0 0:1 / / rw - ext4 /dev/a rw\n", encoding="utf-8")
    read = image_mounts._table
    left = [errno.ENOMEM] * failures

    def table() -> str:
        return refuse(left.pop())() if left else read()

    monkeypatch.setattr(image_mounts, "MOUNTINFO", str(tmp_path / "mountinfo"))
    monkeypatch.setattr(image_mounts, "_table", table)
    monkeypatch.setattr(image_mounts, "_last", None)
    assert len(image_mounts.mounts().table) == mounts
    assert image_mounts.mounts() is image_mounts.mounts()
    assert len(image_mounts.mounts().table) == 1


def test_a_listing_that_breaks_off_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b").touch()
    (tmp_path / "a").touch()
    before = len(os.listdir("/proc/self/fd"))
    assert listing.names(str(tmp_path)) == ["a", "b"]
    assert listing.names(f"{tmp_path}/a") == []
    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", refuse(errno.EIO))
        assert listing.names(str(tmp_path)) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_a_place_is_refused_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert probe.opened(0o40777).text.endswith("(0700 became 0777)")
    (tmp_path / "file").write_bytes(b"x" * mmap.PAGESIZE)
    descriptor = os.open(tmp_path / "file", os.O_RDWR)
    assert probe._executable(descriptor) is None
    for number, kind in ((errno.EPERM, probe.NO_CODE), (errno.EIO, probe.FAILED)):
        monkeypatch.setattr(mmap, "mmap", refuse(number))
        problem = probe._executable(descriptor)
        assert problem is not None
        assert problem[0] == kind
    os.close(descriptor)


def test_a_directory_of_packages_that_cannot_be_listed_says_nothing_of_bytecode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending = os.path.basename(surroundings.__spec__.cached or "").partition(".")[2]
    gone, site = str(tmp_path / "gone"), tmp_path / "site"
    (site / "pkg" / "__pycache__").mkdir(parents=True)
    (site / "pkg" / "__init__.py").touch()
    monkeypatch.setattr(surroundings, "site_directories", lambda _: [gone, str(site)])
    assert not surroundings._ships_bytecode("/nowhere")
    (site / "pkg" / "__pycache__" / f"__init__.{ending}").touch()
    assert surroundings._ships_bytecode("/nowhere")
    monkeypatch.setattr(surroundings, "site_directories", lambda _: [gone])
    assert surroundings._ships_bytecode("/nowhere")  # there is nothing to say so of


def test_a_tmp_that_does_not_answer_is_shared_with_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "responds", lambda path: path != "/tmp")
    assert surroundings.session_device("/tmp") is None
    monkeypatch.setattr(surroundings, "responds", lambda _: True)
    monkeypatch.setattr(warm, "SMALL", 1 << 62)
    assert surroundings.session_device("/tmp") == os.stat("/tmp").st_dev


def test_without_a_table_of_mounts_nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for refused in ("read", "open"):
        with monkeypatch.context() as patch:
            patch.setattr(timeouts, "_may_hang", None)
            patch.setattr(os, refused, refuse(errno.EIO))
            assert timeouts.may_hang() == {}
    assert len(os.listdir("/proc/self/fd")) == before
