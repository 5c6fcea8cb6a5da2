"""What happens in every mode of Apptainer, and in a root that the kernel mounts: one table, real packages, real images.

Each row says which storage is chosen, what becomes of HOME, where the caches are found after the container has ended,
and which of the packages fail there without the hook. Whatever the row, the packages work, and work from their caches
the second time.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, NamedTuple, Protocol

import pytest

from tests.apptainer import probe
from tests.lab.store import ORDINARY_UID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from subprocess import CompletedProcess

    from tests.apptainer.conftest import Rebuilt
    from tests.apptainer.probe import Seen, Use
    from tests.lab.apptainer_root import Apptainer
    from tests.lab.scratch import Scratch
    from tests.lab.squashfs_root import SquashfsRoot


class Chosen(NamedTuple):
    """A place that `status` names, and the folder that is used in it; `{home}` is the value of HOME."""

    label: str
    folder: str


NAME = f"sif-writable-{ORDINARY_UID}"
IN_HOME = Chosen("the user's cache directory", "{home}/.cache/sif-writable")
IN_BIND = Chosen("the bind at /sif-writable", "/sif-writable")
IN_ROOT = Chosen("the image's own /var/cache, writable here", "/var/cache/sif-writable")
IN_VAR_TMP = Chosen("/var/tmp", f"/var/tmp/{NAME}")
IN_TMP = Chosen("/tmp", f"/tmp/{NAME}")
IN_MEMORY = Chosen("/dev/shm", f"/dev/shm/{NAME}")


def everything(place: Chosen, runtime: Chosen | None = None) -> dict[str, Chosen]:
    """Say that all kinds go to one place; sockets move only where the row says so."""
    chosen = dict.fromkeys(("compiled", "config", "data"), place)
    return chosen if runtime is None else {**chosen, "runtime": runtime}


LIKE_HOST: dict[str, Chosen] = {}
ALL = frozenset(probe.PACKAGES)
KIVY = frozenset({"kivy"})
NONE: frozenset[str] = frozenset()
READ_ONLY = "is on a read-only filesystem"


class Row(NamedTuple):
    """One way to run an image."""

    options: str
    """Of Apptainer; `{folder}` is an empty folder outside, `{ext3}` an overlay image. For `kernel`: `overlay_tmpfs`."""
    storage: dict[str, Chosen]
    """The place of each kind; nothing where the hook leaves the process alone."""
    private_home: bool
    """Whether HOME is repaired."""
    kept_in: str
    """What holds the compiled kernels afterwards, of the folders outside; empty where they end with the container."""
    fails: frozenset[str]
    """The packages that fail, complain, or use a temporary cache without us."""
    refused: tuple[tuple[str, str], ...] = ()
    """The places that were looked at and not taken."""
    image: str = "sif"
    """The test image; `rebuilt`, that image again as a sandbox; or `kernel`, the test image mounted by the kernel."""


ROWS = [
    Row("", everything(IN_HOME), private_home=False, kept_in="home", fails=NONE),
    Row("--no-home", everything(IN_VAR_TMP, IN_TMP), private_home=True, kept_in="var_tmp", fails=ALL),
    # HOME, /tmp and /var/tmp are one tmpfs of 64 MiB, so the job's memory is the better place.
    Row("--containall", everything(IN_MEMORY, IN_MEMORY), private_home=False, kept_in="", fails=NONE),
    Row("--contain --workdir {folder}", everything(IN_HOME), private_home=False, kept_in="folder", fails=NONE),
    Row(
        "--no-mount home,tmp,cwd",
        everything(IN_MEMORY, IN_MEMORY),
        private_home=True,
        kept_in="shm",
        fails=ALL,
    ),
    Row("--writable-tmpfs", LIKE_HOST, private_home=False, kept_in="", fails=NONE),
    # A missing HOME can be made there, which only some packages do. The root is on the 64 MiB of the session.
    Row("--writable-tmpfs --no-home", everything(IN_VAR_TMP, IN_TMP), private_home=True, kept_in="var_tmp", fails=KIVY),
    Row("--overlay {folder}", LIKE_HOST, private_home=False, kept_in="folder", fails=NONE),
    Row("--overlay {folder} --no-home", everything(IN_ROOT, IN_TMP), private_home=True, kept_in="folder", fails=KIVY),
    Row("--overlay {ext3}", LIKE_HOST, private_home=False, kept_in="ext3", fails=NONE),
    Row("--overlay {ext3}:ro", everything(IN_HOME), private_home=False, kept_in="home", fails=NONE),
    Row(
        "--bind {folder}:/sif-writable",
        everything(IN_BIND, IN_TMP),
        private_home=False,
        kept_in="folder",
        fails=NONE,
    ),
    Row(
        "--bind {folder}:/sif-writable:ro",
        everything(IN_HOME),
        private_home=False,
        kept_in="home",
        fails=NONE,
        refused=((IN_BIND.label, READ_ONLY),),
    ),
    Row("--home {folder}", everything(IN_HOME), private_home=False, kept_in="folder", fails=NONE),
    Row("--cleanenv", everything(IN_HOME), private_home=False, kept_in="home", fails=NONE),
    Row("--fakeroot", everything(IN_HOME), private_home=False, kept_in="home", fails=NONE),
    # Everybody is uid 0 there; the folder in the shared place must be this user's all the same.
    Row("--fakeroot --no-home", everything(IN_VAR_TMP, IN_TMP), private_home=True, kept_in="var_tmp", fails=ALL),
    Row("", everything(IN_HOME), private_home=False, kept_in="home", fails=NONE, image="rebuilt"),
    # The bind comes from the filesystem that the root is on.
    Row(
        "--writable --bind {folder}:/sif-writable",
        everything(IN_BIND, IN_TMP),
        private_home=False,
        kept_in="folder",
        fails=NONE,
        image="rebuilt",
    ),
    # As a setuid installation mounts it: the files are root's, and the image has no folder for this user.
    Row("", everything(IN_VAR_TMP, IN_TMP), private_home=True, kept_in="var_tmp", fails=ALL, image="kernel"),
    Row(
        "overlay_tmpfs", everything(IN_VAR_TMP, IN_TMP), private_home=True, kept_in="var_tmp", fails=ALL, image="kernel"
    ),
]


def _name(row: Row) -> str:
    return f"{row.image} {row.options}".rstrip()


class Look(Protocol):
    """Runs the probe as a row says."""

    def __call__(self, times: int, *, off: bool = False) -> Seen:
        """Use the packages that many times in one container, perhaps without the hook; return what was seen."""


@pytest.fixture(params=ROWS, ids=_name)
def row(request: pytest.FixtureRequest) -> Row:
    """Return the rows in turn."""
    asked: Row = request.param
    return asked


@pytest.fixture
def look(row: Row, request: pytest.FixtureRequest) -> Look:
    """Return what runs the probe, always in the same folders."""
    with open(probe.__file__, encoding="utf-8") as file:
        text = file.read()
    if row.image == "kernel":
        kernel: SquashfsRoot = request.getfixturevalue("squashfs_root")
        writable = row.options == "overlay_tmpfs"

        def run(argv: Sequence[str], *, off: bool) -> CompletedProcess[str]:
            return kernel.run(argv, env={"SIF_WRITABLE": "off"} if off else {}, overlay_tmpfs=writable)
    else:
        apptainer: Apptainer = request.getfixturevalue("apptainer")
        rebuilt: Rebuilt | None = request.getfixturevalue("rebuilt") if row.image == "rebuilt" else None
        image: str = rebuilt.folder if rebuilt else request.getfixturevalue("sif")
        options = _fill(row.options, apptainer).split()

        def run(argv: Sequence[str], *, off: bool) -> CompletedProcess[str]:
            return apptainer.exec(image, argv, options=[*options, *(["--env", "SIF_WRITABLE=off"] if off else [])])

    def look(times: int, *, off: bool = False) -> Seen:
        result = run(["/opt/venv/bin/python", "-S", "-c", text, str(times)], off=off)
        assert (result.returncode, result.stderr) == (0, "")
        seen: Seen = json.loads(result.stdout)
        return seen

    return look


def _fill(options: str, apptainer: Apptainer) -> str:
    """Make what the options name, and name it as Apptainer sees it."""
    folder, overlay = (os.path.join(apptainer.places.folder, name) for name in ("folder", "overlay.img"))
    if "{folder}" in options:
        apptainer.places.new_folder("folder")
    if "{ext3}" in options:
        made = apptainer.run(["--silent", "overlay", "create", "--size", "64", apptainer.inside(overlay)])
        assert made.returncode == 0, made.stderr
    return options.format(folder=apptainer.inside(folder), ext3=apptainer.inside(overlay))


@pytest.fixture(scope="module")
def identities() -> dict[str, str]:
    """Keep the identity of each image from row to row; `kernel` mounts the same image as `sif`."""
    return {}


_CACHED = {"numba": ".nbi", "matplotlib": "fontlist-", "kivy": "config.ini"}
"""What must be in each cache."""
_NORMAL = re.compile(
    r"\[(INFO|DEBUG) |\[WARNING\] \[Config  .*(Older|Upgrading) config|Matplotlib is building the font cache"
)
"""Kivy's log, and what takes long the first time."""


