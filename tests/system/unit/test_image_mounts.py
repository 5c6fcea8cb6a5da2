"""Which mounts are the image's own, in every kind of container, by tables of mounts as they were seen there."""

from __future__ import annotations

import os
import sys

import pytest

from sif_writable.system import image_mounts
from sif_writable.system.image_mounts import Mounts

SP = "/opt/venv/lib/python3.11/site-packages"
OVERLAY = "68 116 0:40 / / rw,nodev,relatime unbindable - overlay overlay ro,lowerdir=/var/lib/apptainer/mnt/session/l"
FUSE = "ro,nosuid - fuse.squashfuse_ll squashfuse_ll ro,user_id=1000"
DISK = "rw,relatime master:1 - ext4 /dev/vda rw"

TABLES = {
    "overlay": [
        OVERLAY,
        f"155 68 254:0 /home/user /home/user {DISK}",
        f"161 68 254:0 /srv/lib\\040x {SP}/kivy {DISK}",
        f"162 161 0:40 /elsewhere {SP}/kivy/deep {DISK}",
        f"163 68 254:0 /results /results {DISK}",
    ],
    "underlay": [
        "332 116 0:43 / / ro - tmpfs tmpfs rw,size=65536k",
        *(
            f"{400 + at} 332 0:44 {p} {p} {FUSE}"
            for at, p in enumerate(("/.singularity.d", "/usr", "/opt/venv/bin", "/etc"))
        ),
        f"520 332 0:44 {SP}/numpy {SP}/numpy {FUSE}",
        f"521 401 254:0 /lab/zoneinfo /usr/share/zoneinfo {DISK}",
        f"543 332 254:0 /srv/lib\\040x {SP}/kivy {DISK}",
        f"544 332 0:45 / /data {FUSE}",
    ],
    "underlay of a sandbox": [
        "332 116 0:43 / / ro - tmpfs tmpfs rw,size=65536k",
        *(f"{400 + at} 332 254:0 /home/u/sb{p} {p} {DISK}" for at, p in enumerate(("/.singularity.d", "/usr", "/opt"))),
        f"543 332 254:0 /data /data {DISK}",
        f"544 402 254:0 /home/u/kivy {SP}/kivy {DISK}",
    ],
    "a directory": [  # Charliecloud, a sandbox: binds have the device of the root
        f"10 1 254:0 /home/u/sb / {DISK}",
        f"11 10 254:0 /home/u/data /data {DISK}",
        f"12 10 254:0 /home/u/kivy {SP}/kivy {DISK}",
        f"13 10 254:0 /home/u/sb/var/log /var/log {DISK}",
    ],
    "a disk of its own": [  # `/data` shown at /data could as well be a bind of the host's
        f"10 1 254:0 / / {DISK}",
        f"11 10 254:0 /data /data {DISK}",
    ],
    "a kernel's squashfs": ["20 1 7:0 / / ro - squashfs /dev/loop0 ro", f"21 20 254:0 /d /data {DISK}"],
    "put together from binds": [  # bubblewrap
        "30 1 0:50 / / rw - tmpfs tmpfs rw",
        f"31 30 254:0 /usr /usr {DISK}",
        f"32 30 254:0 /opt /opt {DISK}",
        f"33 31 254:0 /home/u/lib /usr/lib/python3/dist-packages/kivy {DISK}",
    ],
    "an engine without a sign": [  # runc; its Python may lie on a bind of the host's
        "30 1 254:0 /b/root / ro,relatime - ext4 /dev/vda rw",
        "31 30 0:77 / /cvmfs ro - fuse cvmfs2 ro",
    ],
    "covered": [
        OVERLAY,
        f"70 68 254:0 /a /data/inner {DISK}",
        f"71 68 254:0 /b /data {DISK}",
        f"72 71 254:0 /c /data {DISK}",
    ],
    "unknown": [],
    "damaged": ["", "68", "rubbish / / /", f"155 68 254:0 /home/user /home/user {DISK}"],
    "a loop": ["5 5 0:1 / / rw - overlay overlay ro", "6 5 0:1 / / rw - tmpfs t rw", "6 6 0:1 / / rw - tmpfs t rw"],
}


