"""Run a case twice in a profile, and say what is not as in a healthy run."""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from typing import TYPE_CHECKING, NamedTuple, Protocol

from tests.corpus.cases import NEXT
from tests.lab import scratch

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence

    from tests.corpus.cases import Case
    from tests.lab.apptainer_root import Apptainer
    from tests.lab.scratch import Scratch
    from tests.lab.squashfs_root import SquashfsRoot

PROFILES = ("A", "B", "C")
"""A: HOME names a folder that does not exist. B: HOME is `/`. C: HOME can be written. /tmp and its like always can."""

CONTAINED = "contained"
"""`--containall`, so that HOME and /tmp are small and in memory, and a folder that was bound at /sif-writable."""

ON_WRITABLE_ROOT = "on a writable root"
"""As C, with an overlay over the whole image: a healthy run."""

FRAMEWORK_PROFILES = ("C", CONTAINED)
"""Those that large frameworks are replayed in, since each of their runs takes seconds."""

PREFIXES = "/opt/cases"
"""Where images hold the environments of the cases."""

_FOLDER = "/tmp/cwd"

_FAILURE = re.compile(
    r"read-only|errno (2|13|30)\b|error number 30|permission denied|not (a )?writable|no writable|mkdir -p failed"
    r"|unable to (write|cache)|could ?n.t (open|create|write)|cannot cache|temporary cache dir|failed to get logger",
    re.IGNORECASE,
)
"""How packages say that they could not write."""


