"""What the user has is found where a location moves, at the first start and whenever it comes."""

from __future__ import annotations

import json
import os
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import or_skip
from tests.lab import scratch, wheels
from tests.lab.hooked import DECIDED, write
from tests.lab.plain_machine import WORK

if TYPE_CHECKING:
    from tests.lab.hooked import Hooked

GIVEN = {"SIF_WRITABLE_DIR": f"{WORK}/given"}
MODEL = "0123456789abcdef0123456789abcdef01234567"

# Variable, what a package appends to it, and the file in the user's HOME that it must lead to.
HAD = (
    ("TORCH_HOME", "hub/checkpoints/resnet18-f37072fd.pth", ".cache/torch/hub/checkpoints/resnet18-f37072fd.pth"),
    ("TORCH_HOME", "hub/owner_repo_main/hubconf.py", ".cache/torch/hub/owner_repo_main/hubconf.py"),
    ("HF_DATASETS_CACHE", "squad/plain/1/x.arrow", ".cache/huggingface/datasets/squad/plain/1/x.arrow"),
    ("XDG_CACHE_HOME", "huggingface/token", ".cache/huggingface/token"),
    ("XDG_CACHE_HOME", "pooch/data.nc", ".cache/pooch/data.nc"),  # a package without a variable
    ("SCIKIT_LEARN_DATA", "20news.pkz", "scikit_learn_data/20news.pkz"),
    ("STANZA_RESOURCES_DIR", "en/tokenize/combined.pt", ".cache/stanza/resources/en/tokenize/combined.pt"),
    ("KERAS_HOME", "keras.json", ".keras/keras.json"),
    ("IPYTHONDIR", "profile_default/ipython_config.py", ".ipython/profile_default/ipython_config.py"),
    ("IPYTHONDIR", "profile_default/startup/00-mine.py", ".ipython/profile_default/startup/00-mine.py"),
    ("JUPYTERLAB_SETTINGS_DIR", "@jupyterlab/x.json", ".jupyter/lab/user-settings/@jupyterlab/x.json"),
)
READ = f"{{name: open(os.path.join(os.environ[v], part)).read() for v, part, name in {HAD!r}}}"
LISTS = "{name: os.environ.get(name) for name in ('R_LIBS_USER', 'JULIA_DEPOT_PATH', 'NLTK_DATA', 'UV_CACHE_DIR')}"


def have(hooked: Hooked, *names: str) -> None:
    """Let the user have files in HOME."""
    home = hooked.machine.places.home
    for name in names:
        write(os.path.join(home, name), name)
    for folder, _, _ in os.walk(home):
        os.chmod(folder, 0o755)
        os.chown(folder, os.stat(home).st_uid, -1)


@pytest.fixture
def given(hooked: Hooked) -> dict[str, Any]:
    """Return how to start with a place that the user gave."""
    assert hooked.machine.places.work
    return {"env": {**GIVEN, "SIF_WRITABLE_OPT_IN": "KERAS_HOME"}}


def test_a_given_place_hides_nothing(hooked: Hooked, given: dict[str, Any]) -> None:
    names = [name for _, _, name in HAD]
    have(hooked, *names, "R/x-library/4.4/pkg/x", ".julia/packages/x", "nltk_data/corpora/w", ".cache/uv/x")
    assert hooked.ask(READ, **given) == {name: name for name in names}
    lists = hooked.ask(LISTS, **given)
    assert lists["R_LIBS_USER"].endswith(f":{scratch.HOME}/R/%p-library/%v")
    assert lists["JULIA_DEPOT_PATH"].endswith(f":{scratch.HOME}/.julia:")
    assert (lists["NLTK_DATA"], lists["UV_CACHE_DIR"]) == (None, f"{scratch.HOME}/.cache/uv")
    new = "open(os.path.join(os.environ['TORCH_HOME'], 'hub/checkpoints/new.pth'), 'x').close()"
    assert hooked.ask(new, **given) is None
    assert os.listdir(os.path.join(hooked.machine.places.home, ".cache/torch/hub/checkpoints")) == [
        os.path.basename(HAD[0][1])
    ]


def test_what_comes_after_the_first_start_is_found_from_the_next_one_on(hooked: Hooked, given: dict[str, Any]) -> None:
    for number in range(len(HAD) + 1):
        seen = [name for _, _, name in HAD[:number]]
        if number:
            have(hooked, seen[-1])
        read = READ.replace(repr(HAD), repr(HAD[:number]))
        decided, contents = hooked.ask(f"({DECIDED}, {read})", **given)
        assert contents == {name: name for name in seen}
        assert decided
        for folder, _, plans in os.walk(hooked.machine.places.work):
            for plan in plans:
                if plan.startswith("plan-"):  # it is kept for a minute, else
                    os.utime(os.path.join(folder, plan), (time.time() - 100, time.time() - 100))
    have(hooked)
    hooked.ask("1", **given)
    assert not hooked.ask(DECIDED, **given)


def test_settings_made_where_they_moved_win_and_both_are_found(hooked: Hooked, given: dict[str, Any]) -> None:
    settings = "os.path.join(os.environ['IPYTHONDIR'], 'profile_default')"
    make = f"(os.makedirs({settings}), open({settings} + '/ipython_config.py', 'w').write('moved'))"
    assert hooked.ask(make, **given)
    have(hooked, ".ipython/profile_default/ipython_config.py", ".ipython/profile_default/startup/00.py")
    names = "('ipython_config.py', 'startup/00.py')"
    read = f"[open(os.path.join({settings}, name)).read() for name in {names}]"
    assert hooked.ask(read, **given) == ["moved", ".ipython/profile_default/startup/00.py"]


