"""Runs in a rootless container: `injecting.py STRACE SIZE` makes system calls of making, joining and publishing fail.

Each run starts from the same storage: one that was used before, so that a trial was made and there is a generation.
One call fails, or is the last one of its process; a healthy start in another container follows. The publisher is an
interpreter of its own, for which strace counts anew: the fault with that number meets it, too. Prints the problems, and
how many faults were tried.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

sys.path.append("/tests-of-faults")
from injector import CHANGING, KILL, KINDS, NO_FILE  # type: ignore[import-not-found]

PROGRAM = """
os.access("/mark/begin", 0)
try:
    said = enter()
except OSError as error:  # the hook keeps it for `status`
    said = repr(error)
os.access("/mark/entered", 0)
inside = LAYER in os.environ
mounts = read("/proc/self/mountinfo").count(" - overlay sif-writable ")
try:
    os.mkdir(SITE + "/made"); write(SITE + "/made/file", "whole")
    done = True
except OSError as error:
    done = False
print(json.dumps([said, inside, mounts, done]), flush=True)
os.access("/mark/end", 0)
"""
CHECK = """
said = enter()
place = entering.current.place
print(json.dumps([said, read(SITE + "/before/file"), os.path.exists(SITE + "/made/file") and read(SITE + "/made/file"),
    sorted({re.sub("[0-9a-f]{8,}.*", "", name) for name in os.listdir(place)})]))
"""
STORAGE = "/home/user/.cache/sif-writable/image-test"
SAVED = "/work-folder/saved"
LIBRARY = re.compile(r"frozen importlib|ImportError|<frozen site>")


def run(code: str, token: str, *before: str) -> subprocess.CompletedProcess[str]:
    words = [*before, "/venv/bin/python", "/work-folder/p.py", f"import re\n{code}"]
    env = {**os.environ, "TOKEN": token}
    return subprocess.run(words, env=env, capture_output=True, text=True, timeout=100, check=False)


def reset() -> None:
    shutil.rmtree(f"{STORAGE}/layer", ignore_errors=True)
    for where, names, _ in os.walk(f"{STORAGE}/layer"):
        for name in names:
            os.chmod(f"{where}/{name}", 0o700)
    shutil.rmtree(f"{STORAGE}/layer", ignore_errors=True)
    shutil.copytree(SAVED, f"{STORAGE}/layer", symlinks=True, ignore=shutil.ignore_patterns("upper-*"))


def calls(strace: str) -> list[tuple[str, int, str]]:
    """Return (call, its number, kind) for those of a healthy run between the marks, but for what loads modules."""
    names = ",".join(("%file", "%desc", *KINDS["mount"][1], "setns", "capset"))
    run(PROGRAM, "trace", strace, "-f", "-qq", "-s", "200", "-e", f"trace={names}", "-o", "trace")
    with open("trace", encoding="utf-8", errors="replace") as file:
        pids, lines = zip(*(line.rstrip("\n").split(maxsplit=1) for line in file))
    begin, entered, end = (
        next(at for at, line in enumerate(lines) if f"/mark/{mark}" in line) for mark in ("begin", "entered", "end")
    )
    counted: dict[str, int] = {}
    found = []
    for at, (pid, line) in enumerate(zip(pids, lines)):
        if pid != pids[0]:
            continue
        name = line.partition("(")[0]
        counted[name] = counted.get(name, 0) + 1
        kind = next((kind for kind, (_, names) in KINDS.items() if name in names), "mount" if name == "setns" else "")
        if (
            at <= begin
            or entered < at < end
            or not kind
            or name in NO_FILE
            or re.search(r"\([012],|/venv/lib|/python3|/mark/|\+\+\+", line)
        ):
            continue
        if kind == "open" and re.search("O_CREAT|O_WRONLY|O_RDWR", line):
            kind = "create"
        found.append((name, counted[name], kind))
    return found


def main() -> None:
    strace, size = sys.argv[1], int(sys.argv[2])
    for token in ("one", "two"):
        code = "assert enter() == ''\nos.makedirs(SITE + '/before', exist_ok=True); write(SITE + '/before/file', 'x')"
        run(code, token)
    shutil.copytree(f"{STORAGE}/layer", SAVED, symlinks=True, ignore=shutil.ignore_patterns("upper-*"))
    everything = []
    for name, number, kind in calls(strace):
        # The C library takes ENOENT for the end of a listing: that folder has been removed.
        said = [error for error in KINDS[kind][0].split() if (kind, error) != ("list", "ENOENT")]
        everything += [(name, number, error) for error in said]
        everything += [(name, number, KILL)] if kind in CHANGING else []
    tried = everything if not size else [everything[at * len(everything) // size] for at in range(size)]
    problems = []
    for at, (name, number, error) in enumerate(tried):
        reset()
        what = "signal=SIGKILL" if error == KILL else f"error={error}"
        words = [strace, "-f", "-qq", "-o", "trace", "-e", f"trace={name},access"]
        words += ["-e", f"inject={name}:{what}:when={number}"]
        first = run(PROGRAM, f"first-{at}", *words)
        with open("trace", encoding="utf-8", errors="replace") as file:
            before, mark, _ = file.read().partition("/mark/begin")
        if not mark or "(INJECTED)" in before:  # the interpreter has gone another way, and it has met something else
            continue
        if LIBRARY.search(first.stderr):  # the import system itself, in which there is one way to meet any error
            continue
        second = run(CHECK, f"second-{at}")
        wrong = judge(first, second, error)
        if wrong:
            outputs = [first.stdout, first.stderr[-500:], second.stdout, second.stderr]
            problems.append([name, number, error, wrong, *outputs])
    print(json.dumps([len(tried), len(everything), problems]))


def judge(first: subprocess.CompletedProcess[str], second: subprocess.CompletedProcess[str], error: str) -> str:
    """Say what must not be, or return an empty string."""
    if first.returncode not in ((0, -9, 137) if error == KILL else (0,)):
        return "it failed"
    made = False
    if first.stdout:
        said, inside, mounts, made = json.loads(first.stdout)
        if (mounts == 1) != inside or made != inside or (said == "") != inside:
            return "it is neither in a layer nor without one"
    if [line for line in first.stderr.splitlines() if not line.startswith("sif_writable: ")]:
        return "it says what is not ours"
    if second.returncode or not second.stdout:
        return "the next start failed"
    said, before, found, names = json.loads(second.stdout)
    if said or before != "x":
        return "the next start lacks something"
    if found not in (("whole", False) if not made or (error == KILL and not first.stdout) else ("whole",)):
        return "what was written is lost, or half"
    known = (".new-", ".new-upper-", "container-", "gen-", "id-", "lock", "replica-", "trial", "upper-")
    strange = [name for name in names if not name.startswith(known)]
    return f"left: {strange}" if strange else ""


if __name__ == "__main__":
    main()
