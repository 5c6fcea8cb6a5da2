"""Nothing outlives its session: processes, descriptors, mounts and temporary folders are counted before and after.

Everything happens in a pid namespace of its own, so whatever is there beside the observer was left there.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from sif_writable import aside
from sif_writable.cleanup import policy
from sif_writable.cleanup.contents import inspect_root
from sif_writable.cleanup.policy import DAY, KNOWN
from sif_writable.cleanup.request import remove
from sif_writable.trace import watch
from tests.lab.environments import PYTHON

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.writing_image import Image

# Runs steps one after the other, and prints after each what is there beside this process, and what the step said.
_OBSERVER = """
import glob, json, os, signal, subprocess, sys, time
STORAGE = "/home/user/.cache/sif-writable"
def processes():
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) not in (1, os.getpid()):
            try:
                with open(f"/proc/{pid}/cmdline") as file:
                    found.append(file.read())
            except (FileNotFoundError, ProcessLookupError):  # it has ended just now
                pass
    return found
def world():
    others = processes()
    end = time.monotonic() + 1
    while others and time.monotonic() < end:  # one that was killed takes a moment to go
        time.sleep(0.02)
        others = processes()
    with open("/proc/self/mountinfo") as file:
        mounts = len(file.readlines())
    temporary = [os.path.join(place, name) for place in ("/tmp", "/var/tmp", "/dev/shm", os.getcwd())
                 for name in os.listdir(place)]
    aside = [os.path.relpath(os.path.join(here, name), STORAGE) for here, folders, files in os.walk(STORAGE)
             for name in (*folders, *files) if name.startswith((".new-", ".try-"))]
    return {"others": others, "mounts": mounts, "temporary": sorted(temporary), "aside": sorted(aside)}
