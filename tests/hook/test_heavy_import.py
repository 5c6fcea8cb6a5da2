"""The first heavy import: a question whether the module is there is none, and what is demanded ends the job."""

from __future__ import annotations

import os
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.conftest import or_skip
from tests.lab import wheels
from tests.lab.hooked import Hooked, write
from tests.lab.plain_machine import WORK

if TYPE_CHECKING:
    import subprocess

MODULES = f"{WORK}/modules"
REQUIRE = {"SIF_WRITABLE_GPU": "require", "PYTHONPATH": MODULES}
LINES = (
    "sif_writable: before 'import torch': There is no NVIDIA GPU on this node: no /dev/nvidia*, no "
    "/proc/driver/nvidia/version, although SIF_WRITABLE_GPU=require is set.\n"
    "sif_writable: remedy: Run it on a node with an NVIDIA GPU.\n"
)


@pytest.fixture
def job(hooked: Hooked) -> Hooked:
    """Return a machine without a GPU, with a package that takes torch's name."""
    _write(hooked, "torch/__init__.py", "print('torch is imported')\n")
    _write(hooked, "torch/cuda.py", "")
    return hooked


def _write(hooked: Hooked, name: str, text: str) -> str:
    return write(os.path.join(hooked.machine.places.work, "modules", name), text)


