"""Which Python environments does this image hold? Each is an interpreter with a site-packages of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import NamedTuple

from sif_writable import MODE

DEPTH = 6
"""Levels below the root that an environment's prefix may lie: ``HOME/.local/share/uv/python/NAME`` has six."""

_PROGRAM = re.compile(r"python3?(\.\d+)?$")
_SKIPPED = frozenset(
    (
        *("proc", "sys", "dev", "run", "boot", "lost+found", "sif-writable"),
        *("site-packages", "dist-packages", "node_modules", "include", "__pycache__", ".git"),
    )
)
_SKIPPED_PATHS = frozenset(("/tmp", "/var/tmp", "/usr/share", "/usr/lib", "/usr/src", "/var/lib", "/etc"))  # noqa: S108
_SECONDS = 60.0

_ASK = """
import json, os, sys, sysconfig, site
spec = None
try:
    import importlib.util
    spec = importlib.util.find_spec("sif_writable")
except Exception:
    pass
folders = [entry for entry in sys.path if os.path.isdir(entry)]
print(json.dumps({
    "executable": sys.executable, "version": "%d.%d.%d" % sys.version_info[:3], "name": sys.implementation.name,
    "prefix": sys.prefix, "purelib": sysconfig.get_path("purelib"), "folders": folders,
    "package": spec.origin if spec else None,
    "sites": [entry for entry in site.getsitepackages() if entry in folders],
}))
"""


class Environment(NamedTuple):
    """One interpreter, as it describes itself."""

    executable: str
    version: str
    name: str
    """``cpython``, ``pypy``."""
    prefix: str
    purelib: str
    """Where pip installs for it."""
    folders: tuple[str, ...]
    """Its sys.path."""
    package: str
    """The file of sif_writable that it imports, or an empty string."""
    sites: tuple[str, ...] = ()
    """Those of its sys.path in which it reads ``.pth`` files, in that order; the user's own apart."""

    @property
    def supported(self) -> bool:
        """Whether this package runs there."""
        return tuple(int(part) for part in self.version.split(".")[:2]) >= (3, 9)


def found(root: str = "/") -> tuple[list[Environment], list[tuple[str, str]]]:
    """Return the environments of the image, and the programs that did not answer, with the reason."""
    environments: dict[tuple[str, str], Environment] = {}
    unanswered: list[tuple[str, str]] = []
    tried: set[tuple[str, str]] = set()
    for program in programs(root):
        # A venv's python is a link to the interpreter that made it, so the folder identifies it, too.
        identity = (os.path.dirname(program), os.path.realpath(program))
        if identity in tried:
            continue
        tried.add(identity)
        answer = ask(program)
        if isinstance(answer, str):
            unanswered.append((program, answer))
        else:
            environments.setdefault((answer.prefix, answer.purelib), answer)
    return list(environments.values()), unanswered


def programs(root: str = "/") -> list[str]:
    """List the programs that look like Python 3, shortest paths first; no other filesystem is searched."""
    found: list[str] = []
    device = os.stat(root).st_dev
    stack = [(root.rstrip("/"), 0)]
    while stack:
        here, depth = stack.pop()
        try:
            entries = list(os.scandir(here or "/"))
        except OSError:
            continue
        for entry in entries:
            if entry.name == "bin" and os.path.isdir(entry.path):  # a link to itself is none
                found += _in_bin(entry.path)
            elif depth < DEPTH and entry.name not in _SKIPPED and entry.path not in _SKIPPED_PATHS:
                try:
                    if entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_dev == device:
                        stack.append((entry.path, depth + 1))
                except OSError:
                    continue
    return sorted(set(found), key=lambda path: (path.count("/"), path))


def _in_bin(folder: str) -> list[str]:
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return [f"{folder}/{name}" for name in names if _PROGRAM.match(name) and os.access(f"{folder}/{name}", os.X_OK)]


def ask(program: str) -> Environment | str:
    """Let an interpreter describe itself, or return why it does not."""
    environment = {**os.environ, MODE: "off"}
    for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
        environment.pop(name, None)
    try:
        answer = subprocess.run(
            [program, "-s", "-c", _ASK],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        fields = json.loads(answer.stdout.strip().rpartition("\n")[2])
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        return f"does not answer ({error})"
    return Environment(
        fields["executable"],
        fields["version"],
        fields["name"],
        fields["prefix"],
        fields["purelib"],
        tuple(fields["folders"]),
        fields["package"] or "",
        tuple(fields["sites"]),
    )
