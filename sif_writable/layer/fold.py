"""The next generation, made of the newest one and what is kept of a layer: directory by directory.

A layer may be folded in more than once: when the last process that is seen in it ends, and when it is dead. What it
has removed by then of its own goes, too: the journal of a transaction that was open, a lock.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from typing import TYPE_CHECKING, NamedTuple

from sif_writable.layer import child, files, merge, records
from sif_writable.signals import suppress

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Callable

    from sif_writable.layer.merge import Change
    from sif_writable.layer.records import Generation


class Layer(NamedTuple):
    """A dead layer, or one whose last process is about to end, as its folders show it."""

    name: str
    changes: list[Change]
    source: Callable[[str], str]
    """Where the file of a path of the image is, in an upper directory."""
    base: int
    replica: str
    """The folder of the generation that it was made from, on this node; empty: none."""
    in_image: Callable[[str], bool]

    @property
    def state(self) -> str:
        """Return what differs when something was written since."""
        return f"{len(self.changes)}.{max([change.time for change in self.changes], default=0)}"


def fold(layer: Layer, newest: Generation, aside: str, beside: str) -> list[tuple[str, str]]:
    """Fill the folder of the next generation; return the conflicts, of which one side's files are in `beside`."""
    tree = f"{aside}/tree"
    os.mkdir(tree, 0o700)
    if newest.number:
        clone(f"{newest.folder}/tree", tree)
    new = newest._replace(stamps=dict(newest.stamps), removed=set(newest.removed), overridden=set(newest.overridden))
    own = newest.folds.get(layer.name, ())
    conflicts: list[tuple[str, str]] = []
    late = [change for change in layer.changes if merge.is_forgotten(change.path, newest.forgotten, layer.base)]
    if late:
        conflicts.append((late[0].path, merge.FORGOTTEN))
        _save([(change.path, layer.source(change.path)) for change in late], beside)
    groups = merge.by_folder([change for change in layer.changes if change not in set(late)])
    undone = [path for path, stamp in new.stamps.items() if stamp[0] in own and path not in groups]
    for where, changes in sorted([*groups.items(), *[(path, []) for path in undone]]):
        child.progress()
        who = _take(layer, new, tree, beside, where, changes)
        if who in {merge.OURS, merge.THEIRS}:
            conflicts.append((where, who))
    for where in sorted(undone, reverse=True):  # directories that were removed again, and are nobody else's
        if not os.path.isdir(layer.source(where)):
            with suppress(OSError):
                os.rmdir(f"{tree}{where}")
    number = newest.number + 1
    layers = {**newest.layers, layer.name: (layer.state, number)}
    records.write(aside, new._replace(layers=layers, folds={**newest.folds, layer.name: (number, *own)}))
    return conflicts


def _take(layer: Layer, new: Generation, tree: str, beside: str, where: str, changes: list[Change]) -> str:
    """Fold one directory; return who won where both sides had changed it, else another word.

    :param new: what the generation that is built says about itself; changed.
    """
    own = new.folds.get(layer.name, ())
    until = int(new.layers.get(layer.name, ("", 0))[0].partition(".")[2] or 0)  # then it was folded in before
    stamp = new.stamps.get(where, (0, 0))
    who = merge.winner(changes, layer.base, stamp, own)
    latest = max([change.time for change in changes if change.kind != merge.FOLDER], default=0)
    if who in {merge.OURS, merge.THEIRS} and until and latest <= until:
        return merge.BOTH  # this was decided then
    if who == merge.THEIRS:
        lost = [change for change in changes if _is_lost(layer, tree, change)]
        _save([(change.path, layer.source(change.path)) for change in lost], beside)
        return who if lost else merge.BOTH
    if who == merge.MINE and latest <= stamp[1] and not _undoes(layer, tree, where, changes):
        return who  # nothing has changed since
    if who in {merge.OURS, merge.MINE}:
        there = entries(f"{tree}{where}")
        if who == merge.OURS:
            lost_names = [name for name in there if _is_only_theirs(layer, tree, f"{where}/{name}", changes)]
            _save([(f"{where}/{name}", f"{tree}{where}/{name}") for name in lost_names], beside)
            who = who if lost_names else merge.MINE
        for name in there:
            os.unlink(f"{tree}{where}/{name}")
        new.removed.difference_update([path for path in new.removed if posixpath.dirname(path) == where])
        if layer.replica:
            new.removed.update(_clone_files(layer, new.forgotten, tree, where))
    _apply(layer, own, changes, tree, new)
    names = entries(f"{tree}{where}")
    for name in merge.without_base(names, lambda name: layer.in_image(f"{where}/{name}")):
        os.unlink(f"{tree}{where}/{name}")
    if latest or who == merge.MINE:
        new.stamps[where] = (new.number + 1, latest or stamp[1])
    new.overridden.update(f"{where}/{name}" for name in names if layer.in_image(f"{where}/{name}"))
    return who


