"""`prepare` and `prestage` in an environment that can be written, as in a build, and the starts after it."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import NOT_RUN
from tests.lab import apt
from tests.lab.environments import PYTHON
from tests.lab.hooked import system_calls
from tests.lab.plain_machine import VENV
from tests.lab.store import ORDINARY_UID

if TYPE_CHECKING:
    from tests.lab.hooked import Hooked

STATE = "__import__('sif_writable')"
SEED = f"{VENV}/share/sif-writable/seed"
# A package with a row in the table of locations, one that writes beside itself, and one that cannot be compiled.
MATPLOTLIB = """
import os
folder = os.environ.get("MPLCONFIGDIR") or os.path.expanduser("~/.cache/matplotlib")
path = os.path.join(folder, "fontlist.json")
made = not os.path.exists(path)
if made:
    with open(path, "w") as file:
        file.write("fonts")
"""
WRITER = """
import os
path = os.path.join(os.path.dirname(__file__), "config.ini")
if not os.path.exists(path):
    with open(path, "w") as file:
        file.write("[a]")
"""


class Build:
    """An environment that a build may change, and the image that comes of it."""

    def __init__(self, hooked: Hooked) -> None:
        """Take the environment; what it holds is the test's."""
        self.hooked = hooked.copy()
        self.target = self.hooked.machine.places.new_folder("target")
        self.write("matplotlib/__init__.py", MATPLOTLIB)
        self.write("matplotlib-3.11.2.dist-info/RECORD", "matplotlib/__init__.py,,\n")
        self.write("scribe/__init__.py", WRITER)
        self.write("scribe-1.0.dist-info/RECORD", "scribe/__init__.py,,\n")

    def run(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run the command line in the build."""
        return self.python("-m", "sif_writable", *words, **options)

    def python(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run the interpreter in the build."""
        binds = [f"{self.target}:/sif-writable", *options.pop("binds", ())]
        # It is in a shell's hands: nothing in the environment shows a build.
        more = {"APPTAINER_LABELS": "/x", **options.pop("env", {})}
        return self.hooked.run(*words, writable=True, binds=binds, env=more, **options)

    def write(self, name: str, text: str) -> None:
        """Write a file of the builder's into site-packages."""
        self.hooked.write(name, text)
        subprocess.run(["chown", "-R", str(ORDINARY_UID), self.hooked.environment], check=True)

    def manifest(self) -> list[str]:
        """Return the lines of the manifest."""
        with open(os.path.join(self.hooked.packages, "sif_writable.manifest"), encoding="utf-8") as file:
            return file.read().splitlines()

    @property
    def seeds(self) -> str:
        """Return the area of seeds, outside."""
        return os.path.join(self.hooked.environment, "share", "sif-writable", "seed")


@pytest.fixture
def build(each: Hooked) -> Build:
    """Return a build, for every interpreter."""
    return Build(each)


@pytest.fixture
def one(hooked: Hooked) -> Build:
    """Return a build, for one interpreter."""
    return Build(hooked)


def test_prepare_writes_down_what_is_there(build: Build) -> None:
    build.write("broken.py", "def :\n")
    done = build.run("prepare", "--packages", "scribe,matplotlib", "--gpu-min-memory=20GiB", "--require-gpu")
    assert (done.returncode, done.stderr) == (0, "")
    lines = build.manifest()
    hot = lines[: lines.index("")]
    assert [line for line in hot if line.startswith("package")] == ["package: scribe", "package: matplotlib"]
    assert "gpu: require" in hot
    assert "gpu-min-memory: 20GiB" in hot
    cold = lines[lines.index("") :]
    assert "distribution: scribe 1.0" in cold
    assert "location: MPLCONFIGDIR matplotlib" in cold
    assert [line for line in cold if line.startswith("writer: scribe ")]
    broken = next(line for line in cold if line.startswith(f"no-bytecode: {VENV}/"))
    assert broken.endswith("site-packages/broken.py")
    assert f"interpreter: {PYTHON} {build.hooked.python.version} {VENV}" in cold
    assert "broken.py" in done.stdout
    cached = os.listdir(os.path.join(build.hooked.packages, "scribe", "__pycache__"))
    assert len(cached) == 1
    assert build.run("prepare", "--check").stdout == "up to date\n"


def test_prepare_again_is_the_same(build: Build) -> None:
    options = ("--packages", "scribe", "--gpu-count", "2")
    assert build.run("prepare", *options).returncode == 0
    first = build.manifest()
    assert build.run("prepare", *options).returncode == 0
    assert build.manifest() == first
    assert build.run("prepare").returncode == 0  # a demand that is no longer made is gone, a known writer is not
    assert "gpu-count: 2" in first
    assert "gpu-count: 2" not in build.manifest()
    assert "package: scribe" in build.manifest()


def test_check_says_what_is_stale_and_changes_nothing(one: Build) -> None:
    done = one.run("prepare", "--check")
    assert (done.returncode, "did not run here" in done.stdout) == (1, True)
    assert one.run("prepare", "--packages=scribe").returncode == 0
    before = one.manifest()
    one.write("later/__init__.py", "")
    one.write("later-2.0.dist-info/RECORD", "later/__init__.py,,\n")
    shutil.rmtree(os.path.join(one.hooked.packages, "scribe"))
    done = one.run("prepare", "--check")
    assert done.returncode == 1
    words = " ".join(done.stdout.split())
    assert "installed since: later 2.0" in words
    assert "1 file without valid bytecode, such as /venv/lib" in words
    assert "package scribe is declared and not installed" in words
    assert "remedy: call sif-writable prepare again" in words
    assert one.manifest() == before
    # The same from the image, which cannot be written.
    done = one.hooked.run("-m", "sif_writable", "prepare", "--check", binds=[f"{one.target}:/sif-writable"])
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--packages", "scribbe"), "'scribbe', which is not installed in this environment; perhaps scribe"),
        (("--packages", "scribe.none"), "'scribe.none', which is not installed"),
        (("--gpu-min-memory", "lots"), "--gpu-min-memory 'lots' is not understood; allowed: bytes, or a number"),
        (("--gpu-count", "two"), "--gpu-count 'two' is not understood; allowed: a whole number"),
        (("--gpu-min-capability", "new"), "such as 8.0"),
        (("--gpu-min-memory", ""), "--gpu-min-memory '' is not understood"),
        (("--overlay", "/"), "--overlay '/' is no absolute path of a directory in this image"),
        (("--overlay", "//tmp/."), "--overlay '//tmp/.' is no absolute path of a directory in this image"),
        (("--overlay", "relative"), "--overlay 'relative' is no absolute path of a directory in this image"),
        (("--overlay", "/no/such"), "--overlay '/no/such' is no absolute path of a directory in this image"),
        (("--gpu-count", "x", "--packages", "nope"), "wrong options:"),
    ],
)
def test_bad_options_change_nothing(one: Build, options: tuple[str, ...], said: str) -> None:
    done = one.run("prepare", *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert not os.path.exists(os.path.join(one.hooked.packages, "sif_writable.manifest"))


def test_a_root_that_cannot_be_written(one: Build) -> None:
    done = one.hooked.run("-m", "sif_writable", "prepare")
    assert done.returncode == 2
    assert "site-packages is on a read-only filesystem" in done.stderr
    assert "Remedy: call sif-writable prepare while the image is built" in done.stderr
    done = one.hooked.run("-m", "sif_writable", "prestage", "--", "true")
    assert done.returncode == 2
    assert "Remedy: call this in %post" in done.stderr
    done = one.hooked.run("-m", "sif_writable", "prepare", writable=True)  # but for the root directory
    assert done.returncode == 2
    assert "/sif-writable, the target for bind mounts, cannot be made" in done.stderr


def test_what_is_baked_is_offered_at_the_first_start(build: Build) -> None:
    done = build.run("prestage", "--", PYTHON, "-c", "import matplotlib, scribe")
    assert (done.returncode, done.stderr) == (0, "")
    assert "MPLCONFIGDIR" in done.stdout
    assert "scribe/config.ini" in done.stdout
    assert "there is no GPU here" in done.stdout
    assert f"seed: MPLCONFIGDIR {SEED}/config/matplotlib" in build.manifest()
    assert sorted(os.listdir(build.seeds)) == ["config"]  # no empty folders
    assert build.hooked.ask("(__import__('matplotlib').made, 'active' == " + STATE + ".state)") == (False, True)
    no_home = build.hooked.ask("__import__('matplotlib').made", home="/no/such")
    assert no_home is False


def test_a_second_command_adds_to_the_first(one: Build) -> None:
    touch = "import os; open(os.environ['{}'] + '/{}', 'w').write('x')"
    assert one.run("prestage", "--", PYTHON, "-c", touch.format("MPLCONFIGDIR", "a")).returncode == 0
    assert one.run("prestage", "--", PYTHON, "-c", touch.format("IPYTHONDIR", "b")).returncode == 0
    assert sorted(os.listdir(os.path.join(one.seeds, "config"))) == ["ipython", "matplotlib"]
    assert one.run("prepare").returncode == 0
    assert one.run("prepare", "--check").returncode == 0
    stamp = one.manifest()[1]
    assert one.run("prestage", "--", PYTHON, "-c", touch.format("IPYTHONDIR", "c")).returncode == 0
    assert one.manifest()[1] != stamp  # so that storage of the earlier image is not taken for this one's
    assert len([line for line in one.manifest() if line.startswith("seed: ")]) == 2


def test_homes_are_baked_without_links_secrets_and_locks(one: Build) -> None:
    with open(os.path.join(one.hooked.machine.places.home, ".netrc"), "w", encoding="utf-8") as file:
        file.write("machine x")
    program = """
import os
home = os.path.expanduser("~")
assert open(home + "/.netrc").read() == "machine x"
os.makedirs(home + "/.tool")
for name in ("settings", "token", "x.lock"):
    open(home + "/.tool/" + name, "w").write("x")
os.chmod(home + "/.tool/settings", 0o600)
"""
    done = one.run("prestage", "--", PYTHON, "-c", program)
    assert done.returncode == 0, done.stderr
    assert "not baked, a secret" in done.stdout
    found = [os.path.join(here, name) for here, _, files in os.walk(one.seeds) for name in files]
    assert found == [os.path.join(one.seeds, "home", ".tool", "settings")]
    assert os.stat(found[0]).st_mode & 0o777 == 0o644
    settings = "open(os.path.expanduser('~/.tool/settings')).read()"
    assert one.hooked.ask(settings, home="/no/such") == "x"


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ((PYTHON, "-c", "import matplotlib, scribe, sys; sys.exit(7)"), 7, "failed with exit code 7"),
        ((PYTHON, "-c", "import matplotlib, scribe, os; os.kill(os.getpid(), 9)"), 137, "was ended by SIGKILL"),
        (("no-such-program",), 127, "command not found"),
        (("/etc/passwd",), 126, "cannot be executed"),
        ((), 2, "no command given"),
    ],
)
def test_a_command_that_fails_leaves_nothing(one: Build, command: tuple[str, ...], code: int, said: str) -> None:
    done = one.run("prestage", "--", *command)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not os.path.exists(os.path.dirname(one.seeds))
    assert not os.path.exists(os.path.join(one.hooked.packages, "sif_writable.manifest"))
    assert not os.path.exists(os.path.join(one.hooked.packages, "scribe", "config.ini"))