def start(words, env):
    return subprocess.Popen([sys.executable, *words], env={**os.environ, **env}, text=True,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
def until(happens):
    end = time.monotonic() + 60
    while not (found := happens()):
        assert time.monotonic() < end
        time.sleep(0.002)
    return found
seen = [world()]
for step in json.loads(sys.argv[1]):
    process = start(step["words"], step.get("env", {}))
    if "kill when" in step:
        until(lambda: glob.glob(step["kill when"]))
        process.kill()
        process.wait()
        until(lambda: not world()["others"])
        seen.append(world())
    else:
        said = process.communicate()[0]
        seen.append({**world(), "said": said, "code": process.returncode})
print(json.dumps(seen))
"""
_FDS = "import os; print(sorted(os.listdir('/proc/self/fd')))"


def observe(image: Image, *steps: dict[str, Any], userns: bool = True) -> list[dict[str, Any]]:
    """Return what is there before the first step and after each."""
    words = [PYTHON, "-S", "-c", _OBSERVER, json.dumps(steps)]
    result = image.machine.run(words, venv=image.environment, userns=userns, timeout=200)
    assert (result.returncode, result.stderr) == (0, ""), result
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def code(text: str, **env: str) -> dict[str, Any]:
    """Return the step that runs a program."""
    return {"words": ["-c", text], "env": env}


def command(*words: str) -> dict[str, Any]:
    """Return the step that runs one of our commands."""
    return {"words": ["-m", "sif_writable", *words]}


OUTSIDE = {"SIF_WRITABLE_OVERLAY_PATHS": "/venv/share/outside"}

ENDINGS = [
    code("pass"),
    code("import inner, resourceful"),  # copies, by a second try
    code("import large", SIF_WRITABLE_PACKAGES="large"),  # a copy at once
    code("import hopeless"),  # a second try that fails as well
    code("import open_use; open_use.use()"),  # an error that nobody catches
    code("import os; os.makedirs('/venv/share/outside/x', exist_ok=True)", **OUTSIDE),
    code("import outsider.use"),
    code("import os; pid = os.fork(); import inner; pid and os.waitpid(pid, 0)"),
    command("status"),
    command("doctor"),
    command("env"),
    command("cache", "list"),
    command("cache", "clear", "--yes", "packages-cpython-311"),
    command("run", "--", "true"),
    command("trace", "--json", "--", "/venv/bin/python", "-c", "import inner; open('/venv/x', 'w')"),
]


def test_no_process_mount_or_temporary_folder_stays(one_image: Image) -> None:
    before, *after = observe(one_image, *ENDINGS)
    assert before["others"] == []
    for step, seen in zip(ENDINGS, after):
        said = seen.pop("said"), seen.pop("code")
        assert seen == before, (step, said)


@pytest.mark.parametrize(
    "text",
    [
        "pass",
        "import open_use\ntry:\n    open_use.use()\nexcept OSError: pass",
        "import os; os.makedirs('/venv/share/outside/x', exist_ok=True)",
    ],
)
def test_no_descriptor_stays(one_image: Image, text: str) -> None:
    env = OUTSIDE if "outside" in text else {}
    for _ in range(2):
        _, seen = observe(one_image, code(f"{text}\n{_FDS}", **env))
        assert (seen["code"], seen["said"].splitlines()[-1]) == (0, "['0', '1', '2', '3']"), seen


def test_the_lease_of_the_copies_is_the_only_descriptor_that_stays(one_image: Image) -> None:
    show = "import os, fcntl\nfor n in os.listdir('/proc/self/fd'):\n  try: print(n, os.readlink(f'/proc/self/fd/{n}'))"
    show += "\n  except OSError: pass\nprint(fcntl.fcntl(3, fcntl.F_GETFD))"
    for _ in range(2):
        _, seen = observe(one_image, code(f"import inner, resourceful\n{show}"))
        *open_, flags = seen["said"].splitlines()[-5:]
        assert seen["code"] == 0, seen
        assert [line.split("/")[-1] for line in open_ if line.startswith("3 ")] == ["lease"], seen
        assert not [line for line in open_ if line[0] not in "0123"], seen
        assert flags == "1"  # no program that is executed gets it


def test_of_a_killed_copy_up_nothing_runs_on_and_the_next_run_is_whole(one_image: Image) -> None:
    """What lies aside is seen by nobody; it goes after a day, by the next cold start or by `cache prune --dead`."""
    wanted = {"SIF_WRITABLE_PACKAGES": "large"}
    killed = {**code("import large", **wanted), "kill when": "/home/user/.cache/sif-writable/image-*/*/.new-large-*/*"}
    check = code("import large, os; print(len(os.listdir(large.HERE)), '/tree/' in large.HERE)", **wanted)
    before, after, then = observe(one_image, killed, check)
    (left,) = after["aside"]
    assert "/.new-large-" in left
    assert {**after, "aside": []} == before
    assert (then["code"], then["aside"]) == (0, [left])
    assert then["said"].splitlines()[-1].split()[1] == "True"
    assert int(then["said"].splitlines()[-1].split()[0]) >= 301
    _prune_tomorrow(one_image)
    assert [seen["aside"] for seen in observe(one_image, check)] == [[], []]


def _prune_tomorrow(image: Image) -> None:
    """Do what `cache prune --dead` does in two days: the time of a file's last change cannot be dated back."""
    contents = inspect_root(f"{image.places.home}/.cache/sif-writable", KNOWN)
    everything = policy.Reach("", all_images=True)
    plan = policy.prune([contents], reach=everything, now=time.time() + 2 * DAY, dead=True)
    assert all(not done.problem for done in remove(plan.removals, None))


def test_of_a_killed_overlay_nothing_runs_on_and_no_mount_stays(one_image: Image) -> None:
    program = (
        "import os, time; os.makedirs('/venv/share/outside/x', exist_ok=True); open('/tmp/ready', 'w'); time.sleep(99)"
    )
    step = {**code(program, **OUTSIDE), "kill when": "/tmp/ready"}
    before, after = observe(one_image, step)
    assert after == {**before, "temporary": sorted([*before["temporary"], "/tmp/ready"])}


def test_what_a_killed_trial_of_an_overlay_leaves_is_collected(one_image: Image) -> None:
    observe(one_image, code("import os; os.mkdir('/venv/share/outside')", **OUTSIDE))
    storage = f"{one_image.places.home}/.cache/sif-writable"
    (image,) = (name for name in os.listdir(storage) if name.startswith("image-"))
    (layers,) = (name for name in os.listdir(f"{storage}/{image}/overlay") if name.startswith("venv"))
    trial = aside.path(f"{storage}/{image}/overlay", "trial")
    inner = os.path.join(trial, "0", "work", "work")
    os.makedirs(f"{inner}/deep")
    os.chmod(inner, 0)  # as the kernel leaves it
    lost = aside.path(f"{storage}/{image}/overlay/{layers}/graft", "data")
    kept = f"{storage}/{image}/overlay/{layers}/graft/.new-data-4711-0123abcd"
    for path in (lost, kept):
        with open(path, "w", encoding="utf-8"):
            pass
    _prune_tomorrow(one_image)
    assert [os.path.lexists(path) for path in (trial, lost, kept)] == [False, False, True]


def test_a_killed_trace_ends_with_its_command_and_the_next_one_takes_its_folder_away(one_image: Image) -> None:
    program = "import time; open('/var/tmp/ready', 'w'); time.sleep(3)"
    step = {**command("trace", "--", "/venv/bin/python", "-c", program), "kill when": "/var/tmp/ready"}
    # Without user namespaces only interpreters are watched, which is the quick way; the folder is the same.
    before, after = observe(one_image, step, userns=False)
    (left,) = (path for path in after["temporary"] if path.startswith("/tmp/sif-writable-trace-"))
    assert (after["others"], after["mounts"]) == ([], before["mounts"])
    hour_ago = time.time() - 3600
    os.utime(f"{one_image.places.tmp}/{os.path.basename(left)}", (hour_ago, hour_ago))
    _, later = observe(one_image, command("trace", "--", "/venv/bin/python", "-c", "pass"), userns=False)
    assert "trace" not in "".join(later["temporary"])


def test_only_the_folder_of_a_trace_that_is_gone_is_taken_away(tmp_path: Path) -> None:
    hour_ago = time.time() - 3600
    folders = {name: tmp_path / f"sif-writable-trace-{name}" for name in ("gone", "running", "young")}
    for name, folder in folders.items():
        folder.mkdir()
        (folder / "log").touch()
        if name != "young":
            os.utime(folder, (hour_ago, hour_ago))
    (tmp_path / "sif-writable-trace-link").symlink_to(folders["young"])
    held = watch._hold(str(folders["running"]))
    try:
        watch._collect_killed(str(tmp_path))
    finally:
        os.close(held)
    assert sorted(os.listdir(tmp_path)) == [f"sif-writable-trace-{name}" for name in ("link", "running", "young")]