def is_there(layer: Layer, newest: Generation) -> bool:
    """Whether a generation has all that a layer did, word for word."""
    tree = f"{newest.folder}/tree"
    return bool(newest.number) and not any(
        merge.is_forgotten(change.path, newest.forgotten, layer.base)
        or (change.kind == merge.GONE and layer.in_image(change.path) and change.path not in newest.removed)
        or (change.kind == merge.FOLDER and not os.path.isdir(f"{tree}{change.path}"))
        or _is_lost(layer, tree, change)
        for change in layer.changes
    )


def _is_lost(layer: Layer, tree: str, change: Change) -> bool:
    """Whether something that a layer did is not there without it: many tasks of an array write the very same."""
    if change.kind == merge.FOLDER:
        return False
    if change.kind == merge.GONE:
        return files.status_of(f"{tree}{change.path}") is not None
    return not files.are_same(layer.source(change.path), f"{tree}{change.path}")


def _is_only_theirs(layer: Layer, tree: str, path: str, changes: Iterable[Change]) -> bool:
    """Whether a file is neither what this layer has written nor what it began with."""
    sources = [layer.source(path)] if any(change.path == path for change in changes) else []
    sources += [f"{layer.replica}/tree{path}"] if layer.replica else []
    return not any(files.are_same(source, f"{tree}{path}") for source in sources)


def _undoes(layer: Layer, tree: str, where: str, changes: Iterable[Change]) -> bool:
    """Whether a layer has no longer what it was folded in with: a journal, a lock, that were removed there since."""
    written = {posixpath.basename(change.path) for change in changes if change.kind != merge.GONE}
    before = entries(f"{layer.replica}/tree{where}") if layer.replica else []
    return not written.union(before).issuperset(entries(f"{tree}{where}"))


def _apply(layer: Layer, own: Sequence[int], changes: Iterable[Change], tree: str, new: Generation) -> None:
    others = [path for path, (last, _) in new.stamps.items() if last > layer.base and last not in own]
    for change in changes:
        target = f"{tree}{change.path}"
        source = layer.source(change.path)
        if change.kind == merge.GONE:
            if any(f"{path}/".startswith(f"{change.path}/") for path in others):
                continue  # others have written into a directory that is removed here
            files.remove(target)
            if os.path.lexists(target):
                raise OSError(errno.EIO, "it cannot be removed", target)
            if layer.in_image(change.path):
                new.removed.add(change.path)
            continue
        new.removed.discard(change.path)
        status = os.lstat(source)
        if change.kind == merge.FOLDER:
            files.make_folder(tree, change.path.lstrip("/"), status.st_mode)
        else:
            if not os.path.isdir(posixpath.dirname(target)):
                files.make_folder(tree, posixpath.dirname(change.path).lstrip("/"), 0o755)
            if os.path.isdir(target) and not os.path.islink(target):
                files.remove(target)
            files.copy(source, target, status)


def entries(folder: str) -> list[str]:
    """Return the names in a directory of what is no directory; none where it is not there.

    :raises OSError: it cannot be read. It must not count as empty: two sides would be mixed in it.
    """
    try:
        with os.scandir(folder) as found:
            return sorted(entry.name for entry in found if not entry.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return []


def clone(source: str, target: str) -> None:
    """Copy a tree that never changes, by links where that is possible.

    :raises OSError: ENOENT where it has gone away meanwhile.
    """
    for path, status in files.walk(source, strict=True):
        if stat.S_ISDIR(status.st_mode):
            files.make_folder(target, path, status.st_mode)
        else:
            files.copy(f"{source}/{path}", f"{target}/{path}", status, link=True)


def _clone_files(layer: Layer, forgotten: dict[str, int], tree: str, where: str) -> list[str]:
    """Copy what lies directly in a directory of a layer's replica; return the paths that are removed there."""
    source = f"{layer.replica}/tree"
    removed = []
    for name in entries(f"{source}{where}"):
        path = f"{where}/{name}"
        if merge.is_forgotten(path, forgotten, layer.base):
            continue
        status = os.lstat(f"{source}{path}")
        if files.is_whiteout(f"{source}{path}", status):
            removed.append(path)
        else:
            files.make_folder(tree, where.lstrip("/"), os.lstat(f"{source}{where}").st_mode)
            files.copy(f"{source}{path}", f"{tree}{path}", status)
    return removed


def _save(pairs: Iterable[tuple[str, str]], beside: str) -> None:
    """Keep the files of the side that was not taken."""
    for path, source in pairs:
        with suppress(FileNotFoundError):
            status = os.lstat(source)
            if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                files.make_folder(beside, posixpath.dirname(path).lstrip("/"), 0o700)
                files.copy(source, f"{beside}{path}", status)
