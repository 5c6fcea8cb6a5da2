"""What is installed in this environment, and what does it say about where it writes? Read at build time only.

One pass over the sources answers two questions: which variables of the table of locations does a distribution name, and
do its modules write beside themselves (:mod:`sif_writable.image.sources`).
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING, NamedTuple

from sif_writable.gpu.cuda import distribution_cuda
from sif_writable.image.sources import Sources
from sif_writable.system.parallel import parallel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

OWN = frozenset(("sif_writable",))
_TESTS = frozenset(("tests", "test", "testing", "_tests", "__pycache__", "_vendor"))
_NAMES = re.compile(rb"[A-Z][A-Z0-9_]{5,}")
_MARKS = re.compile(rb"__file__|__path__|resource_filename|importlib[._]resources")


class Distribution(NamedTuple):
    """One installed distribution."""

    name: str
    version: str
    folder: str
    """The directory of sys.path that it is in."""
    info: str
    """The name of its ``.dist-info`` or ``.egg-info`` there."""
    record: int
    """Bytes of its RECORD, which mostly differ where the files differ."""

    @property
    def whole(self) -> str:
        """Return name and version."""
        return f"{self.name} {self.version}".strip()


def folders(path: Iterable[str], standard: str = os.path.dirname(os.__file__)) -> list[str]:
    """Return the directories of sys.path that hold installed packages, each once."""
    listed = dict.fromkeys(os.path.realpath(entry) for entry in path if entry and os.path.isdir(entry))
    return [entry for entry in listed if entry not in (standard, standard + "/lib-dynload")]


def distributions(path: Iterable[str]) -> list[Distribution]:
    """Return what is installed in directories of sys.path, by name."""
    found = []
    for folder in path:
        for info in sorted(os.listdir(folder)):
            stem, dot, kind = info.rpartition(".")
            if not dot or kind not in ("dist-info", "egg-info"):
                continue
            name, _, version = stem.partition("-")
            record = 0
            with contextlib.suppress(OSError):
                record = os.stat(f"{folder}/{info}/RECORD").st_size
            found.append(Distribution(name, version.partition("-py")[0], folder, info, record))
    return sorted(found)


def stamp(path: Iterable[str], baked: Iterable[str] = ()) -> str:
    """Return 16 hexadecimal digits that stand for what is installed, and for what the image brings as seeds.

    :param baked: directories of seeds.
    """
    from hashlib import blake2b

    digest = blake2b(digest_size=8)
    for each in distributions(path):
        digest.update(f"{each.folder}/{each.info} {each.record}\n".encode("utf-8", "surrogateescape"))
    for folder in sorted(baked):
        for here, inner, files in os.walk(folder):
            inner.sort()
            for name in sorted(files):
                status = os.lstat(f"{here}/{name}")
                digest.update(
                    f"{here}/{name} {status.st_size} {int(status.st_mtime)}\n".encode(errors="surrogateescape")
                )
    return digest.hexdigest()


def top_levels(distribution: Distribution) -> list[str]:
    """Return the names that a distribution lets one import, by its RECORD or ``top_level.txt``."""
    info = f"{distribution.folder}/{distribution.info}"
    for name in ("RECORD", "top_level.txt"):
        try:
            with open(f"{info}/{name}", encoding="utf-8", errors="replace") as file:
                lines = file.read().splitlines()
        except OSError:
            continue
        firsts = {line.partition(",")[0].partition("/")[0] for line in lines}
        found = {first.partition(".")[0] for first in firsts if _is_module(first)}
        if found:
            return sorted(found)
    return [distribution.name.lower()]


def _is_module(first: str) -> bool:
    stem = first.partition(".")[0]
    return stem.isidentifier() and (stem == first or first.endswith((".py", ".so"))) and stem != "__pycache__"


class Scan(NamedTuple):
    """What was found in the sources of an environment."""

    locations: list[tuple[str, str]]
    """Variable, and the distribution whose sources name it."""
    writers: list[tuple[str, str]]
    """Name as in ``import NAME``, and the ``FILE:LINE`` that writes."""


def scan(path: Sequence[str], variables: Iterable[str], progress: Callable[[str, float], None]) -> Scan:
    """Read the sources of everything that is installed, on all processors.

    :param variables: what to look for.
    :param progress: is called with the name of a package and the part of the work that is done.
    """
    wanted = frozenset(variables)
    owners = {name: each.name for each in distributions(path) for name in top_levels(each)}
    units = [f"{folder}/{entry}" for folder in path for entry in sorted(os.listdir(folder)) if _is_unit(folder, entry)]
    locations: set[tuple[str, str]] = set()
    writers: list[tuple[str, str]] = []
    for number, (unit, (named, where)) in enumerate(zip(units, parallel(_scan_unit, units))):
        name = os.path.basename(unit).removesuffix(".py")
        progress(name, number / len(units))
        locations.update((found, owners.get(name, name)) for found in named & wanted)
        if where:
            writers.append((name, where))
    return Scan(sorted(locations), writers)


def _scan_unit(unit: str) -> tuple[frozenset[str], str]:
    """Return the upper-case names in a package's sources, and where a source writes into its own directory."""
    named: set[bytes] = set()
    marked = []
    for source in _sources(unit):
        try:
            with open(source, "rb") as file:
                text = file.read()
        except OSError:
            continue
        named.update(_NAMES.findall(text))
        if _MARKS.search(text):
            marked.append(source)
    return frozenset(name.decode() for name in named), Sources(marked).write() if marked else ""


def _is_unit(folder: str, entry: str) -> bool:
    if entry.partition(".")[0] in OWN or entry in _TESTS:
        return False
    return entry.endswith(".py") or (entry.isidentifier() and os.path.isdir(f"{folder}/{entry}"))


def _sources(path: str) -> Iterator[str]:
    if path.endswith(".py"):
        yield path
        return
    for here, inner, files in os.walk(path):
        inner[:] = sorted(set(inner) - _TESTS)
        for name in sorted(files):
            if name.endswith(".py"):
                yield f"{here}/{name}"


def cuda(path: Iterable[str], toolkits: str = "/usr/local") -> list[tuple[str, str]]:
    """Return the CUDA versions that the image ships, with what says so."""
    found = []
    for each in distributions(path):
        version = distribution_cuda(f"{each.name}-{each.version}")
        if version:
            found.append((version, f"{each.name}-{each.version}"))
    with contextlib.suppress(OSError):
        names = [name for name in sorted(os.listdir(toolkits)) if name.startswith("cuda-")]
        found += [(name[len("cuda-") :], f"{toolkits}/{name}") for name in names]
    if os.environ.get("CUDA_VERSION"):
        found.append((os.environ["CUDA_VERSION"], "CUDA_VERSION"))
    return found
