"""Why a command could not be started: the exit code and the words that shells have for it."""

from __future__ import annotations

import os


def not_started(program: str, error: OSError) -> tuple[int, str]:
    """Return the exit code, 127 or 126, and what is to be said.

    :param program: what was to be executed, a path or a name that was looked up in PATH.
    :param error: what executing it has raised. For a name that may be the permission which is lacking for some folder
        of PATH, although the program lies in none.
    """
    known = "/" in program or any(os.path.lexists(f"{folder}/{program}") for folder in os.get_exec_path())
    if isinstance(error, FileNotFoundError) or not known:
        return 127, f"{program}: command not found"
    return 126, f"{program} cannot be executed: {error.strerror}"