def test_a_command_that_fails_leaves_what_was_baked_before(one: Build) -> None:
    assert one.run("prestage", "--", PYTHON, "-c", "import matplotlib").returncode == 0
    before = (one.manifest(), os.listdir(os.path.join(one.seeds, "config", "matplotlib")))
    worse = "import os; open(os.environ['MPLCONFIGDIR'] + '/fontlist.json', 'w').write('half'); os._exit(3)"
    assert one.run("prestage", "--", PYTHON, "-c", worse).returncode == 3
    assert (one.manifest(), os.listdir(os.path.join(one.seeds, "config", "matplotlib"))) == before
    with open(os.path.join(one.seeds, "config", "matplotlib", "fontlist.json"), encoding="utf-8") as file:
        assert file.read() == "fonts"
    assert os.listdir(os.path.dirname(one.seeds)) == ["seed"]


def test_a_run_that_was_killed_is_undone_by_the_next_one(one: Build) -> None:
    assert one.run("prestage", "--", PYTHON, "-c", "import matplotlib").returncode == 0
    killer = "import os; open(os.environ['MPLCONFIGDIR'] + '/half', 'w'); os.kill(os.getppid(), 9)"
    assert one.run("prestage", "--", PYTHON, "-c", killer).returncode != 0
    assert os.path.isdir(one.seeds + ".before")
    assert one.run("prestage", "--", PYTHON, "-c", "pass").returncode == 0
    assert os.listdir(os.path.join(one.seeds, "config", "matplotlib")) == ["fontlist.json"]
    assert os.listdir(os.path.dirname(one.seeds)) == ["seed"]


