"""What one start hands down, what it ignores, and what it says: in a real image."""

from __future__ import annotations

import json
import os
import re
import shlex
import zipfile
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.lab.store import ORDINARY_UID

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from subprocess import CompletedProcess

    from tests.apptainer.conftest import Rebuilt
    from tests.lab.apptainer_root import Apptainer
    from tests.lab.squashfs_root import SquashfsRoot

PYTHON = "/opt/venv/bin/python"
DESCRIBE = """
import json, os, sif_writable as hook
print(json.dumps([hook.state, dict(os.environ)]), flush=True)
"""
# Reports, and has its children report: one of its own, one through a shell, and one whose environment was cleaned.
FAMILY = """
import subprocess, sys
describe = sys.argv[1]
exec(describe)
for words in ([], ["sh", "-c", '"$@"; exit $?', "sh"], ["env", "-i"]):
    subprocess.run([*words, sys.executable, "-c", describe], check=True)
"""
REMEDY = "Remedy: bind a directory of yours that can be written there, or name another one."
UNBOUND = "Remedy: bind it (apptainer exec --bind /nowhere), or name another directory."


class Report(NamedTuple):
    """What an interpreter reported about itself."""

    state: str
    env: dict[str, str]

    @property
    def session(self) -> dict[str, str]:
        """What the hook has set."""
        names = [entry.partition("=")[0] for entry in self.env["SIF_WRITABLE_SESSION"].split(";")[2].split(",")]
        assert "NUMBA_CACHE_DIR" in names
        return {name: self.env[name] for name in (*names, "SIF_WRITABLE_SESSION")}


def reports(result: CompletedProcess[str]) -> list[Report]:
    """Return what each interpreter reported, in order."""
    assert result.returncode == 0, result
    return [Report(*json.loads(line)) for line in result.stdout.splitlines()]


