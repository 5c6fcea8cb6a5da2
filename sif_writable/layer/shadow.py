"""Which code does the name of a module run, once new files lie beside the image's? Pure.

In one directory a package comes before an extension module, that before a source, that before bytecode, and a directory
without ``__init__`` comes last (:class:`importlib.machinery.FileFinder`). A package or module comes before such
directories wherever on ``sys.path`` they are.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from typing import Callable

_EXTENSION, _SOURCE, _BYTECODE = 1, 2, 3
_INIT = "__init__"


def module(name: str) -> tuple[str, int]:
    """Return the module that a file of this name is, and what it comes after: the lower number first; 0: it is none.

    Extension modules may have the interpreter's tag in their names; two of one module count as equal.
    """
    stem, _, ending = name.partition(".")
    rank = {"py": _SOURCE, "pyc": _BYTECODE}.get(ending, _EXTENSION if f".{ending}".endswith((".so", ".pyd")) else 0)
    return (stem, rank) if stem and rank else ("", 0)


def takes_place(
    path: str,
    names: Callable[[str], Collection[str]],
    has_code: Callable[[str], bool],
    roots: Collection[str] = (),
    *,
    is_link: bool = False,
) -> bool:
    """Whether a new file is run where some code of the image is run without it.

    :param path: of the file, which the image does not have.
    :param names: what the image has in a directory; nothing where that is no directory.
    :param has_code: whether the image has code anywhere below a directory.
    :param roots: directories of packages: a name in one of them may hide that of another one.
    :param is_link: it is a symbolic link, which may lead to a package.
    """
    folder, name = posixpath.split(path)
    if posixpath.basename(folder) == "__pycache__":
        return False
    stem, rank = module(name)
    if stem == _INIT:
        if any(rank <= other for other in _ranks(names(folder), _INIT)):
            return True
        if _ranks(names(folder), _INIT):
            return False  # the image's own comes first
        return _is_there(folder, names, has_code, roots)
    if not stem and is_link and "." not in name:
        return _is_there(path, names, has_code, roots)
    if not stem or _ranks(names(f"{folder}/{stem}"), _INIT):
        return False
    there = _ranks(names(folder), stem)
    if there:
        return rank <= min(there)
    return _is_there(f"{folder}/{stem}", names, has_code, roots)


def _is_there(
    package: str, names: Callable[[str], Collection[str]], has_code: Callable[[str], bool], roots: Collection[str]
) -> bool:
    """Whether the image has something that a package or module of this path hides, beside it or in another root."""
    folder, name = posixpath.split(package)
    if _ranks(names(folder), name) or (name in names(folder) and has_code(package)):
        return True
    others = [root for root in roots if root != folder] if folder in roots else []
    return any(_ranks(names(root), name) or (name in names(root) and has_code(f"{root}/{name}")) for root in others)


def _ranks(names: Iterable[str], stem: str) -> list[int]:
    return [rank for found, rank in map(module, names) if found == stem]