def _complaint(use: Use) -> str:
    """Return what a package has to complain about, or an empty string."""
    lines = [line for line in use["said"].splitlines() if not _NORMAL.match(line)]
    return "\n".join(lines) or (f"ended with {use['code']}" if use["code"] else "")


def _rewritten(row: Row, first: Use, second: Use) -> set[str]:
    """Return the cached files that the second use has made, written or removed."""
    # fuse-overlayfs corrects a time when it writes the file back; ext3 keeps whole seconds. The second use is later.
    slack = 10**9 if "overlay" in row.options or "tmpfs" in row.options else 0
    before, after = first["files"], second["files"]
    return {path for path in {*before, *after} if abs(after.get(path, 0) - before.get(path, 0)) > slack}


def test_packages_work_and_then_work_from_their_caches(
    row: Row, look: Look, places: Scratch, identities: dict[str, str]
) -> None:
    seen = look(1 if row.kept_in else 2)
    rounds = seen["rounds"]
    if row.kept_in:  # another container then finds what the first one has left
        seen = look(1)
        rounds = rounds + seen["rounds"]
    _check_status(row, seen)
    _check_places(seen)
    _check_identity(row, seen["status"]["container"]["identity"], identities)
    assert "sif_writable.storage.make" not in seen["modules"], "a warm start makes nothing"
    for name, (first, second) in {name: (rounds[0][name], rounds[1][name]) for name in _CACHED}.items():
        assert (name, _complaint(first), _complaint(second)) == (name, "", "")
        assert any(_CACHED[name] in os.path.basename(path) for path in first["files"]), first["files"]
        assert _rewritten(row, first, second) == set()
    assert rounds[1]["numba"]["hits"] == 1
    if row.kept_in != "ext3":  # we cannot look into that, but the second container has found it there
        assert _kernels(places) == ([row.kept_in] if row.kept_in else [])