def _run(job: Hooked, program: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return job.run(*(words or ("-c", program)), env={**REQUIRE, **more})


QUESTIONS = """
import importlib, importlib.util, pickle, pkgutil, sys, warnings
warnings.simplefilter("ignore")
from importlib.machinery import PathFinder, SourceFileLoader
spec = importlib.util.find_spec("torch")
assert isinstance(spec.loader, SourceFileLoader) and spec.origin.endswith("/torch/__init__.py")
assert spec.loader.get_source("torch").startswith("print") and spec.loader.is_package("torch")
assert spec.loader.get_code("torch").co_filename == spec.loader.get_filename("torch") == spec.loader.path == spec.origin
assert spec.loader.get_resource_reader("torch") and not hasattr(spec.loader, "no_such_thing")
assert pickle.loads(pickle.dumps(spec.loader.__reduce_ex__(2)[0]))
if hasattr(pkgutil, "find_loader"): assert pkgutil.find_loader("torch")
assert "torch" in [module.name for module in pkgutil.iter_modules()]
module = importlib.util.module_from_spec(spec)
assert module.__spec__ is spec and module.__file__ == spec.origin
lazy = importlib.util.find_spec("torch")
lazy.loader = importlib.util.LazyLoader(lazy.loader)
sys.modules["torch"] = module = importlib.util.module_from_spec(lazy)
lazy.loader.exec_module(module)
del sys.modules["torch"]
print("asked")
try:
    module.cuda  # only now is it executed
except BaseException as error:
    print([kind.__name__ for kind in type(error).__mro__], error.name, error.code)
"""


def test_a_question_checks_nothing_and_the_import_ends_the_job(job: Hooked) -> None:
    done = _run(job, QUESTIONS)
    kinds = "['GpuUnavailableExit', 'GpuUnavailableError', 'UnmetDemandError', 'SystemExit', 'BaseException', 'object']"
    assert (done.returncode, done.stdout, done.stderr) == (0, f"asked\n{kinds} torch 1\n", LINES)


CAUGHT = """
import atexit
atexit.register(print, "at the end")
def work():
    try:
        import torch
    except ImportError:
        print("on the CPU")
    except Exception as error:
        print("otherwise", repr(error))
def main():
    try:
        work()
    finally:
        print("cleaned up")
"""


@pytest.mark.parametrize(
    "program",
    [
        "main()",
        "import asyncio\nasync def go(): main()\nasyncio.run(go())",
        "from concurrent.futures import ThreadPoolExecutor as P; P(1).submit(main).result(); print('went on')",
        "from concurrent.futures import ProcessPoolExecutor as P; P(1).submit(main).result(); print('went on')",
        "from multiprocessing import *; p = Process(target=main); p.start(); p.join(); raise SystemExit(p.exitcode)",
        "try: work()\nexcept: print('passed over')\nmain()",
    ],
    ids=["main", "asyncio", "thread pool", "process pool", "process", "bare except"],
)
def test_no_handler_goes_on_without_the_gpu(job: Hooked, program: str) -> None:
    done = _run(job, CAUGHT + program)
    assert done.returncode == 1, done
    assert done.stderr == LINES * (2 if "passed over" in program else 1)
    printed = done.stdout.splitlines()
    assert "on the CPU" not in printed
    assert "otherwise" not in done.stdout
    assert "torch is imported" not in printed
    assert "went on" not in printed
    assert "cleaned up" in printed
    assert "at the end" in printed


def test_a_thread_ends_and_says_why(job: Hooked) -> None:
    done = _run(job, CAUGHT + "import threading; t = threading.Thread(target=main); t.start(); t.join(); import torch")
    assert (done.returncode, done.stdout) == (1, "cleaned up\nat the end\n")
    assert done.stderr.startswith(LINES + "Exception in thread ")
    assert done.stderr.endswith(LINES)


@pytest.mark.parametrize("kind", ["get_context('fork').Pool", "get_context('spawn').Pool", "pool.ThreadPool"])
def test_a_pool_of_multiprocessing_hands_it_on_and_does_not_wait_for_ever(job: Hooked, kind: str) -> None:
    program = f"""
import multiprocessing as m, multiprocessing.pool, work
if __name__ == "__main__":
    from sif_writable.errors import GpuUnavailableError
    try:
        with m.{kind}(1) as pool: pool.map(work.work, [1])
    except GpuUnavailableError as error:
        print(type(error).__name__, error.name, error.problem.code)
"""
    _write(job, "work.py", "def work(_):\n    try: import torch\n    except ImportError: return 'on the CPU'\n")
    done = job.run("-c", program, env=REQUIRE, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "GpuUnavailableException torch no-gpu\n", LINES)


def test_a_server_whose_worker_cannot_boot_ends(job: Hooked) -> None:
    """A worker of gunicorn that exits is started again, for ever."""
    path = or_skip(wheels.installed, "gunicorn", ("gunicorn==23.0.0",), job.python.version)
    _write(job, "app.py", "try: import torch\nexcept ImportError: print('on the CPU')\napp = None\n")
    words = ("timeout", "--signal=KILL", "60", "python", "-m", "gunicorn", "--bind=unix:server", "app:app")
    env = {**REQUIRE, "PYTHONPATH": f"{MODULES}:/gunicorn"}
    done = job.machine.run(words, venv=job.environment, env=env, binds=[f"{path}:/gunicorn:ro"])
    assert (done.returncode, done.stdout) == (3, ""), done
    assert done.stderr.count(LINES) == 1
    assert "Worker failed to boot" in done.stderr


def test_a_prompt_is_not_ended(job: Hooked) -> None:
    """IPython sets ``sys.ps1`` as well, so that a notebook's kernel stays alive."""
    program = "try:\n    import torch\nexcept ImportError: print('on the CPU')\n\nimport torch\nprint('alive')\n"
    _write(job, "typed.py", program)
    done = job.machine.run(
        ["sh", "-c", f"python -i -q < {MODULES}/typed.py"], venv=job.environment, env={**REQUIRE, "TERM": "dumb"}
    )
    assert (done.returncode, done.stdout) == (0, "alive\n")
    assert done.stderr.count("sif_writable.errors.GpuUnavailableException: There is no NVIDIA GPU") == 2


def test_strict_ends_the_job_alike(job: Hooked) -> None:
    more = {"SIF_WRITABLE_GPU": "auto", "SIF_WRITABLE_STRICT": "1", "SIF_WRITABLE_DIR": "/proc/no/place"}
    done = _run(job, CAUGHT + "main()", **more)
    assert (done.returncode, done.stdout) == (1, "cleaned up\nat the end\n")
    fact, remedy = done.stderr.splitlines()[-2:]
    assert fact.startswith("sif_writable: before 'import torch': SIF_WRITABLE_DIR=/proc/no/place ")
    assert remedy.startswith("sif_writable: remedy: bind a directory")
    loose = os.path.join(job.machine.places.work, "loose")
    os.mkdir(loose)
    os.chmod(loose, 0o777)
    done = _run(job, CAUGHT + "main()", **{**more, "SIF_WRITABLE_DIR": f"{WORK}/loose"})
    remedy = f"chmod g-w,o-w or chmod +t '{WORK}/loose', or name another directory."
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, f"sif_writable: remedy: {remedy}")
    asked = _run(job, "import importlib.util as u; print(u.find_spec('torch') is not None)", **more)
    assert (asked.returncode, asked.stdout) == (0, "True\n")


