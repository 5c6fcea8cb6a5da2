"""What breaks a layer or its publishing: signals, kills, full and silent storage. Nothing is half, nothing is lost."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

from sif_writable.layer import child

if TYPE_CHECKING:
    import pytest

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
for number in range(40):
    reading, writing = os.pipe()
    if os.fork() == 0:
        entering._token = lambda: f"alarm-{number}"
        signal.signal(signal.SIGALRM, handler)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0008 * (number + 1))
            said = enter()
            time.sleep(0.05)
        except TimeoutError:
            said = "raised"
        mounts = read("/proc/self/mountinfo").count(" - overlay sif-writable ")
        inside = os.environ.get(LAYER, "")
        os.write(writing, json.dumps([said, mounts, bool(inside)]).encode())
        os._exit(0)
    os.close(writing)
    pairs.append(json.loads(open(reading).read()))
    os.wait()
answer(pairs)
"""
    pairs = box.answer(code, env={"TOKEN": "first"})
    assert {said for said, _, _ in pairs} <= {"", "raised"}, pairs
    assert {(mounts, inside) for _, mounts, inside in pairs} == {(0, False), (1, True)}, pairs


def test_a_process_that_makes_progress_is_waited_for_and_a_silent_one_is_not() -> None:
    def slow() -> str:
        for _ in range(8):
            child.progress()
            time.sleep(0.3)
        return "done"

    def forever() -> str:
        time.sleep(60)
        return ""

    def children() -> list[str]:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="utf-8") as file:
            return file.read().split()

    before = children()
    assert child.ask(slow, 1.0) == "done"
    began = time.monotonic()
    assert child.ask(forever, 0.5) is None
    assert time.monotonic() - began < 20
    assert children() == before


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
    ask = 'assert enter() == ""\nanswer(os.path.exists(SITE + "/large.bin") and len(read(SITE + "/large.bin")))'
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


CHANGE = """
import pickle, sqlite3
assert enter() == ""
me = sys.argv[2]
for folder in ("store", "cache", "plain"):
    os.makedirs(f"{SITE}/quiet/{folder}", exist_ok=True)
connection = sqlite3.connect(SITE + "/quiet/store/t.db", isolation_level=None)
connection.execute("begin"); connection.execute("create table if not exists t (x)")
connection.executemany("insert into t values (?)", [(me,)] * 300)
connection.execute("commit")
connection.execute("pragma cache_size=1")
connection.execute("begin"); connection.execute("update t set x = -1")
write(SITE + "/quiet/cache/data", me * 5000)
write(SITE + "/quiet/cache/index", f"{me} data {len(me * 5000)}")
with open(SITE + "/quiet/plain/one.pickle", "wb") as file:
    pickle.dump([me] * 5000, file)
write(SITE + "/quiet/of-" + me)
if me == "1":
    open("ready", "w").close()
    time.sleep(60)
while not os.path.exists("ready"): time.sleep(0.01)
connection.execute("commit"); connection.close()
"""
CHECK = """
import pickle, sqlite3
assert enter() == ""
connection = sqlite3.connect(SITE + "/quiet/store/t.db")
ok = connection.execute("pragma integrity_check").fetchall()
of, name, size = read(SITE + "/quiet/cache/index").split()
with open(SITE + "/quiet/plain/one.pickle", "rb") as file:
    whole = pickle.load(file)
answer([
    ok, connection.execute("select distinct x from t").fetchall(), os.listdir(SITE + "/quiet/store"),
    read(SITE + "/quiet/cache/" + name) == of * 5000, whole in (["1"] * 5000, ["2"] * 5000),
    sorted(name for name in os.listdir(SITE + "/quiet") if name.startswith("of-")),
])
"""


