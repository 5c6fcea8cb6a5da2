"""Starts interpreters while a FUSE server hangs; runs beside Apptainer, as an ordinary user.

``hanging.py WAY BYTECODE PROGRAM IMAGE``: besides here, one is started in an image, with the server's storage bound to
it. ``BYTECODE`` is ``shipped`` or ``stored``: whether our package, as it is here, has any beside itself.

``WAY`` is ``stopped``: no request is taken any more, or ``taken``: the server stops as it is about to answer the first
one, which leaves who asked in a state that not even SIGKILL ends.

Prints a JSON object of what came of each process: ``[exit code, stdout, stderr, "at once" or "waited"]``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import Any

HERE = os.getcwd()
STORAGE, HOME = f"{HERE}/mnt", f"{HERE}/mnt/home"
WHEELS = [f"{HERE}/wheels/{name}" for name in os.listdir("wheels")]
READ_ONLY = f"{HERE}/image"
PYTHON = f"{HERE}/venv/bin/python"
PACKAGES = f"{HERE}/venv/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
PATHS = [f"{PACKAGES}/sif_writable/hook", READ_ONLY, *WHEELS]
ENVIRONMENT = {**os.environ, "PYTHONPATH": ":".join(PATHS), "SIF_WRITABLE": "on"}
GIVEN = {"SIF_WRITABLE_DIR": STORAGE}
PATIENCE = 10.0
LIMIT = 40.0
HOURS = 1

STATE = """
import os, sys
hook = sys.modules["sif_writable"]
where = os.environ["NUMBA_CACHE_DIR"].startswith(os.getcwd() + "/mnt/")
threads = len(os.listdir("/proc/self/task"))
stored = "with bytecode" if sys.pycache_prefix else ""
print(hook.state, "in it" if where else "elsewhere", threads, stored, hook.failure or "")
"""
RUNNING = """
import json, os, sys
print(os.environ["MPLCONFIGDIR"].partition("/mnt/")[1], flush=True)
sys.stdin.readline()
print(json.dumps(sum(range(10))), flush=True)
raise OSError("its own error")
"""
IMPORTING = """
import os, sys
print(flush=True)
sys.stdin.readline()
import third_party
print(third_party.__file__.replace(os.getcwd(), ""))
"""
# A failing import is tried again from a copy, and an error that nobody catches is learned from: both look at storage.
FAILING = """
import sys, third_party
print(flush=True)
sys.stdin.readline()
try:
    import failing
except OSError:
    print("its own error")
third_party.use()
"""
WRITING = """
import errno, os, sys
print(flush=True)
sys.stdin.readline()
try:
    open(os.environ["MPLCONFIGDIR"] + "/mine", "w")
except OSError as error:
    print(errno.errorcode[error.errno])
"""


# In an image: one child that inherits the storage, and one that has to find some.
CONTAINED = """
import os, subprocess, sys
print(sys.modules["sif_writable"].state, os.environ["NUMBA_CACHE_DIR"].startswith("/sif-writable/"), flush=True)
sys.stdin.readline()
say = "import os, sys; print(sys.modules['sif_writable'].state, os.environ['NUMBA_CACHE_DIR'][:14])"
clean = {name: value for name, value in os.environ.items() if name.startswith("APPTAINER") or name == "PATH"}
children = [subprocess.Popen([sys.executable, "-c", say], env=env, text=True, stdout=-1) for env in (None, clean)]
for child in children:
    print(child.communicate()[0].strip())
