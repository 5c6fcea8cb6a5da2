"""`sif-writable prestage` in the `%post` of a real image: real packages, and what their first use writes then."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import or_skip
from tests.lab import built, wheels

if TYPE_CHECKING:
    from tests.lab.apptainer_root import Apptainer, Runtime
    from tests.lab.built import Built

WARM = """
import numba, kivy, matplotlib.pyplot
from fontTools.misc import arrayTools
numba.njit(cache=True)(arrayTools.rectArea)((0.0, 0.0, 3.0, 2.0))
import os
torch = os.path.join(os.environ["TORCH_HOME"], "hub", "checkpoints")
os.makedirs(torch)
with open(os.path.join(torch, "weights.pth"), "wb") as file:
    file.write(b"w" * (3 << 20))
with open(os.path.join(torch, "list.txt"), "w") as file:
    file.write("weights.pth")
nltk = os.path.join(os.environ["NLTK_DATA"], "corpora")
os.makedirs(nltk)
with open(os.path.join(nltk, "words"), "w") as file:
    file.write("words")
"""
POST = f"""
cat > /warm.py <<'END'
{WARM}END
sif-writable prestage -- python /warm.py
! sif-writable prestage -- sh -c 'touch "$MPLCONFIGDIR/half"; exit 5'
sif-writable prepare
sif-writable prepare --check
"""
NUMBA = """
import numba
from fontTools.misc import arrayTools
area = numba.njit(cache=True)(arrayTools.rectArea)
assert area((0.0, 0.0, 3.0, 2.0)) == 6.0
result = (sum(area.stats.cache_hits.values()), sum(area.stats.cache_misses.values()))
"""
MATPLOTLIB = """
import matplotlib.pyplot, matplotlib.font_manager
result = len(matplotlib.font_manager.fontManager.ttflist) > 10
"""
# Files are compared from after the start of the interpreter, when the hook has offered the seeds.
LOOK = """
import json, os
def files():
    return {{
        os.path.join(here, name): os.lstat(os.path.join(here, name)).st_ctime_ns
        for top in {tops} for here, _, names in os.walk(top) for name in names
        if "/packages-" not in here  # our own list of packages that write
        if "/layer" not in here  # what makes the environment writable
    }}
before = files()
{program}
after = files()
print(json.dumps([result, sorted(path for path, what in after.items() if before.get(path) != what)]))
"""
MODES = {
    "home": [],
    "no home": ["--no-home"],
    "contained": ["--containall"],
    "bind": ["--bind", "{store}:/sif-writable"],
}


@pytest.fixture(scope="module")
def prestaged(apptainer_runtime: Runtime) -> Built:
    """Return an image with warm caches."""
    assert apptainer_runtime
    made: Built = or_skip(built.built, POST)
    return made


def use(apptainer: Apptainer, image: str, program: str, options: list[str]) -> tuple[Any, list[str]]:
    """Run a program in a fresh container; return its result, and the files that it wrote or changed."""
    store = os.path.join(apptainer.places.folder, "store")
    if not os.path.isdir(store):
        apptainer.places.new_folder("store")
    options = [option.format(store=apptainer.inside(store)) for option in options]
    tops = [apptainer.home, "/tmp", "/var/tmp", "/dev/shm", "/sif-writable"]
    done = apptainer.exec(image, ["python", "-c", LOOK.format(tops=tops, program=program)], options=options)
    assert done.returncode == 0, done.stderr
    result, written = json.loads(done.stdout)
    return result, written


def test_the_report(prestaged: Built) -> None:
    output = prestaged.output
    assert "baked:" in output
    for variable in ("MPLCONFIGDIR", "NUMBA_CACHE_DIR", "KIVY_HOME", "TORCH_HOME", "NLTK_DATA"):
        assert variable in output
    assert "there is no GPU here" in output
    assert "NUMBA_CPU_NAME=generic" in output
    assert "failed with exit code 5; nothing of it is baked" in output
    assert "up to date" in output


@pytest.mark.parametrize("mode", MODES)
def test_a_first_use_rebuilds_nothing(apptainer: Apptainer, prestaged: Built, mode: str) -> None:
    result, written = use(apptainer, prestaged.path, NUMBA, MODES[mode])
    assert result == [1, 0]
    assert written == []
    result, written = use(apptainer, prestaged.path, MATPLOTLIB, MODES[mode])
    assert result is True
    assert written == []


def test_without_prestaging_it_does(apptainer: Apptainer, sif: str) -> None:
    result, written = use(apptainer, sif, NUMBA, [])
    assert result == [0, 1]
    assert [path for path in written if path.endswith(".nbi")]
    _, written = use(apptainer, sif, MATPLOTLIB, [])
    assert [path for path in written if "fontlist" in path]


def test_what_comes_later_is_kept_beside_the_seeds(apptainer: Apptainer, prestaged: Built) -> None:
    other = NUMBA.replace("(0.0, 0.0, 3.0, 2.0)", "(0, 0, 3, 2)").replace("6.0", "6")
    result, written = use(apptainer, prestaged.path, other, [])
    assert result == [0, 1]
    assert written
    assert use(apptainer, prestaged.path, other, []) == ([1, 0], [])
    assert use(apptainer, prestaged.path, NUMBA, []) == ([1, 0], [])


def test_downloads_are_read_where_they_are(apptainer: Apptainer, prestaged: Built) -> None:
    """A large file is a link into the image, a small one a copy; a list of places has the image's own as a second."""
    program = """
root = os.environ["TORCH_HOME"] + "/hub/checkpoints/"
with open(root + "new.pth", "w") as file:
    file.write("new")
result = {
    "link": os.readlink(root + "weights.pth"), "size": os.path.getsize(root + "weights.pth"),
    "list": [os.path.islink(root + "list.txt"), open(root + "list.txt").read()],
    "torch": os.environ["TORCH_HOME"], "nltk": os.environ["NLTK_DATA"].split(":"),
    "hf": os.environ.get("HF_HUB_CACHE"),
}
"""
    result, written = use(apptainer, prestaged.path, program, [])
    assert result["link"] == "/opt/venv/share/sif-writable/seed/data/torch/hub/checkpoints/weights.pth"
    assert result["size"] == 3 << 20
    assert result["list"] == [False, "weights.pth"]
    assert "/image-" in result["torch"]  # and not where other images would follow its links
    assert result["hf"] is None  # nothing was baked for it: HOME works, and it stays there
    assert result["nltk"][1] == "/opt/venv/share/sif-writable/seed/data/nltk"
    assert [os.path.basename(path) for path in written] == ["new.pth"]


