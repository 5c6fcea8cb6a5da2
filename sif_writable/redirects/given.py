"""The variables of the user that say where something is kept, and those of them that lead nowhere here.

Asked by reports, and where a write was refused; never at a start. A variable that came in with a job and names a
directory of the host that is not bound is the user's own: it is left alone, so it has to be named.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from sif_writable.redirects.catalog import OPT_IN, ROWS
from sif_writable.session import OLD, in_force
from sif_writable.system.timeouts import TIMED_OUT, responds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_MORE = """
    XDG_CONFIG_HOME XDG_DATA_HOME XDG_RUNTIME_DIR PYTHONUSERBASE TEMP TMP CFFI_TMPDIR JOBLIB_TEMP_FOLDER
    HF_HOME HF_TOKEN_PATH TRANSFORMERS_CACHE PYTORCH_TRANSFORMERS_CACHE PYTORCH_PRETRAINED_BERT_CACHE
    SENTENCE_TRANSFORMERS_HOME TORCH_HUB TORCH_MODEL_ZOO MONAI_DATA_DIRECTORY TOTALSEG_WEIGHTS_PATH LIBROSA_CACHE_DIR
    NILEARN_SHARED_DATA nnUNet_raw nnUNet_preprocessed nnUNet_results KAGGLE_CONFIG_DIR VLLM_CONFIG_ROOT
    CONDA_ENVS_PATH CONDA_ENVS_DIRS CONDA_BLD_PATH MAMBA_ROOT_PREFIX CONDARC PIP_TARGET PIP_PREFIX PIP_CONFIG_FILE
    UV_TOOL_DIR UV_PYTHON_INSTALL_DIR POETRY_DATA_DIR PLAYWRIGHT_BROWSERS_PATH CARGO_HOME RUSTUP_HOME
    R_LIBS R_USER_CACHE_DIR R_USER_DATA_DIR R_USER_CONFIG_DIR RENV_PATHS_ROOT RENV_PATHS_CACHE RENV_PATHS_LIBRARY
    BASILISK_EXTERNAL_DIR JULIAUP_DEPOT_PATH ANSIBLE_HOME JUPYTER_CONFIG_DIR JUPYTER_DATA_DIR DASK_CONFIG
    ASTROPY_CONFIG_DIR SUNPY_CONFIGDIR FSSPEC_CONFIG_DIR WANDB_DIR WANDB_CONFIG_DIR WANDB_ARTIFACT_DIR
    COMET_OFFLINE_DIRECTORY
