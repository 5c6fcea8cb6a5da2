"""What the writable layer costs: ``python -m tests.benchmarks.layer [--rounds N] [--fresh N] [--no-image]``.

Every line compares ways turn by turn, so that whatever else the machine does hits all alike. ``without`` is
``SIF_WRITABLE=off``; ``no layer`` is what we do without one (``SIF_WRITABLE_OVERLAY=off``). It has storage of its own:
what a start keeps holds for one setting, so that two in turn in the same storage would be two cold starts.

================  ======================================================================================  =============
line              what is compared                                                                        aim
================  ======================================================================================  =============
first import      the import of a small package, the first of its process, where the layer is made        3 ms more
joining           the same where another process of the container is in it                                1 ms more
import of ...     four large packages, where the layer is made and where it is joined                     1.02
alone             the same packages in a container of its own each: no directory was looked up before     1.02
exit              from the program's end to its parent's knowing, nothing written                         0.3 ms more
64 at once        from the first start to the last end                                                    1.1
================  ======================================================================================  =============

In a SIF; the lines with a small package also where the kernel mounts the environment, with storage on disk and in
memory. How long it takes to make a file there is printed with them: a disk's filesystem from which much was just
removed takes ten times as long, and a layer needs about thirty files and directories.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Callable, Literal

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tests.benchmarks import imports
from tests.lab import apptainer_root, image, pythons, scratch
from tests.lab.apptainer_root import Apptainer
from tests.lab.environments import PYTHON
from tests.lab.plain_machine import PlainMachine
from tests.lab.store import ORDINARY_UID
from tests.lab.unavailable import LabUnavailable
from tests.layer.conftest import HERE, owned

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence

    from tests.benchmarks.imports import Times, Way

    Run = Callable[[Sequence[str], Mapping[str, str]], subprocess.CompletedProcess[str]]

LARGE = ("numpy", "pandas", "matplotlib.pyplot", "scipy.stats")
WITHOUT, NO_LAYER, MADE, JOINED = "without", "no layer", "made", "joined"
_OF_NO_LAYER = "disk/no-layer"
"""Where that way has its storage, below HOME."""
_ENV = {
    WITHOUT: {"SIF_WRITABLE": "off", "SIF_WRITABLE_OVERLAY": "off"},
    NO_LAYER: {
        "SIF_WRITABLE": "auto",
        "SIF_WRITABLE_OVERLAY": "off",
        "SIF_WRITABLE_DIR": f"{scratch.HOME}/{_OF_NO_LAYER}",
    },
    MADE: {"SIF_WRITABLE": "auto", "SIF_WRITABLE_OVERLAY": "auto"},
}
_ENV[JOINED] = _ENV[MADE]
_IN_SIF = "/opt/venv/bin/python"


def main() -> None:
    """Measure, and print the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40, help="starts of each way (default: 40)")
    parser.add_argument("--fresh", type=int, default=10, help="containers of each way and package (default: 10)")
    parser.add_argument(
        "--at-once", type=int, default=64, help="so many starts at the same time; 0: none (default: 64)"
    )
    parser.add_argument("--no-image", action="store_true", help="leave out the SIF")
    parser.add_argument("--only-image", action="store_true", help="leave out the kernel mount")
    arguments = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors")
    for place in ("disk", "memory") if not arguments.only_image else ():
        _on_the_kernel(arguments, place)
    if not arguments.no_image:
        try:
            _in_image(arguments)
        except LabUnavailable as why:
            print(f"not measured in a SIF: {why}")
    print(f"load after: {os.getloadavg()[0]:.1f}")


