"""The command line in children of one interpreter that has imported it already.

Most tests of a command ask what it says and does, not how an interpreter starts; a start costs ten times as much.
"""

from __future__ import annotations

import atexit
import functools
import json
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

from tests.lab.store import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SERVER = """
import atexit, importlib, json, os, sys, traceback
from sif_writable.commands.cli import COMMANDS, main

def one(words, environ, out, err):
    code = 1
    try:
        for number, path in enumerate((os.devnull, out, err)):
            os.dup2(os.open(path, os.O_RDWR), number)
        os.environ.clear()
        os.environ.update(environ)
        sys.argv = ["sif-writable", *words]
        try:
            code = main(words)
        except SystemExit as end:
            code = end.code
        atexit._run_exitfuncs()
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)

for command in COMMANDS:
    importlib.import_module(f"sif_writable.commands.{command}")
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        one(*json.loads(line))
    print(os.waitpid(child, 0)[1], flush=True)
"""


@functools.cache
def _server() -> subprocess.Popen[str]:
    words = [sys.executable, "-c", f"import sys; sys.path.insert(0, {REPOSITORY!r})\n{_SERVER}"]
    server = subprocess.Popen(
        words, env={"SIF_WRITABLE": "off"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(server.communicate)  # at the end of its input it ends
    return server


def run(words: Sequence[str], environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the command line of the sources with this environment, alone; its input is empty."""
    server = _server()
    assert server.stdin
    assert server.stdout
    with tempfile.NamedTemporaryFile("r+", encoding="utf-8") as out, tempfile.NamedTemporaryFile("r+") as err:
        server.stdin.write(json.dumps([list(words), dict(environ), out.name, err.name]) + "\n")
        server.stdin.flush()
        status = int(server.stdout.readline())
        code = status >> 8 if status & 0x7F == 0 else -(status & 0x7F)
        return subprocess.CompletedProcess(list(words), code, out.read(), err.read())