"""


class Started:
    """A process, and how long it takes."""

    def __init__(self, *words: str, **more: str) -> None:
        """Start a program, which is Python if the first word is one of its options."""
        command = [PYTHON, "-s", *words] if words[0].startswith("-") else words
        environment = {**ENVIRONMENT, **more}
        self.process = subprocess.Popen(command, env=environment, text=True, stdin=-1, stdout=-1, stderr=-1)
        self.result: list[Any] = ["did not end"]

    def next_line(self) -> str:
        """Return the next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go_on(self) -> None:
        """Let it read a line."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> list[Any]:
        """Wait until it has ended."""
        began = time.monotonic()
        try:
            out, err = self.process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            return self.result
        waited = time.monotonic() - began >= PATIENCE - 1
        words = err.strip().replace(HERE, "").splitlines()
        self.result = [self.process.returncode, out.strip(), words, "waited" if waited else "at once"]
        return self.result


def provide(bytecode: str) -> None:
    """Make an environment with the package, and the read-only directory with another one."""
    os.makedirs(os.path.dirname(PYTHON))
    os.symlink(sys.executable, PYTHON)
    with open("venv/pyvenv.cfg", "w", encoding="utf-8") as file:
        file.write(f"home = {os.path.dirname(os.path.realpath(sys.executable))}\n")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree("source/sif_writable", f"{PACKAGES}/sif_writable", ignore=ignored)
    os.mkdir(READ_ONLY)
    writing = 'open(__file__ + ".new", "w")\n'
    for name, text in (("third_party", f"def use():\n    {writing}"), ("failing", writing)):
        with open(f"{READ_ONLY}/{name}.py", "w", encoding="utf-8") as file:
            file.write(text)
    if bytecode == "shipped":
        subprocess.run([sys.executable, "-m", "compileall", "-q", PACKAGES, READ_ONLY], check=True)
    for folder in ("venv", READ_ONLY):
        for path, _, _ in os.walk(folder):
            os.chmod(path, 0o555)


class Server:
    """fuse2fs with an empty disk at ``mnt``."""

    def __init__(self) -> None:
        """Mount it."""
        owner = f"root_owner={os.getuid()}:{os.getgid()}"
        subprocess.run(["truncate", "-s", "600M", "disk"], check=True)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", "-E", owner, "disk"], check=True)
        self.tracer: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self, point: str = "mnt") -> None:
        """Start it, at first or again."""
        os.makedirs(point, exist_ok=True)
        self.process = subprocess.Popen(["fuse2fs", "-f", "-o", "rw", "disk", point], stdout=2)
        while not os.path.ismount(point) and self.process.poll() is None:
            time.sleep(0.01)
        if not os.path.ismount(point):
            sys.exit("fuse2fs could not mount")

    def hang(self, way: str) -> None:
        """Answer no more."""
        if way == "stopped":
            self.process.send_signal(signal.SIGSTOP)
            return
        late = f"inject=writev:delay_enter={HOURS * 3600 * 10**6}"  # microseconds; with writev(2) it answers
        words = ["strace", "-f", "-qq", "-o", "answers", "-e", "trace=writev", "-e", late]
        self.tracer = subprocess.Popen([*words, "-p", str(self.process.pid)])
        while "TracerPid:\t0\n" in _read(f"/proc/{self.process.pid}/status"):
            if self.tracer.poll() is not None:
                sys.exit("strace could not attach to fuse2fs")
            time.sleep(0.01)

    def wait_until_it_hangs(self) -> None:
        """Wait until it has stopped: at once, or when it has taken a request."""
        tasks = f"/proc/{self.process.pid}/task"
        while not any(
            _read(f"{tasks}/{task}/stat").rpartition(")")[2].split()[0] in "Tt" for task in os.listdir(tasks)
        ):
            time.sleep(0.01)

    def answer(self) -> None:
        """Answer again."""
        if self.tracer is not None:
            self.tracer.kill()
            self.tracer.wait()
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """Be gone without a word."""
        self.process.kill()
        self.process.wait()


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def while_it_hangs(server: Server, way: str, bytecode: str, results: dict[str, Any]) -> None:
    """Start all kinds of processes at once, and see what comes of each."""
    session = json.loads(Started("-c", "import json, os; print(json.dumps(dict(os.environ)))", **GIVEN).end()[1])
    mark = session["SIF_WRITABLE_SESSION"].partition(";")[0]
    as_of_a_network = {
        **session,
        "SIF_WRITABLE_SESSION": session["SIF_WRITABLE_SESSION"].replace(mark, mark.replace("f", "n"), 1),
    }
    results["session"] = mark
    results["before"] = Started("-c", STATE, **GIVEN).end()
    results["a child before"] = Started("-c", STATE, **session).end()
    results["a child before, by a thread"] = Started("-c", STATE, **as_of_a_network).end()
    results["bytecode in it"] = session.get("SIF_WRITABLE_PYCACHE", "none").startswith(STORAGE)
    running, importing = Started("-c", RUNNING, **GIVEN), Started("-c", IMPORTING, **GIVEN)
    results["it runs on"] = [running.next_line()]
    importing.next_line()
    failing = Started("-c", FAILING, **GIVEN)
    failing.next_line()
    program, image = sys.argv[3:]
    run = (
        program,
        "--silent",
        "exec",
        "--cleanenv",
        "--bind",
        f"{STORAGE}:/sif-writable",
        image,
        "/opt/venv/bin/python",
    )
    contained = Started(*run, "-c", CONTAINED)
    results["in an image before"] = contained.next_line()
    server.hang(way)
    processes = {"given": Started("-c", STATE, **GIVEN)}
    server.wait_until_it_hangs()
    processes |= {
        "a child": Started("-c", STATE, **session),
        "HOME": Started("-c", STATE, HOME=HOME),
        "TMPDIR": Started("-c", STATE, HOME="/none", TMPDIR=STORAGE),
        "through a link": Started("-c", STATE, SIF_WRITABLE_DIR=f"{HERE}/link/below"),
        "not needed": Started("-c", STATE, SCRATCH=STORAGE),
        "off": Started("-c", "print('off')", SIF_WRITABLE="off", **GIVEN),
        "status": Started("-m", "sif_writable", "status", "--no-gpu", **GIVEN),
        "doctor": Started("-m", "sif_writable", "doctor", **GIVEN),
        "cache": Started("-m", "sif_writable", "cache", "list", **GIVEN),
    }
    if way == "stopped":  # it is for filesystems that SIGKILL frees from
        processes["a child, by a thread"] = Started("-c", STATE, **as_of_a_network)
    running.go_on()
    results["it runs on"].append(running.next_line())
    contained.go_on()
    if bytecode == "shipped":  # or Python itself looks into storage
        importing.go_on()
        failing.go_on()
        processes |= {"it ends": running, "it imports": importing, "it fails": failing}
    processes["in an image"] = contained
    waiting = [threading.Thread(target=process.end) for process in processes.values()]
    for thread in waiting:
        thread.start()
    for thread in waiting:
        thread.join()
    results.update({name: process.result for name, process in processes.items()})


def main() -> None:
    """Hang, answer, and be gone."""
    way, bytecode = sys.argv[1:3]
    provide(bytecode)
    server = Server()
    results: dict[str, Any] = {}
    try:
        os.mkdir(HOME)
        os.symlink(STORAGE, "link")
        while_it_hangs(server, way, bytecode, results)
        server.answer()
        results["after"] = Started("-c", STATE, **GIVEN).end()
        writing = Started("-c", WRITING, **GIVEN)
        writing.next_line()
        server.end()
        writing.go_on()
        results["it writes"] = writing.end()
        results["gone"] = Started("-c", STATE, **GIVEN).end()
    finally:
        server.end()
        subprocess.run(["fusermount3", "-u", "-z", "mnt"], stderr=subprocess.DEVNULL, check=False)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