"""
MORE = tuple(_MORE.split())
"""Variables that name a place and are no rows of the table: parents, other tools', what is never set. It is enough
that what they name is there, since an image may hold it."""
_NO_PLACES = frozenset(("PIP_NO_CACHE_DIR", "UV_NO_CACHE", "DGLBACKEND", "KIVY_DESKTOP_PATH_ID", "CCACHE_CONFIGPATH"))
_HARMLESS = frozenset(("XDG_RUNTIME_DIR",))
"""What leaks in from most hosts, and is missed by few programs."""
_NOT_SENDING = re.compile(r"(?:OLD)?PWD|_|SHELL|(?:MAN|PYTHON|.*_)?PATH|(?:SIF_WRITABLE|APPTAINER|SINGULARITY).*")
"""Variables that hold a path and send no program there; those of the tables are asked before."""
_FLAGS = re.compile(r"(?:^|,)\s*(?:base_)?compiledir\s*=\s*([^,]+)")


class Given(NamedTuple):
    """A variable that the user, the image or the job has set, and what it names."""

    variable: str
    value: str
    problem: str
    """What is wrong with it, as a sentence without subject; or empty."""
    remedy: str
    level: str
    """``warn``, ``info`` where few programs miss it, or empty."""


def known() -> dict[str, str]:
    """Map each variable that names a place to its shape (:attr:`.row.Row.shape`), those of the table first."""
    found = {row.variable: row.shape for row in (*ROWS, *OPT_IN) if row.shape != "value"}
    for row in (*ROWS, *OPT_IN):
        for name in row.counts_as_set:
            if name not in _NO_PLACES:
                found.setdefault(name, "dir")
    for name in MORE:
        found.setdefault(name, "there")
    return found


def listed(environ: Mapping[str, str], ours: Iterable[str] = ()) -> list[Given]:
    """List the variables that others have set and that name a place, with what is wrong with it.

    :param ours: variables that this package has set.
    """
    own = frozenset(ours)
    return [_judged(name, shape, environ) for name, shape in known().items() if name in environ and name not in own]


def _judged(name: str, shape: str, environ: Mapping[str, str]) -> Given:
    value = environ[name]
    places = _places(shape, value, environ)
    problems = [problem(place, written=shape != "there") for place in places]
    if not places or not all(problems):
        return Given(name, value, "", "", "")
    if problems[0] == TIMED_OUT:
        remedy = f"see what holds up its server, or unset {name}"
    elif os.path.lexists(places[0]):
        remedy = f"make it writable, bind a directory there, or unset {name}"
    else:
        remedy = f"bind it (--bind {missing(places[0])}), or unset {name}"
    return Given(name, value, problems[0], remedy, "info" if name in _HARMLESS else "warn")


def _places(shape: str, value: str, environ: Mapping[str, str]) -> list[str]:
    """Return the absolute paths that a value names."""
    if shape == "flags":
        entries = _FLAGS.findall(value)
    elif shape == "comma_list":
        entries = value.split(",")
    elif shape.startswith("path_list") or ":" in value:
        entries = value.split(":") if "://" not in value else []
    else:
        entries = [value]
    home = environ.get("HOME", "")
    named = [home + entry[1:] if entry == "~" or entry.startswith("~/") else entry for entry in map(str.strip, entries)]
    return [entry for entry in named if entry.startswith("/")]


def missing(path: str) -> str:
    """Return the outermost directory on the way to a path that is not there: what has to be bound."""
    path = os.path.normpath(path)
    while os.path.dirname(path) != path and not os.path.lexists(os.path.dirname(path)):
        path = os.path.dirname(path)
    return path


def problem(path: str, *, written: bool = True) -> str:
    """Say what is wrong with a directory that a program is going to use, or make; an empty string: nothing.

    :param written: it must be possible to write there; else it is enough that it is there.
    """
    if not responds(path):
        return TIMED_OUT
    if os.path.isdir(path):
        return "cannot be written" if written and not os.access(path, os.W_OK | os.X_OK) else ""
    if os.path.lexists(path):
        if os.path.exists(path):
            return "is not a directory" if written else ""
        return "is a link to what is not there"
    parent = os.path.dirname(os.path.abspath(path))
    while not os.path.lexists(parent):
        parent = os.path.dirname(parent)
    return "" if os.access(parent, os.W_OK | os.X_OK) else "does not exist here and cannot be made"


def sending(path: str, environ: Mapping[str, str], *, only_known: bool = False) -> list[str]:
    """Return the variables that sent a program to a path that it could not write.

    It lies in what one of them names; or it is on the way there, and is what could not be made.

    :param path: absolute and normal.
    :param only_known: none but those that are known to name a place for files.
    """
    shapes = known()
    others = {} if only_known else {n: "dir" for n in environ if n not in shapes and not _NOT_SENDING.fullmatch(n)}
    ours = in_force(environ)
    within: list[tuple[int, str]] = []
    above: list[str] = []
    for name, shape in {**shapes, **others}.items():
        if name not in environ or name in ours or name.startswith(OLD):
            continue
        for place in map(os.path.normpath, _places(shape, environ[name], environ)):
            if name in others and os.path.lexists(place):  # it may name an installation, and another one the place
                continue
            if place != "/" and (path == place or path.startswith(f"{place}/")):
                within.append((-len(place), name))
            elif place.startswith(f"{path}/") and not os.path.lexists(path):
                above.append(name)
    if within:
        longest = min(within)[0]
        return list(dict.fromkeys(name for length, name in within if length == longest))
    return list(dict.fromkeys(above))


def words(names: Iterable[str], environ: Mapping[str, str]) -> Iterator[str]:
    """Yield each of some variables with its value, such that it can be printed in a line."""
    for name in names:
        value = environ[name]
        text = value if value.isprintable() else ascii(value)
        yield f"{name}={text if len(text) <= 200 else text[:200] + '...'}"
