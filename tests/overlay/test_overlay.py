"""Overlays in both kinds of read-only image: a SIF run without privileges, and one that the kernel mounts.

In the first one everything is on Apptainer's overlay over FUSE and belongs to the user; in the second one it is on
squashfs and belongs to root.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.environments import PYTHON as PYTHON_THERE
from tests.lab.overlaid import NEW, PACKAGES, PRELUDE, PYTHON, TREE, Kernel, Sif, ask, storage

if TYPE_CHECKING:
    from tests.lab.squashfs_root import SquashfsRoot
    from tests.lab.writing_image import Image

MEMORY = "namespaces.UPPER_TYPES = frozenset()  # no filesystem carries an upper layer\n"
"""A line of a program."""


@pytest.fixture(params=["sif", "kernel"])
def world(request: pytest.FixtureRequest) -> Sif | Kernel:
    """Return each of the two images."""
    if request.param == "sif":
        return Sif(request.getfixturevalue("apptainer"), request.getfixturevalue("sif"))
    return Kernel(request.getfixturevalue("squashfs_root"))


@pytest.fixture
def kernel(squashfs_root: SquashfsRoot) -> Kernel:
    """Return the image that the kernel mounts."""
    return Kernel(squashfs_root)


def test_new_paths_can_be_written_and_are_there_at_the_next_run(world: Any) -> None:
    code = f"""
problem = serve(*{NEW!r})
for path in {NEW!r}:
    os.makedirs(path, exist_ok=True)
    write(path + "/log", "x", "a")
    os.rename(path + "/log", path + "/renamed"); os.rename(path + "/renamed", path + "/log")
answer([problem, [read(path + "/log") for path in {NEW!r}], sorted({{done.how for done in overlay.entered}})])
"""
    assert ask(world, code) == ["", ["x"] * 5, ["graft"]]
    assert ask(world, code) == ["", ["xx"] * 5, ["graft"]]


def test_what_the_engine_mounted_and_the_packages_stay(world: Any) -> None:
    code = f"""
before = [os.stat(p).st_dev for p in ("/etc/passwd", "/var/tmp", "/opt/venv/bin", "/opt/venv/lib")]
assert serve(*{NEW!r}) == "", overlay.refused
write("/var/tmp/still", "x")
import numpy, matplotlib
after = [os.stat(p).st_dev for p in ("/etc/passwd", "/var/tmp", "/opt/venv/bin", "/opt/venv/lib")]
answer([before == after, numpy.__file__, os.listdir("/opt/venv/bin") != [], os.path.islink("/opt/venv/lib64")])
"""
    assert ask(world, code) == [True, f"{PACKAGES}/numpy/__init__.py", True, True]


def test_files_of_the_image_can_be_changed_in_every_way(world: Any) -> None:
    first = f"""
T = {TREE!r}
problem = serve(T)
some = files(T)
write(some[0], "rewritten", "r+")
write(some[1], "appended", "a")
write(T + "/aside", "replaced"); os.replace(T + "/aside", some[2])
os.chmod(some[0], 0o700)
shutil.rmtree(T + "/fonts"); os.mkdir(T + "/fonts"); write(T + "/fonts/new.ttf", "x")
folder = next(e.path for e in os.scandir(T) if e.is_dir() and e.name != "fonts")
os.mkdir(folder + "/made"); write(folder + "/made/file", "x")
os.symlink("x", T + "/link")
answer([problem, overlay.entered[0].how, overlay.entered[0].note])
"""
    second = f"""
T = {TREE!r}
problem = serve(T)
some = files(T)
folder = next(e.path for e in os.scandir(T) if e.is_dir() and e.name != "fonts")
answer([problem, open(some[0], "rb").read(9).decode(), open(some[1], "rb").read()[-8:].decode(), read(some[2]),
  os.listdir(T + "/fonts"), os.path.exists(folder + "/made/file"), os.readlink(T + "/link"),
  os.stat(some[0]).st_mode & 0o777])
"""
    assert ask(world, first) == ["", "overlay", ""]
    assert ask(world, second) == ["", "rewritten", "appended", "replaced", ["new.ttf"], True, "x", 0o700]


def test_a_single_file_is_rewritten_in_place(world: Any) -> None:
    code = """
