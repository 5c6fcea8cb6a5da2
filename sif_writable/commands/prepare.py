"""``sif-writable prepare``, called in ``%post``: the image describes itself, and nothing is left for later starts."""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import sysconfig
from typing import TYPE_CHECKING

import sif_writable
from sif_writable import MODE, TARGET, aside
from sif_writable.commands import usage
from sif_writable.errors import SifWritableError
from sif_writable.identity import MANIFEST, PURELIB
from sif_writable.image import bytecode, environments, inventory, options
from sif_writable.image import manifest as writer
from sif_writable.report import text
from sif_writable.report.progress import Progress
from sif_writable.sizes import count
from sif_writable.stderr import say
from sif_writable.system import manifest
from sif_writable.system.filesystem import explain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sif_writable.image.environments import Environment

NO_USER_SITE = "export PYTHONNOUSERSITE=1"
_quiet = False
"""Whether only what is wrong is said."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    demands = parser.add_argument_group("what runs of this image demand; the environment of a run wins")
    demands.add_argument("--require-gpu", action="store_true", help="end a run early where no GPU can be used")
    demands.add_argument("--gpu-min-memory", metavar="SIZE", help="of each GPU, such as 20GiB")
    demands.add_argument("--gpu-count", metavar="N", help="GPUs at least")
    demands.add_argument("--gpu-min-capability", metavar="X.Y", help="CUDA compute capability of each GPU, such as 8.0")
    demands.add_argument(
        "--packages", action="append", metavar="A,B", help="packages that are imported from a writable copy"
    )
    demands.add_argument(
        "--overlay", action="append", metavar="PATH", help="a directory of the image that has to be writable in place"
    )
    demands.add_argument("--no-user-site", action="store_true", help="ignore the packages in the user's ~/.local")
    parser.add_argument(
        "--all-interpreters",
        action="store_true",
        help="prepare every environment of the image (venvs, conda, system Pythons), and give each the hook",
    )
    parser.add_argument("--check", action="store_true", help="change nothing; say what is stale, with exit code 1")
    parser.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> int:
    """Prepare the image, or check it; 0, 1 when a check finds something stale, 2 when something is wrong."""
    global _quiet
    _quiet = arguments.quiet
    if arguments.check:
        return _check(arguments)
    problem = _problem()
    if problem:
        raise SifWritableError(problem)
    declared = _demands(arguments)
    if not arguments.inner:
        usage.warn_of_host(arguments)
        _make_target()
        _report("bind target", f"{TARGET} is there, for --bind DIR:{TARGET}")
    _describe(declared, arguments)
    if arguments.all_interpreters and not arguments.inner:
        return _others(arguments)
    return 0


def _report(what: str, words: str) -> None:
    if not _quiet:
        print(f"{what + ':':<14}" + text.paragraph(words, 14).lstrip(), flush=True)


def _problem() -> str:
    """Say why this image cannot be prepared, or return an empty string."""
    try:
        descriptor, probe = aside.create(PURELIB, begin=aside.TRY)
        os.close(descriptor)
        os.unlink(probe)
    except OSError as error:
        return (
            f"{PURELIB} {explain(error)}, so the image cannot be prepared. "
            "Remedy: call sif-writable prepare while the image is built: in %post, or in a RUN line."
        )
    return ""


def _make_target() -> None:
    try:
        os.makedirs(TARGET, 0o755, exist_ok=True)
    except OSError as error:
        raise SifWritableError(
            f"{TARGET}, the target for bind mounts, cannot be made: / {explain(error)}. "
            "Remedy: call this in %post as root of the image, or mkdir it there."
        ) from error


def _demands(arguments: argparse.Namespace) -> dict[str, list[str]]:
    """Return what the options declare, as lines of the manifest.

    :raises SifWritableError: an option that is not understood, or names what is not there.
    """
    values = [
        (key, variable, option, getattr(arguments, name))
        for name, key, variable, option in options.GPU
        if getattr(arguments, name) is not None
    ]
    problems = options.gpu_problems((variable, option, value) for _, variable, option, value in values)
    declared = {key: [value] for key, _, _, value in values}
    if arguments.require_gpu:
        declared["gpu"] = ["require"]
    if arguments.no_user_site:
        declared["user-site"] = ["no"]
    wanted = [name for words in arguments.packages or () for name in words.replace(",", " ").split()]
    if wanted:
        known = {name for each in inventory.distributions(_folders()) for name in inventory.top_levels(each)}
        for name in wanted:
            if not _is_installed(name):
                problems.append(options.missing_package(name, sorted(known)))
        declared["package"] = list(dict.fromkeys(wanted))
    for path in arguments.overlay or ():
        if not os.path.isabs(path) or not os.path.isdir(path) or options.is_never_mounted_on(os.path.normpath(path)):
            problems.append(f"--overlay {path!r} is no absolute path of a directory in this image that can be covered")
    if arguments.overlay:
        declared["overlay"] = list(dict.fromkeys(os.path.normpath(path) for path in arguments.overlay))
    if problems and not arguments.inner:
        raise SifWritableError("\n  ".join(["wrong options:", *problems] if len(problems) > 1 else problems))
    if arguments.inner and wanted:  # another environment of the image need not have them
        declared["package"] = [name for name in declared["package"] if _is_installed(name)]
    return declared


def _is_installed(name: str) -> bool:
    top, _, rest = name.partition(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    if spec is None or not rest:
        return spec is not None
    below = rest.replace(".", "/")
    folders = spec.submodule_search_locations or ()
    return any(os.path.exists(f"{folder}/{below}{end}") for folder in folders for end in ("", ".py"))


def _folders() -> list[str]:
    return inventory.folders(bytecode.importable())


def _describe(declared: dict[str, list[str]], arguments: argparse.Namespace) -> None:
    """Look at this environment, write its manifest, and compile what has no bytecode."""
    version = sysconfig.get_python_version()
    _report("interpreter", f"{sys.executable} ({sys.implementation.name} {version}), packages in {PURELIB}")
    folders = _folders()
    distributions = inventory.distributions(folders)
    progress = Progress("reading sources")
    scan = inventory.scan(folders, options.VARIABLES, progress)
    progress.done()
    cuda = inventory.cuda(folders)
    seeds = [line for line in manifest.read(PURELIB).get("seed", ()) if os.path.isdir(line.partition(" ")[2])]
    changes = {
        "gpu": [],
        "gpu-count": [],
        "gpu-min-memory": [],
        "gpu-min-capability": [],
        "user-site": [],
        "seed": seeds,
        **_kept(declared),
        **declared,
        "stamp": [inventory.stamp(folders, (line.partition(" ")[2] for line in seeds))],
        "prepared": [sif_writable.__version__],
        "interpreter": [f"{sys.executable} {version} {sys.prefix}"],
        "distribution": [each.whole for each in distributions],
        "location": [" ".join(pair) for pair in scan.locations],
        "writer": [" ".join(pair) for pair in scan.writers],
        "cuda": [" ".join(pair) for pair in cuda],
    }
    writer.update(PURELIB, changes)
    named = sorted({variable for variable, _ in scan.locations})
    words = f"; their sources name {count(len(named), 'known location')}: {options.listed(named)}" if named else ""
    _report("installed", f"{count(len(distributions), 'distribution')}{words}")
    if scan.writers:
        names = [name for name, _ in scan.writers]
        have = f"{count(len(names), 'package')} {'has' if len(names) == 1 else 'have'}"
        _report("in-tree", f"{have} code that writes beside itself: {options.listed(names)}")
    if cuda:
        _report("CUDA", options.listed([f"{version} ({source})" for version, source in cuda]))
    said = [f"{key}: {value}" for key in manifest.HOT for value in changes.get(key, ()) if key not in ("stamp", "seed")]
    _report("declares", "; ".join(said) if said else "no demands")
    if arguments.no_user_site and not arguments.inner:
        _switch_user_site_off()
    _compile(bytecode.importable())
    _report("manifest", f"{PURELIB}/{MANIFEST}")


def _kept(declared: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the packages and overlays that were declared before, by ``trace`` or by hand, with those of now."""
    before = manifest.read(PURELIB)
    kept = {}
    for key in ("package", "overlay"):
        merged = list(dict.fromkeys([*before.get(key, ()), *declared.pop(key, ())]))
        if merged:
            kept[key] = merged
    return kept