class Image:
    """The test image, in a container of its own for each command."""

    def __init__(self, apptainer: Apptainer, sif: str) -> None:
        """Take what to run, and with what."""
        self.apptainer = apptainer
        self.sif = sif

    def run(
        self, argv: Sequence[str], *, options: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> CompletedProcess[str]:
        """Run a command."""
        return self.apptainer.exec(self.sif, argv, options=options, env=env)

    def shell(self, script: str, **where: Any) -> CompletedProcess[str]:
        """Run a shell script, in which `$DESCRIBE` is the program that reports."""
        return self.run(["sh", "-c", f"DESCRIBE=$1\n{script}", "sh", DESCRIBE], **where)

    def family(self, **where: Any) -> CompletedProcess[str]:
        """Let an interpreter report, and its children."""
        return self.run([PYTHON, "-c", FAMILY, DESCRIBE], **where)

    def bind(self, mode: str = "") -> list[str]:
        """Return the options that bind a folder to /data."""
        return ["--bind", f"{self.apptainer.inside(self.folder())}:/data{mode}"]

    def folder(self) -> str:
        """Return a folder outside."""
        return self.apptainer.places.new_folder("folder")


@pytest.fixture
def image(apptainer: Apptainer, sif: str) -> Image:
    """Return the test image."""
    return Image(apptainer, sif)


# --- Handed down.


def test_children_inherit_and_a_cleaned_environment_is_made_good(image: Image) -> None:
    result = image.family(options=["--no-home"])
    own, child, through_shell, cleaned = reports(result)
    assert [one.state for one in (own, child, through_shell, cleaned)] == ["active", "inherited", "inherited", "active"]
    assert own.session["HOME"].startswith("/var/tmp/")
    assert child.session == own.session
    assert through_shell.session == own.session
    values = {name: value for name, value in own.session.items() if name != "SIF_WRITABLE_SESSION"}
    assert {name: cleaned.env.get(name) for name in values} == values
    assert result.stderr == ""


@pytest.mark.parametrize(
    "storage", ["/sif-writable", f"/var/tmp/sif-writable-{ORDINARY_UID}"], ids=["gone", "still there"]
)
def test_a_session_of_another_container_is_nobodys_wish(image: Image, storage: str) -> None:
    binds = ["--bind", f"{image.apptainer.inside(image.folder())}:/sif-writable"] if storage == "/sif-writable" else []
    (first,) = reports(image.run([PYTHON, "-c", DESCRIBE], options=["--no-home", *binds]))
    assert (first.state, first.session["HF_HUB_CACHE"]) == ("active", f"{storage}/data/huggingface-hub")
    # As when the second container is started from within the first one; between them the user has set one variable.
    left = {name: value for name, value in first.env.items() if name in first.session or "SIF_WRITABLE" in name}
    (second,) = reports(image.run([PYTHON, "-c", DESCRIBE], env={**left, "HF_HUB_CACHE": "/of/mine"}))
    here = f"{second.env['HOME']}/.cache/sif-writable/"
    assert (second.state, second.env["HF_HUB_CACHE"]) == ("active", "/of/mine")
    assert second.session["NUMBA_CACHE_DIR"].startswith(here)
    assert [name for name, value in second.env.items() if f"{storage}/" in value.replace(here, "")] == []


def test_what_an_image_declares_is_not_demanded_of_another(image: Image) -> None:
    folder = image.folder()
    with open(f"{folder}/manifest", "w", encoding="utf-8") as file:
        file.write("overlay: /var/log/tool it writes there\nheavy: declared_heavy\n")
    target = "/opt/venv/lib/python3.11/site-packages/sif_writable.manifest"
    manifest = ["--bind", f"{image.apptainer.inside(folder)}/manifest:{target}:ro"]
    (first,) = reports(image.run([PYTHON, "-c", DESCRIBE], options=manifest, env={"SIF_WRITABLE_HEAVY": "mine"}))
    assert first.env["SIF_WRITABLE_HEAVY"] == "mine,,declared_heavy"
    assert first.env["SIF_WRITABLE_OVERLAY_PATHS"] == "::/var/log/tool"
    left = {name: value for name, value in first.env.items() if name in first.session or "SIF_WRITABLE" in name}
    (second,) = reports(image.run([PYTHON, "-c", DESCRIBE], env=left))
    assert (second.state, second.env["SIF_WRITABLE_HEAVY"]) == ("active", "mine")
    assert "SIF_WRITABLE_OVERLAY_PATHS" not in second.env


def test_the_shell_gets_the_same_by_env(image: Image) -> None:
    script = f"""{PYTHON} -c "$DESCRIBE"
    eval "$(sif-writable env --shell sh)"
    {PYTHON} -c "$DESCRIBE"
    sh -c 'printf "[\\"%s\\", {{}}]\\n" "$NUMBA_CACHE_DIR"'"""
    python, evaluated, shell = reports(image.shell(script, options=["--no-home"]))
    assert (python.state, evaluated.state) == ("active", "inherited")
    assert evaluated.session == python.session
    assert shell.state == python.session["NUMBA_CACHE_DIR"]


def test_a_command_gets_the_same_by_run(image: Image) -> None:
    script = f"""{PYTHON} -c "$DESCRIBE"
    sif-writable run -- sh -c 'printf "[\\"%s\\", {{}}]\\n" "$NUMBA_CACHE_DIR"; exit 7'
    printf '["%s", {{}}]\\n' $?
    sif-writable run -- {PYTHON} -c "$DESCRIBE" """
    python, command, code, child = reports(image.shell(script))
    assert (command.state, code.state) == (python.session["NUMBA_CACHE_DIR"], "7")
    assert (child.state, child.session) == ("inherited", python.session)


# --- The build.


def test_a_build_leaves_nothing_of_ours_in_the_image(rebuilt: Rebuilt, apptainer: Apptainer) -> None:
    careful, careless, tested = rebuilt.output.splitlines()
    assert (careful, careless) == ("build None", "build None")
    # %test runs in the finished image, which is read-only: what it wants to write goes elsewhere. Without further ids
    # it is in a namespace within another, and who the user is outside does not show.
    name = f"sif-writable-{0 if os.getuid() else ORDINARY_UID}"
    assert tested == f"test: /var/tmp/{name}/data"
    ours = re.compile(r"\.sif-writable|\.new-|image-[0-9a-f]{16}|sif-writable-\d+")
    assert [name for _, folders, files in os.walk(rebuilt.folder) for name in folders + files if ours.match(name)] == []
    assert os.listdir(os.path.join(rebuilt.folder, "sif-writable")) == []
    assert os.listdir(rebuilt.places.var_tmp) == [name]
    # Later, it is a run like any other.
    later = apptainer.run(["--silent", "test", apptainer.inside(rebuilt.folder)])
    assert (later.returncode, later.stderr) == (0, "")
    assert later.stdout.endswith("/.cache/sif-writable/data\n")


# --- A place that the user names.


@pytest.mark.parametrize(
    ("mode", "value", "problem"),
    [
        ("", "/data", ""),
        ("", "/data/made/of/late", ""),
        (":ro", "/data", "is on a read-only filesystem"),
        (":ro", "/data/x", "does not exist and cannot be made: '/data' is on a read-only filesystem"),
        ("", "/nowhere/x", "does not exist and cannot be made: '/' is on a read-only filesystem"),
        ("", "/opt/venv/pyvenv.cfg", "is not a directory"),
    ],
)
def test_the_place_that_the_user_names_or_one_line(image: Image, mode: str, value: str, problem: str) -> None:
    result = image.family(options=image.bind(mode), env={"SIF_WRITABLE_DIR": value})
    own, *children, cleaned = reports(result)
    in_home = f"{own.env['HOME']}/.cache/sif-writable"
    assert own.env["NUMBA_CACHE_DIR"].startswith(f"{in_home if problem else f'{value}/sif-writable'}/image-")
    assert [child.session for child in children] == [own.session] * 2
    assert cleaned.state == "active"
    remedy = UNBOUND if value.startswith("/nowhere") else REMEDY
    line = f"sif_writable: SIF_WRITABLE_DIR={value} {problem}; using {in_home}. {remedy}\n"
    assert result.stderr == (line if problem else "")


def test_strict_stops_the_heavy_import_and_not_the_interpreter(image: Image) -> None:
    script = f"""
    {PYTHON} -c 'import subprocess, sys; sys.exit(subprocess.call([sys.executable, "-c", "import numba.cuda"]))'
    echo "import: $?"
    {PYTHON} -c pass 2>/dev/null
    echo "start: $?"
    sif-writable doctor 2>/dev/null
    echo "doctor: $?" """
    fact = "SIF_WRITABLE_DIR=/nowhere does not exist and cannot be made: '/' is on a read-only filesystem; using "
    strict = image.shell(script, env={"SIF_WRITABLE_DIR": "/nowhere", "SIF_WRITABLE_STRICT": "1"})
    lenient = image.shell(script, env={"SIF_WRITABLE_DIR": "/nowhere"})
    found = re.compile(r"^(?:import|start|doctor): \d+$|^(?:WARN|FAIL)(?= storage)", re.MULTILINE)
    assert found.findall(strict.stdout) == ["import: 1", "start: 0", "FAIL", "doctor: 1"]
    assert found.findall(lenient.stdout) == ["import: 0", "start: 0", "WARN", "doctor: 0"]
    assert f"sif_writable: before 'import numba.cuda': {fact}" in strict.stderr
    assert strict.stderr.lower().count(UNBOUND.lower()) == 2  # the line at the start, and before the import
    assert lenient.stderr.count("\n") == 1


# --- HOME and the user's name.


@pytest.mark.parametrize(
    ("words", "old", "why"),
    [
        (["env", "HOME="], "", "HOME is empty"),
        (["env", "HOME=/"], "/", "HOME is the root of the image"),
        (["env", "HOME=/nowhere"], "/nowhere", "HOME names a directory that does not exist"),
        (["env", "HOME=/opt"], "/opt", "HOME cannot be written by this user"),
        (["env", "HOME=somewhere"], "somewhere", "HOME names a directory that does not exist"),
    ],
)
def test_a_home_of_no_use_is_repaired(image: Image, words: list[str], old: str | None, why: str) -> None:
    write = "import os; p = os.path.expanduser('~/.new'); open(p, 'w').close(); print(p)"
    script = f"""{" ".join(words)} {PYTHON} -c "$DESCRIBE"
    {" ".join(words)} {PYTHON} -c "{write}"
    {" ".join(words)} sif-writable status --json"""
    result = image.shell(script)
    assert (result.returncode, result.stderr) == (0, "")
    line, written, status = result.stdout.split("\n", 2)
    state, env = json.loads(line)
    home = json.loads(status)["home"]
    assert (state, home["private"], home["why"]) == ("active", True, why)
    assert re.fullmatch(rf"/var/tmp/sif-writable-{ORDINARY_UID}/image-[0-9a-f]{{16}}/home", env["HOME"])
    assert (home["value"], written) == (env["HOME"], env["HOME"] + "/.new")
    assert env.get("SIF_WRITABLE_OLD_HOME") == old


def test_without_the_variable_home_is_what_the_passwd_entry_says(image: Image) -> None:
    """Where that can be used, nothing of HOME changes, whoever has cleaned the environment."""
    write = "import os; p = os.path.expanduser('~/results.csv'); open(p, 'a').close(); print(p, os.environ.get('HOME'))"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {write!r}], env={{'PATH': '/usr/bin'}})"
    cleaned, by_child = (f"{PYTHON} -c {shlex.quote(program)}" for program in (write, child))
    result = image.shell(f"""env -i {cleaned}\n{by_child}\nenv -u HOME {PYTHON} -c "$DESCRIBE" """)
    assert (result.returncode, result.stderr) == (0, "")
    *written, line = result.stdout.splitlines()
    assert written == [f"{image.apptainer.home}/results.csv None"] * 2
    assert "results.csv" in os.listdir(image.apptainer.places.home)
    assert Report(*json.loads(line)).session["NUMBA_CACHE_DIR"].startswith(f"{image.apptainer.home}/.cache/")
    # Where it cannot be used, it is repaired: here there is no such directory.
    (repaired,) = reports(image.shell(f"""env -u HOME {PYTHON} -c "$DESCRIBE" """, options=["--no-home"]))
    assert repaired.env["HOME"].startswith("/var/tmp/")


