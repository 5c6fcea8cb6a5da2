"""Signals that arrive while our code runs: what their handlers raise is the program's, and is never swallowed."""

from __future__ import annotations

import ast
import json
import os

import pytest

from tests.lab.hooked import STATE, Hooked

# Sends the signal at the N-th call of a function that the hook calls: it arrives at the next step of our code.
_AT_A_CALL = """
import os, signal, sys

def send_at(name, number, count=1, module=os):
    called, original = [], getattr(module, name)

    def function(*arguments, **named):
        result = original(*arguments, **named)
        called.append(name)
        if len(called) == count:
            setattr(module, name, original)
            signal.raise_signal(number)
        return result

    setattr(module, name, function)
"""


def _interrupting(hooked: Hooked, line: str) -> Hooked:
    """Return an environment in which a line is executed before the hook, as any other package's .pth file may."""
    changed = hooked.copy()
    changed.write("interrupting.py", f"{_AT_A_CALL}\n{line}\n")
    changed.write("aaa.pth", "import interrupting\n")
    return changed


def test_ctrl_c_during_a_start_ends_it(each: Hooked) -> None:
    """As without us, where it arrives in ``site`` itself: cold, warm, and in a child."""
    _assert_ends(each, "access")


@pytest.mark.parametrize("call", ["lstat", "listdir", "getpid"])
def test_ctrl_c_anywhere_in_a_start_ends_it(hooked: Hooked, call: str) -> None:
    _assert_ends(hooked, call)


def _assert_ends(hooked: Hooked, call: str) -> None:
    interrupted = _interrupting(hooked, f"'CALM' in os.environ or send_at({call!r}, signal.SIGINT)")
    ends = [interrupted.run("-c", "print('it goes on')")]  # cold
    if call in ("access", "lstat"):  # which others call, too
        calm = interrupted.ask("dict(os.environ)", env={"CALM": "1"})
        del calm["CALM"]
        ends += [interrupted.run("-c", "print('it goes on')"), interrupted.run("-c", "print('it goes on')", env=calm)]
    for end in ends:
        assert (end.returncode, end.stdout) == (1, ""), end
        assert end.stderr.count("KeyboardInterrupt") == 1


@pytest.mark.exact
def test_what_a_handler_raises_during_a_start_is_reported(hooked: Hooked) -> None:
    handler = "def handler(number, frame): raise RuntimeError('the time is over')"
    interrupted = _interrupting(
        hooked, f"{handler}\nsignal.signal(signal.SIGALRM, handler)\nsend_at('lstat', signal.SIGALRM)"
    )
    result = interrupted.run("-c", f"import sys; print({STATE}, sys.modules['sif_writable'].failure)")
    assert "RuntimeError: the time is over" in result.stderr  # by site, whose line it was that was executed
    assert (result.returncode, result.stdout) == (0, "failed None\n")


# --- In the program.

MANY = 60
_PROGRAM = (
    _AT_A_CALL
    + """
import errno, fcntl, shutil
ERRORS = [
    TimeoutError("the time is over"), OSError(errno.EROFS, "Read-only file system", "/x"), ValueError("a handler's"),
    FileExistsError(errno.EEXIST, "File exists", "/x"), SystemExit(3),
]

def handler(number, frame):
    raise error

signal.signal(signal.SIGUSR1, handler)
outcomes = []
for place in (("utime", 30), ("scandir", 1), ("statvfs", 1), ("mkdir", 1), ("open", 40), ("rename", 1)):
    for error in ERRORS:
        send_at(place[0], signal.SIGUSR1, place[1])
        try:
            import many
        except BaseException as caught:
            outcomes.append((place[0], caught is error, "many" in sys.modules))
        else:
            outcomes.append((place[0], "imported"))
            break
send_at("kill", signal.SIGUSR1)
os.kill(os.getpid(), 0)
"""
)


@pytest.fixture
def many(hooked: Hooked) -> Hooked:
    """Return an environment with a package of many files, and one whose import takes its time."""
    changed = hooked.copy()
    for number in range(MANY):
        changed.write(f"many/part_{number}.py", f"VALUE = {number}\n")
    changed.write("many/__init__.py", "import os\n")
    body = "import os, signal\nprint('executed')\nos.kill(os.getpid(), signal.SIGUSR1)\nfor _ in range(1000): pass\n"
    changed.write("slow/__init__.py", body)
    return changed


def test_what_a_handler_raises_during_a_copy_is_no_failed_copy(many: Hooked) -> None:
    program = _PROGRAM.rpartition('send_at("kill"')[0] + "import many; print(repr((outcomes, many.__file__)))"
    result = many.run("-c", program, env={"SIF_WRITABLE_PACKAGES": "many"})
    assert (result.returncode, result.stderr) == (0, ""), result
    outcomes, path = ast.literal_eval(result.stdout)
    swallowed = [entry for entry in outcomes if entry[1] != "imported" and entry[1:] != (True, False)]
    assert not swallowed
    assert len([entry for entry in outcomes if entry[0] == "utime"]) == 5
    assert "/sif-writable/" in path
    status = json.loads(many.run("-m", "sif_writable", "status", "--json", "--no-gpu").stdout)
    assert [note for note in status["notes"] if "many" in note] == []
    assert [entry["how"] for entry in status["packages"] if entry["name"] == "many"] in ([], ["copy"])
    left = [name for _, folders, _ in os.walk(many.machine.places.home) for name in folders if "sif-writable-" in name]
    assert left == []


@pytest.mark.parametrize("error", ["PermissionError(13, 'Permission denied', FILE)", "OSError(30, 'Read-only', FILE)"])
def test_what_a_handler_raises_during_an_import_is_no_refused_write(many: Hooked, error: str) -> None:
    """Though it looks like one: the module is executed once, and nothing is learned."""
    program = f"""
import signal, sys
FILE = "/venv/lib/python{many.python.version}/site-packages/slow/data"
def handler(number, frame):
    raise {error}
signal.signal(signal.SIGUSR1, handler)
try:
    import slow
except OSError as caught:
    print(type(caught).__name__, caught.__traceback__.tb_next.tb_next.tb_frame.f_code.co_name)
"""
    result = many.run("-c", program)
    assert (result.returncode, result.stdout.splitlines()[0], result.stderr) == (0, "executed", ""), result
    assert len(result.stdout.splitlines()) == 2
    status = json.loads(many.run("-m", "sif_writable", "status", "--json", "--no-gpu").stdout)
    assert [entry for entry in status["packages"] if entry["name"] == "slow"] == []
