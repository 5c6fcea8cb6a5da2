"""Only a refused write is evidence: what fails for another reason is as without us, at no cost, and stays so."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.lab import apt
from tests.lab.environments import PYTHON
from tests.lab.plain_machine import WORK

if TYPE_CHECKING:
    from tests.lab.writing_image import Image

APP, ROOT = "/opt/app/lib/python", "/opt/app"
OTHER = {
    "a value": "import app; app.value('no number')",
    "a library": "raise ImportError('libcudnn_graph.so.9: cannot open shared object file: No such file or directory')",
    "a text": "raise ValueError('could not parse \"1 +\" of /venv/lib/python3/site-packages/x.py')",
    "space": f"raise RuntimeError('{APP}/app/x.h:12: fatal error: cannot write PCH file: No space left on device')",
    "reading": f"raise OSError('Cannot open {APP}/app/model.bin for reading')",
    "threads": (
        "import app, threading\nthreads = [threading.Thread(target=app.value, args=('no',)) for _ in range(3)]\n"
        "for thread in threads: thread.start(); thread.join()"
    ),
    "optional": "import app\ntry:\n    import not_there\nexcept ImportError: pass\nimport clean",
    "an exit": "import app, sys\ntry: app.value('no')\nexcept ValueError: sys.exit(3)",
}


@pytest.fixture
def app(one_image: Image) -> Image:
    """Return an image with an application outside the prefix, which finds its data by ``..``."""
    folder = f"{one_image.machine.in_image(ROOT)}/lib/python/app"
    os.makedirs(folder)
    os.makedirs(f"{folder}/../../../share")
    with open(f"{folder}/../../../share/model.txt", "w", encoding="utf-8") as file:
        file.write("model")
    with open(f"{folder}/__init__.py", "w", encoding="utf-8") as file:
        file.write(
            "import os\nHERE = os.path.dirname(__file__)\n"
            "def value(text):\n    if text == 'save':\n        open(os.path.join(HERE, 'value'), 'w').close()\n"
            "    return float(text)\n"
            "def model():\n    return open(os.path.join(HERE, '..', '..', '..', 'share', 'model.txt')).read()\n"
        )
    one_image.run("import app", env={"PYTHONPATH": APP})
    return one_image


@pytest.mark.parametrize("reason", OTHER)
def test_a_program_that_fails_for_another_reason_is_as_without_us(app: Image, reason: str) -> None:
    names = "{n for n in sys.modules if 'sif_writable' in n}"
    code = f"import atexit, outsider, sys\nbefore = {names}\n"  # the first import loads the hook
    code += "before.add('sif_writable.uncaught')\n"  # which comes with threading
    code += f"atexit.register(lambda: print(sorted({names} - before)))\n"  # before ours, so it runs after it
    program = f"{code}{OTHER[reason]}"
    learned = app.learned()
    ours = app.run(program, env={"PYTHONPATH": APP})
    plain = app.run(program, env={"PYTHONPATH": APP, "SIF_WRITABLE": "off"})
    assert (ours.returncode, ours.stderr) == (plain.returncode, plain.stderr)
    assert ours.stdout in ("[]\n", "executed clean\n[]\n"), ours.stdout
    assert app.learned() == learned
    assert app.says("import app; print(app.model(), app.__file__)", env={"PYTHONPATH": APP}).split() == [
        "model",
        f"{APP}/app/__init__.py",
    ]


@pytest.mark.exact
def test_such_an_error_reads_no_file(app: Image) -> None:
    """A program that fails makes not one system call more at its end than without us."""
    strace = apt.find("strace")
    if strace is None:
        pytest.skip("not run: this machine has no strace")
    counts = []
    for env in ({}, {"SIF_WRITABLE": "off"}):
        code = "import app, os; os.access('/begin', 0); app.value('no number')"
        words = [strace, "-f", "-qq", "-o", f"{WORK}/trace", PYTHON, "-c", code]
        result = app.machine.run(words, venv=app.environment, env={"PYTHONPATH": APP, **env})
        if "ptrace" in result.stderr:
            pytest.skip("not run: this machine does not let processes be traced")
        with open(os.path.join(app.places.work, "trace"), encoding="utf-8", errors="replace") as file:
            calls = file.read().partition('"/begin"')[2].splitlines()
        counts.append(len([call for call in calls if not call.split(None, 1)[1].startswith(("mmap", "munmap", "brk"))]))
    assert counts[0] <= counts[1], counts


EFFECTS = {
    "atexit": "import atexit; atexit.register(print, 'bye')",
    "a thread": "import threading, time; threading.Thread(target=time.sleep, args=(0.5,), daemon=True).start()",
    "a process": "import subprocess; subprocess.Popen(['sleep', '1'])",
    "a handler for a signal": "import signal; signal.signal(signal.SIGUSR1, print)",
    "hooked": "import sys; sys.excepthook = lambda *a: sys.__excepthook__(*a)",
    "a handler to logging": "import logging; logging.getLogger('x').addHandler(logging.StreamHandler())",
}
HANDED_OUT = {
    "it is in use as json.loads": (
        "import json\nloads = json.loads\ndef mine(text): return loads(text)\njson.loads = mine",
        "import json; json.loads('1')",
    ),
    "it is in use as json.dumps": (
        (
            "import functools, json\ndumps = json.dumps\n@functools.wraps(dumps)\ndef mine(it): return dumps(it)\n"
            "json.dumps = mine"
        ),
        "import json; json.dumps('1')",
    ),
    "it is in use as json.decoder.JSONDecoder.decode": (
        (
            "import json\ndecode = json.JSONDecoder.decode\ndef mine(self, text): return decode(self, text)\n"
            "json.JSONDecoder.decode = mine"
        ),
        "import json; json.loads('1')",
    ),
    "it is in use as threading.excepthook": (
        "import threading\nhook = threading.excepthook\ndef mine(args): hook(args)\nthreading.excepthook = mine",
        "",
    ),
    "it is in use as sys.stdout": (
        (
            "import sys\nclass Out:\n    def __init__(self, out): self.write, self.flush = out.write, out.flush\n"
            "sys.stdout = Out(sys.stdout)"
        ),
        "",
    ),
    "gc.callbacks holds a part of it": (
        "import gc\ndef collected(*arguments): pass\ngc.callbacks.append(collected)",
        "",
    ),
    "holder.classes holds a part of it": (
        "import holder\nclass Mine(holder.Base): pass",
        "import holder; assert len(holder.classes) == 1",
    ),
    "the interpreter calls a function of it": (
        "import os\nos.register_at_fork(before=lambda: print('fork'))",
        "import os; os.fork() or os._exit(0)",
    ),
}
"""What others hold: of the module, or of one of its own."""
NONE = {
    "logging": "import logging.handlers, multiprocessing.util, concurrent.futures.thread, weakref; "
    "logging.getLogger('x').addHandler(logging.NullHandler())",
    "others": "import leaving",
    "its own": "import functools, enum, json\nclass Kind(enum.Enum): A = 1\n@functools.lru_cache\ndef cached(): pass\n"
    "class Encoder(json.JSONEncoder): pass\nhooks = [cached, Encoder]\njson.dumps(1, cls=Encoder)",
}
WRITE = "\nimport os\nprint('executed')\nopen(os.path.join(os.path.dirname(__file__), 'made'), 'a').close()\n"


def _package(image: Image, name: str, text: str) -> None:
    folder = f"{image.machine.in_image('/opt/own')}/{name}"
    os.makedirs(folder)
    with open(f"{folder}/__init__.py", "w", encoding="utf-8") as file:
        file.write(text)


OWN = {"PYTHONPATH": "/opt/own"}


@pytest.mark.parametrize("effect", EFFECTS)
def test_what_a_second_try_would_double_is_not_tried_again(one_image: Image, effect: str) -> None:
    _package(one_image, "effective", EFFECTS[effect] + WRITE)
    first = one_image.run("import effective", env=OWN)
    assert (first.returncode, first.stdout.count("executed")) == (1, 1)
    ours = [line for line in first.stderr.splitlines() if line.startswith("sif_writable: ")]
    assert len(ours) == 1
    assert "from the next run on" in ours[0]
    assert effect in ours[0]
    assert ours[0].endswith("sif-writable cache forget effective")
    again = one_image.run("import effective", env=OWN)
    assert (again.returncode, again.stdout.count("executed")) == (0, 1), again


@pytest.mark.parametrize("where", ["the package", "a module"])
@pytest.mark.parametrize("held", HANDED_OUT)
def test_what_others_hold_is_not_made_anew(one_image: Image, held: str, where: str) -> None:
    _package(one_image, "holder", "classes = []\nclass Base:\n    def __init_subclass__(cls): classes.append(cls)")
    body, use = HANDED_OUT[held]
    _package(one_image, "effective", ("import effective.part" if where == "a module" else body) + WRITE)
    with open(f"{one_image.machine.in_image('/opt/own')}/effective/part.py", "w", encoding="utf-8") as file:
        file.write(body)
    program = f"import effective\n{use}"
    first = one_image.run(program, env=OWN)
    assert (first.returncode, first.stdout.count("executed")) == (1, 1), first
    assert f"This import is not tried again: {held}. " in first.stderr
    again = one_image.run(program, env=OWN)
    assert (again.returncode, again.stdout.count("executed"), again.stderr) == (0, 1, ""), again


@pytest.mark.parametrize("harmless", NONE)
def test_what_others_do_at_their_import_is_not_doubled(one_image: Image, harmless: str) -> None:
    _package(one_image, "leaving", "import atexit; atexit.register(print, 'bye')")
    _package(one_image, "effective", NONE[harmless] + WRITE)
    bye = "bye\n" if harmless == "others" else ""
    assert one_image.says("import effective", env=OWN) == "executed\n" * 2 + bye


def test_a_registry_that_refuses_the_second_try_shows_the_first_error(one_image: Image) -> None:
    _package(
        one_image,
        "registry",
        "names = set()\ndef add(name):\n    if name in names: raise KeyError('twice')\n    names.add(name)\n",
    )
    _package(one_image, "refusing", "import registry; registry.add('refusing')" + WRITE)
    plain = one_image.run("import refusing", env={**OWN, "SIF_WRITABLE": "off"})
    first = one_image.run("import refusing", env=OWN)
    line, _, rest = first.stderr.partition("\n")
    assert "is not used any more: the import of refusing failed with it too (KeyError: 'twice')" in line
    assert rest == plain.stderr
    assert one_image.run("import refusing", env=OWN).stdout == "executed\n"


def test_a_module_that_fails_begins_with_its_package(one_image: Image) -> None:
    _package(one_image, "console", "import os\nprint('executed', __name__)\nROOT = os.path.dirname(__file__)\n")
    with open(f"{one_image.machine.in_image('/opt/own')}/console/main.py", "w", encoding="utf-8") as file:
        file.write(
            "import console\nprint('executed', __name__)\nopen(console.ROOT + '/made', 'a').close()\n"
            "def run(): print(console.__file__, __file__, console.main.run is run)\n"
        )
    both = "executed console\nexecuted console.main\n"
    first = one_image.says("from console.main import run; run()", env=OWN)
    assert first.startswith(both * 2)
    package, module, same = first[len(both * 2) :].split()
    assert "/tree/opt/own/console/" in package
    assert "/tree/opt/own/console/" in module
    assert same == "True"
    assert one_image.says("from console.main import run", env=OWN) == both


def test_a_package_that_is_used_already_does_not_begin_afresh(one_image: Image) -> None:
    _package(one_image, "console", "class Thing: pass\n")
    with open(f"{one_image.machine.in_image('/opt/own')}/console/main.py", "w", encoding="utf-8") as file:
        file.write(WRITE)
    program = "from console import Thing\ntry:\n    import console.main\nexcept OSError:\n    import console\n"
    program += "    print(console.Thing is Thing)"
    first = one_image.run(program, env=OWN)
    assert (first.returncode, first.stdout) == (0, "executed\nTrue\n")
    assert "This import is not tried again: __main__ uses console.Thing." in first.stderr
    assert one_image.run(program, env=OWN).stdout == "executed\n"


SESSION = """
import open_use
open_use.use()