# Has a child report for each change of its environment, and then as often a second one that it starts with no change.
_CHANGED = """
import json, os, subprocess, sys
describe = sys.argv[1]
again = "import subprocess, sys\\nexec(sys.argv[1])\\nsubprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"
for change in json.loads(sys.argv[2]):
    subprocess.run([sys.executable, "-c", again, describe], env={**os.environ, **change}, check=True)
print(subprocess.check_output(["sif-writable", "status", "--json", "--no-gpu"], text=True).replace("\\n", ""))
off = {**os.environ, "SIF_WRITABLE": "off"}
print(subprocess.check_output(["sif-writable", "status", "--json", "--no-gpu"], env=off, text=True).replace("\\n", ""))
"""


def test_a_child_gets_what_the_user_wants_for_it(image: Image) -> None:
    changes = [
        {"SIF_WRITABLE": "off"},
        {"SIF_WRITABLE_DIR": "/data"},
        {"HOME": image.apptainer.home},
        {"HF_HOME": "/of/mine"},
        {"LD_LIBRARY_PATH": "/x"},
    ]
    where: dict[str, Any] = {"options": image.bind(), "env": {"APPTAINERENV_PYTENSOR_FLAGS": "device=cpu"}}
    script = f"""HOME=/nowhere {PYTHON} -c "$CHANGED" "$DESCRIBE" '{json.dumps(changes)}' """
    result = image.run(["sh", "-c", f"DESCRIBE=$1 CHANGED=$2\n{script}", "sh", DESCRIBE, _CHANGED], **where)
    assert (result.returncode, result.stderr) == (0, ""), result
    *found, inherited, off = [json.loads(line) for line in result.stdout.splitlines()]
    pairs = [(Report(*found[at]), Report(*found[at + 1])) for at in range(0, len(found), 2)]
    states = [(child.state, grandchild.state) for child, grandchild in pairs]
    assert states == [("off", "off"), *[("active", "inherited")] * 3, ("inherited", "inherited")]
    without, given, home, hf, _ = [grandchild.env for _, grandchild in pairs]
    assert (without["HOME"], without["PYTENSOR_FLAGS"]) == ("/nowhere", "device=cpu")
    assert [name for name, value in without.items() if "sif-writable" in value and name != "PATH"] == []
    assert given["NUMBA_CACHE_DIR"].startswith("/data/")
    assert home["HOME"] == image.apptainer.home
    assert home["NUMBA_CACHE_DIR"].startswith(f"{home['HOME']}/.cache/")
    assert (hf["HF_HOME"], "HF_HUB_CACHE" in hf) == ("/of/mine", False)
    assert (inherited["hook"]["state"], inherited["hook"]["by"]) == ("inherited", "an ancestor")
    assert [entry["variable"] for entry in inherited["user_set"]] == []
    assert (off["hook"]["state"], off["redirects"], off["home"]["value"]) == ("off", [], "/nowhere")