@pytest.mark.parametrize(
    "program",
    [
        "open(__import__('os').environ['MPLCONFIGDIR'] + '/big', 'wb').write(b'x' * (8 << 20))",
        # As packages do: it does not care that its cache could not be written.
        """if 1:
        import os
        file = open(os.environ['MPLCONFIGDIR'] + '/big', 'wb', 0)
        try:
            while True:
                file.write(b'x' * 65536)
        except OSError:
            pass
        """,
    ],
    ids=["fails", "goes on"],
)
def test_no_space_while_baking(one: Build, program: str) -> None:
    os.makedirs(os.path.join(one.hooked.environment, "share", "sif-writable"), exist_ok=True)
    done = one.run("prestage", "--", PYTHON, "-c", program, tmpfs=[f"{VENV}/share:3m"])
    assert done.returncode == (1 if "try" not in program else 2)
    assert "nothing of it is baked" in done.stderr
    if "try" in program:
        assert f"{SEED} has no space left" in done.stderr
        assert "Remedy: build on a larger disk" in done.stderr
    assert not os.path.exists(os.path.join(one.hooked.packages, "sif_writable.manifest"))


def test_no_space_to_begin_with(one: Build) -> None:
    os.makedirs(os.path.join(one.hooked.environment, "share"), exist_ok=True)
    done = one.run("prestage", "--", "true", tmpfs=[f"{VENV}/share:16k"])
    assert done.returncode == 2
    assert "has no space left (" in done.stderr
    assert "APPTAINER_TMPDIR" in done.stderr


