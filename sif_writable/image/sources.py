"""Do a package's sources write into their own directory? Read at build time only, for what ``prepare`` lists.

A name is tainted when it is made from the module's own ``__file__`` or ``__path__``; a write is a call that makes or
changes files and is given something tainted. That finds what people write, without running it. It is a hint for
whoever builds the image, and never evidence at run time.
"""

from __future__ import annotations

import ast
import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_FILES, MAX_BYTES = 400, 4 << 20
"""What is read at most of one package."""

_OWN = ("__file__", "__path__", "__spec__", "__cached__")
# fmt: off
_WRITERS = frozenset((
    "mkdir", "makedirs", "mkdtemp", "mkstemp", "NamedTemporaryFile", "TemporaryDirectory", "TemporaryFile", "touch",
    "write_text", "write_bytes", "rename", "renames", "remove", "unlink", "rmtree", "rmdir", "removedirs", "chmod",
    "symlink", "symlink_to", "link", "hardlink_to", "utime", "mkfifo", "truncate", "chdir", "copy", "copy2", "copyfile",
    "copytree", "move", "extractall", "extract", "unpack_archive", "connect", "FileHandler", "RotatingFileHandler",
    "TimedRotatingFileHandler", "WatchedFileHandler", "urlretrieve", "save", "savez", "savez_compressed", "savetxt",
    "to_csv", "to_json", "to_pickle", "to_parquet", "dump", "memmap", "File", "mkpath",
))
_RUNNERS = frozenset(("run", "call", "check_call", "check_output", "Popen", "system", "popen"))
# fmt: on
_ANCHOR_CALLS = frozenset(("resource_filename", "files", "path", "getfile", "getsourcefile", "abspath"))
_WRITE_FLAGS = frozenset(("O_WRONLY", "O_RDWR", "O_CREAT", "O_APPEND", "O_TRUNC"))


class Sources:
    """The modules of a package that are of interest, read together."""

    def __init__(self, paths: Iterable[str]) -> None:
        """:param paths: source files; what cannot be read or parsed is left out."""
        self._trees: dict[str, ast.Module] = {}
        self._tainted: dict[str, set[str]] = {}
        total = 0
        for path in list(dict.fromkeys(paths))[:MAX_FILES]:
            with contextlib.suppress(OSError, SyntaxError, ValueError, RecursionError):
                total += os.path.getsize(path)
                if total > MAX_BYTES:
                    break
                with open(path, "rb") as file:
                    self._trees[path] = ast.parse(file.read(), path)
        for _ in range(3):  # a name that a second module imports and a third one imports from there
            known = {name for names in self._tainted.values() for name in names}
            for path, tree in self._trees.items():
                self._tainted[path] = _taint(tree, self._tainted.get(path, set()) | (_imported(tree) & known))

    def write(self) -> str:
        """Return where a write is, as ``FILE:LINE``, or an empty string."""
        for path, tree in self._trees.items():
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and self._writes(node, self._tainted[path]):
                    return f"{path}:{node.lineno}"
        return ""

    def _writes(self, call: ast.Call, tainted: set[str]) -> bool:
        name = _name(call.func)
        parts: list[ast.expr] = [*call.args, *(keyword.value for keyword in call.keywords)]
        receiver = call.func.value if isinstance(call.func, ast.Attribute) else None
        given = any(_is_tainted(part, tainted) for part in parts)
        on = receiver is not None and _is_tainted(receiver, tainted)
        if name == "open":
            return (given or on) and any(_opens_to_write(part) for part in parts)
        if name == "access":
            return given and any(_name(inner) == "W_OK" for part in parts for inner in ast.walk(part))
        if name == "replace":  # str.replace is everywhere
            return given and isinstance(receiver, ast.Name) and receiver.id == "os"
        if name in _RUNNERS:
            return given
        return name in _WRITERS and (given or on)


_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _opens_to_write(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            return len(node.value) <= 4 and bool(set(node.value) & set("wax+"))
        return isinstance(node.value, int) and not isinstance(node.value, bool) and bool(node.value & 0o103)
    return any(_name(part) in _WRITE_FLAGS for part in ast.walk(node))


def _is_tainted(node: ast.AST, tainted: set[str]) -> bool:
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and (part.id in _OWN or part.id in tainted):
            return True
        if isinstance(part, ast.Attribute) and part.attr in tainted:
            return True
        if isinstance(part, ast.Call) and _name(part.func) in _ANCHOR_CALLS:
            for argument in part.args:  # resources.files("pkg"), files(__package__)
                if _name(argument) in ("__name__", "__package__"):
                    return True
    return False


def _imported(tree: ast.Module) -> set[str]:
    """Return the names that a module may have from others: imported ones, and upper-case attributes of modules."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Attribute) and node.attr.isupper():
            found.add(node.attr)
    return found


def _taint(tree: ast.Module, tainted: set[str]) -> set[str]:
    """Return the names of a module that are made from its own place, without regard to scopes."""
    pairs: list[tuple[list[ast.expr], ast.AST]] = []
    functions: dict[str, list[str]] = {}
    calls: list[ast.Call] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            pairs.append((node.targets, node.value))
        elif isinstance(node, (ast.AnnAssign, ast.AugAssign, ast.NamedExpr)) and node.value is not None:
            pairs.append(([node.target], node.value))
        elif isinstance(node, (ast.For, ast.comprehension)):
            pairs.append(([node.target], node.iter))
        elif isinstance(node, ast.withitem) and node.optional_vars is not None:
            pairs.append(([node.optional_vars], node.context_expr))
        elif isinstance(node, _FUNCTION):
            parameters = [argument.arg for argument in node.args.args]
            functions[node.name] = parameters[1:] if parameters[:1] in (["self"], ["cls"]) else parameters
            pairs += [
                ([ast.Name(node.name, ast.Store())], inner.value)
                for inner in ast.walk(node)
                if isinstance(inner, ast.Return) and inner.value is not None
            ]
        elif isinstance(node, ast.Call):
            calls.append(node)
    size = -1
    while size != len(tainted):
        size = len(tainted)
        for targets, value in pairs:
            if _is_tainted(value, tainted):
                tainted |= {_name(part) for target in targets for part in ast.walk(target)} - {"", "self", "os"}
        for call in calls:
            for parameter, argument in zip(functions.get(_name(call.func), ()), call.args):
                if _is_tainted(argument, tainted):
                    tainted.add(parameter)
    return tainted
