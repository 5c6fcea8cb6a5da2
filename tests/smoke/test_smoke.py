"""Each part once, as users meet it: that it works at all. The other folders ask whether it is right."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

from tests.conftest import BY_COPY
from tests.lab import environments
from tests.lab.environments import PYTHON
from tests.lab.store import ORDINARY_UID
from tests.lab.ways import WAYS

if TYPE_CHECKING:
    from tests.lab.writing_image import Image
    from tests.layer.conftest import Box

SIF_WRITABLE = f"{PYTHON} -m sif_writable"
USE = """
import importlib, json, sys
for name, use in json.load(open("/work-folder/ways.json")):
    module = importlib.import_module(name)
    exec(use, {name: module})
"""
SOME = (
    "open_import",
    "open_use",
    "pathlib_use",
    "sqlite_import",
    "renamed_over_use",
    "regenerated_import",
    "native_use",
)
"""Ways of writing; tests/layer tries all."""
HELD = f"""{PYTHON} -c 'import quiet, sys; print(1, flush=True); sys.stdin.read()' < in > out &
exec 3> in 4< out
read -r line <&4
"""


def test_in_a_layer_everything_can_be_written_at_the_first_run_and_is_kept(box: Box) -> None:
    ways = [way for way in WAYS if way.name in SOME]
    uses = [(way.name, way.use or (f"{way.name}.use()" if way.when == "use" else "")) for way in ways]
    for name, text in (("ways.json", json.dumps(uses)), ("use.py", USE)):
        with open(f"{box.places.work}/{name}", "w", encoding="utf-8") as file:
            file.write(text)
    hook = {"SIF_WRITABLE": ""}
    first = box.shell(f"{PYTHON} use.py; echo --; {PYTHON} use.py", env=hook)
    assert first.stdout.splitlines() == [*["made"] * len(ways), "--"], first
    change = "import quiet; open(quiet.__file__, 'a').write('# x'); open(quiet.__path__[0] + '/new', 'w')"
    held = f'mkfifo in out\n{HELD}{PYTHON} -c "{change}"; {SIF_WRITABLE} status\nexec 3>&-\nwait\n'
    second = box.shell(f"{PYTHON} use.py; {held}", env=hook)
    assert "made" not in second.stdout, second
    assert "layer" in second.stdout, second
    assert "/quiet/__init__.py" in second.stderr
    assert "gone with this container" in second.stderr, second
    words = ["status --json --full", "doctor", "cache list", "cache forget open_import", "cache list --json"]
    words += ["cache prune --dead --all-images", "cache forget pathlib_use", "status --full"]
    script = "\n".join(f"{SIF_WRITABLE} {one} > said-{number}; echo $?" for number, one in enumerate(words))
    third = box.shell(script, env=hook)
    assert third.stdout.split() == ["0"] * len(words), third

    def said(number: int) -> str:
        with open(f"{box.places.work}/said-{number}", encoding="utf-8") as file:
            return file.read()

    assert json.loads(said(0))["schema"] >= 1
    assert "generation" in said(2)
    assert "open_import" in said(3)
    fourth = box.shell(f"{PYTHON} -c 'import open_import, open_use, pathlib_use; pathlib_use.use()'", env=hook)
    assert fourth.stdout == "made\nmade\n", fourth  # what was forgotten is made again
    cleared = box.shell(f"{SIF_WRITABLE} cache clear --yes --all-images; {SIF_WRITABLE} cache list", env=hook)
    assert cleared.returncode == 0, cleared


def test_without_a_layer_copies_serve_what_fails(image: Image) -> None:
    assert image.says("import open_import, twin_a, solo") == "made\nexecuted solo\nexecuted solo\n"
    failed = image.run("import open_use; open_use.use()")
    assert failed.returncode == 1
    assert "sif_writable: open_use writes into its own directory" in failed.stderr
    assert image.says("import open_use; open_use.use()") == "made\n"
    status = image.run(argv=["-m", "sif_writable", "status", "--full"]).stdout
    assert "open_use" in status
    assert image.run("import hopeless").returncode == 1
    caught = "import mkdir_use\ntry: mkdir_use.use()\nexcept OSError: pass\nimport threading\n"
    assert image.run(caught + "threading.Thread(target=mkdir_use.use).start()").returncode == 0
    assert image.says("import mkdir_use; mkdir_use.use()") == "made\n"
    assert image.run("import large", env={"SIF_WRITABLE_PACKAGES": "large"}).returncode == 0
    words = ("forget open_use", "list", "prune --older-than 0d --yes", "forget --all")
    script = " && ".join(f"{SIF_WRITABLE} cache {one}" for one in words)
    done = image.machine.run(["sh", "-c", script], venv=image.environment, env=BY_COPY)
    assert done.returncode == 0, done
    assert image.run("import open_use; open_use.use()").returncode == 1


def test_a_declared_path_and_what_a_command_writes(image: Image) -> None:
    declared = {"SIF_WRITABLE_OVERLAY_PATHS": "/venv/share/outside"}
    make = "import os; there = os.path.isdir('/venv/share/outside/x'); print(there)\n"
    make += "os.makedirs('/venv/share/outside/x', exist_ok=True)"
    assert [image.says(make, env=declared) for _ in range(2)] == ["False\n", "True\n"]
    write = "import open_use; open_use.use(); open('/venv/new', 'w')"
    for options, code in (([], 0), (["--json", "--save"], 1)):  # a path of no package cannot be kept
        traced = image.run(argv=["-m", "sif_writable", "trace", *options, "--", PYTHON, "-c", write])
        assert (traced.returncode, "/venv/new" in traced.stdout) == (code, True), traced
    assert set(json.loads(traced.stdout)["saved"]) == {"open_use"}
    assert image.says("import open_use; open_use.use()") == "made\n"


def test_where_home_is_broken(image: Image) -> None:
    def run(*words: str, **env: str) -> Any:
        return image.machine.run([PYTHON, *words], venv=image.environment, home="/no/such/home", env=env)

    assert run("-c", "import os; open(os.path.expanduser('~/x'), 'w')").returncode == 0
    words = ("env", "run -- true", "doctor", "status --verbose", "cache list --json")
    script = "".join(f"{SIF_WRITABLE} {one} && " for one in words) + f"echo -- && {SIF_WRITABLE} status"
    done = image.machine.run(["sh", "-c", script], venv=image.environment, home="/no/such/home")
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done
    assert "HOME" in done.stdout.rpartition("--\n")[2]
    debug = run("-c", "pass", SIF_WRITABLE_DEBUG="1", SIF_WRITABLE_DIR="/proc/no/place", SIF_WRITABLE_GPU="off")
    assert (debug.returncode, debug.stdout) == (0, "")
    assert "SIF_WRITABLE_DIR=/proc/no/place" in debug.stderr
    refused = run("-c", "import quiet; print('went on')", SIF_WRITABLE_GPU="require", SIF_WRITABLE_HEAVY="quiet")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "sif_writable: before 'import quiet': There is no NVIDIA GPU" in refused.stderr, refused


def test_an_image_is_prepared_and_starts_with_what_was_baked(image: Image, built: str) -> None:
    for name, text in (
        ("broken.py", "def :\n"),
        ("inner.py", "import os\nopen(os.path.join(os.path.dirname(__file__), 'log'), 'a')\n"),
        (
            "matplotlib/__init__.py",
            "import os\nopen(os.environ['MPLCONFIGDIR'] + '/fontlist', 'a').close()\n",
        ),
    ):
        path = f"{environments.packages(built)}/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    if os.getuid() == 0:
        subprocess.run(["chown", "-R", str(ORDINARY_UID), built], check=True)
    target = image.places.new_folder("target")

    def build(*words: str) -> Any:
        binds, env = [f"{target}:/sif-writable"], {"APPTAINER_LABELS": "/x"}
        words = ("-m", "sif_writable", *words)
        return image.machine.run([PYTHON, *words], venv=built, writable=True, binds=binds, env=env)

    assert build("prepare", "--check").returncode == 1
    done = build("prepare", "--packages", "inner", "--gpu-min-memory=20GiB", "--no-user-site")
    assert (done.returncode, done.stderr) == (0, ""), done
    assert build("prepare", "--check").stdout == "up to date\n"
    assert build("prepare", "--no-such-option").returncode == 2
    baked = build("prestage", "--", PYTHON, "-c", "import matplotlib")
    assert baked.returncode == 0, baked
    assert build("prestage", "--", "no-such-command").returncode != 0
    see = "import os; print(os.listdir(os.environ['MPLCONFIGDIR']))"
    assert image.machine.run([PYTHON, "-c", see], venv=built).stdout == "['fontlist']\n"
    with open(f"{environments.packages(built)}/sif_writable.manifest", encoding="utf-8") as file:
        assert {"package: inner", "user-site: no", "gpu-min-memory: 20GiB"} <= set(file.read().splitlines())