def test_a_module_that_is_not_there_is_not_checked(hooked: Hooked) -> None:
    done = _run(hooked, "try: import torch\nexcept ModuleNotFoundError as error: print(error.name)")
    assert (done.returncode, done.stdout, done.stderr) == (0, "torch\n", "")


def test_a_fault_of_the_check_is_no_fault_of_the_import(job: Hooked) -> None:
    program = "from sif_writable.gpu import check; check.enforce = None; import torch\n"
    program += "import sif_writable; print(type(sif_writable.failure).__name__)"
    assert _run(job, program).stdout == "torch is imported\nTypeError\n"


# --- Whatever loads the module.

_KINDS = """
import importlib, importlib.machinery, importlib.util, re, sys, warnings
warnings.simplefilter("ignore")
class Loader:
    def create_module(self, spec): return None
    def exec_module(self, module): module.value = 1
class Legacy:
    def load_module(self, name):
        module = sys.modules[name] = type(sys)(name)
        module.value = 1
        return module
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        kind = {"foreign": Loader, "legacy": Legacy}.get(name)
        return kind and importlib.machinery.ModuleSpec(name, kind(), origin="somewhere")
sys.meta_path.append(Finder)
def is_object_code(name):
    spec = importlib.util.find_spec(name)
    return spec and name not in sys.modules and type(spec.loader).__name__ == "ExtensionFileLoader"
object_code = [name for name in ("_lsprof", "_queue", "_bz2", "_json", "_csv", "_zoneinfo") if is_object_code(name)]
KINDS = ["package", "package.inner", "module", "bytecode", "zipped", "space", "space.part", "foreign", *object_code[:1]]
if sys.version_info < (3, 14): KINDS.append("legacy")
KINDS.append("lazy")
def load(name):
    if name != "lazy":
        return importlib.import_module(name)
    spec = importlib.util.find_spec("package")
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = sys.modules["package"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.value
    return module
def kinds():
    for name in KINDS:
        for loaded in ("package", "space"):
            if loaded != name.partition(".")[0]: sys.modules.pop(loaded, None)
        if "." in name: importlib.import_module(name.partition(".")[0])
        yield name
"""
_SHOW = """
def shown(module):
    loader, spec = module.__loader__, module.__spec__
    own = sorted(set(vars(module)) - {"__builtins__", "__loader__", "__spec__"})
    return [type(loader).__name__, type(spec.loader).__name__, loader is spec.loader, str(spec), spec.cached,
        spec.parent, spec.has_location, [(name, str(getattr(module, name))) for name in own]]
for name in kinds():
    finder = FINDER
    if finder is not None:
        finder.awaited = frozenset((name.replace("lazy", "package"),))
    print(name, re.sub("0x[0-9a-f]+|reset=[0-9]+", "", str(shown(load(name)))))
    assert finder is None or not finder.awaited, name
"""
_REFUSED = """
from sif_writable.errors import GpuUnavailableError
finder = FINDER
for name in kinds():
    finder.awaited = frozenset((name.replace("lazy", "package"),))
    assert name == "lazy" or importlib.util.find_spec(name) is not None
    assert "SIF_WRITABLE_GPU_CHECKED" not in __import__("os").environ or refused
    try:
        load(name)
    except GpuUnavailableError as error:
        refused = True
        assert name == "lazy" or name not in sys.modules
        print(name)
    finder.awaited = frozenset()
"""
_FINDER = "__import__('sif_writable.importhook').importhook.install()"