@pytest.mark.parametrize(
    ("name", "image", "host"),
    [
        ("overlay", ["/", SP, f"{SP}/numpy/x", "/results2"], ["/home/user/x", f"{SP}/kivy/x", "/results"]),
        ("overlay", [f"{SP}/kivy2"], [f"{SP}/kivy/deep/x"]),
        ("underlay", ["/usr/lib/x", SP, f"{SP}/numpy/x"], [f"{SP}/kivy", "/usr/share/zoneinfo", "/data/x"]),
        ("underlay of a sandbox", ["/usr/lib/x", SP], ["/data", f"{SP}/kivy"]),
        ("a directory", ["/usr/lib/x", SP, "/var/log/x"], ["/data", f"{SP}/kivy"]),
        ("a disk of its own", [SP], ["/data"]),
        ("a kernel's squashfs", [SP, "/usr/lib"], ["/data/x"]),
        ("put together from binds", ["/usr/lib/x"], ["/opt/x", "/", "/usr/lib/python3/dist-packages/kivy/x"]),
        ("covered", ["/"], ["/data/inner/x", "/data"]),
    ],
)
def test_whose_a_path_is(name: str, image: list[str], host: list[str]) -> None:
    table = Mounts("\n".join(TABLES[name]), "/usr", signed=name != "put together from binds")
    assert [path for path in (*image, *host) if table.is_image(path)] == image
    assert [path for path in (*image, *host) if not table.host_mount(path)] == image


def test_where_a_mount_is() -> None:
    overlay = Mounts("\n".join(TABLES["overlay"]), "/usr", signed=True)
    assert overlay.host_mount(f"{SP}/kivy/x") == f"{SP}/kivy"
    assert overlay.host_mounts_below(SP) == [f"{SP}/kivy", f"{SP}/kivy/deep"]
    assert overlay.host_mounts_below(f"{SP}/numpy") == []
    covered = Mounts("\n".join(TABLES["covered"]), "/usr", signed=True)
    assert covered.host_mounts_below("/") == ["/data"]  # what lies below it cannot be seen
    holder = covered.holder("/data/inner")
    assert holder is not None
    assert holder.root == "/c"


@pytest.mark.parametrize("name", ["unknown", "damaged"])
def test_what_is_not_known_is_not_the_images(name: str) -> None:
    for signed in (True, False):
        table = Mounts("\n".join(TABLES[name]), "/usr", signed=signed)
        assert not table.is_image(SP)
        assert not table.is_image("/")


def test_a_table_that_cannot_be_comes_to_an_end() -> None:
    Mounts("\n".join(TABLES["a loop"]), "/usr", signed=True).is_image("/usr")


def test_escapes_of_paths() -> None:
    (mount,) = Mounts(f"1 0 254:0 /a\\040b\\134040 /c\\011d\\012 {DISK}", "/", signed=True).table
    assert (mount.root, mount.point) == ("/a b\\040", "/c\td\n")


# --- Environment directories ---


@pytest.mark.parametrize(
    ("prefix", "base", "path", "found", "not_found"),
    [
        (
            "/opt/venv",
            "/usr",
            ["/usr/bin", "/", "/app", "/srv/app/src", SP, "", "relative"],
            ["/opt/venv", "/srv/app/src", "/usr/lib/python3/dist-packages", SP],
            ["/", "/app", "/usr/bin", "/usr", "/usr/share", ""],
        ),
        (
            "/usr",
            "/usr",
            ["/usr/lib/python3.11", "/usr/local/lib/python3.11/dist-packages"],
            ["/usr/share", "/usr/etc/jupyter", "/usr/lib/python3/dist-packages", "/usr/lib/python3.11"],
            ["/usr", "/", "/usr/lib"],
        ),
        ("/venv", "/usr", [], ["/venv"], ["/"]),
    ],
)
def test_environment_directories(
    monkeypatch: pytest.MonkeyPatch, prefix: str, base: str, path: list[str], found: list[str], not_found: list[str]
) -> None:
    monkeypatch.setattr(sys, "prefix", prefix)
    monkeypatch.setattr(sys, "base_prefix", base)
    monkeypatch.setattr(sys, "path", path)
    directories = image_mounts.environment_directories()
    assert set(found) <= set(directories)
    assert not set(not_found) & set(directories)


