"""Small packages that write beside themselves, each in another way: real code for what real packages do.

Each makes its file once and prints ``made``, when it is imported or first used; it fails where it cannot.
"""

from __future__ import annotations

import os
import textwrap
from typing import NamedTuple

IMPORT, USE = "import", "use"
SILENT = ("sqlite", "compiled", "native_silent", "checked", "swallowed")
"""Those whose errors name no refused write: a database without its path, a path that is relative in a child, an error
of another kind after a check of the permissions or in place of one that was swallowed."""


class Way(NamedTuple):
    """One way of writing."""

    name: str
    """Of the package."""
    when: str
    files: dict[str, str]
    """Path below site-packages to text."""
    made: str
    """What exists afterwards, below the folder that holds site-packages."""
    use: str = ""
    """What is run after the import; by default `NAME.use()` where it writes at first use."""

    @property
    def reports(self) -> bool:
        """Whether its error reports a refused write, and which."""
        return not self.name.startswith(SILENT)


def _package(name: str, made: str, body: str, when: str, **more: str) -> Way:
    """Make a package whose `use` is this body; `HERE` is its directory and `made()` says so."""
    text = "import os\nHERE = os.path.dirname(os.path.abspath(__file__))\ndef made():\n    print('made')\n"
    text += f"def use():\n{textwrap.indent(textwrap.dedent(body).strip(), '    ')}\n"
    if when == IMPORT:
        text += "use()\n"
    files = {f"{name}/__init__.py": text, **{path.replace("NAME", name): body for path, body in more.items()}}
    return Way(name, when, files, os.path.normpath(f"site-packages/{name}/{made.replace('NAME', name)}"))


