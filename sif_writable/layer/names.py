"""What can be imported from the newest generation: the first import may be of what the image does not have."""

import os

from sif_writable import let_pass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def written(folder: str, directories: "Iterable[str]") -> "frozenset[str]":
    """Return the names of the packages and modules in a folder of generations.

    :param directories: of ``sys.path``.
    """
    try:
        numbers = [int(name[4:]) for name in os.listdir(folder) if name[:4] == "gen-" and name[4:].isdigit()]
    except OSError as error:
        let_pass(error)
        return frozenset()
    found: set[str] = set()
    if numbers:
        for directory in directories:
            try:
                names = os.listdir(f"{folder}/gen-{max(numbers)}/tree{directory}")
            except OSError as error:  # nothing of it
                let_pass(error)
                continue
            found.update([name.partition(".")[0] for name in names])
    return frozenset(found)
