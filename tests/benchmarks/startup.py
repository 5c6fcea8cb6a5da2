"""What the hook costs: the whole life of ``python -c pass``, with the package and in an environment without it.

``python tests/benchmarks/startup.py [--rounds N] [--python VERSION] [--no-image] [--json FILE]``, or with ``-m``. On
the host it is measured in a private root of this machine's own files; in the image in a SIF, where Apptainer can be
had. There the bare environment is a folder outside that refers to the image's interpreter and packages.

=========  ==========================================================================================
state      the process is
=========  ==========================================================================================
empty      as writable, with a hook that does not even look: what any hook costs (on the host)
writable   in a container whose root and HOME are writable: the hook looks, and does nothing
active     in a read-only image, where an earlier start has made storage
inherited  the child of such a process
manifest   as active, in an environment that ``sif-writable prepare`` has described (on the host)
packages   as active, both environments with 400 packages more (on the host)
debian     as active, by Debian's own Python, whose packages are in dist-packages (on the host)
network    as inherited, with storage on a filesystem that another machine serves, so that it is asked with a time limit
fuse       the same, where a FUSE server is asked (both on the host, where a local disk stands in and answers at once)
=========  ==========================================================================================
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from sif_writable.hanging import FUSE, REMOTE
from tests.benchmarks import rounds
from tests.lab import apptainer_root, environments, image, pythons, scratch
from tests.lab.apptainer_root import Apptainer
from tests.lab.plain_machine import VENV, PlainMachine
from tests.lab.unavailable import LabUnavailable

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence

    from tests.lab.scratch import Scratch

AIMS = {
    "host": {"writable": 1.04, "inherited": 1.06, "active": 1.11, "manifest": 1.11, "packages": 1.11, "debian": 1.11},
    "image": {"writable": 1.05, "inherited": 1.07, "active": 1.12},
}
"""By where it is measured, and by state."""
PACKAGES = 400
STATES = ("writable", "active", "inherited")
ASKING = {"network": REMOTE, "fuse": FUSE}
DISCARDED = 3
_HOOKED, _BARE, _ROUNDS = "/venv/bin/python", "/bare/bin/python", "/rounds.py"


class Row(NamedTuple):
    """One line of the table: times in seconds."""

    place: str
    state: str
    bare: list[float]
    hook: list[float]
    bare_cpu: list[float]
    hook_cpu: list[float]


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100, help="starts of each program (default: 100)")
    parser.add_argument("--python", default="3.11", help="interpreter on the host (default: 3.11)")
    parser.add_argument("--no-image", action="store_true", help="measure on the host only")
    parser.add_argument("--json", metavar="FILE", help="write all times there")
    arguments = parser.parse_args()
    rows: list[Row] = []
    rows += _or_none(on_host, arguments)
    if not arguments.no_image:
        rows += _or_none(in_image, arguments)
    print(table(rows))
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump([row._asdict() for row in rows], file)


def _or_none(measure: Callable[[argparse.Namespace], list[Row]], arguments: argparse.Namespace) -> list[Row]:
    try:
        return measure(arguments)
    except LabUnavailable as why:
        print(f"not measured: {why}", file=sys.stderr)
        return []


def on_host(arguments: argparse.Namespace) -> list[Row]:
    """Measure in this machine's own files."""
    python = pythons.get(arguments.python)
    bare, hooked = environments.bare(python), environments.hooked(python)

    def measure(places: Scratch, state: str, environment: str = hooked, without: str = bare) -> Row:
        machine = PlainMachine(places)
        binds = [f"{without}:/bare:ro", f"{rounds.__file__}:{_ROUNDS}:ro"]
        writable = state in ("empty", "writable")
        options: dict[str, Any] = {"venv": environment, "binds": binds, "writable": writable, "timeout": 3600}

        def run(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
            return machine.run(argv, **options)

        return measured(f"host, {python.name}", state, run, (_BARE, _HOOKED), arguments.rounds)

    rows = in_fresh_places(measure)
    rows += in_fresh_places(measure, ("network", "fuse"))
    for state, change in (("empty", _empty), ("manifest", _prepare)):
        with scratch.fresh() as places, scratch.fresh() as others:
            environment = environments.copy(hooked, os.path.join(places.folder, "venv"))
            change(PlainMachine(places), environment)
            rows.append(measure(others, state, environment))
    with scratch.fresh() as places, scratch.fresh() as others:
        many = [
            environments.copy(each, os.path.join(places.folder, name)) for name, each in (("venv", hooked), ("b", bare))
        ]
        for environment in many:
            for number in range(PACKAGES):
                for name in (f"package_{number}", f"package_{number}-1.0.dist-info"):
                    os.mkdir(os.path.join(environments.packages(environment), name))
        rows.append(measure(others, "packages", *many))
    return rows + _or_none(on_debian, arguments)


def on_debian(arguments: argparse.Namespace) -> list[Row]:
    """Measure Debian's own Python: a copy of its program finds its packages beside itself, in dist-packages."""
    python = pythons.get(pythons.DEBIAN)
    with scratch.fresh() as places:
        machine = PlainMachine(places)
        for name, environment in ("bare", environments.bare(python)), ("hooked", environments.hooked(python)):
            top = machine.in_image(f"/{name}")
            shutil.copytree(environments.packages(environment), os.path.join(top, "lib", "python3", "dist-packages"))
            os.symlink(f"/usr/lib/python{python.version}", os.path.join(top, "lib", f"python{python.version}"))
            os.mkdir(os.path.join(top, "bin"))
            shutil.copy(python.path, os.path.join(top, "bin", "python"))

        def run(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
            return machine.run(argv, binds=[f"{rounds.__file__}:{_ROUNDS}:ro"], timeout=3600)

        programs = ("/bare/bin/python", "/hooked/bin/python")
        return [measured(f"host, {python.name}", "debian", run, programs, arguments.rounds)]


def _empty(machine: PlainMachine, environment: str) -> None:
    """Let the hook do nothing."""
    package = os.path.join(environments.packages(environment), "sif_writable")
    with open(os.path.join(package, "__init__.py"), "w", encoding="utf-8") as file:
        file.write('__version__ = "0"\nstate = "writable"\n\n\ndef run() -> None:\n    pass\n')
    inside = os.path.join(VENV, os.path.relpath(package, environment))
    checked(machine.run([_HOOKED, "-m", "compileall", "-q", inside], venv=environment, writable=True, image=False))


def _prepare(machine: PlainMachine, environment: str) -> None:
    """Let the environment describe itself."""
    words = [_HOOKED, "-m", "sif_writable", "prepare", "--inner"]
    checked(machine.run(words, venv=environment, writable=True, image=False, env={"SIF_WRITABLE": "off"}))
    if not os.path.exists(os.path.join(environments.packages(environment), "sif_writable.manifest")):
        raise RuntimeError("sif-writable prepare has left no manifest")


def in_image(arguments: argparse.Namespace) -> list[Row]:
    """Measure in a SIF."""
    runtime, sif = apptainer_root.find(), image.sif()

    def measure(places: Scratch, state: str) -> Row:
        apptainer = Apptainer(runtime, places)
        script = os.path.join(places.work, "rounds.py")
        with open(rounds.__file__, encoding="utf-8") as source, open(script, "w", encoding="utf-8") as copy:
            copy.write(source.read())
        bare = places.new_folder("bare")
        options = [f"--bind={apptainer.inside(bare)}:/bare", f"--bind={apptainer.inside(script)}:{_ROUNDS}:ro"]
        # All of the image is the user's own in there, so an overlay makes it writable.
        options += ["--writable-tmpfs", "--fakeroot"] if state == "writable" else []

        def run(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
            return apptainer.exec(sif, argv, options=options, timeout=3600)

        checked(run(["sh", "-c", _MAKE_BARE]))
        return measured("image, 3.11", state, run, (_BARE, "/opt/venv/bin/python"), arguments.rounds)

    return in_fresh_places(measure)


# An environment as the image's own, less our package.
_MAKE_BARE = """
cd /opt/venv
mkdir -p /bare/bin /bare/lib/python3.11/site-packages
cp pyvenv.cfg /bare
ln -s "$(readlink -f bin/python)" /bare/bin/python
for name in lib/python3.11/site-packages/*; do
    case $name in */sif_writable*) ;; *) ln -s /opt/venv/$name /bare/lib/python3.11/site-packages;; esac
done
"""


def in_fresh_places(measure: Callable[[Scratch, str], Row], states: Sequence[str] = STATES) -> list[Row]:
    """Measure each state, with HOME and all other places empty at first."""
    rows = []
    for state in states:
        with scratch.fresh() as places:
            rows.append(measure(places, state))
    return rows


def measured(
    place: str,
    state: str,
    run: Callable[[Sequence[str]], subprocess.CompletedProcess[str]],
    programs: tuple[str, str],
    count: int,
) -> Row:
    """Measure one state, with storage warm."""
    bare, hooked = programs
    specification = rounds.Specification(
        check=[hooked, "-c", "import sif_writable; print(sif_writable.state)"],
        expected={
            **dict.fromkeys(("manifest", "packages", "debian"), "active"),
            **dict.fromkeys(ASKING, "inherited"),
            "empty": "writable",
        }.get(state, state),
        programs={"bare": [bare, "-c", "pass"], "hook": [hooked, "-c", "pass"]},
        rounds=count,
        answered_by=ASKING.get(state, ""),
        discarded=DISCARDED,
    )
    # A process inherits from the one that measures, if that has the hook.
    measuring = [hooked, "-I"] if state in ("inherited", *ASKING) else [bare, "-I", "-S"]
    times = json.loads(checked(run([*measuring, _ROUNDS, json.dumps(specification)])))
    bare_times, bare_cpu = zip(*times["bare"])
    hook_times, hook_cpu = zip(*times["hook"])
    return Row(place, state, list(bare_times), list(hook_times), list(bare_cpu), list(hook_cpu))


def checked(result: subprocess.CompletedProcess[str]) -> str:
    """Return what a command printed."""
    if result.returncode != 0:
        raise RuntimeError(f"{result.args[-3:]} failed:\n{result.stderr[-2000:]}")
    return result.stdout


def table(rows: Sequence[Row]) -> str:
    """Return the rows for people: milliseconds, with the interquartile range."""
    head = ("", "state", "bare, ms", "with hook, ms", "more", "ratio", "aim", "fastest", "CPU")
    lines = ["{:<18}{:<11}{:>15}{:>17}{:>8}{:>8}{:>6}{:>9}{:>7}".format(*head)]
    median = statistics.median
    for row in rows:
        more = median(row.hook) - median(row.bare)
        lines.append(
            f"{row.place:<18}{row.state:<11}{_middle(row.bare):>15}{_middle(row.hook):>17}{more * 1e3:>8.2f}"
            f"{median(row.hook) / median(row.bare):>8.3f}{AIMS[row.place.partition(',')[0]].get(row.state, ''):>6}"
            f"{min(row.hook) / min(row.bare):>9.3f}{median(row.hook_cpu) / median(row.bare_cpu):>7.3f}"
        )
    return "\n".join([*lines, "", _EXPLANATION])


_EXPLANATION = """Whole processes: medians (interquartile range) and their ratio; the ratio of the fastest starts;
and that of the medians of processor time, which says more on a busy machine."""


def _middle(times: Sequence[float]) -> str:
    lower, middle, upper = statistics.quantiles(times, n=4)
    return f"{middle * 1e3:.2f} ({(upper - lower) * 1e3:.2f})"


if __name__ == "__main__":
    main()