problem = serve("/etc/debian_version")
write("/etc/debian_version", "x", "a")
answer([problem, read("/etc/debian_version").split("\\n")[-1], overlay.entered[0].how])
"""
    assert ask(world, code)[1:] == ["x", "graft"]
    assert ask(world, code) == ["", "xx", "graft"]


def test_the_whole_prefix_when_it_is_named(world: Any) -> None:
    code = f"""
problem = overlay.at_start(os.environ, IMAGE)
write("/opt/venv/pyvenv.cfg", "# more\\n", "a")
write("{PACKAGES}/numpy/written", "x", "a")
os.makedirs("{PACKAGES}/matplotlib/mpl-data/made", exist_ok=True)
os.makedirs("/opt/venv/share/new", exist_ok=True)
import numpy
answer([problem, [done.point for done in overlay.entered], read("{PACKAGES}/numpy/written")])
"""
    env = {"SIF_WRITABLE_OVERLAY_PATHS": "prefix"}
    points = [] if isinstance(world, Sif) else ["/opt/venv"]  # the layer serves it where there is one
    assert ask(world, code, env=_inside(world, env)) == ["", points, "x"]
    assert ask(world, code, env=_inside(world, env)) == ["", points, "xx"]


def test_what_earlier_versions_have_learned_of_paths_counts_no_more(world: Any) -> None:
    """A thousand lines cost nothing: the list is not read at a start."""
    learn = """
importhook.install().copies.wanted()
folder = importhook.folder()
with open(folder + "/learned", "a") as file:
    for path in ["/var/log/tool", *(f"/results{n}" for n in range(1000))]:
        file.write(f"path\\t-\\t{path}\\tcannot be written\\ta program failed without it\\n")
write(folder + "/outside", "")
answer(0)
"""
    code = """
from sif_writable.report import packages
opened = []
sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)
importhook.install().serve_outside()
learned = any(path.endswith("/learned") for path in opened)
try:
    os.mkdir("/var/log/tool")
except OSError as error:
    answer([learned, overlay.current(os.environ), error.errno, packages.notes(importhook.folder())])
"""
    ask(world, learn)
    learned, points, number, notes = ask(world, code)
    assert (learned, points, notes) == (False, [], [])
    assert number in (13, 30)


def test_a_bind_is_not_overruled_by_a_declaration(world: Any) -> None:
    """At the path itself, above it and below it; what is bound there is neither covered nor copied."""
    real = world.places.new_folder("real")
    with open(f"{real}/data", "w", encoding="utf-8") as file:
        file.write("before")
    declared = {"SIF_WRITABLE_OVERLAY_PATHS": "/srv/results:/srv/results/deep/er:/srv/other"}
    code = """
problems = [words for _, words in overlay.refused]
point = os.stat("/srv/results").st_dev
with open("/srv/results/data") as file:
    results = [file.read()]
try:
    write("/srv/results/new", "x")
except OSError as error:
    results.append(error.errno)
os.makedirs("/srv/other"); write("/srv/other/x", "x")
answer([problems, results, overlay.current(os.environ)])
"""
    if isinstance(world, Sif):
        inside = world.apptainer.inside(real)
        options: dict[str, Any] = {"options": ["--bind", f"{inside}:/srv/results:ro"], "env": _inside(world, declared)}
    else:
        layer = os.path.join(world.places.folder, "layer")
        os.makedirs(f"{layer}/srv/results")
        options = {"layer": layer, "binds": [f"{real}:/srv/results:ro"], "env": declared}
    problems, results, points = ask(world, code, **options)
    assert results == ["before", 30]
    assert points == ["/srv"]
    assert [words.partition(" gets ")[0] for words in problems] == ["/srv/results", "/srv/results/deep/er"]
    for words in problems:
        assert "/srv/results is bound in from the host, and stays as it is. Remedy: bind it such that" in words


def test_descendants_see_it_and_do_not_enter_again(world: Any) -> None:
    child = (
        PRELUDE
        + """
before = namespaces.namespace()
problem = serve("/var/log/tool")
answer([problem, before == namespaces.namespace(), read("/var/log/tool/x"), overlay.current(os.environ)])
"""
    )
    code = f"""