@pytest.fixture
def kinds(each: Hooked) -> Hooked:
    """Return a machine with a module of each kind."""
    texts = {"package/__init__.py": "value = 1", "package/inner.py": "", "space/part.py": ""}
    for name, text in {**texts, "module.py": "value = 1", "bytecode.py": ""}.items():
        _write(each, name, text + "\n")
    folder = os.path.join(each.machine.places.work, "modules")
    with zipfile.ZipFile(os.path.join(folder, "modules.zip"), "w") as file:
        file.writestr("zipped.py", "value = 1\n")
    program = f"import py_compile; py_compile.compile('{MODULES}/bytecode.py', '{WORK}/bytecode.pyc')"
    assert each.run("-c", program, env={"SIF_WRITABLE": "off"}).returncode == 0
    os.unlink(os.path.join(folder, "bytecode.py"))
    return each


def test_every_loader_is_the_ordinary_one_after_the_import(kinds: Hooked) -> None:
    printed = []
    for mode, finder in (("auto", _FINDER), ("off", "None")):
        env = {"PYTHONPATH": f"{MODULES}:{MODULES}/modules.zip:{WORK}", "SIF_WRITABLE": mode}
        done = kinds.run("-c", _KINDS + _SHOW.replace("FINDER", finder), env=env)
        assert (done.returncode, done.stderr) == (0, "")
        printed.append(done.stdout.splitlines())
    assert printed[0] == printed[1]
    assert len(printed[0]) >= 10


def test_a_module_of_every_kind_is_checked_when_it_is_executed(kinds: Hooked) -> None:
    env = {**REQUIRE, "PYTHONPATH": f"{MODULES}:{MODULES}/modules.zip:{WORK}"}
    program = _KINDS + "refused = False\n" + _REFUSED.replace("FINDER", _FINDER) + "print(KINDS)\n"
    done = kinds.run("-c", program, env=env)
    assert done.returncode == 0, done
    *refused, everything = done.stdout.splitlines()
    assert str(refused) == everything


def test_a_module_that_is_run_as_a_program_is_checked(job: Hooked) -> None:
    _write(job, "train.py", "print('trains on the CPU', __spec__.loader, __loader__)\n")
    done = _run(job, "", "-m", "train", SIF_WRITABLE_HEAVY="train")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", LINES.replace("torch", "train"))
    assert _run(job, "", "-m", "torch.cuda").stderr == LINES
    done = _run(job, "", "-m", "train", SIF_WRITABLE_HEAVY="train", SIF_WRITABLE_GPU="auto")
    assert (done.returncode, done.stderr) == (0, "")
    assert "trains" in done.stdout
    assert "CheckedLoader" not in done.stdout


def test_a_traceback_through_the_import_is_as_without_us(job: Hooked) -> None:
    _write(job, "torch/__init__.py", "def f(): return 1 / 0\nimport torch.inner\n")
    _write(job, "torch/inner.py", "import torch\ntorch.f()\n")
    texts = [
        job.run("-c", "import torch", env={"PYTHONPATH": MODULES, "SIF_WRITABLE": mode}).stderr
        for mode in ("auto", "off")
    ]
    assert texts[0] == texts[1]
    assert texts[0].count("  File ") == 4
