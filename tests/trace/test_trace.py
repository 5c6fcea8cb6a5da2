"""`sif-writable trace` in both kinds of read-only image, and without user namespaces."""

from __future__ import annotations

import ast
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab import environments
from tests.lab.environments import PYTHON as PYTHON_THERE
from tests.lab.overlaid import PACKAGES, PYTHON, Kernel, Sif, ask

if TYPE_CHECKING:
    from tests.lab.squashfs_root import SquashfsRoot
    from tests.lab.writing_image import Image

WRITER = f"""
import ctypes, os, shutil, subprocess, sys
def attempt(act, *arguments):
    try:
        act(*arguments)
    except OSError:
        pass
def write(path, mode="w"):
    with open(path, mode) as file:
        file.write("x")
print("from the command")
attempt(os.makedirs, "/var/log/tool")
attempt(write, "/var/log/tool/log")
attempt(os.mkdir, "/newdir")
attempt(write, "{PACKAGES}/kivy/by-python")
attempt(shutil.rmtree, "{PACKAGES}/kivy/tools")
attempt(write, "{PACKAGES}/numba/gone-again")
attempt(os.unlink, "{PACKAGES}/numba/gone-again")
attempt(os.mkdir, "{PACKAGES}/matplotlib/__pycache__/x.pyc")
attempt(write, "/opt/venv/pyvenv.cfg", "a")
attempt(os.mkdir, "/opt/venv/julia_env")
ctypes.CDLL(None).open(b"{PACKAGES}/numpy/by-native-code", 0o101, 0o644)
subprocess.run([sys.executable, "-c", "open('{PACKAGES}/filelock/by-a-child', 'w')"], stderr=subprocess.DEVNULL)
subprocess.run(["touch", "{PACKAGES}/platformdirs/by-touch"], stderr=subprocess.DEVNULL)
write("/tmp/not-the-image"); write("/var/tmp/not-the-image")
sys.exit(3)
"""
TRACE = [PYTHON, "-m", "sif_writable", "trace"]


@pytest.fixture(params=["sif", "kernel"])
def world(request: pytest.FixtureRequest) -> Sif | Kernel:
    """Return each of the two images."""
    if request.param == "sif":
        return Sif(request.getfixturevalue("apptainer"), request.getfixturevalue("sif"))
    return Kernel(request.getfixturevalue("squashfs_root"))


def traced(world: Any, *options: str, **settings: Any) -> tuple[dict[str, Any], dict[str, tuple[str, str]]]:
    """Trace the writer; return the whole answer, and path to (what, by)."""
    result = world.run([*TRACE, "--json", *options, "--", PYTHON, "-c", WRITER], **settings)
    assert result.returncode == 3, result
    assert "from the command" in result.stderr
    answer = json.loads(result.stdout)
    return answer, {one["path"]: (one["what"], one["by"]) for one in answer["writes"]}


PYTHON_WRITES = {
    "/newdir": ("tried", "Python"),
    "/opt/venv/julia_env": ("created", "Python"),
    "/opt/venv/pyvenv.cfg": ("changed", "Python"),
    "/var/log/tool": ("created", "Python"),
    "/var/log/tool/log": ("created", "Python"),
    f"{PACKAGES}/filelock/by-a-child": ("created", "a child process running Python"),
    f"{PACKAGES}/kivy/by-python": ("created", "Python"),
    f"{PACKAGES}/kivy/tools": ("removed", "Python"),
    f"{PACKAGES}/numba/gone-again": ("tried", "Python"),
}
OTHER_WRITES = {
    f"{PACKAGES}/numpy/by-native-code": ("created", "native code in Python, or another program (touch)"),
    f"{PACKAGES}/platformdirs/by-touch": ("created", "native code in Python, or another program (touch)"),
}


def test_every_write_is_seen_whoever_writes_and_what_a_layer_serves_is_not_kept(world: Any) -> None:
    answer, found = traced(world, "--save")
    assert answer["watched"] == "everything", answer
    assert answer["unwatched"] == []
    assert found == {**PYTHON_WRITES, **OTHER_WRITES}
    by_path = {one["path"]: one for one in answer["writes"]}
    assert by_path[f"{PACKAGES}/kivy/by-python"]["package"] == "kivy"
    assert by_path[f"{PACKAGES}/kivy/by-python"]["directory"] == PACKAGES
    assert "PYTHON_JULIAPKG_PROJECT, set to a directory" in by_path["/opt/venv/julia_env"]["remedy"]
    assert (
        by_path["/newdir"]["remedy"] == "a bind of a file or directory of yours (apptainer exec --bind YOURS:/newdir)"
    )
    assert "SIF_WRITABLE_OVERLAY_PATHS=/var/log/tool" in by_path["/var/log/tool"]["remedy"]
    remedy = by_path[f"{PACKAGES}/kivy/by-python"]["remedy"]
    if isinstance(world, Kernel):  # this user namespace has more users than one: no layer
        assert answer["served_by_layer"] == []
        assert {"kivy", "numpy"} <= set(answer["saved"])
        assert remedy.startswith("a writable copy of kivy")
    else:
        assert {"kivy", "numpy", "/opt/venv/julia_env", "/opt/venv/pyvenv.cfg"} <= set(answer["served_by_layer"])
        assert answer["saved"] == []
        assert remedy.startswith("none is needed: programs have a layer here, which serves it. Without one: a writable")
    code = f"""
wanted = importhook.install().copies.wanted()
there = ["/var/log/tool", "/opt/venv/julia_env", "{PACKAGES}/kivy/by-python"]
answer([sorted(set(wanted) & {{"kivy", "numpy"}}), [path for path in there if os.path.exists(path)]])
"""
    assert ask(world, code) == [["kivy", "numpy"] if isinstance(world, Kernel) else [], []]


