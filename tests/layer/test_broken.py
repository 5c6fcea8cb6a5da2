"""What breaks a layer or its publishing: signals, kills, full and silent storage. Nothing is half, nothing is lost."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from sif_writable.layer import child

if TYPE_CHECKING:
    from tests.layer.conftest import Box


def test_what_a_handler_raises_while_a_layer_is_made_passes_and_leaves_no_half_layer(box: Box) -> None:
    code = """
import signal
def handler(number, frame): raise TimeoutError("of the program")
if os.fork() == 0:
    enter()  # what a trial has shown is kept
    os._exit(0)
os.wait()
pairs = []
for number in range(60):
    reading, writing = os.pipe()
    if os.fork() == 0:
        entering._token = lambda: f"alarm-{number}"
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.0005 * (number + 1))
        try:
            said = enter()
            time.sleep(0.05)
        except TimeoutError:
            said = "raised"
        mounts = read("/proc/self/mountinfo").count(" - overlay sif-writable ")
        told = os.environ.get(decide.INSIDE, "")
        os.write(writing, json.dumps([said, mounts, bool(told)]).encode())
        os._exit(0)
    os.close(writing)
    pairs.append(json.loads(open(reading).read()))
    os.wait()
tell(pairs)
"""
    told = box.tells(code, env={"TOKEN": "first"})
    assert {said for said, _, _ in told} <= {"", "raised"}, told
    assert {(mounts, inside) for _, mounts, inside in told} == {(0, False), (1, True)}, told


def test_a_process_that_makes_progress_is_waited_for_and_a_silent_one_is_not() -> None:
    def slow() -> str:
        for _ in range(8):
            child.progress()
            time.sleep(0.3)
        return "done"

    def forever() -> str:
        time.sleep(60)
        return ""

    assert child.ask(slow, 1.0) == "done"
    began = time.monotonic()
    assert child.ask(forever, 0.5) is None
    assert time.monotonic() - began < 20
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_process_with_threads_publishes_at_its_end(box: Box) -> None:
    code = """
import threading
assert enter() == ""
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
write(SITE + "/of-threads")
"""
    assert box.run(code).stderr == ""
    assert [os.path.basename(path) for path in box.generation()] == ["of-threads"]


def test_what_storage_has_no_space_for_is_kept_and_published_when_it_has(box: Box) -> None:
    full = """
assert enter() == ""
write(SITE + "/large.bin", "x" * (3 << 20))
space = os.statvfs(STORAGE)
write(STORAGE + "/filler", "y" * (space.f_bavail * space.f_frsize - (1 << 20)))
"""
    ask = 'assert enter() == ""\ntell(os.path.exists(SITE + "/large.bin") and len(read(SITE + "/large.bin")))'
    script = f"""
mkdir -m 700 -p /var/tmp/own/image-test; export STORAGE=/var/tmp/own/image-test; chmod 700 /var/tmp/own
echo "exit: $($P '{full}' 2>&1)"
echo "full: $(TOKEN=b $P '{ask}' 2>&1)"
ls -A $STORAGE/layer
rm $STORAGE/filler
echo "free: $(TOKEN=c $P '{ask}' 2>&1)"
"""
    result = box.shell(script, tmpfs=["/var/tmp:12m"])
    at_exit, *full_again, free = result.stdout.splitlines()
    assert "exit: sif_writable: what was written in the environment is not in storage yet: No space left" in at_exit
    assert "is not in storage yet: No space left on device" in full_again[0], result
    assert full_again[1] == "false", result
    assert not [line for line in full_again if "gen-" in line], result
    assert free == f"free: {3 << 20}", result
