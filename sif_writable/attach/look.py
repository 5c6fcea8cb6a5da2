"""Look into an image: in which directories do its interpreters read ``.pth`` files? One of them looks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import NamedTuple

from sif_writable.attach import variables
from sif_writable.errors import SifWritableError
from sif_writable.image import environments

ENGINES = ("apptainer", "singularity")
_SECONDS = 300.0
_MARK = "sif-writable found: "
_PYTHON = (
    "import sys; sys.version_info >= (3, 9) or sys.exit(1); "
    f"sys.path.append('{variables.POINT}'); from sif_writable.attach import look; look.main()"
)
# The first Python that can, wherever images have theirs. Most images have no find(1) to look further.
_SCRIPT = f"""
for program in $(command -v python3 python) /usr/bin/python3 /usr/local/bin/python3 /opt/*/bin/python3 \
        /opt/*/*/bin/python3 /opt/*/*/*/bin/python3 /*/bin/python3 /usr/local/*/bin/python3 /*/*/bin/python3 \
        /*/*/*/bin/python3 /usr/bin/python3.* /usr/local/bin/python3.*; do
    if [ -x "$program" ]; then "$program" -I -S -B -c "{_PYTHON}" && exit 0; fi
done
exit 44
"""
_NONE = 44


class Looked(NamedTuple):
    """What was found in an image."""

    directories: list[str]
    """Of packages, one for each environment that lacks the hook."""
    have: list[str]
    """Files of this package in the image itself."""
    too_old: list[str]
    """Interpreters that this package does not run on."""


def engine_for(image: str) -> str:
    """Return the engine that looks into an image.

    :param image: as the engine takes it: a file, a sandbox, or an address.
    :raises SifWritableError: there is no engine, or no image.
    """
    engine = next(filter(shutil.which, ENGINES), "")
    if not engine:
        raise SifWritableError(
            f"{image} cannot be looked into: neither apptainer nor singularity is on PATH. Remedy: call this where "
            "containers are run, or leave --image out."
        )
    if "://" not in image and not os.path.exists(image):
        raise SifWritableError(f"{image} does not exist. Remedy: name the image as for {engine} exec.")
    return engine


def into(engine: str, image: str, folder: str) -> Looked:
    """Look into an image.

    :param folder: ours, to bind.
    :raises SifWritableError: it cannot be looked into, or there is no Python in it.
    """
    command = [engine, "--silent", "exec", "--contain", "--cleanenv", "--bind", f"{folder}:{variables.POINT}", image]
    # What is meant for other containers, such as binds of an earlier call, would only be in the way.
    ours = ("APPTAINER", "SINGULARITY")
    kept = {"CACHEDIR", "TMPDIR", "USERNS", "DOCKER_USERNAME", "DOCKER_PASSWORD", "CONFIGDIR"}
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(ours) or name.partition("_")[2] in kept
    }
    try:
        done = subprocess.run(
            [*command, "/bin/sh", "-c", _SCRIPT],
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SifWritableError(
            f"{image} was not looked through within {_SECONDS:.0f} seconds. Remedy: leave --image out."
        ) from error
    lines = [line[len(_MARK) :] for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if done.returncode == 0 and lines:
        return Looked(*json.loads(lines[-1]))
    if done.returncode == _NONE:
        raise SifWritableError(f"{image} has no Python 3.9 or newer, so there is nothing for the hook to serve in it.")
    said = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
    raise SifWritableError(f"{image} cannot be looked into: {engine} said: {said[0]}. Remedy: see that it runs.")


def main() -> None:
    """Look around in the image that this process runs in, compile our folder for it, and print what was found."""
    found, _ = environments.found()
    if not any(os.path.realpath(each.executable) == os.path.realpath(sys.executable) for each in found):
        here = environments.ask(sys.executable)  # the root may be put together from mounts, which are not entered
        found += [] if isinstance(here, str) else [here]
    looked = Looked([], [], [])
    for each in found:
        if not each.supported:
            looked.too_old.append(f"{each.executable} ({each.version})")
        elif each.package:
            looked.have.append(each.package)
        elif each.sites:
            directory = os.path.realpath(each.sites[-1])  # then all others are on the path when its files are read
            looked.directories.extend([directory] if directory not in looked.directories else [])
            if not variables.bad_path(directory) and os.access(variables.POINT, os.W_OK):
                command = [each.executable, "-I", "-S", "-m", "compileall", "-q", variables.POINT]
                subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    print(_MARK + json.dumps(looked))  # noqa: T201 - the answer
