"""What `sif-writable attach` makes on a host that has the packages for it; for images of any interpreter."""

from __future__ import annotations

import shlex
import subprocess
import sys
import zipfile

from tests.lab import wheels
from tests.lab.store import provide

NEEDED = ("platformdirs==4.4.0", "filelock==3.19.1", "nvidia-ml-py==13.615.71")
"""The newest that serve Python 3.9."""
POINT = "/sif-writable-attached"
"""Where containers see the folder."""
HOOK = f"{POINT}/sif_writable/hook"
"""What PYTHONPATH names then."""
_MAIN = "from sif_writable.commands.cli import main; sys.exit(main())"


def command(paths: list[str], python: str = sys.executable) -> list[str]:
    """Return the command, of a host that has what it needs in these folders."""
    # Not by PYTHONPATH, which containers get, too.
    return [python, "-B", "-c", f"import sys; sys.path[:0] = {paths}; {_MAIN}", "attach"]


def needed() -> str:
    """Return a folder with what the package needs, for the oldest Python."""
    return wheels.installed("attach-needed", NEEDED, "3.9")


def folder() -> str:
    """Return a folder that was made from the present wheel; what is to be bound is the link `current` in it."""
    wheel, packages = wheels.project_wheel(), needed()

    def make(path: str) -> None:
        with zipfile.ZipFile(wheel) as file:
            file.extractall(f"{path}.host")
        words = [*command([f"{path}.host", packages]), "--dir", path]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{shlex.join(words)} failed:\n{done.stderr}")

    return provide("attached", (wheel, packages), make)