def test_two_containers_change_the_same_at_once_and_one_is_killed(box: Box) -> None:
    script = f"""
(export TOKEN=a; exec /venv/bin/python /work-folder/p.py '{CHANGE}' 1) &
first=$!
TOKEN=b $P '{CHANGE}' 2
kill -9 $first; wait $first
TOKEN=c $P '{CHECK}'
"""
    result = box.shell(script)
    (ok, rows, names, index_fits, whole, sides) = json.loads(result.stdout.splitlines()[-1])
    # One side whole: the one that wrote last, which was not rolled back by the other's journal.
    assert (ok, names, index_fits, whole) == ([["ok"]], ["t.db"], True, True), result
    assert rows in ([[-1]], [["1"]]), result
    assert len(sides) == 1, result
    (line,) = [line for line in result.stderr.splitlines() if "changed by two containers at once" in line]
    aside = line.rpartition("/layer/")[2]
    assert {"t.db", "data", "one.pickle"} <= {name for _, _, found in os.walk(f"{box.place}/{aside}") for name in found}


def test_many_starts_at_once_some_killed_lose_nothing_and_leave_nothing(
    box: Box, request: pytest.FixtureRequest
) -> None:
    number, at_once = (500, 32) if request.config.getoption("--all-faults") else (18, 6)
    code = """
number = int(sys.argv[2])
os.environ["TOKEN"] = f"run-{number // 3}"
said = enter()
assert said == "" or "another process has been making" in said, said
if not said:
    os.mkdir(f"{SITE}/of-{number}")
    write(f"{SITE}/of-{number}/x", "x")
    os.makedirs(f"{SITE}/of-all", exist_ok=True)
    write(f"{SITE}/of-all/x", "the same")
    if number % 5 == 0: os.kill(os.getpid(), 9)
else:
    print("late", number)
"""
    check = """
assert enter() == ""
place = entering.current.place
there = [name for name in os.listdir(SITE) if name[3:].isdigit() and os.listdir(SITE + "/" + name)]
written = [name for name in os.listdir(place) if name.startswith(("upper-", ".new-")) and any(
    os.listdir(f"{place}/{name}/{number}") for number in os.listdir(f"{place}/{name}") if number.isdigit())]
answer([len(there), written])
"""
    script = f"""
mkdir -p code; cat > code/one.py <<'END'
{code}
END
seq {number} | xargs -P {at_once} -I N sh -c '/venv/bin/python /work-folder/p.py "$(cat code/one.py)" N' 2>errors
cat errors >&2
cat /proc/[0-9]*/mountinfo | grep -c ' - overlay sif-writable '
TOKEN=check-1 $P '{check}' >/dev/null
TOKEN=check-2 $P '{check}'
"""
    result = box.shell(script, timeout=900)
    *late, mounted, line = [line for line in result.stdout.splitlines() if "late" not in line]
    there, left = json.loads(line)
    missing = result.stdout.count("late")
    assert (mounted, there + missing) == ("0", number), (result, late)
    assert "by two containers" not in result.stderr, result
    assert left == [], left
    assert missing <= number // 10, result


NOWHERE = "trial.UPPER_TYPES = frozenset()\n"
"""No filesystem of this node can carry a layer, as where all of them are NFS, FUSE or an overlay."""


