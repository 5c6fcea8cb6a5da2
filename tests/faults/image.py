"""A read-only environment whose packages write beside themselves, and a home that can only be read."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from tests.lab import environments
from tests.lab.plain_machine import VENV
from tests.lab.store import provide

if TYPE_CHECKING:
    from tests.lab.pythons import Python

BAKED = "baked"
"""Below the environment: what the image brings for its locations."""

_WRITE = """
import os
HERE = os.path.dirname(os.path.abspath(__file__))
def use():
    with open(os.path.join(HERE, "made.txt"), "w") as file:
        file.write("whole" * 100)
"""
_FILES = {
    # It fails at import, reaches a mate of its distribution, and has all kinds of files.
    "failing/__init__.py": _WRITE + "from failing import sub\nuse()\n",
    "failing/sub/__init__.py": "value = 1\n",
    "failing/data/table.csv": "1,2,3\n" * 1000,
    "failing_mate/__init__.py": "",
    "failing-1.0.dist-info/RECORD": "failing/__init__.py,,\nfailing_mate/__init__.py,,\n",
    # A module of one file, which the image declares. Its bytecode is several times as large as its source.
    "declared.py": _WRITE + "".join(f"def f{number}(a, b): return a + b\n" for number in range(15)),
    # It fails at first use, which is learned when the program has died of it.
    "dying/__init__.py": _WRITE,
}
MANIFEST = f"""seed: MPLCONFIGDIR {VENV}/{BAKED}/mpl
seed: TORCH_HOME {VENV}/{BAKED}/torch
package: declared writes made.txt
"""
_BAKED = {
    "../shared/here.txt": "of the image\n",
    "mpl/fontlist.json": "{}\n" * 100,
    "mpl/styles/a.mplstyle": "x: 1\n",
    "torch/hub/model.bin": "w" * (2 << 20),
}
_HOME = {
    ".netrc": "machine example.org\n",
    ".ssh/config": "Host *\n",
    ".config/matplotlib/matplotlibrc": "backend: agg\n",
    ".config/matplotlib/stylelib/mine.mplstyle": "y: 2\n",
    ".ipython/profile_default/ipython_config.py": "c = None\n",
    ".cache/huggingface/token": "not a token\n",
    ".cache/matplotlib/tex.cache": "tex\n",
    "notes.txt": "text\n",
}
_MARK = "import os; os.access({!r}, os.F_OK)\n"
"""A call of no effect, by which a trace shows where the hook begins and ends."""


def environment(python: Python) -> str:
    """Return such an environment, made by an interpreter."""
    start = environments.hooked(python)

    def make(path: str) -> None:
        environments.copy(start, path)
        site = environments.packages(path)
        with open(f"{site}/sif_writable.pth", encoding="utf-8") as file:
            line = file.read()
        files = {f"{site}/{name}": text for name, text in _FILES.items()}
        files.update({f"{path}/{BAKED}/{name}": text for name, text in _BAKED.items()})
        files[f"{site}/sif_writable.manifest"] = MANIFEST
        files[f"{site}/sif_writable.pth"] = _MARK.format("/mark/hook") + line + "\n" + _MARK.format("/mark/hooked")
        write(files)
        subprocess.run([python.path, "-m", "compileall", "-q", site], check=True)

    return provide(f"environment-faults-{python.name.replace('.', '')}", (start, _FILES, MANIFEST, _BAKED, _MARK), make)


def fill_home(home: str) -> None:
    """Put into a home what a private one has to lead to."""
    write({f"{home}/{name}": text for name, text in _HOME.items()})


def write(files: dict[str, str]) -> None:
    """Write files, path to text, with the folders that they need."""
    for path, text in files.items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