# --- What a manifest changes at run time.


def test_identity(build: Build) -> None:
    identity = "os.environ['SIF_WRITABLE_COPIES'].rpartition('-')[2]"
    assert build.run("prepare").returncode == 0
    first = build.hooked.ask(identity)
    assert build.hooked.ask(identity) == first
    assert build.run("prestage", "--", PYTHON, "-c", "import matplotlib").returncode == 0
    second = build.hooked.ask(identity)
    assert second != first
    # An install in an upper layer knows nothing of the manifest, and makes a directory in site-packages.
    build.write("later-1.0.dist-info/RECORD", "")
    os.utime(build.hooked.packages, (2_000_000_000, 2_000_000_000))
    assert build.hooked.ask(identity) not in (first, second)


def test_no_user_site(build: Build) -> None:
    version = "python" + build.hooked.python.version
    own = os.path.join(build.hooked.machine.places.home, ".local", "lib", version, "site-packages")
    os.makedirs(own)
    with open(os.path.join(own, "mine.py"), "w", encoding="utf-8") as file:
        file.write("")
    cfg = os.path.join(build.hooked.environment, "pyvenv.cfg")
    with open(cfg, encoding="utf-8") as file:
        text = file.read()
    with open(cfg, "w", encoding="utf-8") as file:  # only so does a venv look for the user's packages
        file.write(text.replace("include-system-site-packages = false", "include-system-site-packages = true"))
    found = "bool(__import__('importlib.util').util.find_spec('mine'))"
    assert build.hooked.ask(found) is True
    assert build.run("prepare", "--no-user-site").returncode == 0
    for _ in range(2):  # decided, and by what was decided
        assert build.hooked.ask(found) is False
    child = f"__import__('subprocess').run(['{PYTHON}', '-c', 'import mine'], stderr=-3).returncode"
    assert build.hooked.ask(child) == 1


def test_gpu_demands_of_the_image_hold_where_the_environment_has_none(one: Build) -> None:
    assert one.run("prepare", "--require-gpu").returncode == 0
    one.write("torch.py", "")
    done = one.hooked.run("-c", "import torch")
    assert done.returncode == 1
    assert "sif_writable: before 'import torch': There is no NVIDIA GPU" in done.stderr
    assert one.hooked.run("-c", "import torch", env={"SIF_WRITABLE_GPU": "off"}).returncode == 0


def test_packages_of_the_manifest_are_imported_from_a_copy(one: Build) -> None:
    assert one.run("prepare", "--packages", "scribe").returncode == 0
    where = one.hooked.ask("__import__('scribe').__file__")
    assert where.startswith("/home/user/.cache/sif-writable/image-")


def test_a_manifest_costs_no_module_and_five_system_calls(build: Build) -> None:
    """It is read, in four, and the time of site-packages is asked for; that there is none costs no call."""
    strace = apt.find("strace")
    if strace is None:
        pytest.skip(f"{NOT_RUN}this machine has no strace")
    modules = "sorted(name for name in sys.modules if name.startswith('sif_writable'))"
    assert build.run("prepare", "--check").returncode == 1  # the target for binds is there, with or without a manifest
    build.hooked.ask("1")
    loaded, calls = build.hooked.ask(modules), len(system_calls(build.hooked, strace, {}))
    assert build.run("prepare", "--gpu-count=1", "--packages=scribe").returncode == 0
    assert build.run("prestage", "--", PYTHON, "-c", "import matplotlib").returncode == 0
    build.hooked.ask("1")
    assert build.hooked.ask(modules) == loaded
    assert len(system_calls(build.hooked, strace, {})) <= calls + 5