import mkdir_use
mkdir_use.use()

1 / 0
"""


@pytest.mark.parametrize("how", ["prompt", "basic", "console"])
def test_each_error_of_a_session_counts(each_image: Image, how: str) -> None:
    script = f"{each_image.places.home}/script.py"
    with open(script, "w", encoding="utf-8") as file:
        file.write(SESSION)
    inside = each_image.inside(script)
    if how == "console":
        argv = ["-c", f"import code, sys; sys.stdin = open({inside!r}); code.interact()"]
    else:
        argv = ["-c", f"import subprocess, sys; subprocess.run([sys.executable, '-i'], stdin=open({inside!r}))"]
    result = each_image.run(argv=argv, env={"PYTHON_BASIC_REPL": "1"} if how == "basic" else {})
    learned = each_image.learned()
    assert "package\topen_use\t" in learned, result
    assert "package\tmkdir_use\t" in learned, result
    assert result.stderr.count("from the next run on") == 2


SHELL = """
import sys, types
class Events:
    def register(self, name, function): self.functions = [function]
class InteractiveShell:
    events = Events()
    @classmethod
    def initialized(cls): return True
    @classmethod
    def instance(cls): return cls
"""


def test_each_cell_of_a_notebook_counts(one_image: Image) -> None:
    """IPython's own events, which say how each cell has ended."""
    program = f"""
{SHELL}
module = types.ModuleType('IPython.core.interactiveshell'); module.InteractiveShell = InteractiveShell
sys.modules[module.__name__] = module
import open_use, mkdir_use
for package in (open_use, mkdir_use):
    try: package.use()
    except OSError as error: result = types.SimpleNamespace(error_in_exec=error, error_before_exec=None)
    InteractiveShell.events.functions[0](result)
assert sys.excepthook is sys.__excepthook__
"""
    result = one_image.run(program)
    assert (result.returncode, result.stderr.count("from the next run on")) == (0, 2), result