assert serve("/var/log/tool") == ""
os.makedirs("/var/log/tool", exist_ok=True); write("/var/log/tool/x", "parent")
print(subprocess.run([sys.executable, "-c", {child!r}], capture_output=True, text=True, check=True).stdout.strip())
"""
    assert ask(world, code) == ["", True, "parent", ["/var/log"]]


def test_a_second_overlay_in_the_same_process(world: Any) -> None:
    code = f"""
problems = [serve("/var/log/tool"), serve({TREE!r})]
write({TREE!r} + "/x", "x"); os.makedirs("/var/log/tool", exist_ok=True)
answer([problems, overlay.current(os.environ)])
"""
    assert ask(world, code) == [["", ""], ["/var/log", TREE]]


def test_the_user_stays_who_he_is_and_gains_no_rights(world: Any) -> None:
    code = """
ids = os.getuid(), os.getgid()
write("/var/tmp/denied", "x"); os.chmod("/var/tmp/denied", 0o400)
assert serve("/var/log/tool") == ""
status = dict(line.split(":\\t", 1) for line in read("/proc/self/status").splitlines() if ":\\t" in line)
try:
    write("/var/tmp/denied", "x", "a")
    denied = False
except PermissionError:
    denied = True
os.unlink("/var/tmp/denied")
answer([ids == (os.getuid(), os.getgid()), int(status["CapEff"], 16), int(status["CapPrm"], 16), denied,
  int(status["Threads"])])
"""
    assert ask(world, code) == [True, 0, 0, True, 1]


def test_the_working_directory_is_the_writable_one(world: Any) -> None:
    code = f"""
os.chdir({TREE!r})
assert serve({TREE!r}) == ""
write("relative", "x")
answer([os.getcwd(), os.path.exists({TREE!r} + "/relative")])
"""
    assert ask(world, code) == [TREE, True]


# --- In memory, and brought back ---


def test_what_was_written_to_memory_is_brought_to_storage(world: Any) -> None:
    code = f"""{MEMORY}
T = {TREE!r}
problem = serve(T)
some = files(T)
write(some[0], "rewritten", "r+")
write(T + "/new", "x", "a")
os.makedirs(T + "/fonts/deep/er", exist_ok=True); write(T + "/fonts/deep/er/file", "x", "a")
write(T + "/new-large", "y" * 2_000_000) if not os.path.exists(T + "/new-large") else None
if os.fork() == 0:
    sys.exit()  # its end brings nothing
os.wait()
answer([problem, overlay.entered[0].note[:9], open(some[0], "rb").read(9).decode(), read(T + "/new"),
  read(T + "/fonts/deep/er/file"), len(read(T + "/new-large"))])
"""
    assert ask(world, code) == ["", "in memory", "rewritten", "x", "x", 2_000_000]
    assert ask(world, code) == ["", "in memory", "rewritten", "xx", "xx", 2_000_000]
    assert not any(name.startswith(".new-") for name in os.listdir(storage(world)))


@pytest.mark.parametrize("memory", ["", MEMORY], ids=["storage", "memory"])
def test_of_two_at_once_the_second_is_refused(world: Any, memory: str) -> None:
    """Its writes fail as without us; what it wrote to memory was lost, at exit 0 too."""
    other = (
        PRELUDE
        + f"""{memory}
problem = serve({TREE!r})
try:
    write({TREE!r} + "/second", "x")
except OSError as error:
    answer([problem, error.errno, overlay.entered])
"""
    )
    # The other one must not inherit the namespace, so it is started before this process has one of its own.
    code = f"""{memory}
