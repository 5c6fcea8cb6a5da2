"""Programs live in a layer as they lived without one: installers, programs that start others or look into them."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import or_skip
from tests.lab import programs as lab_programs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from subprocess import CompletedProcess

    from tests.lab.apptainer_root import Apptainer

VENV, BARE, SYSTEM = "/opt/venv/bin/python", "/opt/bare/bin/python", "/usr/bin/python3"
SITE = "/opt/venv/lib/python3.11/site-packages"
DEFAULT: dict[str, str] = {}
WITHOUT = {"APPTAINERENV_SIF_WRITABLE": "off"}


@pytest.fixture(scope="session")
def programs() -> str:
    """Return the image of programs that start others, look into them, or install."""
    return str(or_skip(lab_programs.sif))


def run(
    apptainer: Apptainer, sif: str, argv: list[str], *, env: dict[str, str] = DEFAULT, options: Sequence[str] = ()
) -> CompletedProcess[str]:
    return apptainer.exec(sif, argv, env=env, options=options)


def write(apptainer: Apptainer, name: str, text: str) -> None:
    path = f"{apptainer.places.work}/{name}"
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, 0o666)


# --- Installers.

INSTALL = f"""
import glob, json, os, shutil, subprocess, sys
_, inside, rows = sys.argv
if inside == "layer":
    import valuing
    assert "SIF_WRITABLE_LAYER" in os.environ
NEW = {lab_programs.LEFT!r}
LIBRARY = "lib/python3.11/"
PLACES = {{
    "user": os.path.expanduser(f"~/.local/{{LIBRARY}}site-packages/{{NEW}}"),
    "system": f"/usr/local/{{LIBRARY}}dist-packages/{{NEW}}",
    "venv": f"/opt/venv/{{LIBRARY}}site-packages/{{NEW}}",
    "linked": f"/opt/venv/{{LIBRARY}}site-packages/easy-install.pth",
    "bare": f"/opt/bare/{{LIBRARY}}site-packages/pip",
}}
for name, words in json.loads(rows):
    words = [word.replace("PYTHON", sys.executable) for word in words]
    done = subprocess.run(words, capture_output=True, text=True)
    text = done.stdout + done.stderr
    found = [place for place, path in PLACES.items() if os.path.exists(path)]
    for path in [path for place in found for path in glob.glob(PLACES[place] + "*")]:  # its metadata, too
        shutil.rmtree(path, ignore_errors=True)
    refused = "Read-only file system" in text
    print(json.dumps([name, [done.returncode == 0, refused, found]]), flush=True)
    print(name, text, file=sys.stderr)
"""
PIP = ["install", "-q", "--no-index", "--find-links=/opt/wheels", "--disable-pip-version-check"]
PIP += ["--break-system-packages", lab_programs.LEFT]
LINE = " ".join(["pip", *PIP])
UV = ["pip", "install", "-q", "--offline", "--no-index", "--find-links=/opt/wheels", lab_programs.LEFT]
SETUP = f"from setuptools import setup\nsetup(name={lab_programs.LEFT!r}, version='2', py_modules=['setup'])\n"
# It asks as conda does: whether a file of the prefix can be opened for writing. The index of packages has no conda.
CONDA = "import sys\nopen(sys.prefix + '/pyvenv.cfg', 'a').close()\n"
KINDS = {
    "user": (SYSTEM, ["PYTHON", "-m", "pip", *PIP]),
    "venv": (VENV, ["PYTHON", "-m", "pip", *PIP]),
    "ensurepip": (BARE, ["PYTHON", "-m", "ensurepip"]),
    "setup.py": (VENV, ["PYTHON", "setup.py", "-q", "develop"]),
    "uv": (VENV, ["PYTHON", "-m", "uv", *UV]),
    "conda": (VENV, ["PYTHON", "-m", "conda"]),
}
"""How installers are started, once for each kind: the interpreter, and what is run in place of `PYTHON`."""
# The standard library, too, tries names that are nowhere: pickle asks for `org`.
OWN = f"""
try:
    import nowhere
except ImportError:
    import pip