# --- Loaders and finders of others ---

OTHERS = {
    # As beartype.claw has it: a hook for the path, with a loader of its own class.
    "a loader of its own class": """
import sys
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, FileFinder, SourceFileLoader
class Loader(SourceFileLoader):
    def __init__(self, *arguments): super().__init__(*arguments); self.own = 1
    def get_code(self, name): seen.append(name); return super().get_code(name)
sys.path_hooks.insert(0, FileFinder.path_hook((ExtensionFileLoader, EXTENSION_SUFFIXES), (Loader, ['.py'])))
sys.path_importer_cache.clear()
""",
    # As jaxtyping and typeguard have it: a finder before all others, which asks the path's.
    "a finder before us": """
import sys, quiet
from importlib.machinery import PathFinder, SourceFileLoader
class Loader(SourceFileLoader):
    def get_code(self, name): seen.append(name); return super().get_code(name)
class Finder:
    def find_spec(self, name, path=None, target=None):
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = Loader(spec.loader.name, spec.loader.path)
        return spec
sys.meta_path.insert(0, Finder())
""",
    # As pytest has it: the finder is the loader of all its modules, and goes by the spec.
    "one loader for all": """
import sys, quiet
from importlib.machinery import PathFinder
from importlib.util import spec_from_file_location
class Loader:
    def find_spec(self, name, path=None, target=None):
        spec = PathFinder.find_spec(name, path, target)
        if name not in ('outer', 'inner'): return None
        return spec_from_file_location(name, spec.origin, loader=self,
            submodule_search_locations=spec.submodule_search_locations)
    def create_module(self, spec): return None
    def exec_module(self, module):
        seen.append(module.__name__)
        origin = module.__spec__.origin
        with open(origin) as file: exec(compile(file.read(), origin, 'exec'), vars(module))
sys.meta_path.insert(0, Loader())
import threaded
""",
}