_BODIES: tuple[tuple[str, str, str], ...] = (
    (
        "open",
        "log.txt",
        "p = os.path.join(HERE, 'log.txt')\nif not os.path.exists(p):\n    open(p, 'w').write('x'); made()",
    ),
    ("mkdir", "cache", "p = os.path.join(HERE, 'cache')\nif not os.path.isdir(p):\n    os.mkdir(p); made()"),
    (
        "pathlib",
        "data/deep/x",
        """
        import pathlib
        p = pathlib.Path(__file__).resolve().parent / 'data' / 'deep'
        if not (p / 'x').exists():
            p.mkdir(parents=True, exist_ok=True); (p / 'x').write_text('x'); made()
        """,
    ),
    (
        "sqlite",
        "db.sqlite",
        """
        import sqlite3
        c = sqlite3.connect(os.path.join(HERE, 'db.sqlite'))
        if not c.execute("select name from sqlite_master").fetchall():
            c.execute('create table t (x)'); c.commit(); made()
        """,
    ),
    (
        "tarball",
        "unpacked/x",
        """
        import tarfile, io
        if not os.path.exists(HERE + '/unpacked/x'):
            b = io.BytesIO(); t = tarfile.open(fileobj=b, mode='w'); i = tarfile.TarInfo('unpacked/x'); t.addfile(i)
            t.close(); b.seek(0)
            tarfile.open(fileobj=b).extractall(HERE); made()
        """,
    ),
    (
        "zipped",
        "games/x.json",
        """
        import zipfile, io
        if not os.path.exists(HERE + '/games/x.json'):
            b = io.BytesIO(); z = zipfile.ZipFile(b, 'w'); z.writestr('games/x.json', '{}'); z.close()
            zipfile.ZipFile(b).extractall(HERE); made()
        """,
    ),
    (
        "renamed",
        "cache.bin",
        """
        if not os.path.exists(HERE + '/cache.bin'):
            open(HERE + '/cache.new', 'wb').close(); os.rename(HERE + '/cache.new', HERE + '/cache.bin'); made()
        """,
    ),
    (
        "renamed_over",
        "__init__.pyc.txt",
        """
        import tempfile
        p = HERE + '/__init__.pyc.txt'
        if not os.path.exists(p):
            fd, n = tempfile.mkstemp(dir=HERE); os.close(fd); os.replace(n, p); made()
        """,
    ),
    (
        "rewritten",
        "config.json",
        """
        p = os.path.join(HERE, 'config.json')
        if open(p).read() == '{}':
            with open(p, 'r+') as f:
                f.write('{"a": 1}')
            made()
        """,
    ),
    (
        "appended",
        "config.json",
        "p = HERE + '/config.json'\nif open(p).read() == '{}':\n    open(p, 'a').write('x'); made()",
    ),
    (
        "chmodded",
        "config.json",
        """
        import stat
        p = HERE + '/config.json'
        before = os.stat(p).st_mode
        os.chmod(p, 0o755)
        if not before & stat.S_IXUSR: made()
        """,
    ),
    (
        "symlinked",
        "latest",
        "if not os.path.lexists(HERE + '/latest'):\n    os.symlink('config.json', HERE + '/latest'); made()",
    ),
    (
        "regenerated",
        "built/mod.py",
        """
        import shutil, importlib
        if not os.path.exists(HERE + '/built/mod.py'):
            shutil.rmtree(HERE + '/built'); os.mkdir(HERE + '/built')
            open(HERE + '/built/__init__.py', 'w').close()
            with open(HERE + '/built/mod.py', 'w') as f: f.write('value = 7')
            importlib.invalidate_caches(); made()
        m = importlib.import_module(__name__ + '.built.mod')
        assert m.value == 7 and m.__file__.startswith(HERE), m.__file__
        """,
    ),
    (
        "logged",
        "tool.log",
        """
        import logging.handlers
        new = not os.path.exists(HERE + '/tool.log')
        h = logging.handlers.RotatingFileHandler(HERE + '/tool.log', maxBytes=99, backupCount=2)
        if new: made()
        """,
    ),
    (
        "handed",
        "kept.txt",
        """
        import subprocess, tempfile
        with tempfile.NamedTemporaryFile('w', dir=HERE, delete=False) as f: f.write('hello')
        out = subprocess.check_output(['cat', os.path.basename(f.name)], cwd=HERE, text=True)
        assert out == 'hello'
        os.remove(f.name)
        if not os.path.exists(HERE + '/kept.txt'): open(HERE + '/kept.txt', 'w').close(); made()
        """,
    ),
    (
        "relative",
        "here.txt",
        """
        os.chdir(HERE)
        if not os.path.exists('here.txt'): open('here.txt', 'w').close(); made()
        """,
    ),
    (
        "dotdot",
        "../data-of-NAME/x",
        """
        p = os.path.join(HERE, '..', 'data-of-' + __name__)
        if not os.path.isdir(p): os.makedirs(p); open(p + '/x', 'w').close(); made()
        """,
    ),
    (
        "climbing",
        "../../exports-of-NAME/x",
        """
        import pathlib
        p = pathlib.Path(__file__).resolve().parent.parent.parent / ('exports-of-' + __name__)
        if not p.exists(): p.mkdir(parents=True); (p / 'x').touch(); made()
        """,
    ),
    (
        "bytes_path",
        "b.txt",
        "p = os.fsencode(HERE) + b'/b.txt'\nif not os.path.exists(p):\n    open(p, 'wb').close(); made()",
    ),
    (
        "native",
        "n.h5",
        """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        p = os.path.join(HERE, 'n.h5')
        new = not os.path.exists(p)
        fd = libc.open(p.encode(), os.O_RDWR | os.O_CREAT, 0o644)
        if fd < 0:
            e = ctypes.get_errno()
            raise OSError("Unable to create file (unable to open file: name = '%s', errno = %d)" % (p, e))
        os.close(fd)
        if new: made()
        """,
    ),
    (
        "native_silent",
        "n.h5",
        """
        import ctypes
        p = os.path.join(HERE, 'n.h5')
        new = not os.path.exists(p)
        fd = ctypes.CDLL(None).open(p.encode(), os.O_RDWR | os.O_CREAT, 0o644)
        if fd < 0: raise RuntimeError('the cache is broken')
        os.close(fd)
        if new: made()
        """,
    ),
    (
        "compiled",
        "ext.o",
        """
        import subprocess
        if not os.path.exists(HERE + '/ext.o'):
            subprocess.run(['sh', '-c', 'echo object > ext.o'], cwd=HERE, check=True, capture_output=True); made()
        """,
    ),
    (
        "checked",
        "state",
        """
        if not os.access(HERE, os.W_OK): raise RuntimeError('installation is damaged')
        if not os.path.exists(HERE + '/state'): open(HERE + '/state', 'w').close(); made()
        """,
    ),
    (
        "wrapped",
        "w.txt",
        """
        try:
            if not os.path.exists(HERE + '/w.txt'): open(HERE + '/w.txt', 'w').close(); made()
        except OSError:
            raise ValueError('could not initialise') from None
        """,
    ),
    (
        "swallowed",
        "sub/s.txt",
        """
        if not os.path.exists(HERE + '/sub/s.txt'):
            try: os.mkdir(HERE + '/sub')
            except OSError: pass
            open(HERE + '/sub/s.txt', 'w').close(); made()
        """,
    ),
    (
        "touched_deep",
        "internals/datasets/cache",
        """
        import importlib
        importlib.import_module(__name__ + '.internals.datasets')
        """,
    ),
)

_SHIPPED = {name: {"NAME/config.json": "{}"} for name in ("rewritten", "appended", "chmodded", "symlinked")}
_SHIPPED["regenerated"] = {"NAME/built/__init__.py": "", "NAME/built/old.py": ""}
_SHIPPED["touched_deep"] = {
    "NAME/internals/__init__.py": "",
    "NAME/internals/datasets.py": (
        "from pathlib import Path\np = Path(__file__).parent / 'datasets' / 'cache'\n"
        "if not p.exists():\n    p.mkdir(parents=True)\n    print('made')\n"
    ),
}

WAYS = tuple(
    _package(f"{name}_{when}", made, body, when, **_SHIPPED.get(name, {}))
    for name, made, body in _BODIES
    for when in (IMPORT, USE)
)
