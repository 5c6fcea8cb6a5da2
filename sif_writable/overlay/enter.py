"""Make directories of the image writable in a namespace of this process's own, where nothing else can.

Everything is tried first (:mod:`sif_writable.overlay.trial`), then mounted (:mod:`sif_writable.overlay.mounting`).

The callers are :func:`at_start`, :func:`serve` and :func:`enter`. Each returns an empty string, or a sentence why not;
none of them raises, and what is not possible leaves the process as it was.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING

from sif_writable import LAYER
from sif_writable.identity import PURELIB
from sif_writable.layer import members
from sif_writable.layer.enter import parallel
from sif_writable.mounted import covering, in_layer
from sif_writable.overlay import decide, mounting, obstacles, path_queries, trial
from sif_writable.overlay.decide import Plan, Target, Wanted
from sif_writable.settings import IN_OVERLAY
from sif_writable.signals import let_pass, suppress
from sif_writable.stderr import say
from sif_writable.storage import layout, shortage
from sif_writable.system.mounts import mounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

FOLDER = layout.OVERLAY
"""Below an image's folder in storage."""


entered: list[mounting.Entered] = []
"""What this process did; what it inherited is in :data:`IN_OVERLAY`."""
refused: list[tuple[str, str]] = []
"""(path, sentence) of what was asked for and is not there."""


def at_start(environ: Mapping[str, str], image: str, enter_layer: Callable[[], bool] = bool) -> str:
    """Enter at interpreter start what the user or the image has declared.

    :param image: the folder of this image in storage.
    :param enter_layer: see :func:`serve`.
    """
    wanted = list(decide.named(environ, sys.prefix, PURELIB))
    problem = serve(wanted, environ, image, enter_layer) if wanted else ""
    if not current(environ):
        os.environ[IN_OVERLAY] = f"{obstacles.namespace()};"  # descendants need not ask again
    return problem


def before_import(name: str, environ: Mapping[str, str], image: str, enter_layer: Callable[[], bool] = bool) -> str:
    """Enter what a package is known to write outside its directory, before it is imported."""
    for package, paths, why in decide.PLACES:
        if package == name:
            wanted = [Wanted(path, f"catalogue: {why}") for path in paths]
            problem = serve(wanted, environ, image, enter_layer)
            if problem and not (parallel(environ) or obstacles.threads()):
                _remember(package, paths, problem)
            return problem
    return ""


def _remember(package: str, paths: Iterable[str], problem: str) -> None:
    """Keep for ``status`` what stays impossible here: the package alone knows how to say it, and says it badly."""
    from sif_writable import importhook
    from sif_writable.copies import store
    from sif_writable.copies.ledger import PATH, Line, learn
    from sif_writable.copies.policy import outside_words

    lines = [
        Line(PATH, package, path, f"{outside_words(path, '')} An overlay is not possible: {problem}.", "")
        for path in paths
    ]
    learn(lines, store.Copies(importhook.folder()))


def serve(
    wanted: Iterable[Wanted], environ: Mapping[str, str], image: str, enter_layer: Callable[[], bool] = bool
) -> str:
    """Make paths writable, if that is allowed and possible.

    :param enter_layer: enters the writable layer, if there may be one, and returns whether this process was not in it
        before. That comes first: it serves what lies in the environment, and who joins the layer of a container leaves
        what he has mounted himself, so that the rest has a namespace below the layer's.
    :returns: an empty string where all of them can be written now, or why the first one can not.
    """
    try:
        asked = [one._replace(path=path_queries.resolved(one.path)) for one in wanted]
        decided = decide.decide(asked, path_queries.PathQueries(), decide.mode(environ))
        if decided.targets and enter_layer():
            decided = decide.decide(asked, path_queries.PathQueries(), decide.mode(environ))
        refused.extend(pair for pair in decided.refused if pair not in refused)
        problem = enter(decided, environ, image)
    except Exception as error:  # noqa: BLE001 - an overlay is never worth a program
        let_pass(error)
        problem = f"the overlay failed: {type(error).__name__}: {error}"
        decided = Plan((), ())
    if problem:
        for target in decided.targets:
            refused.extend((path, problem) for path in target.paths if (path, problem) not in refused)
        return problem
    return decided.refused[0][1] if decided.refused else ""


def enter(decided: Plan, environ: Mapping[str, str], image: str) -> str:
    """Mount what was decided, in namespaces of this process's own; return an empty string or why not."""
    if not decided.targets:
        return ""
    problem = obstacles.obstacle(environ)
    if problem:
        return problem
    if not image or not os.path.isdir(image):
        return "there is no storage that could hold what is written"
    folder = f"{image}/{FOLDER}"
    try:
        os.makedirs(f"{folder}/memory", 0o700, exist_ok=True)
    except OSError as error:
        return str(shortage.complaint(error, folder, image))
    table = mounts()
    in_storage = obstacles.upper_problem(folder, table)
    problem = trial.verify_mounts(decided.targets, folder, in_storage, table)
    if problem:
        return problem
    return _enter(decided.targets, folder, in_storage)


def _enter(targets: tuple[Target, ...], folder: str, in_storage: str) -> str:
    strong = mounting.privileged()
    already = current(os.environ)
    layer = in_layer(os.environ.get(LAYER))
    problem = mounting.separate()
    if problem:
        return problem
    problems = []
    for target in targets:
        try:
            done = mounting.mount(target, folder, in_storage)
        except OSError as error:
            let_pass(error)
            words = obstacles.mount_words(error.errno, target.point, mounts())
            if error.errno == errno.EBUSY:
                words = in_use_words(target.point, os.path.basename(os.path.dirname(folder)))
                say([words])
            problems.append(words)
            refused.extend((path, words) for path in target.paths)
            continue
        entered.append(done)
    with suppress(OSError):  # the working directory may be what was covered
        os.chdir(os.getcwd())
    if not strong:
        from sif_writable.layer import join

        join.drop_capabilities()
    points = [*already, *(done.point for done in entered)]
    os.environ[IN_OVERLAY] = f"{obstacles.namespace()};{':'.join(dict.fromkeys(points))}"
    if layer:  # this namespace has it, too
        os.environ[LAYER] = ":".join([obstacles.namespace(), covering(*layer[1:3]), *layer])
        with suppress(OSError):  # then others make a layer of their own
            members.moved()
    mounting.carry_at_exit()
    import importlib

    importlib.invalidate_caches()
    return problems[0] if problems else ""


def in_use_words(point: str, image: str) -> str:
    """Say why a second process cannot write what another one has made writable for itself."""
    holders = [number for number in obstacles.users(image) if number != os.getpid()]
    who = f"process {holders[0]}" if holders else "another process"
    return (
        f"{point} stays read-only here: {who} has it writable, and of two at once one would lose what it writes. "
        "Remedy: run one after the other, start them from one Python program, or give each storage of its own "
        "(SIF_WRITABLE_DIR)."
    )


def current(environ: Mapping[str, str]) -> list[str]:
    """Return the directories that are writable in this namespace thanks to us, by whichever process."""
    name, _, points = environ.get(IN_OVERLAY, "").partition(";")
    if not points or name != obstacles.namespace():
        return []
    mounted = {mount.point for mount in mounts()}  # the number of a namespace that has ended is given to another one
    return [point for point in points.split(":") if point in mounted]