@pytest.mark.parametrize(
    ("command", "by"),
    [
        ([PYTHON, "-c", "import ctypes; ctypes.CDLL(None).open(b'FILE', 0o101, 0o644)"], "native code in Python"),
        ([PYTHON, "-c", "import os; os.system('touch FILE')"], "native code in Python, or another program (touch)"),
        (["touch", "FILE"], "a program (touch)"),
    ],
)
def test_native_code_is_distinguished_from_programs(squashfs_root: SquashfsRoot, command: list[str], by: str) -> None:
    file = f"{PACKAGES}/numpy/written"
    words = [word.replace("FILE", file) for word in command]
    result = Kernel(squashfs_root).run([*TRACE, "--json", "--", *words])
    assert result.returncode == 0, result
    assert [(one["path"], one["by"]) for one in json.loads(result.stdout)["writes"]] == [(file, by)]


def test_without_user_namespaces_interpreters_are_watched(squashfs_root: SquashfsRoot) -> None:
    answer, found = traced(Kernel(squashfs_root), userns=False)
    assert answer["watched"] == "interpreters"
    assert "max_user_namespaces is 0" in answer["problem"]
    tried = {path: ("tried", by) for path, (_, by) in PYTHON_WRITES.items()}
    tried.pop("/var/log/tool/log")  # its directory could not be made, so that it lies in none of the image
    tried.pop(f"{PACKAGES}/kivy/tools")
    tried["/var/log/tool/log"] = ("tried", "Python")
    assert {path: one for path, one in found.items() if "/kivy/tools" not in path} == tried


OFF = {"SIF_WRITABLE_OVERLAY": "off"}


def test_what_is_saved_is_known_at_the_next_run(world: Any) -> None:
    """But for paths of no package, which are served only where somebody declares them: a line says how."""
    result = world.run([*TRACE, "--json", "--save", "--", PYTHON, "-c", WRITER], env=OFF)
    answer = json.loads(result.stdout)
    assert answer["served_by_layer"] == []
    assert {"kivy", "numpy"} <= set(answer["saved"])
    assert [name for name in answer["saved"] if "/" in name] == []
    assert result.returncode == 3
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("sif_writable: ")]
    declared = line.partition("SIF_WRITABLE_OVERLAY_PATHS=")[2].partition(",")[0]
    assert {"/var/log/tool", "/opt/venv/julia_env"} <= set(declared.split(":"))
    code = """
wanted = importhook.install().copies.wanted()
answer([sorted(set(wanted) & {"kivy", "numpy"}), sorted(overlay.current(os.environ))])
"""
    assert ask(world, code, env=OFF) == [["kivy", "numpy"], []]


def test_the_text(world: Any) -> None:
    said = world.run([*TRACE, "--", PYTHON, "-c", f"open('{PACKAGES}/numpy/x', 'w')"])
    assert said.returncode == 0, said
    assert "1 write under the image; the command ended with 0" in said.stdout
    assert "package numpy" in said.stdout
    assert "SIF_WRITABLE_PACKAGES=numpy" in said.stdout
    assert all(len(line) <= 80 for line in said.stdout.splitlines() if "/" not in line)
    assert world.run([*TRACE, "--", "sh", "-c", "kill -TERM $$"]).returncode == 143


def test_exit_codes_and_usage(one_image: Image) -> None:
    expected = {
        2: ([], ["--no-such-option", "--", "true"]),
        126: (["--", "/etc/passwd"],),
        127: (["--", "no-such-command"],),
        143: (["--", "sh", "-c", "kill -TERM $$"],),
    }
    for code, words in expected.items():
        for options in words:
            assert one_image.run(argv=["-m", "sif_writable", "trace", *options]).returncode == code, options


def test_what_is_the_hosts_is_neither_covered_nor_looked_through(one_image: Image) -> None:
    """On a host that is all but the environment; in an image, what is bound in at the top."""
    code = "import os, sys; print([line.split()[4] for line in open('/proc/self/mountinfo') if ' - overlay ' in line])"
    code += "\nfor path in (sys.prefix, os.getcwd(), '/home/user', '/bound'): open(f'{path}/mine', 'w').close()"
    places = one_image.places
    bound = [f"{places.new_folder('bound')}:/bound"]
    environment = environments.copy(one_image.environment, f"{places.folder}/venv")
    own = {f"{folder}/mine" for folder in (places.home, places.work, f"{places.folder}/bound")}
    for image, writable in ((False, True), (True, False)):
        words = [PYTHON_THERE, "-m", "sif_writable", "trace", "--json", "--", PYTHON_THERE, "-c", code]
        traced = one_image.machine.run(words, venv=environment, image=image, writable=writable, env=OFF, binds=bound)
        answer, line = json.loads(traced.stdout), traced.stderr.splitlines()[0]
        assert (answer["exit_code"], answer["watched"]) == (0, "everything"), traced
        assert [one["path"] for one in answer["writes"]] == ["/venv/mine"]
        assert not os.path.exists(f"{environment}/mine")  # as it was
        covered = ast.literal_eval(line)
        assert "/venv" in covered, covered
        assert not {"/usr", "/bin", "/lib", "/bound", "/home"} & set(covered), covered
        assert own == {path for path in own if os.path.exists(path)}
        for path in own:
            os.unlink(path)
