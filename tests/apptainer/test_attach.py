"""`sif-writable attach`: an image without us, cured from a folder of the host, in a real Apptainer."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import zipfile
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.apptainer.inside import PYTHON, SITE
from tests.conftest import or_skip
from tests.lab import attached as lab
from tests.lab import scratch, wheels
from tests.lab.apptainer_root import Apptainer
from tests.lab.attached import POINT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.apptainer_root import Runtime

OWN = (f"{SITE}/filelock/__init__.py", f"{SITE}/platformdirs/__init__.py")
"""Where the image has its own."""
SYSTEM = "/usr/bin/python3"
"""Debian's, with dist-packages, which has none of what we need."""
ENVIRONMENT = 'export PATH="/opt/venv/bin:$PATH"\nexport PYTHONPATH=/opt/app:$PYTHONPATH\n'
WITNESS = "import os, sys; sys.witness = [*getattr(sys, 'witness', []), 'NUMBA_CACHE_DIR' in os.environ]\n"
PROBE = """
import importlib.util, json, os, subprocess, sys
import sif_writable
found = {"state": sif_writable.state, "file": sif_writable.__file__, "path": sys.path}
found["witness"] = getattr(sys, "witness", [])
found["variable"] = path = os.environ.get("PYTHONPATH", "")
for name in ("platformdirs", "filelock", "pynvml", "app_module", "of_the_host"):
    spec = importlib.util.find_spec(name)
    found[name] = spec and spec.origin
def answer(words, environ):
    done = subprocess.run([sys.executable, *words], env=environ, capture_output=True, text=True)
    return json.loads(done.stdout) if done.stdout else done.stderr
if len(sys.argv) > 1:
    import numpy
    import filelock
    found["layer"] = os.environ.get("SIF_WRITABLE_LAYER", "")
    beside = os.path.dirname(numpy.__file__) + "/made"
    with open(beside, "w") as file:
        file.write("x")
    child = "import json, os, sys; s = sys.modules.get('sif_writable'); "
    child += "print(json.dumps([s and s.state, os.path.exists(sys.argv[1])]))"
    cleaned = {"HOME": "/nowhere", "PYTHONPATH": path}
    for name, environ in (("child", dict(os.environ)), ("cleaned", cleaned)):
        found[name] = answer([*sys.argv[2:], "-c", child, beside], environ)
for command in ("status", "doctor"):
    found[command] = answer(["-m", "sif_writable", command, "--json"], None)
print("found " + json.dumps(found))
"""
WAIT = """
import sys, sif_writable
print(sif_writable.__version__, flush=True)
sys.stdin.readline()
from sif_writable.report import text
print(hasattr(text, "NEW"))
"""