def test_where_no_filesystem_can_carry_a_layer_it_is_in_memory_and_published_at_the_end(box: Box) -> None:
    first = f"""{NOWHERE}
assert enter() == ""
from sif_writable.layer import memory
write(SITE + "/quiet/kept", "x" * 1000)
os.unlink(SITE + "/large/__init__.py")
space = os.statvfs(entering.current.folder)
answer([space.f_blocks * space.f_frsize == memory.LIMIT, os.path.basename(entering.current.folder)[:7]])
if os.fork() == 0:
    write(SITE + "/quiet/of-a-child")
    os._exit(0)
os.wait()
"""
    join = f"""{NOWHERE}
assert enter() == ""
answer([read(SITE + "/quiet/kept")[:1], os.readlink("/proc/self/ns/mnt")])
write(SITE + "/quiet/of-" + sys.argv[2])
if sys.argv[2] == "killed": os.kill(os.getpid(), 9)
"""
    script = f"""
$P '{first}'
export TOKEN=b
$P '{join}
open("ready", "w").close()
while not os.path.exists(SITE + "/quiet/of-second"): time.sleep(0.01)' first &
while ! test -e ready; do sleep 0.01; done
$P '{join}' second
wait
TOKEN=c $P '{join}' killed
TOKEN=d $P '{NOWHERE}
assert enter() == ""
answer(sorted(name for name in os.listdir(SITE + "/quiet") if name.startswith(("of-", "kept"))))'
cat /proc/[0-9]*/mountinfo | grep -c 'sif-writable '
"""
    result = box.shell(script)
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert answers[0] == [True, "memory-"], result
    assert answers[1] == answers[2], result  # they share one
    assert answers[1][0] == "x"
    assert answers[4] == ["kept", "of-a-child", "of-first", "of-second"], result  # and nothing of the killed one
    assert answers[5] == 0
    assert "by two containers" not in result.stderr, result
    with open(f"{box.place}/trial", encoding="utf-8") as file:
        assert file.read().endswith("\nin memory")


def test_what_is_in_memory_and_cannot_be_published_is_said_to_be_lost(box: Box) -> None:
    code = f"""{NOWHERE}
assert enter() == ""
write(SITE + "/new")
for name in os.listdir(STORAGE + "/layer"):  # as where another storage is bound there now
    if name.startswith("id-"): os.unlink(STORAGE + "/layer/" + name)
"""
    result = box.run(code)
    assert "is lost: it was in memory, and is not in storage: " in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_generation_too_large_for_a_copy_is_mounted_from_storage_and_said(box: Box) -> None:
    """What may hold a layer is a tmpfs here, and storage is on a disk: so they are two filesystems, as with NFS."""
    apart = 'trial.UPPER_TYPES = frozenset(("tmpfs",))\nfrom sif_writable.layer import replicas\n'
    write = (
        f'{apart}assert enter() == ""\nwrite(SITE + "/large.bin", "x" * 5000); os.unlink(SITE + "/quiet/__init__.py")'
    )
    check = f"""{apart}replicas.REPLICA_BYTES = 1000
assert enter() == ""
base = read(entering.current.folder + "/about").split("\\n")[1]
answer([read(SITE + "/large.bin")[:3], os.path.realpath(base)])
write(SITE + "/more")
"""
    script = f"$P '{write}'\nTOKEN=b $P '{check}'\nTOKEN=c $P '{check}'\nTOKEN=c $P '{check}' 2>again; cat again >&2"
    result = box.shell(script, tmpfs=["/var/tmp:64m"])
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [text for text, _ in answers] == ["xxx"] * 3, result
    assert [os.path.basename(where) for _, where in answers] == ["gen-1", "gen-2", "gen-2"], result
    assert result.stderr.count("is mounted from") == 2, result


MODES = {"secret": 0o000, "log": 0o200, "empty": 0o000, "shut/x": 0o644, "entered/x": 0o644, "listed/x": 0o644}


def test_what_a_program_took_the_right_to_read_from_is_kept_with_its_mode(box: Box) -> None:
    code = (
        f"enter()\nos.chdir(SITE)\nfor name, mode in {MODES}.items():\n    os.makedirs(os.path.dirname(name) or '.', "
    )
    code += "exist_ok=True); write(name, '' if name == 'empty' else 'x'); os.chmod(name, mode)\n"
    code += "for name, mode in (('shut', 0), ('entered', 0o311), ('listed', 0o600)): os.chmod(name, mode)\nanswer(0)"
    assert box.answer(code) == 0
    found = {path.partition("/site-packages/")[2]: text for path, text in box.generation().items()}
    assert found == {name: "" if name == "empty" else "x" for name in MODES}
    code = f"enter()\nanswer([os.lstat(f'{{SITE}}/{{name}}').st_mode & 0o777 for name in {list(MODES)}])"
    assert box.answer(code) == [*MODES.values()]
