"""The hook never hurts: whatever it meets, the program runs, its output is its own, and there is no traceback."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab import scratch
from tests.lab.environments import PYTHON
from tests.lab.hooked import STATE, Hooked, question, write
from tests.lab.plain_machine import HOSTS, VENV, WORK

if TYPE_CHECKING:
    from collections.abc import Sequence

# Runs in the machine: does something to each file of the package in turn, starts an interpreter, and undoes it.
_SPOIL = """
import json, os, subprocess, sys
folder, program, *spoils = sys.argv[1:]
names = sorted(os.path.relpath(os.path.join(where, name), folder)
               for where, _, files in os.walk(folder) for name in files if name.endswith(".py"))
found = []
for name in names:
    path = os.path.join(folder, name)
    for spoil in spoils:
        os.rename(path, path + ".away")
        if spoil != "missing":
            with open(path, "w") as file:
                file.write("\\0" if spoil == "NUL" else spoil)
            if spoil == "unreadable":
                os.chmod(path, 0)
        result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
        if spoil != "missing":
            os.unlink(path)
        os.rename(path + ".away", path)
        found.append([name, spoil, result.returncode, result.stdout, result.stderr])
print(json.dumps(found))
"""
_SPOILS = ("missing", "unreadable", "raise SystemExit(3)", "raise GeneratorExit", "no Python (", "NUL", "")
_ROOT = ("__init__.py",)
"""What the line in the .pth file itself imports: Python reports what goes wrong in there, and the program runs."""


@pytest.mark.parametrize("start", ["cold", "warm", "inherited"])
def test_any_file_of_the_package_may_be_spoilt(hooked: Hooked, start: str) -> None:
    changed = hooked.copy()
    package = os.path.join(VENV, os.path.relpath(changed.packages, changed.environment), "sif_writable")
    # A cold start wants storage that is not there: each moves away what it has made.
    move = f"os.rename('{WORK}/given', f'{WORK}/used-{{os.getpid()}}') if os.path.isdir('{WORK}/given') else 0"
    program = f"import os; {move if start == 'cold' else 0}; print('ran')"
    env = {"SIF_WRITABLE": "on", "SIF_WRITABLE_DIR": f"{WORK}/given"}
    if start != "cold":
        assert changed.state(writable=True, env=env) == "active"
    if start == "inherited":
        env |= changed.ask("{n: v for n, v in os.environ.items() if n != 'PATH'}", writable=True, env=env)
    script = write(os.path.join(changed.machine.places.work, "spoil.py"), _SPOIL)
    spoils = _SPOILS if start == "warm" else _SPOILS[:3]
    words = ["-I", "-S", f"{WORK}/{os.path.basename(script)}", package, program, *spoils]
    result = changed.run(*words, writable=True, env=env, timeout=600)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert len(found) > 50
    for name, spoil, code, out, err in found:
        if name in _ROOT and spoil.startswith("raise "):
            continue
        assert (code, out) == (0, "ran\n"), (name, spoil, code, out, err)
        if name not in _ROOT:
            _assert_no_traceback(err, lines=1)


def test_a_package_without_its_files_is_reported_and_the_program_runs(hooked: Hooked) -> None:
    changed = hooked.copy()
    os.rename(f"{changed.packages}/sif_writable", f"{changed.packages}/gone")
    result = changed.run("-c", "print('ran')")
    assert (result.returncode, result.stdout) == (0, "ran\n")
    assert "sif_writable.pth" in result.stderr


def test_a_failure_in_the_hook_is_kept_for_status(hooked: Hooked) -> None:
    changed = hooked.copy()
    write(f"{changed.packages}/sif_writable/system/filesystem.py", "raise SystemExit('spoilt')\n")
    asked = f"({STATE}, repr(sys.modules['sif_writable'].failure), len(sys.meta_path))"
    assert changed.ask(asked) == ("failed", "SystemExit('spoilt')", changed.without().ask("len(sys.meta_path)"))


# --- HOME, and places.

_ODD_HOMES = [
    "", "/", "//", ".", "..", "relative", "~", "/no/such/home", "/etc/passwd", "/usr", "/proc/self", "/dev/null",
    "/proc/1/root", "/home/user\nx", "/home/user:x", "/\udcff\udcfe", "/\U0001f40d", "/" + "x" * 300, "/x" * 3000,
    " ", "%",
]  # fmt: skip


@pytest.mark.parametrize("home", _ODD_HOMES, ids=lambda home: ascii(home)[:20])
def test_an_odd_home(hooked: Hooked, home: str) -> None:
    # The program gets bytes that are no text: in JSON they would not arrive.
    asked = question(f"({STATE}, os.access(os.environ.get('HOME', ''), os.W_OK))")
    setter = f"import os, sys; os.environ['HOME'] = {home!r}"
    program = f"{setter}; os.execv(sys.executable, [sys.executable, '-c', {asked!r}])"
    result = hooked.run("-S", "-c", program)
    assert (result.returncode, result.stderr) == (0, ""), result
    assert result.stdout == "('active', True)\n"


_ODD_PLACES = [
    "relative", ".", "/", "//", "/no/such/place", "/etc/passwd", "/usr", "/proc/self/fd", "/dev/null", "/dev/full",
    f"{WORK}/file", f"{WORK}/file/below", f"{WORK}/fifo", f"{WORK}/link", f"{WORK}/loop", f"{WORK}/dangling",
    f"{WORK}/closed", f"{WORK}/closed/below", f"{WORK}/a:b", f"{WORK}/a\nb", f"{WORK}/a b,c'd", f"{WORK}/" + "x" * 300,
    f"{WORK}/" + "deep/" * 900, f"{WORK}/\U0001f40d", " ", "~/x", "$HOME/x",
]  # fmt: skip


@pytest.fixture
def odd(hooked: Hooked) -> Hooked:
    """Return an environment whose working directory holds what a careful program stumbles over."""
    script = (
        "echo x > file; mkfifo fifo; mkdir real closed; ln -s real link; ln -s loop loop; ln -s nowhere dangling;"
        "mkdir closed/below; chmod 0 closed"
    )
    assert hooked.machine.run(["sh", "-c", script]).returncode == 0
    return hooked


@pytest.mark.parametrize("place", _ODD_PLACES, ids=lambda place: ascii(place)[:20])
def test_an_odd_place(odd: Hooked, place: str) -> None:
    for _ in range(2):  # the second time from what the first one has left
        result = odd.run("-c", question(STATE), env={"SIF_WRITABLE_DIR": place}, timeout=20)
        assert (result.returncode, result.stdout) == (0, "'active'\n"), result
        _assert_no_traceback(result.stderr, lines=1)


def test_a_relative_place_in_a_folder_that_is_gone(hooked: Hooked) -> None:
    script = f'mkdir gone && cd gone && rmdir ../gone && exec "$0" -c "{question(STATE)}"'
    for env in ({}, {"SIF_WRITABLE_DIR": "relative"}):
        result = hooked.machine.run(["sh", "-c", script, PYTHON], venv=hooked.environment, env=env)
        assert (result.returncode, result.stdout) == (0, "'active'\n"), result
        _assert_no_traceback(result.stderr, lines=1)


_SPOILT_STORAGE = [
    "rm -r *", "rm -r .sif-writable", "rm .sif-writable; mkdir .sif-writable", "rm .sif-writable; mkfifo .sif-writable",
    "rm .sif-writable; ln -s /etc/passwd .sif-writable", "echo nonsense > .sif-writable", ": > .sif-writable",
    "chmod 0 .sif-writable", "head -c 100000000 /dev/zero > .sif-writable", "rm -r image-*; touch image-x",
    "rm -r .sif-writable image-*", "rm -r image-*/config; touch $(echo image-*)/config",
    "rm -r image-*/config; ln -s /nowhere $(echo image-*)/config", "rm -r image-*/home; touch $(echo image-*)/home",
    "rm -r data; mkfifo data", "chmod 0 .", "chmod 500 .", "chmod 777 .", "chmod 0 image-*",
    "rm -r image-*/config/*; chmod 500 image-*/config", "rm -r ../sif-writable; touch ../sif-writable",
    "rm -r ../sif-writable", "chmod 0 ..", "chmod 500 ..", "chmod 777 ..", "rm -r ../../given; touch ../../given",
    "rm -r ../../given",
]  # fmt: skip


@pytest.mark.parametrize("script", _SPOILT_STORAGE, ids=lambda script: script[:40])
def test_spoilt_storage(hooked: Hooked, script: str) -> None:
    given: dict[str, Any] = {"env": {"SIF_WRITABLE_DIR": f"{WORK}/given"}, "home": "/no/such/home"}
    inherited = hooked.ask("dict(os.environ)", **given)
    spoilt = hooked.machine.run(["sh", "-c", f"cd given/sif-writable && {script}"])
    assert spoilt.returncode == 0, spoilt
    child = hooked.run("-c", question(STATE), env=inherited, home=inherited["HOME"], timeout=20)
    assert (child.returncode, child.stdout in ("'inherited'\n", "'active'\n")) == (0, True), child
    _assert_no_traceback(child.stderr, lines=1)
    for _ in range(2):
        result = hooked.run("-c", question(STATE), timeout=20, **given)
        assert (result.returncode, result.stdout) == (0, "'active'\n"), result
        _assert_no_traceback(result.stderr, lines=1)


@pytest.mark.parametrize("path", [".pytensorrc", ".mne/mne-python.json", ".cache", ".cache/huggingface", ".config"])
@pytest.mark.parametrize("make", ["mkfifo", "ln -s /nowhere", "mkdir -m 0", "touch", "head -c 3000000 /dev/zero >"])
def test_something_odd_in_home(hooked: Hooked, path: str, make: str) -> None:
    script = f'cd && mkdir -p "$(dirname {path})" && {make} {path}'
    assert hooked.machine.run(["sh", "-c", script]).returncode == 0
    for env in ({}, {"SIF_WRITABLE_HOME": "redirect"}):
        result = hooked.run("-c", question(STATE), env=env, timeout=20)
        assert (result.returncode, result.stdout, result.stderr) == (0, "'active'\n", ""), result


def test_no_place_at_all(hooked: Hooked, bare: Hooked) -> None:
    nowhere = hooked.machine.places.new_folder("nowhere")
    binds = [f"{nowhere}:{folder}:ro" for folder in ("/tmp", "/var/tmp", "/dev/shm", scratch.HOME)]
    asked = f"({STATE}, {{n: v for n, v in os.environ.items() if n != 'SIF_WRITABLE_SESSION'}})"
    state, environment = hooked.ask(asked, binds=binds)
    assert state == "no storage"
    assert environment == bare.ask("dict(os.environ)", binds=binds)


# --- The interpreter's surroundings.


@pytest.mark.parametrize("closed", ["0", "1", "2", "0 1 2"])
@pytest.mark.parametrize("env", [{}, {"SIF_WRITABLE_DEBUG": "1"}, {"SIF_WRITABLE_DIR": "/no/such/place"}], ids=str)
def test_closed_descriptors(hooked: Hooked, closed: str, env: dict[str, str]) -> None:
    _assert_runs_in_shell(hooked, " ".join(f"{number}>&-" for number in closed.split()), env)


@pytest.mark.parametrize("target", ["2>/dev/full", "2</dev/null", "1>/dev/full 2>&1"])
@pytest.mark.parametrize("env", [{"SIF_WRITABLE_DEBUG": "1"}, {"SIF_WRITABLE_DIR": "/no/such/place"}], ids=str)
def test_stderr_that_cannot_be_written(hooked: Hooked, target: str, env: dict[str, str]) -> None:
    _assert_runs_in_shell(hooked, target, env)


def _assert_runs_in_shell(hooked: Hooked, redirection: str, env: dict[str, str]) -> None:
    """Start an interpreter whose descriptors are as the redirection says; it writes to a file what the hook did."""
    program = f"import sys; open('{WORK}/state', 'w').write(str({STATE}))"
    for _ in range(2):
        script = f'rm -f state; "$0" -c "{program}" {redirection}; echo $?'
        result = hooked.machine.run(["sh", "-c", script, PYTHON], venv=hooked.environment, env=env)
        assert result.stdout == "0\n", result
        with open(os.path.join(hooked.machine.places.work, "state"), encoding="utf-8") as file:
            assert file.read() == "active"


@pytest.mark.parametrize("limit", ["-f 0", "-n 5", "-u 1", "-v 400000", "-s 512"])
def test_limits(hooked: Hooked, bare: Hooked, limit: str) -> None:
    script = f'ulimit {limit}; exec "$0" -c "print(1)"'
    results = [
        environment.machine.run(["sh", "-c", script, PYTHON], venv=environment.environment)
        for environment in (bare, hooked, hooked)
    ]
    outcomes = {(result.returncode, result.stdout, result.stderr) for result in results}
    assert len(outcomes) == 1, outcomes


_STRICT = [
    ["-W", "error"],
    ["-X", "dev", "-W", "error"],
    ["-X", "warn_default_encoding", "-W", "error"],
    ["-bb"],
    ["-X", "utf8=0"],
]


@pytest.mark.parametrize("flags", _STRICT, ids=" ".join)
def test_warnings_that_are_errors(hooked: Hooked, flags: Sequence[str]) -> None:
    assert hooked.state(*flags) == "active"  # cold
    assert hooked.state(*flags) == "active"


@pytest.mark.parametrize("locale", ["C", "POSIX", "en_US.ISO-8859-1", "nonsense"])
def test_locales(hooked: Hooked, locale: str) -> None:
    env = {"LANG": locale, "LC_ALL": locale, "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    result = hooked.run("-c", question(STATE), env={**env, "SIF_WRITABLE_DIR": "/\u00e4"})
    assert (result.returncode, result.stdout) == (0, "'active'\n"), result
    _assert_no_traceback(result.stderr, lines=1)


def test_modules_of_the_same_name_on_the_users_path(hooked: Hooked) -> None:
    for name in ("act", "facts", "plan", "report", "catalog", "pwd", "errno", "start", "child", "commands"):
        write(os.path.join(hooked.machine.places.work, "mine", f"{name}.py"), "raise SystemExit('shadowed')\n")
    assert hooked.state(env={"PYTHONPATH": f"{WORK}/mine"}) == "active"


def test_many_starts_at_once(hooked: Hooked) -> None:
    program = (
        "import subprocess, sys; found = [subprocess.Popen([sys.executable, '-c', sys.argv[1]], stdout=-1, stderr=-2)"
        " for _ in range(24)]; print(sorted({(p.communicate()[0].decode(), p.returncode) for p in found}))"
    )
    result = hooked.run("-S", "-c", program, question(STATE), home="/no/such/home")
    assert result.stdout == "[(\"'active'\\n\", 0)]\n", result


def test_a_program_in_a_user_namespace(hooked: Hooked) -> None:
    words = ["unshare", "--user", "--map-root-user", PYTHON, "-c", question(STATE)]
    result = hooked.machine.run(words, venv=hooked.environment, binds=[HOSTS])
    if "Operation not permitted" in result.stderr:
        pytest.skip("user namespaces are switched off")
    assert (result.returncode, result.stdout, result.stderr) == (0, "'active'\n", "")


_UNDER_UMASK = """
umask 0177
{python} -c "import os, sys, writes_beside; print(sys.modules['sif_writable'].state, oct(os.umask(0)))"
umask 022
{python} -c "import writes_beside; print('again')"
mkdir ~/.cache/by-a-program
find ~/.cache ! -perm -700 -type d ! -name __pycache__
"""


def test_a_umask_that_takes_from_the_user_himself_spoils_no_directory(hooked: Hooked) -> None:
    """As scripts that write secrets have it: what is made under it is there for all later programs."""
    image = hooked.copy()
    image.write("writes_beside.py", "import os\nopen(os.path.dirname(__file__) + '/made', 'a').close()\n")
    script = _UNDER_UMASK.format(python=PYTHON)
    result = image.machine.run(["sh", "-c", script], venv=image.environment, env={"SIF_WRITABLE_OVERLAY": "off"})
    assert (result.returncode, result.stdout.splitlines()) == (0, ["active 0o177", "again"]), result


def _assert_no_traceback(stderr: str, *, lines: int) -> None:
    assert "Traceback" not in stderr
    assert len(stderr.splitlines()) <= lines, stderr
    assert all(line.startswith("sif_writable: ") for line in stderr.splitlines()), stderr