class Host:
    """A host whose user has this package, and runs an image that has not."""

    def __init__(self, apptainer: Apptainer, sandbox: str) -> None:
        """Lay out what he has."""
        self.apptainer, self.image = apptainer, apptainer.inside(sandbox)
        self.work = apptainer.places.work
        with zipfile.ZipFile(wheels.project_wheel()) as file:
            file.extractall(f"{self.work}/host")
        needed = apptainer.inside(str(or_skip(lab.needed)))
        subprocess.run(["chmod", "-R", "a+rwX", f"{self.work}/host"], check=True)
        self.command = lab.command([f"{apptainer.inside(self.work)}/host", needed], "python3")
        self.write("probe.py", PROBE)
        self.write("app/app_module.py", "")
        self.write("app/sitecustomize.py", WITNESS)
        self.write("own/of_the_host.py", "")
        self.write("environment.sh", ENVIRONMENT)

    def write(self, name: str, text: str) -> None:
        """Write a file in the working directory."""
        os.makedirs(os.path.dirname(f"{self.work}/{name}"), exist_ok=True)
        with open(f"{self.work}/{name}", "w", encoding="utf-8") as file:
            file.write(text)

    def attach(self, *words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run the command on the host."""
        return self.apptainer.beside([*self.command, "--dir", self.path("att ached"), *words], env=env)

    def path(self, name: str) -> str:
        """Return how commands see a path in the working directory."""
        return f"{self.apptainer.inside(self.work)}/{name}"

    def shell(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a shell on the host."""
        return self.apptainer.beside(["sh", "-c", script])

    def exec(self, *words: str, own: bool = True) -> str:
        """Return the line that runs a command in the image; `own`: which sets PYTHONPATH itself."""
        binds = [f"{self.path('environment.sh')}:/.singularity.d/env/90-environment.sh", f"{self.path('app')}:/opt/app"]
        options = "".join(f" --bind '{bind}'" for bind in binds) if own else ""
        return f"apptainer --silent exec{options} --pwd / {self.image} {' '.join(words)}\n"


class Attached(NamedTuple):
    """A host with a folder to attach."""

    host: Host
    lines: str
    said: str


@pytest.fixture(scope="module")
def attached(apptainer_runtime: Runtime, sandbox_without: str) -> Iterator[Attached]:
    """Return a host that has a folder to attach."""
    with scratch.fresh() as places:
        host = Host(Apptainer(apptainer_runtime, places), sandbox_without)
        done = host.attach()
        assert done.returncode == 0, done
        yield Attached(host, done.stdout, done.stderr)


def found(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """Return what the probes of a script have found."""
    assert done.returncode == 0, done
    return [json.loads(line[len("found ") :]) for line in done.stdout.splitlines() if line.startswith("found ")]


def as_installed(model: dict[str, Any], doctor: dict[str, Any], how: str) -> None:
    """Check what the commands say."""
    hook = model["hook"]
    assert (hook["state"], hook["active"], hook["problem"]) == ("inherited", True, "")
    assert hook["how"] == how
    names = {check["name"]: check for check in doctor["checks"]}
    assert names["hook"]["level"] == "PASS", doctor
    assert POINT not in json.dumps([check for check in doctor["checks"] if check["level"] != "PASS"])


def test_by_python_path(attached: Attached) -> None:
    host = attached.host
    assert "has held" not in attached.said
    assert "filelock 3.19.1" in attached.said
    probe, own = host.path("probe.py"), host.path("own")
    traced = "-m sif_writable trace -- python -c 'import app_module, sif_writable; print(sif_writable.state)'"
    script = attached.lines + host.exec(PYTHON, probe, "write") + host.exec(SYSTEM, probe, own=False)
    script += host.exec(PYTHON, traced)
    script += f'APPTAINERENV_PYTHONPATH="$APPTAINERENV_PYTHONPATH:{own}"\n' + host.exec(SYSTEM, probe)
    script += "export SIF_WRITABLE=off\n" + host.exec(PYTHON, probe)
    done = host.shell("set -e\n" + script)
    venv, system, users, off = found(done)
    assert "Error in sitecustomize" not in done.stderr
    assert "the command ended with 0" in done.stderr + done.stdout
    how = f"{POINT}/sif_writable/hook/sitecustomize.py"
    # The image's own come first, in its own order; ours is not on sys.path, and its sitecustomize has run after us.
    assert (venv["state"], venv["file"]) == ("active", f"{POINT}/sif_writable/__init__.py")
    assert venv["path"][1:3] == [f"{POINT}/sif_writable/hook", "/opt/app"]
    assert [path for path in venv["path"][2:] if path.startswith(POINT)] == []
    assert venv["witness"] == [True]
    assert {venv[name].partition("/site-packages/")[0] + "/site-packages" for name in ("filelock", "platformdirs")} == {
        SITE
    }
    assert venv["app_module"] == "/opt/app/app_module.py"
    assert venv["layer"].endswith(":/opt/venv") or ":/opt/venv:" in venv["layer"]
    assert venv["child"] == ["inherited", True]
    assert venv["cleaned"] == ["active", True]
    as_installed(venv["status"], venv["doctor"], how)
    assert all(f"{POINT}" not in entry["where"] for entry in venv["status"]["packages"])
    assert system["state"] == "active"
    assert {system[name].split("/")[1] for name in ("filelock", "platformdirs", "pynvml")} == {POINT[1:]}
    as_installed(system["status"], system["doctor"], how)
    # What the user says for containers wins over the image, as without us.
    assert (users["app_module"], users["of_the_host"]) == (None, f"{own}/of_the_host.py")
    assert off["state"] == "off"
    assert venv["status"]["container"]["identity"] != system["status"]["container"]["identity"]


def test_by_pth_files_of_one_image(attached: Attached) -> None:
    host = attached.host
    printed = host.attach("--image", host.image, env={"APPTAINER_BIND": f"{host.path('own')}:/own"})
    assert printed.returncode == 0, printed
    assert "PYTHONPATH" not in printed.stdout
    assert f"{SITE}/sif_writable_attached.pth" in printed.stdout
    assert "/usr/lib/python3/dist-packages/sif_writable_attached.pth" in printed.stdout
    probe = host.path("probe.py")
    script = (
        printed.stdout
        + "export SIF_WRITABLE_PACKAGES=numpy\n"
        + host.exec(PYTHON, probe, "write", "-I")
        + host.exec(SYSTEM, probe, own=False)
    )
    script += host.exec("ls", "/own")
    done = host.shell(script)
    venv, system = found(done)
    assert done.stdout.endswith("of_the_host.py\n")
    assert (venv["state"], venv["witness"], venv["app_module"]) == ("active", [True], "/opt/app/app_module.py")
    assert [path for path in venv["path"] if path.startswith(POINT)] == []
    assert {venv[name].partition("/site-packages/")[0] + "/site-packages" for name in ("filelock", "platformdirs")} == {
        SITE
    }
    # The kernel makes no layer over what something is bound into, so packages get copies.
    assert venv["layer"] == ""
    assert "/sif_writable_attached.pth is bound into /opt/venv" in venv["status"]["layer"]["why"]
    assert "no layer" in printed.stderr.replace("\n  ", " ")
    assert [entry["how"] for entry in venv["status"]["packages"] if entry["name"] == "numpy"] == ["copy"]
    assert (venv["child"], venv["cleaned"]) == (["inherited", True], ["active", True])
    as_installed(venv["status"], venv["doctor"], f"{SITE}/sif_writable_attached.pth")
    assert system["state"] == "active"
    as_installed(system["status"], system["doctor"], "/usr/lib/python3/dist-packages/sif_writable_attached.pth")


def test_for_a_site(attached: Attached) -> None:
    host = attached.host
    printed = host.attach("--site")
    (bind,) = (line.partition(" = ")[2] for line in printed.stdout.splitlines() if line.startswith("bind path = "))
    host.write("profile.sh", printed.stdout.partition("bind path = ")[2].partition("\n")[2])
    probe = host.path("probe.py")
    state = '\'import sys; print(getattr(sys.modules.get("sif_writable"), "state", None))\''
    script = f". {host.path('profile.sh')}\n. {host.path('profile.sh')}\nexport APPTAINER_BIND='{bind}'\n"
    script += "echo $APPTAINERENV_PYTHONPATH\n" + host.exec(PYTHON, probe)
    script += "export SIF_WRITABLE=off\n" + host.exec(PYTHON, "-c", state)
    script += f"unset APPTAINERENV_PYTHONPATH SINGULARITYENV_PYTHONPATH\n. {host.path('profile.sh')}\n" + host.exec(
        PYTHON, "-c", state
    )
    done = host.shell(script)
    (site,) = found(done)
    assert done.stdout.splitlines()[0] == f"{POINT}/sif_writable/hook"
    assert (site["state"], site["app_module"]) == ("active", "/opt/app/app_module.py")
    assert done.stdout.splitlines()[-2:] == ["off", "None"]


def test_a_running_container_keeps_its_version_and_the_next_has_the_new_one(attached: Attached) -> None:
    host = attached.host
    host.write("wait.py", WAIT)
    text = f"{host.work}/host/sif_writable/report/text.py"
    again = shlex.join([*host.command, "--dir", host.path("att ached")])
    change = f"echo 'NEW = 1' >> '{host.path('host/sif_writable/report/text.py')}'; {again} > /dev/null 2>&1"
    fifo = host.path("fifo")
    run = host.exec(SYSTEM, host.path("wait.py"), own=False).strip()
    script = attached.lines + f"mkfifo {fifo}\n{run} < {fifo} > {host.path('first')} &\nexec 3> {fifo}\n"
    script += (
        f"while ! [ -s {host.path('first')} ]; do sleep 0.1; done\n{change}\necho >&3; wait; cat {host.path('first')}\n"
    )
    script += f"echo | {run}\n"
    done = host.shell(script)
    with open(text, encoding="utf-8") as file:
        assert file.read().endswith("NEW = 1\n")
    assert done.stdout.split()[1::2] == ["False", "True"], done


def test_a_script_of_the_hosts_says_how_to_call_it(attached: Attached) -> None:
    host = attached.host
    host.write(
        "bin/sif-writable",
        "#!/usr/bin/env python3\nimport sys\nfrom sif_writable.commands.cli import main\nsys.exit(main())\n",
    )
    os.chmod(f"{host.work}/bin/sif-writable", 0o755)
    done = host.shell(attached.lines + host.exec(host.path("bin/sif-writable"), "status", own=False))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"sif_writable: {host.path('bin/sif-writable')} is the host's, and no command of this image. Remedy: call it "
        "by the image's Python, as python -m sif_writable status\n"
    )