from pip._internal.cli.main import main
main({PIP!r})
"""
OTHERS = {
    "user": {
        "* clean": ["env", "-i", "HOME=/home/user", "PYTHON", "-m", "pip", *PIP],
        "own program": ["PYTHON", "-c", OWN],
    },
    "venv": {
        "clean child": ["env", "-i", "HOME=/home/user", "PYTHON", "-m", "pip", *PIP],
        "sandbox": ["unshare", "-rm", "PYTHON", "-m", "pip", *PIP],
        "* shell": ["sh", "-c", LINE],
        "notebook": ["PYTHON", "-m", "IPython", "--no-banner", "--colors=nocolor", "-c", f"!{LINE}\n%{LINE}"],
    },
}
"""Other ways to start them, which go where the first one of their kind goes; those with a star if asked for."""
CALLED = f"import valuing; from pip._internal.cli.main import main; main({PIP!r})"
DIFFERENT = {"user": ("system", ["PYTHON", "-c", CALLED]), "venv": ("venv", ["/opt/venv/bin/uv", *UV])}
"""What goes elsewhere in a layer than without: pip within another program, an installer that is no Python program."""


def test_installers_go_where_they_went(apptainer: Apptainer, programs: str, pytestconfig: pytest.Config) -> None:
    for name, text in (("install.py", INSTALL), ("setup.py", SETUP), ("conda.py", CONDA)):
        write(apptainer, name, text)

    def installed(rows: list[tuple[str, list[str]]], python: str, inside: str, env: dict[str, str]) -> Any:
        done = run(apptainer, programs, [python, "install.py", inside, json.dumps(rows)], env=env)
        assert done.returncode == 0, done
        return dict(json.loads(line) for line in done.stdout.splitlines() if line[:1] == "["), done.stderr

    for python in (SYSTEM, VENV, BARE):
        kinds = {kind: words for kind, (of, words) in KINDS.items() if of == python}
        rows = list(kinds.items())
        without, _ = installed(rows, python, "alone", WITHOUT)
        expected = [True, False, ["user"]] if python == SYSTEM else [False, True, []]
        assert without == dict.fromkeys(kinds, expected)
        if python == SYSTEM:
            assert installed(rows, python, "alone", DEFAULT)[0] == without
        more = {name: words for kind in kinds for name, words in OTHERS.get(kind, {}).items()}
        if not pytestconfig.getoption("--all-faults"):
            more = {name: words for name, words in more.items() if not name.startswith("*")}
        rows += list(more.items())
        inside, said = installed(rows, python, "layer", DEFAULT)
        wrong = {name: what for name, what in inside.items() if what[1:] != expected[1:]}
        assert not wrong, said
        assert list(inside) == [*kinds, *more]
        for place, words in (DIFFERENT[kind] for kind in kinds if kind in DIFFERENT):
            assert installed([("row", words)], python, "layer", DEFAULT)[0] == {"row": [True, False, [place]]}


# --- Programs that start others, and look into them.

PRELUDE = f"""
import ctypes, fcntl, json, os, shutil, subprocess, sys, threading, time
SITE, HERE = {SITE!r}, os.readlink("/proc/self/ns/mnt")
def report(name, *value):
    print(json.dumps([name, value]), flush=True)
def out(*words, **more):
    return subprocess.run(words, capture_output=True, text=True, **more).stdout.replace("executed valuing\\n", "")
def layer():
    import sif_writable.layered
    return sif_writable.layered.problem or os.readlink("/proc/self/ns/mnt")
def make(name, folder=SITE):
    os.close(os.open(folder + "/" + name, os.O_CREAT | os.O_WRONLY, 0o600))
"""
SHARING = """
import valuing
make("share-" + sys.argv[1])
with open(SITE + "/counted", "a+") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    file.seek(0)
    number = int(file.read() or 0)
    time.sleep(0.01)
    file.truncate(0)
    file.write(str(number + 1))
while len([name for name in os.listdir(SITE) if name.startswith("share-")]) < 4: time.sleep(0.01)
if sys.argv[1] == "waits":
    report("here", layer())
    time.sleep(60)
"""
LOOKING = """
import psutil, sysconfig
make("by-" + str(os.getpid()), sysconfig.get_paths()["purelib"])
ask = "import os; print(os.environ['SIF_WRITABLE_COPIES'].rpartition('-')[2])"
clean = out("env", "-i", "PYTHONPATH=" + SITE, sys.executable, "-c", ask).strip()
process = psutil.Process(int(sys.argv[1]))
print(process.exe() == os.path.realpath(sys.executable), len(process.environ()) > 3,
      len(process.memory_maps()) > 3, process.cwd() == os.getcwd(), process.open_files() is not None,
      clean == os.environ["SIF_WRITABLE_COPIES"].rpartition("-")[2])
"""
WORKING = """
import multiprocessing
def work(name):
    import valuing
    make(name)
    return os.readlink("/proc/self/ns/mnt")