def _on_the_kernel(arguments: argparse.Namespace, place: str) -> None:
    environment = owned(pythons.get("3.11"))
    with scratch.fresh() as places, _home(place, os.path.basename(_OF_NO_LAYER)) as home:
        machine = PlainMachine(places)

        def run(argv: Sequence[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
            start = [PYTHON, "-I", "-S", "/tests-of-layer/box.py"]  # whose own start would see other owners
            binds = [f"{HERE}:/tests-of-layer:ro", f"{home}:{scratch.HOME}/disk", f"{imports.__file__}:/imports.py:ro"]
            env = {"SIF_WRITABLE_DIR": f"{scratch.HOME}/disk", **env}
            return machine.run([*start, *argv], venv=environment, env=env, binds=binds, timeout=3600)

        print(f"\nkernel mount, storage on {place} (making a file takes {_making_a_file(home):.0f} us)")
        _small(run, PYTHON, "quiet", "/imports.py", arguments)


def _in_image(arguments: argparse.Namespace) -> None:
    sif = image.larger("pandas", "scipy")
    for place in ("disk", "memory"):
        with scratch.fresh() as places, _home(place, _OF_NO_LAYER) as home:
            apptainer = Apptainer(apptainer_root.find(), places)
            script = os.path.join(places.work, "imports.py")
            with open(imports.__file__, encoding="utf-8") as source, open(script, "w", encoding="utf-8") as copy:
                copy.write(source.read())

            def run(
                argv: Sequence[str], env: Mapping[str, str], apptainer: Apptainer = apptainer, home: str = home
            ) -> subprocess.CompletedProcess[str]:
                return apptainer.exec(sif, argv, env=env, home=home, timeout=3600)

            print(f"\nSIF, HOME on {place} (making a file takes {_making_a_file(home):.0f} us)")
            _small(run, _IN_SIF, "idna", "imports.py", arguments)
            if place == "disk":
                for module in LARGE:
                    _large(run, module, max(arguments.rounds // 4, 3))
                for module in LARGE:
                    alone(run, _IN_SIF, module, arguments.fresh, (WITHOUT, NO_LAYER, MADE))


def _home(place: str, apart: str) -> tempfile.TemporaryDirectory[str]:
    """Make a folder on a filesystem, with one for the storage of a way in it; `apart` is its path."""
    folder = tempfile.TemporaryDirectory(dir="/dev/shm" if place == "memory" else "/var/tmp")
    os.makedirs(os.path.join(folder.name, apart))
    for where, _, _ in os.walk(folder.name):
        if os.getuid() == 0:
            os.chown(where, ORDINARY_UID, ORDINARY_UID)
    return folder


def _making_a_file(folder: str) -> float:
    """Return the microseconds that making a directory takes, in the median."""
    times = []
    with tempfile.TemporaryDirectory(dir=folder) as where:
        for number in range(100):
            begin = time.perf_counter_ns()
            os.mkdir(f"{where}/{number}")
            times.append((time.perf_counter_ns() - begin) / 1e3)
    return statistics.median(times)


def _small(run: Run, python: str, module: str, script: str, arguments: argparse.Namespace) -> None:
    rounds, at_once = arguments.rounds, arguments.at_once
    found = measure(run, python, module, script, rounds, (WITHOUT, NO_LAYER, MADE, JOINED))
    for way, aim in ((MADE, 3.0), (JOINED, 1.0)):
        for other in (WITHOUT, NO_LAYER):
            _more(f"first import, {way}, against {other}", found[way], found[other], "imported", aim)
    for way in (MADE, JOINED):
        for other in (WITHOUT, NO_LAYER):
            _more(f"exit, {way}, against {other}", found[way], found[other], "exited", 0.3)
    if not at_once:
        return
    found = measure(run, python, module, script, max(rounds // 8, 3), (WITHOUT, NO_LAYER, MADE), at_once)
    for way, other in ((MADE, WITHOUT), (MADE, NO_LAYER), (NO_LAYER, WITHOUT)):
        ratio(f"{at_once} at once, {way}, against {other}", found[way], found[other], "all", 1.1)


def _large(run: Run, module: str, rounds: int) -> None:
    found = measure(run, _IN_SIF, module, "imports.py", rounds, (WITHOUT, NO_LAYER, MADE, JOINED))
    for way in (NO_LAYER, MADE, JOINED):
        ratio(f"import of {module}, {way}", found[way], found[WITHOUT], "imported", 1.02)


def measure(
    run: Run, python: str, module: str, script: str, rounds: int, names: Sequence[str], at_once: int = 0
) -> dict[str, Times]:
    """Return the times of an import in each way, in turn, of `rounds` starts."""
    ways: dict[str, Way] = {
        name: {"env": _ENV[name], "joins": name == JOINED, "layer": name if name in (MADE, JOINED) else ""}
        for name in names
    }
    specification = imports.Specification(python=python, module=module, ways=ways, rounds=rounds, at_once=at_once)
    for env in {id(_ENV[name]): _ENV[name] for name in names if name != WITHOUT}.values():
        for _ in range(2):  # the trial, and what else only the first start does
            _checked(run([python, "-c", f"import {module}"], env))
    starter = [python, "-I", script, json.dumps(specification)]
    found: dict[str, Times] = json.loads(_checked(run(starter, _ENV[WITHOUT])))
    return found


def alone(run: Run, python: str, module: str, rounds: int, names: Sequence[str]) -> None:
    """Time an import in a container of its own, where nothing that belongs to it was looked up before."""
    found = {name: imports.empty() for name in names}
    for turn in range(imports.DISCARDED + rounds):
        for name in names[:: 1 if turn % 2 else -1]:
            done = _checked(run([python, "-c", imports.PROGRAM.format(module=module)], _ENV[name]))
            begin, end, cpu = (int(word) for word in done.split("\n")[-3].split()[:3])
            if turn >= imports.DISCARDED:
                found[name]["imported"].append((end - begin) / 1e9)
                found[name]["cpu"].append(cpu / 1e9)
    for name in names[1:]:
        ratio(f"alone, {module}, {name}", found[name], found[names[0]], "imported", 1.02)


def _checked(result: subprocess.CompletedProcess[str]) -> str:
    if result.returncode:
        raise SystemExit(f"{result.args[-3:]} failed:\n{result.stderr[-2000:]}")
    return result.stdout


def _more(line: str, these: Times, those: Times, what: Literal["imported", "exited"], aim: float) -> None:
    def more(of: Callable[[Sequence[float]], float], name: Literal["imported", "exited", "cpu"] = what) -> float:
        return (of(these[name]) - of(those[name])) * 1e3

    words = f", of the processor {more(statistics.median, 'cpu'):+.2f}" if what == "imported" else ""
    print(
        f"{line:<44}{_middle(these[what]):>16} against {_middle(those[what]):>16} ms: "
        f"{more(statistics.median):+.2f} ms, the fastest {more(min):+.2f}{words} (aim: {aim})"
    )


def ratio(line: str, these: Times, those: Times, what: Literal["imported", "all"], aim: float) -> None:
    """Print a line: how many times as long as `those` these took."""

    def times(of: Callable[[Sequence[float]], float], name: Literal["imported", "all", "cpu"] = what) -> float:
        return of(these[name]) / of(those[name])

    words = f", of the processor {times(statistics.median, 'cpu'):.3f}"
    print(
        f"{line:<44}{_middle(these[what]):>16} against {_middle(those[what]):>16} ms: "
        f"{times(statistics.median):.3f}, the fastest {times(min):.3f}{words} (aim: {aim})"
    )


def _middle(times: Sequence[float]) -> str:
    lower, middle, upper = statistics.quantiles(times, n=4)
    return f"{middle * 1e3:.2f} ({(upper - lower) * 1e3:.2f})"


if __name__ == "__main__":
    main()