@pytest.mark.parametrize("others", OTHERS)
def test_loaders_of_others_load_what_is_copied(one_image: Image, others: str) -> None:
    program = f"""
seen = []
{OTHERS[others]}
import outer
import inner
assert seen.count('inner') >= 1 and type(inner.__loader__).__name__ == 'Loader', (seen, inner.__loader__)
assert inner.__loader__ is inner.__spec__.loader and '/tree/' in inner.__file__, inner.__file__
"""
    one_image.run("import quiet")
    result = one_image.run(program)
    if others == "a finder before us":  # it may be asked before we notice it; then the next run has the copy
        assert result.returncode in (0, 1)
    else:
        assert (result.returncode, result.stderr) == (0, ""), result
    assert one_image.says(program) == "executed outer\nexecuted inner\n"


@pytest.mark.parametrize("others", ["a loader of its own class", "a finder before us"])
def test_our_own_modules_are_not_rewritten_by_others(one_image: Image, others: str) -> None:
    """As beartype and typeguard do with whatever is imported, and fail: our annotations are for a checker of types."""
    refuse = "assert name[:13] != 'sif_writable.', name"
    program = OTHERS[others].replace("seen.append(name)", refuse) + "\nimport lonely"
    _package(one_image, "lonely", WRITE)
    first = one_image.run(program, env=OWN)
    assert "cache forget lonely" in first.stderr or (first.returncode, first.stderr) == (0, ""), first
    assert one_image.says(program, env=OWN) == "executed\n"


def test_a_finder_before_us_gets_what_is_copied_from_a_directory_that_nothing_else_came_from(one_image: Image) -> None:
    _package(one_image, "lonely", WRITE)
    program = f"seen = []\n{OTHERS['a finder before us']}\nimport lonely\nprint('/tree/' in lonely.__file__, seen[-1])"
    assert "cache forget lonely" in one_image.run(program, env=OWN).stderr
    assert one_image.says(program, env=OWN) == "executed\nTrue lonely\n"