def test_what_fails_without_the_hook(row: Row, look: Look) -> None:
    seen = look(1, off=True)
    assert (seen["status"]["hook"]["state"], seen["status"]["storage"]) == ("off", [])
    failing = {name: _complaint(use) for name, use in seen["rounds"][0].items()}
    assert {name for name, complaint in failing.items() if complaint} == row.fails, failing


def _check_status(row: Row, seen: Seen) -> None:
    status, home = seen["status"], seen["status"]["home"]
    assert seen["said"] == ""
    assert status["hook"]["state"] == ("active" if row.storage else "writable")
    found = {entry["kind"]: (entry["place"], entry["folder"]) for entry in status["storage"]}
    assert found.keys() == row.storage.keys()
    for kind, chosen in row.storage.items():
        place, folder = found[kind]
        root = chosen.folder.format(home=home["value"])
        assert (kind, place, folder[: len(root) + 1]) == (kind, chosen.label, root + "/")
    assert [(entry["place"], entry["why"]) for entry in status["refused"]] == list(row.refused)
    assert status["notes"] == []
    assert home["private"] is row.private_home
    if row.private_home:
        image = f"image-{status['container']['identity']}"
        assert home["value"] == f"{row.storage['config'].folder}/{image}/home"


def _check_places(seen: Seen) -> None:
    """Each cache is in the folder of its kind, whatever HOME is by then."""
    folders = {entry["kind"]: entry["folder"] for entry in seen["status"]["storage"]}
    for name, kind in {"numba": "compiled", "matplotlib": "config"}.items() if folders else ():
        files = seen["rounds"][-1][name]["files"]
        assert [path for path in files if not path.startswith(f"{folders[kind]}/{name}/")] == []


def _check_identity(row: Row, identity: str, identities: dict[str, str]) -> None:
    image = "rebuilt" if row.image == "rebuilt" else "sif"
    assert identities.setdefault(image, identity) == identity, "the same image has the same identity in every mode"
    assert list(identities.values()).count(identity) == 1, "another image has another one"


def _kernels(places: Scratch) -> list[str]:
    """Return which of the folders outside hold compiled kernels."""
    folders = {name: getattr(places, name) for name in ("home", "tmp", "var_tmp", "shm", "work")}
    folders["folder"] = os.path.join(places.folder, "folder")
    return [name for name, folder in folders.items() if _holds(folder, ".nbi")]


def _holds(folder: str, ending: str) -> bool:
    return any(name.endswith(ending) for _, _, names in os.walk(folder) for name in names)