def test_what_the_user_has_is_found_beside_what_the_image_brings(apptainer: Apptainer, prestaged: Built) -> None:
    own = os.path.join(apptainer.places.home, ".cache", "torch", "hub", "checkpoints")
    os.makedirs(own)
    with open(os.path.join(own, "mine.pth"), "w", encoding="utf-8") as file:
        file.write("mine")
    program = 'result = open(os.environ["TORCH_HOME"] + "/hub/checkpoints/mine.pth").read()'
    assert use(apptainer, prestaged.path, program, [])[0] == "mine"


def test_the_users_own_setting_wins(apptainer: Apptainer, prestaged: Built) -> None:
    done = apptainer.exec(
        prestaged.path,
        ["python", "-c", "import os; print(os.environ['TORCH_HOME'])"],
        env={"APPTAINERENV_TORCH_HOME": "/tmp/torch"},
    )
    assert done.stdout == "/tmp/torch\n"


def test_a_second_user_of_the_image_can_read_everything(apptainer: Apptainer, prestaged: Built) -> None:
    words = [
        "sh",
        "-c",
        "find /opt/venv/share/sif-writable ! -perm -a+r | head; find /opt/venv/share -name '*.before*'",
    ]
    done = apptainer.exec(prestaged.path, words)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_cache_command_tells_two_images_apart(apptainer: Apptainer, prestaged: Built, sif: str) -> None:
    for image in (prestaged.path, sif):
        assert use(apptainer, image, NUMBA, [])
    listed = json.loads(apptainer.exec(sif, ["sif-writable", "cache", "list", "--json"]).stdout)
    images = {image["name"]: image for root in listed["roots"] for image in root["images"]}
    assert images[apptainer.inside(sif)]["this"] is True
    assert images[apptainer.inside(prestaged.path)]["this"] is False
    assert {image["prefix"] for image in images.values()} == {"/opt/venv"}
    numba = [entry for root in listed["roots"] for entry in root["entries"] if entry["name"] == "numba"]
    assert sorted(entry["this_image"] for entry in numba) == [False, True]
    # Beside a process of the image that loses its caches, and then gets its seeds again.
    cleared = [f"image-{images[apptainer.inside(prestaged.path)]['identity']}"]
    done = apptainer.exec(sif, ["sif-writable", "cache", "clear", "--yes", "--all-images", *cleared])
    assert done.returncode == 0, done.stderr
    assert use(apptainer, prestaged.path, NUMBA, []) == ([1, 0], [])
    own = ["sif-writable", "cache", "clear", "--yes", "numba", "matplotlib"]
    assert apptainer.exec(prestaged.path, own).returncode == 0
    assert use(apptainer, prestaged.path, MATPLOTLIB, []) == (True, [])


def test_the_cache_command_outside_of_any_image(apptainer: Apptainer, prestaged: Built) -> None:
    """On a login node the same storage is found in HOME, and no image is this one."""
    use(apptainer, prestaged.path, NUMBA, [])
    environ = {"PYTHONPATH": apptainer.inside(wheels.project_wheel()), "SIF_WRITABLE": "off"}
    done = apptainer.beside(["python3", "-m", "sif_writable", "cache", "list", "--json"], env=environ)
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    assert listed["image"] is None
    assert [image["this"] for root in listed["roots"] for image in root["images"]] == [False]
    done = apptainer.beside(["python3", "-m", "sif_writable", "cache", "clear", "--yes", "numba"], env=environ)
    assert (done.returncode, "add --everywhere" in done.stderr) == (2, True)  # no image runs, so no storage was chosen
    words = ["python3", "-m", "sif_writable", "cache", "clear", "--yes", "numba", "--everywhere", "--all-images"]
    done = apptainer.beside(words, env=environ)
    assert (done.returncode, "of 1 image in " in done.stderr) == (0, True), done
    assert not [here for here, _, _ in os.walk(apptainer.places.home) if here.endswith("/numba")]
