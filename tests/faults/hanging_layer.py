"""Starts containers with a writable layer while the FUSE server of their storage hangs, or is gone.

``hanging_layer.py WAY PROGRAM IMAGE``, beside Apptainer, as an ordinary user; see ``hanging.py`` for ``WAY``. Prints a
JSON object of what came of each container: ``[exit code, last line, our lines, seconds]``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

from hanging import LIMIT, Server  # type: ignore[import-not-found] # it lies beside this file

WAY, PROGRAM, IMAGE = sys.argv[1:]
PYTHON = "/opt/venv/bin/python"
WRITE = """
import os, sys, requests
folder = requests.__path__[0]
open(f"{{folder}}/{0}", "w").write("whole")
print("/opt/venv" in os.environ.get("SIF_WRITABLE_LAYER", ""), flush=True)
sys.stdin.readline()
import urllib3, idna
print(open(f"{{folder}}/{0}").read(), idna.__file__.startswith("/opt/venv/"))
"""
LOOK = """
import os, requests
print([name for name in ("first", "second", "third") if os.path.exists(f"{requests.__path__[0]}/{name}")])
"""


class Container:
    """One container with the storage of that server."""

    def __init__(self, program: str, then: str = "", storage: str = "mnt") -> None:
        """Start a program of Python in it, and another one after it."""
        options = ["--silent", "exec", "--cleanenv", "--bind", f"{os.getcwd()}/{storage}:/sif-writable"]
        options += ["--env", "SIF_WRITABLE_OVERLAY=layer"]
        script = f'{PYTHON} -c "$1"; code=$?; test -z "$2" || {PYTHON} -c "$2" </dev/null; exit $code'
        words = [PROGRAM, *options, IMAGE, "sh", "-c", script, "sh", program, then]
        self.process = subprocess.Popen(words, text=True, stdin=-1, stdout=-1, stderr=-1)

    def next_line(self) -> str:
        """Return the next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> list[Any]:
        """Let it go on, and wait until it has ended."""
        began = time.monotonic()
        try:
            out, err = self.process.communicate("\n", timeout=LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return ["did not end"]
        said = [line.replace(os.getcwd(), "") for line in err.splitlines() if line.startswith("sif_writable: ")]
        return [self.process.returncode, out.strip(), said or err, time.monotonic() - began]


def main() -> None:
    """Hang, answer, be gone, and be there again."""
    results: dict[str, Any] = {}
    server = Server()
    try:
        # No container can be started while it hangs: Apptainer itself waits for it.
        first = Container(WRITE.format("first"), then=WRITE.format("second"))
        results["in a layer"] = first.next_line()
        server.hang(WAY)
        results["it ends"] = first.end()
        server.answer()
        results["after"] = Container(LOOK).end()
        third = Container(WRITE.format("third"))
        third.next_line()
        server.end()
        results["it is gone"] = third.end()
        server.start("again")
        results["there again"] = Container(LOOK, storage="again").end()
    finally:
        server.end()
        for point in ("mnt", "again"):
            subprocess.run(["fusermount3", "-u", "-z", point], stderr=subprocess.DEVNULL, check=False)
    results["left"] = [name for name in os.listdir("/proc") if name.isdigit() and _is_ours(name)]
    print(json.dumps(results))


def _is_ours(name: str) -> bool:
    try:
        with open(f"/proc/{name}/cmdline", "rb") as file:
            return b"sif_writable.layer" in file.read()
    except OSError:
        return False


if __name__ == "__main__":
    main()