_HOOK_BY_PATH = "/opt/venv/lib/python3.11/site-packages/sif_writable/hook"
_INSTALL = """
import os, subprocess, sys
words = ["install", "--quiet", "--no-index", "--no-deps", "/data/tiny-1.0-py3-none-any.whl"]
words = [sys.executable, "-m", "pip", *words]
subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
import tiny
print(tiny.__file__.replace(os.environ["HOME"], "~"))
"""


def test_what_pip_installs_without_an_environment_is_found(image: Image) -> None:
    """By the process that has started pip, by one that starts afresh, and HOME cannot be used."""
    folder = image.folder()
    with zipfile.ZipFile(f"{folder}/tiny-1.0-py3-none-any.whl", "w") as wheel:
        for name, text in {
            "tiny.py": "VALUE = 7\n",
            "tiny-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
            "tiny-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "tiny-1.0.dist-info/RECORD": "tiny.py,,\ntiny-1.0.dist-info/METADATA,,\ntiny-1.0.dist-info/RECORD,,\n",
        }.items():
            wheel.writestr(name, text)
    tiny = "import os, tiny; print(tiny.__file__.replace(os.environ['HOME'], '~'))"
    script = f"""export HOME=/nowhere PYTHONPATH={_HOOK_BY_PATH} PIP_BREAK_SYSTEM_PACKAGES=1
    python=$(readlink -f {PYTHON})
    $python -c "$INSTALL" && $python -c "{tiny}" """
    result = image.run(
        ["sh", "-c", f"INSTALL=$1\n{script}", "sh", _INSTALL],
        options=["--bind", f"{image.apptainer.inside(folder)}:/data"],
    )
    assert (result.returncode, result.stderr) == (0, ""), result
    assert result.stdout.splitlines() == ["~/.local/lib/python3.11/site-packages/tiny.py"] * 2