readable, writable = os.pipe()
other = subprocess.Popen([sys.executable, "-c", "import os; os.read(" + str(readable) + ", 1)\\n" + {other!r}],
                     pass_fds=[readable], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
assert serve({TREE!r}) == ""
write({TREE!r} + "/first", "x")
child = "open(" + repr({TREE!r} + "/child") + ", 'w').close()"
subprocess.run([sys.executable, "-c", child], check=True)
os.write(writable, b"x")
out, error = other.communicate()
answer([other.returncode, out, error, os.getpid()])
"""
    returncode, out, error, first = ask(world, code)
    problem, number, entered = json.loads(out.splitlines()[-1])
    assert (returncode, entered) == (0, [])
    assert number in (13, 30)
    assert problem.startswith(f"{TREE} stays read-only here: ")
    assert "Remedy: run one after the other" in problem
    assert memory or f": process {first} has it writable" in problem
    assert error == f"sif_writable: {problem}\n"
    after = f"""{memory}
assert serve({TREE!r}) == ""
answer(sorted(n for n in os.listdir({TREE!r}) if n in ("first", "second", "child")))
"""
    assert ask(world, after) == ["child", "first"]


@pytest.mark.parametrize("memory", ["", MEMORY], ids=["storage", "memory"])
def test_a_killed_process_leaves_nothing_that_hurts(world: Any, memory: str) -> None:
    code = f"""{memory}
assert serve({TREE!r}, "/var/log/tool") == ""
write({TREE!r} + "/half", "x"); os.makedirs("/var/log/tool", exist_ok=True); write("/var/log/tool/x", "x")
os.kill(os.getpid(), 9)
"""
    result = world.run([PYTHON, "-c", PRELUDE + code])
    assert result.returncode in (-9, 137), result
    assert os.listdir(f"{storage(world)}/memory") == []
    assert not any(name.startswith(".new-") for name in os.listdir(storage(world)))
    after = f"""
problem = serve({TREE!r}, "/var/log/tool")
write({TREE!r} + "/whole", "x")
answer([problem, read("/var/log/tool/x"), os.path.exists({TREE!r} + "/half")])
"""
    assert ask(world, after) == ["", "x", not memory]


def test_its_folders_can_be_removed(world: Any) -> None:
    ask(world, f"answer(serve({TREE!r}))")
    code = """
from sif_writable.layer import files
there = os.path.isdir(IMAGE + "/overlay")
files.remove(IMAGE + "/overlay")
answer([there, os.path.exists(IMAGE + "/overlay")])
"""
    assert ask(world, code) == [True, False]


# --- Refused ---


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"PMI_RANK": "0"}, "rank of an MPI program"),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "rank of an MPI program"),
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "0"}, "one of 8 tasks"),
        ({"SIF_WRITABLE_OVERLAY": "off"}, "SIF_WRITABLE_OVERLAY=off"),
    ],
)
def test_refused_by_the_environment(world: Any, env: dict[str, str], words: str) -> None:
    code = """
before = namespaces.namespace()
problem = serve("/var/log/tool")
answer([problem, before == namespaces.namespace(), overlay.refused, overlay.entered])
"""
    problem, same, refused, entered = ask(world, code, env=_inside(world, env))
    assert words in problem
    assert same
    assert refused == [["/var/log/tool", problem]]
    assert entered == []


def test_refused_with_threads(world: Any) -> None:
    code = """
import threading, time
threading.Thread(target=time.sleep, args=(9,), daemon=True).start()
before = namespaces.namespace()
answer([serve("/var/log/tool"), before == namespaces.namespace()])
"""
    assert ask(world, code) == ["2 threads run in this process, and the kernel asks for a single one", True]


def test_refused_where_the_trial_fails(world: Any) -> None:
    code = """
from sif_writable.overlay import trial
def fails(path):
    raise OSError(38, "Function not implemented")
trial._exercise = fails
before = namespaces.namespace()
answer([serve("/var/log/tool"), before == namespaces.namespace(), overlay.current(os.environ)])
"""
    problem, same, points = ask(world, code)
    assert problem.endswith("but making a file in it fails: Function not implemented")
    assert same
    assert points == []


def test_a_trial_that_hangs_is_ended(world: Any) -> None:
    code = """
import time
from sif_writable.overlay import trial
trial.TRIAL_SECONDS = 0.5
trial._exercise = lambda path: time.sleep(60)
answer(serve("/var/log/tool"))
"""
    started = time.monotonic()
    assert ask(world, code) == "trying it took more than 0 seconds"
    assert time.monotonic() - started < 30


def test_the_root_directory_itself_is_refused_with_the_bind(world: Any) -> None:
    assert "--bind DIRECTORY:/newdir" in ask(world, "answer(serve('/newdir'))")


def test_certbot_is_served_before_its_import(world: Any) -> None:
    code = """
problem = overlay.before_import("certbot", os.environ, IMAGE)
for path in ("/etc/letsencrypt", "/var/lib/letsencrypt", "/var/log/letsencrypt"):
    os.makedirs(path, 0o755, exist_ok=True)
answer([problem, overlay.before_import("numpy", os.environ, IMAGE)])
"""
    assert ask(world, code) == ["", ""]


def test_who_uses_it_is_seen_from_outside(world: Any) -> None:
    child = PRELUDE + "assert not serve('/var/log/tool'); print('in', flush=True); sys.stdin.read()"
    code = f"""
name = os.path.basename(IMAGE)
before = namespaces.users(name)
other = subprocess.Popen([sys.executable, "-c", {child!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
assert other.stdout.readline() == "in\\n"
found = namespaces.users(name)
other.communicate("")
answer([before, found == [other.pid], other.returncode])
"""
    assert ask(world, code) == [[], True, 0]


def test_status_shows_what_and_why(world: Any) -> None:
    code = """
from sif_writable.report import overlay as report
serve("/var/log/tool"); serve("/newdir")
now = report.model()
answer([now["inside"], [(done["path"], done["how"]) for done in now["entered"]], [r["path"] for r in now["refused"]],
        report.lines(now)])
"""
    inside, entered, refused, lines = ask(world, code)
    assert (inside, entered, refused) == (["/var/log"], [["/var/log", "graft"]], ["/newdir"])
    assert lines[0].startswith("/var/log can be written: what is new in it is kept in ")
    assert lines[1].startswith("/newdir gets no overlay: ")


def test_every_interpreter(each_image: Image) -> None:
    code = """
import platformdirs
package = os.path.dirname(platformdirs.__file__)
new = sys.prefix + "/share/new"
problem = serve(package, new)
write(package + "/__init__.py", "# changed\\n", "a"); os.makedirs(new, exist_ok=True); write(new + "/x", "x", "a")
answer([problem, read(new + "/x"), overlay.entered[0].note])
"""
    env = {"SIF_WRITABLE_OVERLAY": "auto"}  # these images are run by copies otherwise
    assert json.loads(each_image.says(PRELUDE + code, env=env)) == ["", "x", ""]
    assert json.loads(each_image.says(PRELUDE + code, env=env)) == ["", "xx", ""]
    trace = ["-m", "sif_writable", "trace", "--json", "--", PYTHON_THERE, "-c", "open('/venv/pyvenv.cfg', 'a')"]
    found = json.loads(each_image.run(argv=trace).stdout)
    assert (found["watched"], [one["path"] for one in found["writes"]]) == ("everything", ["/venv/pyvenv.cfg"])


# --- Where there are no user namespaces ---


def test_without_user_namespaces_it_is_refused_with_the_reason(kernel: Kernel) -> None:
    code = f"""
before = namespaces.namespace()
problems = [serve("/var/log/tool"), serve({TREE!r})]
answer([problems, before == namespaces.namespace(), len(overlay.refused)])
"""
    words = "user namespaces are switched off here (/proc/sys/user/max_user_namespaces is 0)"
    assert ask(kernel, code, userns=False) == [[words, words], True, 2]


def test_without_user_namespaces_status_says_what_to_bind(kernel: Kernel) -> None:
    ask(
        kernel,
        "importhook.install().copies.wanted(); answer(overlay.before_import('certbot', os.environ, IMAGE))",
        userns=False,
    )
    status = kernel.run([PYTHON, "-m", "sif_writable", "status", "--json"], userns=False)
    notes = [note for note in json.loads(status.stdout)["notes"] if note.startswith("/var/log/letsencrypt ")]
    assert len(notes) == 1, status.stdout
    assert "--bind DIRECTORY:/var/log/letsencrypt" in notes[0]
    assert "user namespaces are switched off" in notes[0]


def test_a_writable_root_whose_files_are_roots(kernel: Kernel) -> None:
    code = "answer([serve('/var/log/tool'), os.makedirs('/var/log/tool', exist_ok=True)])"
    assert ask(kernel, code, overlay_tmpfs=True) == ["", None]


def _inside(world: Any, env: dict[str, str]) -> dict[str, str]:
    """Return variables such that they arrive in the image."""
    if isinstance(world, Sif):
        return {f"APPTAINERENV_{name}": value for name, value in env.items()}
    return env
