"""The demonstration: the same real imports in a read-only image, without the hook and with it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.lab import apptainer_root, image, readonly_root, scratch
from tests.lab.apptainer_root import Apptainer
from tests.lab.readonly_root import ReadonlyRoot
from tests.lab.unavailable import LabUnavailable

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from tests.lab.scratch import Scratch

    Run = Callable[..., subprocess.CompletedProcess[str]]

KERNEL = """\
import numba

@numba.njit(cache=True)
def total(n):
    s = 0
    for i in range(n):
        s += i
    return s
"""

PROGRAMS = {
    "numba, cache=True": "import sys; sys.path.insert(0, '/data'); from kernel import total; total(9);"
    " print(f'{sum(total.stats.cache_hits.values())} kernels from the cache,"
    " {sum(total.stats.cache_misses.values())} compiled')",
    "matplotlib": "import matplotlib.pyplot as p, matplotlib; p.plot([1, 2]); p.savefig('/dev/null', format='png');"
    " print('drawn, cache in', matplotlib.get_cachedir())",
    "Kivy": "import kivy; print('configured in', kivy.kivy_home_dir)",
}


def main() -> int:
    """Run the demonstration; return 0 when every program runs with the hook."""
    with scratch.fresh() as places:
        run, what = _where(places)
        print(f"\n{what}\nHOME is not there, as with --no-home.\n")
        print("Without the hook (SIF_WRITABLE=off):")
        for name, program in PROGRAMS.items():
            _show(name, run(program, SIF_WRITABLE="off"))
        fine = True
        for time_word in ("With the hook, first time:", "With the hook, second time:"):
            print(f"\n{time_word}")
            for name, program in PROGRAMS.items():
                fine &= _show(name, run(program))
        print("\nsif-writable status:\n")
        print(run(None).stdout)
    return 0 if fine else 1


def _where(places: Scratch) -> tuple[Run, str]:
    """Return how to run a program (or `status`) in the best read-only image to be had here, and what that is."""
    module = places.new_folder("modules")
    with open(os.path.join(module, "kernel.py"), "w", encoding="utf-8") as file:
        file.write(KERNEL)
    os.chmod(module, 0o755)
    print("Building the image (the first time, this takes about two minutes) ...", flush=True)
    try:
        apptainer = Apptainer(apptainer_root.find(), places)
        sif = image.sif()
    except LabUnavailable as why:
        root = ReadonlyRoot(readonly_root.venv(), places)

        def in_namespace(program: str | None, **env: str) -> subprocess.CompletedProcess[str]:
            environment = {"SIF_WRITABLE": "on", **env}  # a namespace bears no sign of a container engine
            return root.run(_command(program), env=environment, binds=[f"{module}:/data:ro"])

        return in_namespace, f"No Apptainer here ({why}): a read-only root in a user namespace."

    def in_sif(program: str | None, **env: str) -> subprocess.CompletedProcess[str]:
        options = ["--no-home", "--bind", f"{apptainer.inside(module)}:/data:ro"]
        return apptainer.exec(sif, _command(program), options=options, env=env)

    return in_sif, f"{apptainer.run(['--version']).stdout.strip()}, image of {os.path.getsize(sif) >> 20} MiB."


def _command(program: str | None) -> list[str]:
    return ["sif-writable", "status"] if program is None else ["python", "-c", program]


def _show(name: str, result: subprocess.CompletedProcess[str]) -> bool:
    fine = result.returncode == 0
    output = (result.stdout if fine else result.stderr).strip().splitlines()
    line = output[-1] if output else ""
    print(f"  {name:<18} {'ok    ' if fine else 'FAILED'} {line[:160]}", flush=True)
    return fine
