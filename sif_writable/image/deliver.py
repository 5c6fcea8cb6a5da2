"""Give the hook to another Python environment of the same image, without a network: copy what pip installed here."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from sif_writable import MODE, aside
from sif_writable.system.filesystem import explain

if TYPE_CHECKING:
    from sif_writable.image.environments import Environment

NEEDED = ("platformdirs", "filelock", "nvidia-ml-py")
"""Distributions that this package needs; they are of plain Python, as it is itself."""
_SKIPPED = ("__pycache__", ".pyc")


def install_into(environment: Environment) -> str:
    """Copy the package, its hook and what it needs into an environment; return an empty string or what is wrong."""
    try:
        for name in ("sif-writable", *NEEDED):
            if name == "sif-writable" or not _has(environment, name):
                _copy(name, environment.purelib)
    except importlib.metadata.PackageNotFoundError as error:
        name = error.args[0]  # its attribute `name` is new in Python 3.10
        return f"{name} is not installed as a distribution here, so it cannot be copied; install it there by pip"
    except OSError as error:
        return f"{error.filename or environment.purelib} {explain(error)}"
    return ""


def _has(environment: Environment, name: str) -> bool:
    module = {"nvidia-ml-py": "pynvml"}.get(name, name)
    return any(
        os.path.exists(f"{folder}/{module}{end}") for folder in environment.folders for end in (".py", "/__init__.py")
    )


def _copy(name: str, target: str) -> None:
    """Copy the files of a distribution that lie in site-packages; its scripts belong to the interpreter here."""
    distribution = importlib.metadata.distribution(name)
    for file in distribution.files or ():
        path = str(file)
        if path.startswith("..") or os.path.isabs(path) or any(skipped in path for skipped in _SKIPPED):
            continue
        source = str(distribution.locate_file(file))
        new = f"{target}/{path}"
        os.makedirs(os.path.dirname(new), exist_ok=True)
        copied = aside.path(*os.path.split(new))
        shutil.copyfile(source, copied)
        os.chmod(copied, 0o644)
        os.rename(copied, new)


def starts_hook(environment: Environment) -> bool:
    """Whether an interpreter of this environment runs the hook at its start."""
    words = "import sys; print(getattr(sys.modules.get('sif_writable'), 'state', ''))"
    # Switched off, the hook still runs, and leaves that state.
    done = subprocess.run(
        [environment.executable, "-c", words],
        env={**os.environ, MODE: "off"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() == "off"
