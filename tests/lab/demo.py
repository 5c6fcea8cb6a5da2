"""The demonstration: the same real imports in a read-only image, without the hook and with it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from tests.lab import apptainer_root, image, readonly_root, scratch, store
from tests.lab.apptainer_root import Apptainer
from tests.lab.readonly_root import ReadonlyRoot
from tests.lab.unavailable import LabUnavailable

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping

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

PYTUBE = "pytube==15.0.0"
PROGRAMS = {
    "numba, cache=True": "import sys; sys.path.insert(0, '/data'); from kernel import total; total(9);"
    " print(f'{sum(total.stats.cache_hits.values())} kernels from the cache,"
    " {sum(total.stats.cache_misses.values())} compiled')",
    "matplotlib": "import matplotlib.pyplot as p, matplotlib; p.plot([1, 2]); p.savefig('/dev/null', format='png');"
    " print('drawn, cache in', matplotlib.get_cachedir())",
    "Kivy": "import kivy; print('configured in', kivy.kivy_home_dir)",
    "pytube": "from pytube import innertube; innertube.InnerTube(use_oauth=False, allow_cache=True).cache_tokens();"
    " print('tokens in', innertube._cache_dir)",
}
"""A kernel beside the user's source, a font cache, a folder in HOME, and a folder beside the package's own source."""

_GPU = "import numba.cuda"
_EXPECTED = {"CUDA_VISIBLE_DEVICES": "0"}
"""As Slurm sets it in a job that was given a GPU."""

_PARTS = {
    "wheel": "the wheel of sif_writable",
    "wheelhouse": "numba, matplotlib and Kivy, downloaded",
    "wheelhouse-demo": "pytube, downloaded",
    "apptainer-root": "Apptainer, in a small Debian of its own",
    "base": "the base of the image, Debian 12",
    "packages": "the image with these packages",
    "demo": "the SIF, with sif_writable",
    "host-wheelhouse": "numba, matplotlib and Kivy, downloaded",
    "host-packages": "an environment with these packages",
    "host-venv": "the same with sif_writable",
}


class Verdict(NamedTuple):
    """What became of the programs."""

    failed: list[str]
    """Those that failed without the hook."""
    cured: list[str]
    """Those of them that ran with it, both times."""
    broken: list[str]
    """Those that ran without the hook and failed with it."""

    def __str__(self) -> str:
        """Return the last line."""
        line = f"{len(self.cured)} of {len(self.failed)} imports cured"
        return f"{line}, and {', '.join(self.broken)} broken" if self.broken else line


def main() -> int:
    """Run the demonstration; return 0 when every program runs with the hook."""
    store.watchers.append(_progress)
    with scratch.fresh() as places:
        run, what, programs = _where(places)
        print(f"\n{what}\nHOME is not there, as with --no-home.\n")
        verdict = show(run, programs)
        print("\nA job that was given a GPU (CUDA_VISIBLE_DEVICES=0), started without --nv or on the wrong node:")
        print(f"  $ python -c {_GPU!r}")
        for line in run(_GPU, **_EXPECTED).stderr.strip().splitlines():
            print(f"  {line}", flush=True)
        print("\nsif-writable status:\n")
        print(run(None).stdout)
    print(f"Verdict: {verdict}.\nTo remove all that this has made: {removal()}")
    return 0 if verdict.failed and len(verdict.cured) == len(verdict.failed) and not verdict.broken else 1


def show(run: Run, programs: Mapping[str, str]) -> Verdict:
    """Run the programs without the hook, and twice with it; print a line for each."""
    print("Without the hook (SIF_WRITABLE=off):")
    without = {name: _show(name, run(program, SIF_WRITABLE="off")) for name, program in programs.items()}
    fine = dict.fromkeys(programs, True)
    for time_word in ("With the hook, first time:", "With the hook, second time:"):
        print(f"\n{time_word}")
        for name, program in programs.items():
            fine[name] &= _show(name, run(program))
    failed = [name for name in programs if not without[name]]
    broken = [name for name in programs if without[name] and not fine[name]]
    return Verdict(failed, [name for name in failed if fine[name]], broken)


def removal() -> str:
    """Return the command that removes what the lab has made."""
    remove = f"rm -rf {store.LAB}"
    if os.getuid() != 0:
        return f"chmod -R u+rwX {store.LAB}; {remove}"
    packages = os.environ.get("LAB_INSTALLS", "")  # of tests/lab/setup.sh
    return f"{remove}; apt-get remove {packages}" if packages else remove


def _progress(part: str, seconds: float | None) -> None:
    what = _PARTS.get(part, part)
    print(f"  making {what} ..." if seconds is None else f"  made   {what} ({seconds:.0f} s)", flush=True)


def _where(places: Scratch) -> tuple[Run, str, Mapping[str, str]]:
    """Return how to run a program (or `status`) in the best read-only image to be had, what that is, and what to run.

    In a namespace the environment is bound in from the host, where nothing serves what writes beside itself.
    """
    module = places.new_folder("modules")
    with open(os.path.join(module, "kernel.py"), "w", encoding="utf-8") as file:
        file.write(KERNEL)
    os.chmod(module, 0o755)
    try:
        apptainer = Apptainer(apptainer_root.find(), places)
        sif = image.larger(PYTUBE, name="demo")
    except LabUnavailable as why:
        print(f"  no image of Apptainer here: {why}", file=sys.stderr)
        root = ReadonlyRoot(readonly_root.venv(), places)

        def in_namespace(program: str | None, **env: str) -> subprocess.CompletedProcess[str]:
            environment = {"SIF_WRITABLE": "on", **env}  # a namespace bears no sign of a container engine
            return root.run(_command(program), env=environment, binds=[f"{module}:/data:ro"])

        home_only = {name: program for name, program in PROGRAMS.items() if name != "pytube"}
        what = (
            "A read-only root in a user namespace. What writes beside itself (pytube) is left out: it needs an image."
        )
        return in_namespace, what, home_only

    def in_sif(program: str | None, **env: str) -> subprocess.CompletedProcess[str]:
        options = ["--no-home", "--bind", f"{apptainer.inside(module)}:/data:ro"]
        return apptainer.exec(sif, _command(program), options=options, env=env)

    version = apptainer.run(["--version"]).stdout.strip()
    return in_sif, f"{version}, image of {os.path.getsize(sif) >> 20} MiB.", PROGRAMS


def _command(program: str | None) -> list[str]:
    return ["sif-writable", "status"] if program is None else ["python", "-c", program]


def _show(name: str, result: subprocess.CompletedProcess[str]) -> bool:
    fine = result.returncode == 0
    output = (result.stdout if fine else result.stderr).strip().splitlines()
    line = output[-1].strip() if output else ""
    print(f"  {name:<18} {'ok    ' if fine else 'FAILED'} {line[:160]}", flush=True)
    return fine