def test_a_path_of_an_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]) -> None:
    real = os.path.realpath(tmp_path)
    table = os.path.join(real, "mountinfo")
    site = f"{real}/site"
    os.makedirs(f"{site}/bound")
    os.makedirs(f"{site}/holds/data")
    os.makedirs(f"{real}/outside")
    os.symlink(f"{real}/outside", f"{site}/linked")
    os.symlink(f"{site}/bound", f"{site}/to-bound")
    lines = [OVERLAY, f"1 68 254:0 /x {site}/bound {DISK}", f"2 68 254:0 /y {site}/holds/data {DISK}"]
    with open(table, "w", encoding="utf-8") as file:
        file.write("\n".join(lines))
    monkeypatch.setattr(image_mounts, "MOUNTINFO", table)
    monkeypatch.setattr(sys, "path", [site])
    monkeypatch.setenv("SINGULARITY_CONTAINER", "x")
    asked = [
        "new",
        "new/deep",
        "bound",
        "bound/x",
        "holds",
        "holds/x",
        "holds/data",
        "linked/x",
        "to-bound",
        "../bound",
    ]
    of = {name: image_mounts.environment_directory(f"{site}/{name}") for name in asked}
    assert {name for name, directory in of.items() if directory == site} == {"new", "new/deep", "holds/x", "linked/x"}
    assert image_mounts.host_mount(f"{site}/to-bound/x") == f"{site}/bound"
    monkeypatch.setattr(image_mounts, "MOUNTINFO", f"{real}/no such file")
    assert image_mounts.environment_directory(f"{site}/new") == ""


def test_a_writable_layer_over_the_image_is_the_images_and_over_the_hosts_is_the_hosts() -> None:
    layer = "overlay sif-writable rw,lowerdir=/opt/venv,upperdir=/u,workdir=/w,userxattr"
    table = [
        OVERLAY,
        f"161 68 254:0 /srv/venv /srv/venv {DISK}",
        f"200 68 0:60 / /opt/venv rw,nosuid,nodev - {layer},volatile",
        f"201 161 0:61 / /srv/venv rw,nosuid,nodev - {layer},fsync=volatile",
        f"202 68 0:62 / /var/log/tool rw,nosuid,nodev - {layer}",  # a declared path
        f"203 200 254:0 /srv/kivy {SP}/kivy {DISK}",
    ]
    mounts = Mounts("\n".join(table), "/usr", signed=True)
    paths = (SP, "/srv/venv/lib", "/var/log/tool", f"{SP}/kivy", "/usr")
    assert [mounts.is_image(path) for path in paths] == [True, False, False, False, True]
    unsigned = Mounts("\n".join(table), "/opt/venv", signed=False)
    assert [unsigned.is_image(path) for path in paths] == [True, False, False, False, True]


@pytest.mark.parametrize("base_prefix", ["/usr", "/cvmfs/python"])
def test_where_no_engine_has_left_its_sign_a_root_that_can_only_be_read_is_the_image(base_prefix: str) -> None:
    """Wherever the interpreter lies: a bind of the host's, such as a shared Python, is none of it."""
    table = Mounts("\n".join(TABLES["an engine without a sign"]), base_prefix, signed=False)
    assert (table.is_image("/usr/lib"), table.is_image("/cvmfs/python/lib")) == (True, False)