class Machine(Protocol):
    """Something that runs a command in an image, in one of the profiles."""

    places: Scratch

    def run(self, profile: str, argv: Sequence[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run it in the working directory."""


class SifMachine:
    """A real SIF, run by Apptainer without privileges and without a network."""

    def __init__(self, apptainer: Apptainer, image: str) -> None:
        """Take what runs the image, and the image."""
        self.apptainer = apptainer
        self.places = apptainer.places
        self.image = image

    def run(self, profile: str, argv: Sequence[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a command; HOME is set inside, where Apptainer has no say in it."""
        places, inside = self.places, self.apptainer.inside
        options = ["--net", "--network", "none", "--no-mount", "cwd", "--pwd", _FOLDER]
        if profile == CONTAINED:
            options.append("--containall")
            binds = [f"{inside(places.tmp)}/cwd:{_FOLDER}", f"{inside(places.home)}:/sif-writable"]
        else:
            options.append("--no-home")
            binds = [f"{inside(places.tmp)}:/tmp", f"{inside(places.var_tmp)}:/var/tmp"]
        if profile in ("C", ON_WRITABLE_ROOT):
            binds.append(f"{inside(places.home)}:{self.apptainer.home}")
        if profile == ON_WRITABLE_ROOT:
            options += ["--overlay", inside(places.new_folder("overlay"))]
        options += ["--bind", ",".join(binds)]
        home = "/" if profile == "B" else self.apptainer.home
        # Set inside, since --containall passes nothing on.
        argv = ["env", f"HOME={home}", *(f"{name}={value}" for name, value in env.items()), *argv]
        return self.apptainer.exec(self.image, argv, options=options, env=env, timeout=600)


class KernelMachine:
    """The SIF's filesystem, mounted by the kernel, without user namespaces."""

    def __init__(self, root: SquashfsRoot) -> None:
        """Take what runs commands there."""
        self.root = root
        self.places = root.places

    def run(self, profile: str, argv: Sequence[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a command; the mount point for a writable HOME is /data."""
        home = {"A": scratch.HOME, "B": "/", "C": "/data"}[profile]
        binds = [f"{self.places.home}:/data"] if profile == "C" else []
        return self.root.run(argv, home=home, env=env, binds=binds, folder=_FOLDER, userns=False, timeout=600)


class State(NamedTuple):
    """What shows whether a file or folder was made again."""

    inode: int
    modified: int


class Replay(NamedTuple):
    """Runs, one after the other, and what was in the writable places after each."""

    runs: tuple[subprocess.CompletedProcess[str], ...]
    left: tuple[dict[str, State], ...]

    @property
    def said(self) -> str:
        """What the runs have printed."""
        return "".join(run.stdout + run.stderr for run in self.runs)

    def split(self) -> tuple[Replay, Replay]:
        """Return the first run, and the others."""
        return Replay(self.runs[:1], self.left[:1]), Replay(self.runs[1:], self.left[1:])


def replay(case: Case, profile: str, machine: Machine) -> Replay:
    """Run a case twice in fresh places, with the hook and no other setting."""
    return _replay(case, profile, machine, case.env, 2)


def replay_by_copies(case: Case, profile: str, machine: Machine) -> Replay:
    """Run a case twice in fresh places without a layer, or three times where the first run cannot be right there."""
    named = case.by_copies if case.by_copies != NEXT else ""
    env = {**case.env, **({"SIF_WRITABLE_PACKAGES": named} if named else {})}
    return _replay(case, profile, machine, env, 3 if case.by_copies == NEXT else 2)


def replay_without_hook(case: Case, profile: str, machine: Machine) -> Replay:
    """Run a case once in fresh places, as if the hook were not there."""
    return _replay(case, profile, machine, {**case.env, "SIF_WRITABLE": "off"}, 1)


def replay_on_writable_root(case: Case, machine: Machine) -> Replay:
    """Run a case twice in fresh places as if the hook were not there, on a root that can be written."""
    return _replay(case, ON_WRITABLE_ROOT, machine, {**case.env, "SIF_WRITABLE": "off"}, 2)


def _replay(case: Case, profile: str, machine: Machine, env: Mapping[str, str], times: int) -> Replay:
    places = machine.places
    places.new_folder(os.path.relpath(places.tmp + "/cwd", places.folder))
    argv = [f"{PREFIXES}/{case.environment}/bin/python", "-c", case.snippet]
    runs, left = [], []
    for _ in range(times):
        runs.append(machine.run(profile, argv, env))
        left.append(look(places))
    return Replay(tuple(runs), tuple(left))


def problems(case: Case, result: Replay) -> list[str]:
    """List what is not as in a healthy run; nothing means that the case is fixed."""
    found = []
    for number, (run, code) in enumerate(zip(result.runs, case.exits), 1):
        said = run.stdout + run.stderr
        if run.returncode != code:
            found.append(f"run {number} exits {run.returncode}, not {code}:\n{said[-2000:]}")
        elif code == 0 and case.prints not in said:
            found.append(f"run {number} does not print {case.prints!r}:\n{said[-2000:]}")
        found += [f"run {number} says: {line[:500]}" for line in said.splitlines() if _FAILURE.search(line)]
        found += [f"run {number} says: {line[:500]}" for line in said.splitlines() if "sif_writable: before " in line]
    first, second = result.left[0], result.left[-1]
    for end in (*case.leaves, *case.rewrites):
        if not any(_UPPER not in path for path in _ending(end, first)):
            found.append(f"nothing is left at …/{end}")
    found += [f"{path} is left, and no healthy run leaves it" for end in case.removes for path in _ending(end, second)]
    unchanged = [path for end in case.opens for path in _ending(end, second)]
    found += [f"{path} is kept, and no run has changed it" for path in unchanged if _KEPT in path]
    for end in case.leaves:
        before, after = _ending(end, first), _ending(end, second)
        found += [
            f"{path} is made again by the second run" for path in after if before and before.get(path) != after[path]
        ]
    found += [f"{path} is left over" for path in second if _LEFT_OVER.search(path)]
    return found


def new_words(result: Replay, healthy: Replay) -> list[str]:
    """Return each line of stderr in a replay that no healthy run says, but for numbers, paths and progress bars."""
    known = {"", *(_words(line) for run in healthy.runs for line in run.stderr.splitlines())}
    return [
        f"run {number} says, and no healthy run does: {line[:500]}"
        for number, run in enumerate(result.runs, 1)
        for line in run.stderr.splitlines()
        if _words(line) not in known
    ]


def _words(line: str) -> str:
    return "" if _PROGRESS.search(line) else _NO_WORD.sub(" ", line).strip()


_PROGRESS = re.compile(r"\d%\|| \[[\d:]+[,<]")
"""What tqdm draws, complete or without a known end."""

_NO_WORD = re.compile(r"\S*/\S*|\S*\d\S*|\W+")


_LEFT_OVER = re.compile(r"/\.(new|try)-")
"""What our own work leaves when it is interrupted."""

_GENERATION, _KEPT, _UPPER = re.compile(r"gen-\d+"), "/layer/gen/", "/layer/upper/"
"""The folders of generations are numbered; what stands for the newest one, and for the newest layer."""


def _ending(end: str, left: Mapping[str, State]) -> dict[str, State]:
    return {path: state for path, state in left.items() if fnmatch.fnmatchcase(path, f"*/{end}")}


def look(places: Scratch) -> dict[str, State]:
    """List files and folders; a link is neither, for what it leads to may be the image's.

    Of what was written in a layer, what the newest generation has counts as kept: it takes over what the one before it
    has. A node's own copy of that is no second making. What is in the layer itself shows what the run has written, by
    the time: the kernel copies a file with its times where a program sets only its mode.
    """
    left = {}
    for name, top in {"HOME": places.home, "tmp": places.tmp, "var_tmp": places.var_tmp, "shm": places.shm}.items():
        for folder, folders, files in os.walk(top):
            numbers = [int(entry[4:]) for entry in folders if _GENERATION.fullmatch(entry)]
            uppers = [entry for entry in folders if entry.startswith("upper-")]
            newest = {
                f"gen-{max(numbers, default=0)}",
                max(uppers, key=lambda entry: os.lstat(os.path.join(folder, entry)).st_mtime_ns, default=""),
            }
            folders[:] = [
                entry
                for entry in folders
                if not entry.startswith("replica-")
                and (entry in newest or not (entry in uppers or _GENERATION.fullmatch(entry)))
            ]
            for entry in (*folders, *files):
                path = os.path.join(folder, entry)
                status = os.lstat(path)
                if stat.S_ISLNK(status.st_mode):
                    continue
                shown = re.sub(r"/layer/(gen|upper)-[^/]*", r"/layer/\1", f"/{name}/{os.path.relpath(path, top)}")
                modified = 0 if entry in folders else status.st_mtime_ns  # a folder's changes with what is in it
                is_new = _UPPER in shown or (_KEPT in shown and entry in folders)  # in each layer or generation
                left[shown] = State(0 if is_new else status.st_ino, modified)
    return left
