"""What is shipped: the same bytes from any build, a start-up line that hides nothing, no network, known licences."""

from __future__ import annotations

import ast
import email
import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.conftest import NOT_RUN
from tests.lab.environments import PYTHON
from tests.lab.hooked import STATE, Hooked, question
from tests.lab.plain_machine import WORK
from tests.lab.store import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.writing_image import Image

# --- Builds.


def _build(folder: str, out: str, umask: int, environ: dict[str, str]) -> dict[str, str]:
    """Build wheel and sdist; return name to digest."""
    clean = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    command = [
        sys.executable,
        "-m",
        "build",
        "--quiet",
        "--no-isolation",
        "--sdist",
        "--wheel",
        "--outdir",
        out,
        folder,
    ]
    done = subprocess.run(command, env={**clean, **environ}, umask=umask, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    found = {}
    for name in os.listdir(out):
        with open(f"{out}/{name}", "rb") as file:
            found[name] = hashlib.sha256(file.read()).hexdigest()
    return found


def test_two_builds_of_the_same_sources_are_the_same_bytes(tmp_path: Path) -> None:
    """In other folders, at other times, with other permissions, locales and hash seeds, and beside stray bytecode."""
    places = [tmp_path / "a", tmp_path / "b" / "a deeper one" / "ü"]
    for number, place in enumerate(places):
        place.mkdir(parents=True)
        for name in ("sif_writable", "tests", "container"):
            ignored = shutil.ignore_patterns(*(["__pycache__"] if number else []))
            shutil.copytree(f"{REPOSITORY}/{name}", place / name, ignore=ignored, symlinks=True)
        for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", ".gitignore"):
            shutil.copy(f"{REPOSITORY}/{name}", place / name)
    for here, folders, files in os.walk(places[1]):
        for name in (*folders, *files):
            path = os.path.join(here, name)
            os.chmod(path, os.stat(path).st_mode & 0o700)
            os.utime(path, (10**9, 10**9))
    first = _build(str(places[0]), str(tmp_path / "one"), 0o022, {"TZ": "UTC", "PYTHONHASHSEED": "1"})
    second = _build(str(places[1]), str(tmp_path / "two"), 0o077, {"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "2"})
    assert sorted(name.rpartition(".")[2] for name in first) == ["gz", "whl"]
    assert first == second


def test_the_start_up_files_say_all_that_they_do(wheel: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (info,) = {name.partition("/")[0] for name in names if ".dist-info/" in name}
        assert {name.partition("/")[0] for name in names} == {
            "sif_writable", "sif_writable.pth", info,
        }  # fmt: skip
        line = archive.read("sif_writable.pth").decode("ascii")
        record = archive.read(f"{info}/RECORD").decode()
    assert line.count("\n") == 1
    assert len(line) < 80
    imported, called = ast.parse(line).body  # `import module; module.function()`, and no more
    assert ast.unparse(imported) == "import sif_writable"
    assert ast.unparse(called) == "sif_writable.run()"
    assert "\nsif_writable.pth,sha256=" in f"\n{record}"


# --- The network.

_COMMANDS = [
    ["-c", question(STATE)],
    ["-c", "import inner, resourceful"],
    *(["-m", "sif_writable", *words.split()] for words in ("status", "doctor --json", "env", "cache list")),
    ["-m", "sif_writable", "cache", "prune", "--dead", "--all-images", "--dry-run"],
    ["-m", "sif_writable", "run", "--", "true"],
]


def test_without_any_network_everything_is_as_with_one(one_image: Image) -> None:
    """In a network namespace that has nothing, not even a loopback address."""
    apart = ["unshare", "--user", "--map-current-user", "--net", "--"]
    trial = one_image.machine.run([*apart, "cat", "/proc/self/net/dev"])
    if trial.returncode:
        pytest.skip(f"{NOT_RUN}this machine lets nobody have a network namespace")
    assert [line.split(":")[0].strip() for line in trial.stdout.splitlines()[2:]] == ["lo"]
    for words in _COMMANDS:
        result = one_image.machine.run([*apart, PYTHON, *words], venv=one_image.environment)
        assert (result.returncode, "Traceback" in result.stderr) == (0, False), (words, result)


@pytest.mark.parametrize("home", ["/home/user", "/no/such/home"])
def test_no_socket_is_ever_made(one_image: Image, strace: str, home: str) -> None:
    """Libc itself asks for a user's name by a local socket (nscd); of the network's families there is none."""
    watched = [strace, "-f", "-qq", "-e", "trace=network", "-o", f"{WORK}/network"]
    for words in _COMMANDS:
        result = one_image.machine.run([*watched, PYTHON, *words], venv=one_image.environment, home=home)
        assert "Traceback" not in result.stderr, (words, result)
        with open(f"{one_image.places.work}/network", encoding="utf-8", errors="replace") as file:
            calls = [line for line in file if re.search(r"\b(socket|connect|sendto|bind)\(", line)]
        assert [call for call in calls if "AF_UNIX" not in call] == [], words
        assert [call for call in calls if "nscd" not in call and "AF_UNIX, SOCK_STREAM|SOCK_CLOEXEC" not in call] == []


# --- Licences.


def test_the_licences_of_what_is_needed_are_those_that_are_named(hooked: Hooked, wheel: str) -> None:
    with open(f"{REPOSITORY}/.github/SECURITY.md", encoding="utf-8") as file:
        page = file.read()
    named = dict(re.findall(r"^- `([a-z-]+)`: ([A-Za-z0-9-]+)", page.partition("## Licences")[2], re.MULTILINE))
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        own = email.message_from_bytes(archive.read(name))
    needed = {re.split(r"[^A-Za-z0-9-]", text)[0] for text in own.get_all("Requires-Dist", [])}
    found = {}
    for path in glob.glob(f"{hooked.packages}/*.dist-info/METADATA"):
        with open(path, encoding="utf-8") as file:
            metadata = email.message_from_file(file)
        if metadata["Name"] in needed:
            found[metadata["Name"]] = metadata["License-Expression"] or metadata["License"]
    assert set(found) == needed
    assert named == found