def _switch_user_site_off() -> None:
    """Say it where it works before Python looks for the user's packages: in the environment script of the image."""
    path = os.environ.get("APPTAINER_ENVIRONMENT") or os.environ.get("SINGULARITY_ENVIRONMENT", "")
    if not path:
        _report("user site", "set PYTHONNOUSERSITE=1 in the image's environment as well (ENV), which works earliest")
        return
    try:
        with open(path, "a+", encoding="utf-8") as file:
            file.seek(0)
            if NO_USER_SITE not in file.read().splitlines():
                file.write(NO_USER_SITE + "\n")
    except OSError as error:
        raise SifWritableError(
            f"{path} {explain(error)}, so PYTHONNOUSERSITE=1 cannot be set. "
            "Remedy: set it in %environment and leave --no-user-site out."
        ) from error


def _compile(folders: list[str]) -> None:
    stale = bytecode.stale(folders)
    if not stale:
        _report("bytecode", "complete")
        return
    progress = Progress("compiling")
    failed = bytecode.compile_all(stale, progress)
    progress.done()
    why = "no valid Python, or no permission"
    words = f"; {count(len(failed))} without it still ({why}), such as {failed[0]}" if failed else ""
    _report("bytecode", f"{count(len(stale) - len(failed))} compiled{words}")
    writer.update(PURELIB, {"no-bytecode": failed})


