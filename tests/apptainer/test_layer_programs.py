"""Programs live in a layer as they lived without one: installers, programs that start others or look into them."""

from __future__ import annotations

import json
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
ASKED = {"APPTAINERENV_SIF_WRITABLE_OVERLAY": "layer"}
WITHOUT = {"APPTAINERENV_SIF_WRITABLE": "off"}


@pytest.fixture(scope="session")
def programs() -> str:
    """Return the image of programs that start others, look into them, or install."""
    return str(or_skip(lab_programs.sif))


def run(
    apptainer: Apptainer, sif: str, argv: list[str], *, env: dict[str, str] = ASKED, options: Sequence[str] = ()
) -> CompletedProcess[str]:
    return apptainer.exec(sif, argv, env=env, options=options)


def write(apptainer: Apptainer, name: str, text: str) -> None:
    with open(f"{apptainer.places.work}/{name}", "w", encoding="utf-8") as file:
        file.write(text)


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
for name, words, environ in json.loads(rows):
    words = [word.replace("PYTHON", sys.executable) for word in words]
    environ = {{"HOME": os.environ["HOME"]}} if environ == "clean" else os.environ
    done = subprocess.run(words, env=environ, capture_output=True, text=True)
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
OTHERS = {
    "user": {
        "own program": ["PYTHON", "-c", f"import pip; from pip._internal.cli.main import main; main({PIP!r})"],
    },
    "venv": {
        "shell": ["sh", "-c", LINE],
        "notebook": ["PYTHON", "-m", "IPython", "--no-banner", "--colors=nocolor", "-c", f"!{LINE}\n%{LINE}"],
    },
}
"""Other ways to start them, which go where the first one of their kind goes."""


def test_installers_go_where_they_went(apptainer: Apptainer, programs: str) -> None:
    for name, text in (("install.py", INSTALL), ("setup.py", SETUP), ("conda.py", CONDA)):
        write(apptainer, name, text)

    def installed(rows: list[tuple[str, list[str], str]], python: str, inside: str, env: dict[str, str]) -> Any:
        done = run(apptainer, programs, [python, "install.py", inside, json.dumps(rows)], env=env)
        assert done.returncode == 0, done
        return dict(json.loads(line) for line in done.stdout.splitlines() if line[:1] == "["), done.stderr

    for python in (SYSTEM, VENV, BARE):
        kinds = {kind: words for kind, (of, words) in KINDS.items() if of == python}
        rows = [(kind, words, "") for kind, words in kinds.items()]
        without, _ = installed(rows, python, "alone", WITHOUT)
        expected = [True, False, ["user"]] if python == SYSTEM else [False, True, []]
        assert without == dict.fromkeys(kinds, expected)
        if python == SYSTEM:
            assert installed(rows, python, "alone", ASKED)[0] == without
        more = {name: words for kind in kinds for name, words in OTHERS.get(kind, {}).items()}
        rows += [(name, words, "") for name, words in more.items()]
        inside, said = installed(rows, python, "layer", ASKED)
        wrong = {name: what for name, what in inside.items() if what[1:] != expected[1:]}
        assert not wrong, said
        assert list(inside) == [*kinds, *more]
