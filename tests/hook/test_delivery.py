"""The hook reaches the interpreter by every way of installing it, beside everybody else's hooks, and leaves again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import NOT_RUN
from tests.lab import environments
from tests.lab.environments import PYTHON
from tests.lab.hooked import STATE, TARGET, Hooked, answer, contents, question, write
from tests.lab.plain_machine import VENV
from tests.lab.store import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.lab.plain_machine import PlainMachine
    from tests.lab.pythons import Python

PTH_LINE = "import sif_writable; sif_writable.run()"
FINDERS = "[finder.__module__.startswith('sif_writable') for finder in sys.meta_path].count(True)"
HOOK = f"{TARGET}/sif_writable/hook"
OTHER = "/other"
"""Another tool's folder on PYTHONPATH."""

# A sitecustomize that says that it ran, how often, and what the hook had done by then.
WITNESS = "import os, sys; sys.witness = [*getattr(sys, 'witness', []), ({name!r}, 'NUMBA_CACHE_DIR' in os.environ)]\n"
# How ddtrace and debugpy let the next one run.
CHAINING = """
here = os.path.dirname(os.path.abspath(__file__))
index = sys.path.index(here)
del sys.path[index]
ours = sys.modules.pop("sitecustomize")
try:
    import sitecustomize
except ImportError:
    sys.modules["sitecustomize"] = ours
finally:
    sys.path.insert(index, here)
"""
WITNESSED = "getattr(sys, 'witness', [])"