def main():
    import valuing
    here = os.readlink("/proc/self/ns/mnt")
    for how in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(how).Pool(1) as pool:
            report(how, pool.map(work, ["by-" + how]) == [here], os.path.exists(SITE + "/by-" + how))
    if not os.fork():
        os.execv(sys.executable, [sys.executable, "executing.py", here])
    os.wait()
    touch = f"touch {SITE}/by-root; id -u; ls {SITE}/by-root"
    report("unshare", out("unshare", "-Ur", "sh", "-c", touch).split() == ["0", SITE + "/by-root"])
    mount = "mount -t tmpfs none /tmp && ls /tmp; exec " + sys.executable + " -c 'import valuing; print(1)'"
    report("sandbox", out("unshare", "-Urm", "sh", "-c", mount))
    if not os.fork():
        os.setsid()
        if os.fork():
            os._exit(0)
        os.closerange(0, 100)
        time.sleep(0.5)  # until the program has ended
        make("by-daemon")
        os._exit(0)
    os.wait()
if __name__ == "__main__":
    main()
"""
EXECUTING = """
import valuing
report("execv", os.readlink("/proc/self/ns/mnt") == sys.argv[1], os.path.exists(SITE + "/by-fork"))
"""
ALONE = """
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
thread = threading.Thread(target=time.sleep, args=(1,))
thread.start()
import valuing
report("threads", layer())
thread.join()
shutil.copy("/usr/bin/python3", "/tmp/embedding")
report("embedded", out("/tmp/embedding", "finding.py", env={**os.environ, "PYTHONHOME": "/usr"}).strip())
libc.syscall(248, b"user", b"ticket", b"secret", 6, -4)
report("key", out(sys.executable, "finding.py").startswith("False mnt:"))
report("cache", out(sys.executable, "finding.py", env={**os.environ, "KRB5CCNAME": "KEYRING:user:x"}).strip())
"""
FINDING = """
import valuing
libc = ctypes.CDLL(None)
libc.syscall.restype = ctypes.c_long
print(libc.syscall(250, 10, -4, b"user", b"ticket", 0) > 0, layer())
"""
RANK = """
from mpi4py import MPI
import valuing
other = 1 - MPI.COMM_WORLD.rank
here = ctypes.create_string_buffer(b"rank")
class Part(ctypes.Structure):
    _fields_ = [("address", ctypes.c_void_p), ("size", ctypes.c_size_t)]
pid, address = MPI.COMM_WORLD.sendrecv((os.getpid(), ctypes.addressof(here)), other, source=other)
copy = ctypes.create_string_buffer(5)
there, mine = Part(address, 5), Part(ctypes.addressof(copy), 5)
read = ctypes.CDLL(None).process_vm_readv(pid, ctypes.byref(mine), 1, ctypes.byref(there), 1, 0)
MPI.COMM_WORLD.barrier()
report(sys.argv[1], read, copy.value.decode(), layer().partition("[")[0].partition(" (")[0])
"""
FAMILY = f"""
VENV, SYSTEM = {VENV!r}, {SYSTEM!r}
many = subprocess.Popen(["sh", "-c", "seq 3 | xargs -P 3 -I N " + VENV + " sharing.py N"], stdout=subprocess.DEVNULL)
waiting = subprocess.Popen([VENV, "sharing.py", "waits"], stdout=subprocess.PIPE, text=True)
waiting.stdout.readline()
here, = json.loads(waiting.stdout.readline())[1]
many.wait()
pid = str(waiting.pid)
for python in (VENV, SYSTEM):
    report("looks " + python, out(python, "looking.py", pid, env={{**os.environ, "PYTHONPATH": SITE}}).split())
report("joined", out(VENV, "finding.py").split()[-1] == here != HERE)
report("debugger", "sharing.py" in out("py-spy", "dump", "--pid", pid))
spy = "import valuing, os; os.system('py-spy dump --pid " + pid + "')"
report("debugger in the layer", "sharing.py" in out(VENV, "-c", spy))
report("shell", out("readlink", "/proc/" + pid + "/exe") != "", "PATH=" in out("cat", "/proc/" + pid + "/environ"))
report("counted", out(VENV, "-c", "import valuing; print(open('{SITE}/counted').read())").strip())
waiting.kill()
for words in ([VENV, "working.py"], [VENV, "alone.py"], ["mpirun", "-n", "2", VENV, "ranking.py", "rank"]):
    print(out(*words), flush=True)
inner = "import valuing, os; os.system('mpirun --oversubscribe -n 2 {VENV} ranking.py inner')"
print(out(VENV, "-c", inner), flush=True)
asking = "import os, valuing; from jupyter_core import paths; print(paths.prefer_environment_over_user(), " \\
    "paths.jupyter_path()[0], os.access(valuing.__path__[0], os.W_OK))"