_INTERRUPT = """
import os, signal, subprocess, sys, time
on = 0
for number in range(24):
    home = f"/data/{number}"
    os.mkdir(home)
    words = [sys.executable, "-c", "import time; time.sleep(0.5); print('it goes on')"]
    start = subprocess.Popen(words, env={**os.environ, "HOME": home}, stdout=-1, stderr=-1, text=True)
    time.sleep(0.008 + number * 0.004)
    start.send_signal(signal.SIGINT)
    on += "it goes on" in start.communicate()[0]
print(on)
"""


def test_ctrl_c_during_a_cold_start_ends_it(image: Image) -> None:
    result = image.run([PYTHON, "-S", "-c", _INTERRUPT], options=image.bind())
    assert (result.returncode, result.stderr) == (0, "")
    assert int(result.stdout) <= 1  # one that came before Python could see to signals; without us there are as many


def test_a_uid_without_a_name_gets_one(squashfs_root: SquashfsRoot) -> None:
    ask = [PYTHON, "-c", "import getpass, os; print(getpass.getuser(), os.environ['LOGNAME'])"]
    assert squashfs_root.run(ask, passwd=False, env={"SIF_WRITABLE": "off"}).returncode == 1
    named = squashfs_root.run(ask, passwd=False)
    assert (named.stdout, named.stderr) == (f"uid{ORDINARY_UID} uid{ORDINARY_UID}\n", "")
    assert squashfs_root.run(ask, passwd=False, env={"LOGNAME": "me"}).stdout == "me me\n"
    assert squashfs_root.run(ask).stdout == "user user\n"
