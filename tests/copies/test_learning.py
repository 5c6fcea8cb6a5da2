"""What is learned from errors at first use that nobody catches, wherever they end something; and what is left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.lab.writing_image import Image

_PROMISE = "writes into its own directory, which cannot be written here; from the next run on it is imported from a"
_PROCESS = "process = m.get_context({method!r}).Process(target={target}); process.start(); process.join()"
_WORKERS = {
    "fork": "import multiprocessing as m, open_use; " + _PROCESS.format(method="fork", target="open_use.use"),
    "spawn": "import multiprocessing as m, open_use; " + _PROCESS.format(method="spawn", target="open_use.use"),
    "forkserver": "import open_use, multiprocessing as m; "
    + _PROCESS.format(method="forkserver", target="open_use.use"),
    "imported in the child": "import multiprocessing as m; "
    + _PROCESS.format(method="fork", target="exec, args=('import open_use; open_use.use()',)"),
    "child of a child": "import open_use, multiprocessing as m; "
    + _PROCESS.format(method="fork", target="exec, args=(CHILD,)"),
    "thread": "import threading, open_use; t = threading.Thread(target=open_use.use); t.start(); t.join()",
    "threading comes later": "import open_use, threading as t; t = t.Thread(target=open_use.use); t.start(); t.join()",
    "pool": "import open_use, multiprocessing as m; m.get_context('fork').Pool(1).apply(open_use.use)",
    "thread pool": "import open_use, concurrent.futures as c; c.ThreadPoolExecutor(1).submit(open_use.use).result()",
    "process pool": "import open_use, concurrent.futures as c; c.ProcessPoolExecutor(1).submit(open_use.use).result()",
    "reported in words, as torch does": """
import open_use, traceback
try: open_use.use()
except OSError: text = traceback.format_exc()
import unconcerned; unconcerned.again('Caught OSError in DataLoader worker process 0.\\nOriginal ' + text)
""",
}


# Where coverage is measured, each interpreter has imported multiprocessing before the hook.
_EACH = [
    pytest.param(where, marks=[pytest.mark.exact] if where == "imported in the child" else []) for where in _WORKERS
]


@pytest.mark.parametrize("where", _EACH)
def test_an_error_in_a_worker_is_learned(one_image: Image, where: str) -> None:
    child = _PROCESS.format(method="fork", target="open_use.use")
    program = f"CHILD = {('import open_use, multiprocessing as m; ' + child)!r}\n{_WORKERS[where]}"
    plain = one_image.run(program, env={"SIF_WRITABLE": "off"})
    first = one_image.run(program)
    assert first.returncode == plain.returncode
    ours = [line for line in first.stderr.splitlines() if line.startswith("sif_writable: ")]
    assert [line.partition(" ")[2].startswith(f"open_use {_PROMISE}") for line in ours] == [True], first
    assert len(first.stderr.splitlines()) == len(plain.stderr.splitlines()) + 1
    if where != "reported in words, as torch does":
        one_image.says(program)
        assert one_image.has("site-packages/open_use/log.txt")


def test_every_interpreter_listens(each_image: Image) -> None:
    for name, where in (("open_use", "fork"), ("mkdir_use", "threading comes later"), ("native_use", "spawn")):
        program = _WORKERS[where].replace("open_use", name)
        assert f"sif_writable: {name} {_PROMISE}" in each_image.run(program).stderr
        assert each_image.says(program) == "made\n"


def test_hooks_of_others_are_kept(one_image: Image) -> None:
    program = """
import sys, threading
def mine(arguments): print('mine', arguments.exc_type.__name__)
def start(): t = threading.Thread(target=open_use.use); t.start(); t.join()
threading.excepthook = mine
import open_use
start()
assert sys.excepthook is sys.__excepthook__ and sys.unraisablehook is sys.__unraisablehook__
threading.excepthook = mine  # whoever sets it later is not called by way of ours
start()
assert threading.excepthook is mine
"""
    result = one_image.run(program)
    assert (result.returncode, result.stdout) == (0, "mine OSError\n" * 2)
    assert result.stderr.count(_PROMISE) == len(result.stderr.splitlines()) == 1


@pytest.mark.exact
def test_modules_that_report_errors_are_as_without_us(one_image: Image) -> None:
    program = """
import quiet, sys
assert 'threading' not in sys.modules and 'multiprocessing' not in sys.modules
import threading, multiprocessing.process as process
for module in (threading, process):
    assert type(module.__loader__) is type(module.__spec__.loader) is type(quiet.__loader__), module.__loader__
    assert module.__loader__ is module.__spec__.loader
"""
    one_image.says("import quiet")
    one_image.says(program)


def test_workers_that_end_well_load_nothing_of_ours(one_image: Image) -> None:
    program = """
import quiet, sys, multiprocessing, threading
def work():
    quiet.value
def ours():
    return sorted(name for name in sys.modules if 'sif_writable' in name)
def at_end(before):
    work()
    process = multiprocessing.current_process()
    assert 'run' not in vars(process) and process.run.__func__ is multiprocessing.Process.run
    print(ours() == before)
def leave():
    sys.exit(3)
before = ours()
thread = threading.Thread(target=work); thread.start(); thread.join()
process = multiprocessing.get_context('fork').Process(target=at_end, args=(before,)); process.start(); process.join()
process = multiprocessing.get_context('fork').Process(target=leave); process.start(); process.join()
print(process.exitcode, ours() == before)
"""
    one_image.says("import quiet")
    assert one_image.says(program) == "True\n3 True\n"