modes = [{{**os.environ, "SIF_WRITABLE": word}} for word in ("auto", "off")]
report("asking", *[out(VENV, "-c", asking, env=environ).split() for environ in modes])
report("daemon", out(VENV, "-c", "import valuing, os; print(os.path.exists('{SITE}/by-daemon'))").strip())
"""

FOUND: list[list[Any]] = [
    ["rank", [5, "rank", "this is a rank of an MPI program"]],  # which have none, so that they may share memory
    ["inner", [5, "rank", "mnt:"]],  # all of them are in the layer of who started them
    *([f"looks {python}", [["True"] * 6]] for python in (VENV, SYSTEM)),
    ["joined", [True]],
    ["debugger", [True]],
    ["debugger in the layer", [True]],
    ["shell", [True, True]],
    ["counted", ["4"]],
    *([how, [True, True]] for how in ("fork", "spawn", "forkserver")),
    ["execv", [True, True]],
    ["unshare", [True]],
    ["sandbox", ["1\n"]],
    ["daemon", ["True"]],
    ["asking", [["True", "/opt/venv/share/jupyter", word] for word in ("True", "False")]],
    ["threads", ["2 threads run in this process, and the kernel asks for a single one"]],
    [
        "embedded",
        ["False Python runs inside another program (embedding), which may have opened what a layer would cover"],
    ],
    ["key", [True]],  # different: a layer does not see the user's keyring, unless KRB5CCNAME says that it is used
    ["cache", ["True the Kerberos ticket is in a keyring (KRB5CCNAME), which belongs to the user namespace"]],
]


def test_programs_share_one_layer_and_find_each_other(apptainer: Apptainer, programs: str) -> None:
    files = {"sharing": SHARING, "looking": LOOKING, "working": WORKING, "executing": EXECUTING, "alone": ALONE}
    for name, text in {**files, "finding": FINDING, "ranking": RANK, "family": FAMILY}.items():
        write(apptainer, f"{name}.py", PRELUDE + text)
    done = run(apptainer, programs, [SYSTEM, "-S", "family.py"])
    reported = [json.loads(line) for line in done.stdout.splitlines() if line[:1] == "["]
    assert sorted(reported) == sorted([*FOUND, ["rank", FOUND[0][1]], ["inner", FOUND[1][1]]]), done.stderr


SERVED = f"""
import os
def app(environ, start):
    import valuing
    os.close(os.open("{SITE}/served-" + str(os.getpid()), os.O_CREAT))
    start("200 OK", [])
    return [b"first " + os.readlink("/proc/self/ns/mnt").encode()]
"""
SERVING = """
import signal, socket
words = ["gunicorn", "--reload", "-w", "1", "-b", "unix:/tmp/web", "served:app"]
server = subprocess.Popen([sys.executable, "-m", *words])
def get():
    for _ in range(200):
        try:
            web = socket.socket(socket.AF_UNIX)
            web.connect("/tmp/web")
            web.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
            return b"".join(iter(lambda: web.recv(999), b"")).split(b"\\r\\n\\r\\n")[1].decode().split()
        except (OSError, IndexError):
            time.sleep(0.1)
word, here = get()
text = open("served.py").read()
open("served.py", "w").write(text.replace("first", "second"))
for _ in range(100):
    again, there = get()
    if again == "second":
        break
    time.sleep(0.1)
server.send_signal(signal.SIGTERM)
report("gunicorn", word, again, here == there != HERE, server.wait())
"""
COMPUTING = """
def work(number):
    import valuing
    make("computed-" + str(number))
    return os.readlink("/proc/self/ns/mnt")
if __name__ == "__main__":
    from distributed import Client, LocalCluster
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        found = client.gather(client.map(work, range(4)))
    report("dask", set(found) == {os.readlink("/proc/self/ns/mnt")}, HERE not in found)
"""


def test_servers_and_clusters_are_in_one_layer_with_their_workers(
    apptainer: Apptainer, programs: str, pytestconfig: pytest.Config
) -> None:
    if not pytestconfig.getoption("--all-faults"):
        pytest.skip("not asked for: --all-faults")
    for name, text in {"serving": PRELUDE + SERVING, "computing": PRELUDE + COMPUTING, "served": SERVED}.items():
        write(apptainer, f"{name}.py", text)
    look = f"import valuing, os; print(os.listdir({SITE!r}))"
    script = f'{VENV} serving.py; {VENV} computing.py; {VENV} -c "$1"'
    done = run(apptainer, programs, ["sh", "-c", script, "sh", look])
    reported = [json.loads(line) for line in done.stdout.splitlines() if line[:2] == '["']
    assert reported == [["gunicorn", ["first", "second", True, 0]], ["dask", [True, True]]], done
    assert (done.stdout.count("served-"), done.stdout.count("computed-")) == (2, 4)
