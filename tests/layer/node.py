"""A storage, an image and layers of one node in plain folders, and what is to be seen in them."""

from __future__ import annotations

import errno
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sif_writable.layer import files, make, publish, records, replicas
from sif_writable.layer.make import newest_generation

if TYPE_CHECKING:
    from collections.abc import Callable

PKG = "/v/lib/pkg"


class Node:
    """A storage, an image, and layers that were written to by hand."""

    def __init__(self, folder: Path) -> None:
        """Make them in a folder."""
        self.image = str(folder / "image")
        self.storage = str(folder / "storage")
        self.place = str(folder / "place")
        self.number = 0
        for path in (self.image + PKG, self.storage, self.place):
            os.makedirs(path, 0o700, exist_ok=True)
        self.put(f"{self.image}{PKG}/config.json", "{}")
        self.put(f"{self.image}{PKG}/__init__.py", "")

    @staticmethod
    def put(path: str, text: str) -> None:
        """Write a file, with the folders that it lies in."""
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def layer(self, base: str = "", origin: str = "") -> str:
        """Make an empty layer; return its folder."""
        self.number += 1
        folder = f"{self.place}/upper-{os.getpid()}-{self.number}"
        os.makedirs(f"{folder}/0", 0o700)
        self.put(f"{folder}/about", f"{make.boot()}\n{base}\n{self.storage}\n{origin and 'id-' + origin}\n/v")
        return folder

    def write(self, layer: str, path: str, text: str) -> None:
        """Write a file in a layer; the path is below the package."""
        self.put(f"{layer}/0{PKG[2:]}/{path}", text)

    def publish(self, layer: str) -> list[str]:
        """Publish a layer; return what is said."""
        return publish.publish(layer, lambda _, directory: self.image + directory)

    def replica(self) -> str:
        """Copy the newest generation; return where to."""
        return replicas.replicate(self.storage, self.place)[0]

    def newest(self) -> dict[str, str]:
        """Return the newest generation's files: path below the package to text."""
        tree = f"{self.storage}/gen-{newest_generation(self.storage)}/tree{PKG}"
        found = {}
        for name, status in files.walk(tree):
            if stat.S_ISREG(status.st_mode):
                with open(f"{tree}/{name}", encoding="utf-8", errors="replace") as file:
                    found[name] = file.read()
        return found


def generation(folder: str, number: int) -> Any:
    """Return all that can be seen in a generation, but for whose number it is."""
    made = records.read(folder, number)
    tree = {name: _content(f"{made.folder}/tree/{name}", status) for name, status in files.walk(f"{made.folder}/tree")}
    return {"tree": tree, "removed": sorted(made.removed), "size": made.size, "overridden": sorted(made.overridden)}


def _content(path: str, status: os.stat_result) -> str:
    if not os.path.isfile(path) or os.path.islink(path):
        return oct(status.st_mode)
    return f"{oct(status.st_mode)} {Path(path).read_text(encoding='utf-8')}"


def tree(folder: str) -> dict[str, str]:
    """Return what is in a folder."""
    return {name: _content(f"{folder}/{name}", status) for name, status in files.walk(folder)}


def numbers(folder: str) -> list[int]:
    return sorted(int(name[4:]) for name in os.listdir(folder) if name.startswith("gen-"))


def conflict(node: Node) -> tuple[str, str]:
    """Publish one side of a directory that two layers changed; return the other one, which was written later."""
    replicas.mark(node.storage)
    origin = make.origin_of(os.listdir(node.storage))[3:]
    node.write(first := node.layer(origin=origin), "cache/index", "base")
    node.write(first, "kept/file", "base")
    node.publish(first)
    files.remove(first)
    base = node.replica()
    theirs, ours = node.layer(base, origin), node.layer(base, origin)
    node.write(theirs, "cache/index", "theirs")
    node.write(theirs, "cache/data-of-theirs", "theirs")
    time.sleep(0.02)
    node.write(ours, "cache/data-of-ours", "ours")
    node.write(ours, "new/a", "ours")
    node.write(ours, "new/deep/b", "ours")
    os.symlink("a", f"{ours}/0{PKG[2:]}/new/link")
    node.publish(theirs)
    files.remove(theirs)
    return ours, origin


def in_children(*work: Callable[[], object]) -> list[int]:
    """Do things at the same time, each in a process of its own; return how these ended."""
    children = []
    for one in work:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                one()
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    return [os.waitpid(child, 0)[1] for child in children]


def refuse(*_: object, **__: object) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")


def publish_here(folder: Path) -> dict[str, Any]:
    """Publish two sides of a conflict and a third layer; return what the newest generation and its copy hold."""
    for name in filter(None, os.environ.get("REFUSED", "").split(",")):
        setattr(os, name, refuse)
    node = Node(folder)
    ours, origin = conflict(node)
    said = node.publish(ours)
    third = node.layer(node.replica(), origin)
    node.write(third, "third/x", "x")
    said += node.publish(third)
    again = generation(node.storage, 3)
    copy = tree(f"{node.replica()}/tree")
    aside = [names for _, _, names in os.walk(f"{node.storage}/set-aside") if names]
    found = [name for name in os.listdir(node.storage) if name.startswith(".new")]
    plain = {name: text.partition(" ")[2] for name, text in {**again["tree"], **copy}.items()}
    return {
        "files": plain,
        "said": len(said),
        "aside": sorted(aside[0]),
        "left": found,
        "numbers": numbers(node.storage),
    }