def test_status_says_in_a_word_what_a_folder_offers(hooked: Hooked, given: dict[str, Any]) -> None:
    have(hooked, HAD[0][2])
    words = ("-m", "sif_writable", "status", "--json", "--no-gpu")
    for _ in range(2):  # decided, and from a kept plan
        model = json.loads(hooked.run(*words, **given).stdout)
        offers = {entry["variable"]: entry["offers"] for entry in model["redirects"]}
        assert (offers["TORCH_HOME"], offers["NUMBA_CACHE_DIR"]) == ("linked", "")
    text = hooked.run("-m", "sif_writable", "status", "--no-gpu", "--verbose", **given).stdout
    (line,) = (line for line in text.splitlines() if "TORCH_HOME" in line)
    assert line.split()[-2:] == ["linked", "data/torch"]


# --- A HOME that can be read but not written.

LATER = (".config/git/config", ".netrc", ".cache/huggingface/token", ".cache/torch/hub/checkpoints/a.pth")


@pytest.fixture
def read_only_home(hooked: Hooked) -> dict[str, Any]:
    """Return how to start with the user's own HOME bound read-only."""
    folder = hooked.machine.places.home
    return {"home": "/host/home", "binds": [f"{folder}:/host/home:ro"]}


def test_what_comes_in_a_home_that_cannot_be_written_is_found(hooked: Hooked, read_only_home: dict[str, Any]) -> None:
    have(hooked, ".config/git/ignore", ".cache/torch/hub/checkpoints/b.pth")
    paths = {
        LATER[0]: "os.path.expanduser('~/.config/git/config')",
        LATER[1]: "os.path.expanduser('~/.netrc')",
        LATER[2]: "os.environ['XDG_CACHE_HOME'] + '/huggingface/token'",
        LATER[3]: "os.environ['TORCH_HOME'] + '/hub/checkpoints/a.pth'",
    }
    there = "{" + ", ".join(f"{name!r}: os.path.exists({path})" for name, path in paths.items()) + "}"
    assert hooked.ask(there, **read_only_home) == dict.fromkeys(LATER, False)
    assert hooked.ask(f"({DECIDED}, 'NLTK_DATA' in os.environ)", **read_only_home) == (False, False)
    have(hooked, *LATER)
    assert hooked.ask(there, **read_only_home) == dict.fromkeys(LATER, True)
    # A user's own file is a link, as its settings change there.
    assert hooked.ask(f"os.path.realpath({paths[LATER[1]]})", **read_only_home) == "/host/home/.netrc"
    for name in (LATER[1], LATER[2]):
        os.unlink(os.path.join(hooked.machine.places.home, name))
    gone = f"[os.path.lexists(path) for path in ({paths[LATER[1]]}, {paths[LATER[2]]})]"
    assert hooked.ask(gone, **read_only_home) == [False, False]


# --- A real package, without network.

HUB = """
import os
from huggingface_hub import snapshot_download, try_to_load_from_cache, scan_cache_dir
print(open(try_to_load_from_cache("owner/model", "config.json")).read())
print(os.path.isfile(os.path.join(snapshot_download("owner/model", local_files_only=True), "config.json")))
print(len(scan_cache_dir().repos))
"""


def test_huggingface_hub_finds_its_models_offline(hooked: Hooked, given: dict[str, Any]) -> None:
    version = hooked.python.name.partition("-")[0]
    packages = or_skip(wheels.installed, "huggingface-hub", ("huggingface-hub==1.33.0",), version)
    model = os.path.join(hooked.machine.places.home, ".cache/huggingface/hub/models--owner--model")
    write(f"{model}/blobs/12ab", "weights")
    write(f"{model}/refs/main", MODEL)
    os.makedirs(f"{model}/snapshots/{MODEL}")
    os.symlink("../../blobs/12ab", f"{model}/snapshots/{MODEL}/config.json")
    have(hooked)
    env = {**given["env"], "HF_HUB_OFFLINE": "1", "PYTHONPATH": "/packages"}
    result = hooked.run("-c", HUB, env=env, binds=[f"{packages}:/packages:ro"])
    assert (result.returncode, result.stdout.split()) == (0, ["weights", "True", "1"]), result.stderr


# --- What an image brings, and what is downloaded in it.

MODELS = "sorted(os.listdir(os.environ['HF_HUB_CACHE']))"


def test_what_is_downloaded_in_an_image_that_brings_models_is_found_in_the_next_one(
    hooked: Hooked, given: dict[str, Any]
) -> None:
    """The links to its own models lead into the image, so its downloads lie in a folder of its own."""
    assert hooked.ask("os.makedirs(os.environ['HF_HUB_CACHE'])", **given) is None  # decided before there is any
    image = hooked.copy()
    seed = image.ask("os.path.dirname(sys.modules['sif_writable'].__path__[0]) + '/baked'")

    def bring(model: str) -> None:
        image.write(f"baked/models--{model}/config.json", model)
        image.write("sif_writable.manifest", f"stamp: {model}\nseed: HF_HUB_CACHE {seed}\n\n")

    bring("one")
    assert image.ask("os.makedirs(os.environ['HF_HUB_CACHE'] + '/models--fetched')", **given) is None
    assert image.ask(MODELS, **given) == ["models--fetched", "models--one"]
    shutil.rmtree(os.path.join(image.packages, "baked"))
    bring("two")  # the image is built again, with another model
    assert image.ask(MODELS, **given) == ["models--fetched", "models--two"]
    assert hooked.ask(MODELS, **given) == ["models--fetched"]