def status(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert (result.returncode, result.stderr) == (0, ""), result
    model: dict[str, Any] = json.loads(result.stdout)
    return model


# --- What is in the wheel.


def test_wheel_holds_the_hook_and_no_sitecustomize_at_its_root(wheel: str) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
        (record,) = (name for name in names if name.endswith(".dist-info/RECORD"))
        recorded = {line.split(",")[0] for line in file.read(record).decode().splitlines()}
        pth = file.read("sif_writable.pth").decode()
    assert recorded == set(names)
    assert {"sif_writable/hook/sitecustomize.py", "sif_writable/py.typed"} < recorded
    assert {name for name in names if "/" not in name} == {"sif_writable.pth"}
    assert pth.splitlines() == [PTH_LINE]
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


# --- The environment itself.


def test_every_interpreter_runs_it(each: Hooked) -> None:
    assert each.state() == "active"
    assert each.state(image=False) == "host"
    installed = status(each.run("-m", "sif_writable", "status", "--json"))["hook"]
    assert installed["state"] == "active"
    assert installed["how"].endswith("/sif_writable.pth")
    assert (installed["problem"], installed["remedy"]) == ("", "")


def test_pth_lines_may_run_twice_in_a_venv_and_it_acts_once(each: Hooked) -> None:
    changed = each.copy()
    changed.write("zzz.pth", "import sys; sys.lines_run = getattr(sys, 'lines_run', 0) + 1\n")
    result = changed.run("-c", f"import sys; print(sys.lines_run, {FINDERS})", env={"SIF_WRITABLE_DEBUG": "1"})
    reads = 1 if each.python.version == "3.15" else 2  # python/cpython#75723 is mended there
    assert result.stdout == f"{reads} 1\n"
    assert sum(", interpreter " in line for line in result.stderr.splitlines()) == 1


def test_installed_in_the_venv_and_in_the_system_below_it_acts_once(debian: Hooked, target: str) -> None:
    changed = debian.copy()
    both = [f"{target}:{_dist_packages(debian.python)}:ro"]
    _see_system_packages(changed)
    assert changed.ask(f"({STATE}, {FINDERS})", binds=both) == ("active", 1)


@pytest.mark.parametrize("flags", [["-E"], ["-I"], ["-s"], ["-B"], ["-O"], ["-OO"], ["-u"], ["-P"], ["-E", "-s"]])
def test_flags_that_do_not_stop_it(hooked: Hooked, flags: list[str]) -> None:
    if flags == ["-P"] and hooked.python.version in ("3.9", "3.10"):
        pytest.skip("-P is younger than this interpreter")
    assert hooked.state(*flags) == "active"


def test_no_site_stops_it_and_status_says_so(hooked: Hooked) -> None:
    assert hooked.state("-S") is None
    path = {"PYTHONPATH": os.path.join(VENV, os.path.relpath(hooked.packages, hooked.environment))}
    hook = status(hooked.run("-S", "-m", "sif_writable", "status", "--json", env=path))["hook"]
    assert (hook["active"], hook["state"], hook["how"]) == (False, "not delivered", "")
    assert "-S" in hook["problem"]
    assert hook["remedy"] == "drop -S"
    text = hooked.run("-S", "-m", "sif_writable", "status", env=path).stdout
    assert "not active" in text
    assert "remedy: drop -S" in text


def test_the_console_script_says_how_it_was_started(hooked: Hooked) -> None:
    result = hooked.machine.run(["sif-writable", "status", "--json"], venv=hooked.environment)
    assert status(result)["hook"]["active"]


# --- Debian's Python, which has a sitecustomize in its standard library that shadows any other.


def _dist_packages(python: Python) -> str:
    path = f"/usr/local/lib/python{python.version}/dist-packages"
    if not os.path.isdir(path):
        pytest.skip(f"{NOT_RUN}this machine has no {path} to show packages at")
    return path


def _see_system_packages(environment: Hooked) -> None:
    path = os.path.join(environment.environment, "pyvenv.cfg")
    with open(path, encoding="utf-8") as file:
        settings = file.read().replace("packages = false", "packages = true")
    write(path, settings)


@pytest.mark.parametrize("flags", [[], ["-I"], ["-E", "-s"]])
def test_debian_system_python(debian_python: Python, machine: PlainMachine, target: str, flags: list[str]) -> None:
    binds = [f"{target}:{_dist_packages(debian_python)}:ro"]
    asked = question(f"({STATE}, sys.prefix, sys.modules['sitecustomize'].__file__)")
    state, prefix, custom = answer(machine.run([debian_python.path, *flags, "-c", asked], binds=binds))
    assert (state, prefix) == ("active", "/usr")
    assert custom.startswith("/usr/lib/python3")  # Debian's own has run, too


def test_debian_venv_that_sees_the_system_packages(debian_python: Python, machine: PlainMachine, target: str) -> None:
    path = environments.copy(environments.bare(debian_python), os.path.join(machine.places.folder, "venv"))
    inner = Hooked(machine, debian_python, path)
    binds = [f"{target}:{_dist_packages(debian_python)}:ro"]
    assert inner.state(binds=binds) is None
    _see_system_packages(inner)
    assert inner.state(binds=binds) == "active"


# --- A person's own sitecustomize in site-packages.


@pytest.mark.parametrize("which", ["main_python", "debian_python"])
def test_own_sitecustomize_runs_and_survives_install_and_uninstall(
    which: str, machine: PlainMachine, request: pytest.FixtureRequest
) -> None:
    python: Python = request.getfixturevalue(which)
    path = environments.copy(environments.bare(python), os.path.join(machine.places.folder, "venv"))
    environment = Hooked(machine, python, path)
    own = environment.write("sitecustomize.py", WITNESS.format(name="own"))
    before = contents(path)
    runs = not python.debian  # Debian's shadows it, with us and without us

    assert environment.ask(WITNESSED) == ([("own", False)] if runs else [])
    assert environments.install(machine, python, path).returncode == 0
    assert environment.state() == "active"
    assert environment.ask(WITNESSED) == ([("own", True)] if runs else [])
    assert environments.pip(machine, python, path, ["uninstall", "--yes", "sif-writable"]).returncode == 0
    assert contents(path) == before
    assert environment.ask(WITNESSED) == ([("own", False)] if runs else [])
    with open(own, encoding="utf-8") as file:
        assert file.read() == WITNESS.format(name="own")


# --- Delivery by PYTHONPATH.


def _by_path(
    environment: Hooked,
    target: str,
    path: Sequence[str],
    expression: str = f"({STATE}, {WITNESSED})",
    *flags: str,
) -> Any:
    binds = [f"{target}:{TARGET}:ro"]
    other = os.path.join(environment.machine.places.folder, "other")
    if os.path.isdir(other):
        binds.append(f"{other}:{OTHER}:ro")
    return environment.ask(expression, *flags, binds=binds, env={"PYTHONPATH": ":".join(path)})


def _write_other(environment: Hooked, text: str, name: str = "sitecustomize.py") -> None:
    write(os.path.join(environment.machine.places.folder, "other", name), text)


def test_pythonpath_delivery(bare: Hooked, target: str) -> None:
    assert _by_path(bare, target, [HOOK]) == ("active", [])
    assert _by_path(bare, target, [HOOK, TARGET]) == ("active", [])
    for flag in ("-E", "-I", "-S"):
        assert _by_path(bare, target, [HOOK], STATE, flag) is None


def test_pythonpath_with_a_folder_of_our_name(bare: Hooked, target: str) -> None:
    """A clone, in which the package is one folder further down, or what an uninstall has left."""
    _write_other(bare, "", "sif_writable/README.md")
    for path in ([HOOK, OTHER], [OTHER, HOOK]):
        state, _, module = _by_path(bare, target, path, f"({STATE}, {WITNESSED}, __import__('sif_writable').__file__)")
        assert (state, module) == ("active", f"{TARGET}/sif_writable/__init__.py")


def test_pythonpath_delivery_says_how(bare: Hooked, target: str) -> None:
    path = {"PYTHONPATH": f"{HOOK}:{TARGET}"}
    result = bare.run("-m", "sif_writable", "status", "--json", binds=[f"{target}:{TARGET}:ro"], env=path)
    hook = status(result)["hook"]
    assert (hook["active"], hook["how"], hook["problem"]) == (True, f"{HOOK}/sitecustomize.py", "")


def test_pythonpath_delivery_in_every_interpreter(each: Hooked, target: str) -> None:
    assert _by_path(each.without(), target, [HOOK], STATE) == "active"


@pytest.mark.parametrize("chaining", [False, True])
def test_pythonpath_before_another_tool(bare: Hooked, target: str, chaining: bool) -> None:
    _write_other(bare, WITNESS.format(name="other") + (CHAINING if chaining else ""))
    assert _by_path(bare, target, [HOOK, OTHER]) == ("active", [("other", True)])
    assert _by_path(bare, target, [HOOK, OTHER, HOOK, OTHER]) == ("active", [("other", True)])


@pytest.mark.parametrize("path", [[HOOK, f"{OTHER}/again", OTHER], [f"{OTHER}/again", HOOK, OTHER]])
def test_pythonpath_with_our_folder_by_two_names(bare: Hooked, target: str, path: list[str]) -> None:
    _write_other(bare, WITNESS.format(name="other"))
    os.symlink(HOOK, os.path.join(bare.machine.places.folder, "other", "again"))
    assert _by_path(bare, target, path) == ("active", [("other", True)])


def test_pythonpath_below_a_trace(bare: Hooked, target: str) -> None:
    """Which lets the next one run without leaving the path, as the pure recipe for that does."""
    _write_other(bare, WITNESS.format(name="other"))
    assert _by_path(bare, target, [f"{HOOK}/trace", HOOK, OTHER]) == ("active", [("other", True)])


def test_pythonpath_after_another_tool(bare: Hooked, target: str) -> None:
    _write_other(bare, WITNESS.format(name="other"))
    # Python looks no further than the first; a tool that lets the next one run lets ours run.
    assert _by_path(bare, target, [OTHER, HOOK]) == (None, [("other", False)])
    _write_other(bare, WITNESS.format(name="other") + CHAINING)
    assert _by_path(bare, target, [OTHER, HOOK]) == ("active", [("other", False)])


@pytest.mark.parametrize("order", [[HOOK, OTHER], [OTHER, HOOK]])
def test_pythonpath_with_another_tool_and_a_persons_own(bare: Hooked, target: str, order: list[str]) -> None:
    path = environments.copy(bare.environment, os.path.join(bare.machine.places.folder, "venv"))
    changed = Hooked(bare.machine, bare.python, path)
    changed.write("sitecustomize.py", WITNESS.format(name="own"))
    _write_other(changed, WITNESS.format(name="other") + CHAINING)
    assert _by_path(changed, target, order) == ("active", [("other", order[0] == HOOK), ("own", True)])


def test_pythonpath_beside_debians(debian: Hooked, target: str) -> None:
    plain = debian.without()
    # Debian's sitecustomize imports this one if it is there.
    _write_other(plain, WITNESS.format(name="apport") + "def install(): pass\n", "apport_python_hook.py")
    asked = f"({STATE}, {WITNESSED}, sys.modules['sitecustomize'].__file__)"
    for order in ([HOOK, OTHER], [OTHER, HOOK]):
        state, witnessed, custom = _by_path(plain, target, order, asked)
        assert (state, witnessed) == ("active", [("apport", True)])
        assert custom.startswith("/usr/lib/python3")


@pytest.mark.parametrize(
    "text",
    [
        "1 / 0\n",
        "raise SystemExit(7)\n",
        "raise KeyboardInterrupt\n",
        "import there_is_no_such_module\n",
        "raise ImportError('mine', name='sitecustomize')\n",
        "this is no Python\n",
        "import sys; print('said', file=sys.stderr); del sys.modules['sitecustomize']; 1 / 0\n",
    ],
)
def test_a_failing_next_sitecustomize_is_reported_as_without_us(bare: Hooked, target: str, text: str) -> None:
    _write_other(bare, text)
    binds = [f"{target}:{TARGET}:ro", f"{bare.machine.places.folder}/other:{OTHER}:ro"]
    program = "import sys; print('ran')"
    results = [bare.run("-c", program, binds=binds, env={"PYTHONPATH": path}) for path in (OTHER, f"{HOOK}:{OTHER}")]
    without, beside = [(r.returncode, r.stdout, _without_our_frames(r.stderr)) for r in results]
    assert beside == without


def _without_our_frames(stderr: str) -> str:
    """Leave out what a fatal traceback says of how the file was reached."""
    lines = stderr.splitlines()
    frames = [n for n, line in enumerate(lines) if line.startswith("  File ")]
    own = [n for n in frames if OTHER not in lines[n]]
    drop = {n for start in own for n in range(start, next((f for f in frames if f > start), start + 2))}
    return "\n".join(line for n, line in enumerate(lines) if n not in drop)


# --- pip install --target.


def test_target_install_does_not_run_and_the_printed_remedy_works(bare: Hooked, target: str) -> None:
    binds, path = [f"{target}:{TARGET}:ro"], {"PYTHONPATH": TARGET}
    assert bare.ask(STATE, binds=binds, env=path) is None
    hook = status(bare.run("-m", "sif_writable", "status", "--json", binds=binds, env=path))["hook"]
    assert (hook["active"], hook["state"], hook["how"]) == (False, "not delivered", "")
    assert "--target" in hook["problem"]
    text = bare.run("-m", "sif_writable", "status", binds=binds, env=path).stdout
    assert "not active" in text

    _, _, setting = hook["remedy"].partition("set PYTHONPATH=")
    remedied = {"PYTHONPATH": setting.split(",")[0]}
    assert bare.ask(STATE, binds=binds, env=remedied) == "active"
    after = status(bare.run("-m", "sif_writable", "status", "--json", binds=binds, env=remedied))["hook"]
    assert (after["active"], after["problem"]) == (True, "")


# --- pip install -e.


def test_editable_install(bare: Hooked) -> None:
    source = os.path.join(bare.machine.places.folder, "source")
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"):
        os.makedirs(source, exist_ok=True)
        shutil.copy(os.path.join(REPOSITORY, name), source)
    shutil.copytree(
        os.path.join(REPOSITORY, "sif_writable"),
        os.path.join(source, "sif_writable"),
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    # What `pip install -e` asks the build backend for; pip would first download that backend.
    program = "import sys; from hatchling.build import build_editable; build_editable(sys.argv[1])"
    built = bare.machine.places.new_folder("built")
    subprocess.run([sys.executable, "-c", program, built], cwd=source, check=True)
    (wheel,) = os.listdir(built)
    path = environments.copy(bare.environment, os.path.join(bare.machine.places.folder, "venv"))
    changed = Hooked(bare.machine, bare.python, path)
    before = contents(path)

    words = ["install", "--no-deps", f"/built/{wheel}"]
    installed = environments.pip(bare.machine, bare.python, path, words, binds=[f"{built}:/built:ro"])
    assert installed.returncode == 0, installed
    shown = [f"{source}:{source}:ro"]
    asked = f"({STATE}, sys.modules['sif_writable'].__file__, sys.modules['sif_writable'].__version__)"
    state, file, version = changed.ask(asked, binds=shown)
    assert (state, file) == ("active", os.path.join(source, "sif_writable", "__init__.py"))
    write(os.path.join(source, "sif_writable", "__init__.py"), '__version__ = "edited"\n\n\ndef run():\n    pass\n')
    assert version != "edited"
    assert changed.ask(asked, binds=shown)[2] == "edited"
    assert environments.pip(bare.machine, bare.python, path, ["uninstall", "--yes", "sif-writable"]).returncode == 0
    assert contents(path) == before


# --- Uninstalling.


def test_uninstall_leaves_nothing(each: Hooked) -> None:
    changed = each.copy()
    start = contents(environments.bare(each.python))
    assert contents(changed.environment) > start
    assert changed.state(writable=True, env={"SIF_WRITABLE": "on"}) == "active"
    removed = environments.pip(each.machine, each.python, changed.environment, ["uninstall", "--yes", "sif-writable"])
    assert removed.returncode == 0, removed
    assert contents(changed.environment) == start
    left = [name for _, folders, files in os.walk(changed.environment) for name in (*folders, *files)]
    assert not [name for name in left if "sif_writable" in name or "sif-writable" in name]
    assert changed.state() is None  # and nothing is said on stderr


def test_reinstalling_over_itself(hooked: Hooked) -> None:
    changed = hooked.copy()
    result = environments.install(hooked.machine, hooked.python, changed.environment, "--force-reinstall")
    assert result.returncode == 0, result
    assert changed.state() == "active"
    assert contents(changed.environment) == contents(hooked.environment)


def test_nothing_of_ours_is_on_the_path_of_programs(hooked: Hooked, bare: Hooked) -> None:
    names = [name for name in os.listdir(hooked.packages) if name not in os.listdir(bare.packages)]
    assert {name.split("-")[0] for name in names} == {"sif_writable", "sif_writable.pth"}
    assert hooked.ask("sys.path") == bare.ask("sys.path")
    assert PYTHON.startswith(VENV)