def _others(arguments: argparse.Namespace) -> int:
    """Prepare the other environments of the image: each by its own interpreter, with a copy of this package."""
    from sif_writable.image import deliver

    found, silent = environments.found()
    lines = manifest.read(PURELIB).get("interpreter", [])[:1]
    code = 0
    for environment in found:
        if os.path.realpath(environment.purelib) == os.path.realpath(PURELIB) or environment.prefix == sys.prefix:
            continue
        name = f"{environment.executable} ({environment.name} {environment.version})"
        if not _quiet:
            print()
        if not environment.supported:
            _report("left out", f"{name}: sif-writable needs Python 3.9, so programs of this one run without the hook")
            continue
        problem = deliver.install_into(environment)
        if problem:
            say([f"{name} gets no hook: {problem}"])
            code = 2
        elif subprocess.run(_command(environment, arguments), env=_environment(), check=False).returncode:
            code = 2
        elif not deliver.starts_hook(environment):
            words = f"{name} does not start the hook: {environment.purelib} is not a site directory of it. "
            say([words + "Remedy: install sif-writable there by its own pip."])
            code = 2
        else:
            lines.append(f"{environment.executable} {environment.version} {environment.prefix}")
    for program, why in silent:
        _report("left out", f"{program} {why}")
    writer.update(PURELIB, {"interpreter": lines})
    return code


def _command(environment: Environment, arguments: argparse.Namespace) -> list[str]:
    words = [environment.executable, "-m", "sif_writable", "prepare", "--inner"]
    if arguments.check:
        return [*words, "--check", *(["--quiet"] if arguments.quiet else [])]
    words += [f"{option}={getattr(arguments, name)}" for name, _, _, option in options.GPU if getattr(arguments, name)]
    words += [f"--packages={value}" for value in arguments.packages or ()]
    words += [f"--overlay={value}" for value in arguments.overlay or ()]
    words += ["--quiet"] if arguments.quiet else []
    switches = (("require_gpu", "--require-gpu"), ("no_user_site", "--no-user-site"))
    return words + [option for name, option in switches if getattr(arguments, name)]


def _environment() -> dict[str, str]:
    left = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return {**left, MODE: "off"}


def _check(arguments: argparse.Namespace) -> int:
    """Print what of this image is no longer as ``prepare`` left it."""
    declared = manifest.read(PURELIB)
    found = _stale(declared)
    if not arguments.inner and not os.path.isdir(TARGET):
        found.append(f"{TARGET}, the target for bind mounts, is not there")
    for line in found:
        print(text.paragraph(f"stale: {sys.prefix}: {line}", 0))
    code = int(bool(found))
    for line in declared.get("interpreter", ())[1:] if not arguments.inner else ():
        executable, version, prefix = line.split(" ", 2)
        other = environments.Environment(executable, version, "", prefix, "", (), "")
        try:
            code |= int(bool(subprocess.run(_command(other, arguments), env=_environment(), check=False).returncode))
        except OSError as error:
            print(text.paragraph(f"stale: {prefix}: {executable} {explain(error)}", 0))
            code = 1
    if not code and not arguments.inner and not _quiet:
        print("up to date")
    elif code and not arguments.inner:
        print("remedy: call sif-writable prepare again, at the end of %post")
    return code


def _stale(declared: manifest.Declared) -> list[str]:
    if "prepared" not in declared:
        return ["sif-writable prepare did not run here"]
    found = []
    if declared["prepared"] != [sif_writable.__version__]:
        found.append(f"prepared by sif-writable {declared['prepared'][0]}, this is {sif_writable.__version__}")
    folders = _folders()
    installed = {each.whole for each in inventory.distributions(folders)}
    before = set(declared.get("distribution", ()))
    new, gone = sorted(installed - before), sorted(before - installed)
    if new:
        found.append(f"installed since: {options.listed(new)}")
    if gone:
        found.append(f"no longer installed: {options.listed(gone)}")
    seeds = [line.partition(" ")[2] for line in declared.get("seed", ())]
    found += [f"{path}, which holds files for a first start, is not there" for path in seeds if not os.path.isdir(path)]
    if not found and declared.get("stamp") != [inventory.stamp(folders, seeds)]:
        found.append("files of what is installed, or of what prestage has baked, have changed")
    known = frozenset(declared.get("no-bytecode", ()))
    stale = [path for path in bytecode.stale(bytecode.importable()) if path not in known]
    if stale:
        found.append(f"{count(len(stale))} without valid bytecode, such as {stale[0]}")
    wanted: Sequence[str] = [line.partition(" ")[0] for line in declared.get("package", ())]
    found += [f"package {name} is declared and not installed" for name in wanted if not _is_installed(name)]
    return found
