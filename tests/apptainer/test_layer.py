"""The writable layer in a real rootless SIF: what is written beside a package works at the first run, and is kept."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.apptainer.inside import PYTHON, SITE, run
from tests.lab.ways import WAYS

if TYPE_CHECKING:
    from tests.lab.apptainer_root import Apptainer

PRELUDE = f"""
import json, os, subprocess, sys
def report(value): print(json.dumps(value), flush=True)
SITE = {SITE!r}
INSIDE = "SIF_WRITABLE_LAYER"
"""
FIRST = (
    PRELUDE
    + """
import requests, sif_writable, sif_writable.layered as hook
name = requests.__path__[0]
open(name + "/new.json", "w").write("{}")
open(name + "/cacert.txt", "w").close()
os.chmod(name + "/cacert.txt", 0o444)
try:
    open(name + "/cacert.txt", "w"); locked = "no"
except OSError as error:
    locked = error.errno
open(name + "/models.py", "a").write("# changed")
child = "import os, requests as r; print(os.path.exists(r.__path__[0] + '/new.json'), '" + INSIDE + "' in os.environ)"
same = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True).stdout.split()
open(SITE + "/of-nobody.json", "w").close()  # the time of site-packages is part of the image identity
child_of = "import os, sif_writable as s; print(s.state, os.environ['SIF_WRITABLE_COPIES'].rpartition('-')[2])"
anew = [
    subprocess.run([sys.executable, "-c", child_of], env={**os.environ, **env}, capture_output=True, text=True).stdout
    for env in ({"HOME": "/tmp"}, {"SIF_WRITABLE_DIR": "/tmp/given"})
]
anew = [words.split() == ["active", os.environ["SIF_WRITABLE_COPIES"].rpartition("-")[2]] or words for words in anew]
clean = subprocess.run([sys.executable, "-c", child], env={}, capture_output=True, text=True).stdout.split()
capabilities = [line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")]
over = [path for path in os.environ[INSIDE].split(":")[5:] if path in (sys.prefix, os.path.dirname(os.__file__))]
report([hook.problem, str(sif_writable.failure), locked, same, clean, capabilities, requests.__file__, anew, over])
"""
)
SECOND = (
    PRELUDE
    + """
import requests
name = requests.__path__[0]
report([os.path.exists(name + "/new.json"), "# changed" in open(name + "/models.py").read()])
"""
)


MODES: list[list[str]] = [[], ["--no-home"], ["--containall"]]
LOST = "/models.py: code in the place of the image's, or installed; gone with this container's last process"


def test_off_is_off_and_what_imports_nothing_of_the_environment_pays_nothing(apptainer: Apptainer, sif: str) -> None:
    look = "import json, os, sys; print([n for n in (*sys.modules, *os.environ) if n.lower().startswith(P)])"
    look = look.replace("P", "('sif_writable.layer', 'sif_writable_layer')")
    script = f'{PYTHON} -c "$1"; SIF_WRITABLE_OVERLAY=off {PYTHON} -c "import requests; $1"'
    script += "; ls -d ~/.cache/sif-writable/image-*/layer; SIF_WRITABLE_OVERLAY=off sif-writable status --no-gpu"
    done = apptainer.exec(sif, ["sh", "-c", script, "sh", look])
    assert done.stdout.splitlines()[:2] == ["[]", "[]"], done
    assert "/layer" not in done.stdout
    assert "layer      none: SIF_WRITABLE_OVERLAY=off\n" in done.stdout, done


@pytest.mark.parametrize("options", MODES, ids=lambda options: "".join(options) or "plain")
def test_what_is_written_works_at_once_and_is_kept_where_storage_lasts(
    apptainer: Apptainer, sif: str, options: list[str]
) -> None:
    first = run(apptainer, sif, [PYTHON, "-c", FIRST], options=options)
    assert first.returncode == 0, first
    assert json.loads(first.stdout) == [
        "",
        "None",
        13,
        ["True"] * 2,
        ["True"] * 2,  # also a child whose environment was cleaned knows the layer that it is in
        ["0" * 16],
        f"{SITE}/requests/__init__.py",
        [True, True],
        ["/opt/venv"],  # and not the standard library
    ]
    assert LOST in first.stderr
    second = run(apptainer, sif, [PYTHON, "-c", SECOND], options=options)
    assert (second.returncode, second.stderr) == (0, ""), second
    assert json.loads(second.stdout) == [options != ["--containall"], False]


@pytest.mark.parametrize("options", MODES, ids=lambda options: "".join(options) or "plain")
def test_every_way_of_writing_works_at_the_first_run(apptainer: Apptainer, sif: str, options: list[str]) -> None:
    """And what the first run wrote is found by the second: in another container, where storage outlives the first."""
    files = {f"{SITE}/{path}": text for way in WAYS for path, text in way.files.items()}
    make = PRELUDE + "import requests\n"
    make += "for path, text in json.load(open('/mnt/ways.json')).items():\n"
    make += "    os.makedirs(os.path.dirname(path), exist_ok=True)\n    open(path, 'w').write(text)\n"
    use = (
        PRELUDE
        + "import importlib\nwrong = []\nfor name, use in json.load(open('/mnt/uses.json')):\n    os.chdir('/')\n"
    )
    use += "    try:\n        module = importlib.import_module(name)\n        if use: exec(use, {name: module})\n"
    use += "    except Exception as error:\n        wrong.append(f'{name}: {error!r}')\nreport(wrong)\n"
    uses = [(way.name, way.use or (f"{way.name}.use()" if way.when == "use" else "")) for way in WAYS]
    for name, value in (("ways.json", files), ("uses.json", uses), ("make.py", make), ("use.py", use)):
        with open(f"{apptainer.places.work}/{name}", "w", encoding="utf-8") as file:
            file.write(value) if isinstance(value, str) else json.dump(value, file)
    words = [[PYTHON, "/mnt/make.py"], [PYTHON, "/mnt/use.py"], [PYTHON, "/mnt/use.py"]]
    if "--containall" in options:
        words = [["sh", "-c", " && ".join(" ".join(argv) for argv in words)]]
    said = ""
    for argv in words:
        result = run(
            apptainer, sif, argv, options=[*options, "--bind", f"{apptainer.inside(apptainer.places.work)}:/mnt"]
        )
        assert (result.returncode, result.stderr) == (0, ""), result
        said += result.stdout
    assert said.splitlines() == [*["made"] * len(WAYS), "[]", "[]"]


def test_with_fakeroot_root_may_what_it_could(apptainer: Apptainer, sif: str) -> None:
    """It is root of its user namespace, and has the rights of that; the layer takes none of them from it."""
    code = PRELUDE + "\nopen('/tmp/locked', 'w').close(); os.chmod('/tmp/locked', 0); open('/tmp/locked', 'a').close()"
    code += (
        "\nimport requests\nopen('/tmp/locked', 'a').close(); open(SITE + '/x', 'w').close()\nos.chmod(SITE + '/x', 0)"
    )
    code += "\nopen(SITE + '/x', 'a').close(); report([INSIDE in os.environ, os.getuid()])"
    env = {"SIF_WRITABLE_OVERLAY": "on"}  # with numbers of /etc/subuid there are more users
    joined = f'{PYTHON} -c "$1" & {PYTHON} -c "$1"; wait'
    done = apptainer.exec(sif, ["sh", "-c", joined, "sh", code], options=["--fakeroot"], env=env)
    assert (done.stdout, done.stderr) == ("[true, 0]\n" * 2, "")
