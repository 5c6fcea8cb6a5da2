"""Small packages in the test image, each a distribution of its own: what fails at import, for which reason."""

from __future__ import annotations

import os
import zipfile

_HERE = "import os\nHERE = os.path.dirname(os.path.abspath(__file__))\nprint('executed', __name__)\n"
_WRITE = "open(os.path.join(HERE, 'made'), 'a').close()\n"

FILES = {
    # It writes at import, and that is all it needs.
    "early": {"__init__.py": _HERE + _WRITE},
    # It writes at first use; a branch that is not taken writes, too.
    "valuing": {
        "__init__.py": (
            _HERE + "def value(text):\n    if text == 'save':\n"
            "        open(os.path.join(HERE, 'value'), 'w').close()\n    return float(text)\n"
        )
    },
    # Other reasons to fail, after a side effect and beside code that would write.
    "unlicensed": {
        "__init__.py": _HERE + "def save():\n    " + _WRITE + "raise RuntimeError('no licence server')\n",
    },
    "compiled": {
        "__init__.py": _HERE + "def save():\n    " + _WRITE + "raise ImportError('compiled for another numpy')\n"
    },
    # Its second execution would double something, and a registry refuses that.
    "registering": {"__init__.py": _HERE + "import atexit\natexit.register(print, 'bye')\n" + _WRITE},
    "registry": {
        "__init__.py": (
            "names = set()\ndef add(name):\n    if name in names:\n        raise KeyError(f'{name} is there already')\n"
            "    names.add(name)\n"
        )
    },
    "refusing": {"__init__.py": _HERE + "import registry\nregistry.add('refusing')\n" + _WRITE},
    # What fails is a module of it.
    "console": {
        "__init__.py": _HERE + "ROOT = HERE\n",
        "main.py": "import os, console\n"
        "open(os.path.join(console.ROOT, 'made'), 'a').close()\ndef run():\n    print('ran', console.__file__)\n",
    },
}
"""Name of the package to its files."""


def wheels(folder: str) -> list[str]:
    """Write a wheel for each; return their names, as requirements."""
    for name, files in FILES.items():
        wheel(folder, name, {f"{name}/{path}": text for path, text in files.items()})
    return list(FILES)


def wheel(folder: str, name: str, files: dict[str, str]) -> None:
    """Write a wheel: path in site-packages to text."""
    info = f"{name}-1.0.dist-info"
    contents = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    contents[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in (*contents, f"{info}/RECORD"))
    with zipfile.ZipFile(os.path.join(folder, f"{name}-1.0-py3-none-any.whl"), "w") as file:
        for path, text in contents.items():
            file.writestr(path, text)
