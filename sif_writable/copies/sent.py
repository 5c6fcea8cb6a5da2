"""Name the variables of the user that sent a program to a path which it could not write, or which is not there."""

from __future__ import annotations

import os

from sif_writable.copies import messages, policy
from sif_writable.redirects import given


def words(path: str, *, in_image: bool) -> str:
    """Return the sentence about a path that could not be written; an empty string where no variable led there.

    :param in_image: any variable counts; else, on a mount of the host, those that are known to name a place for files.
    """
    names = given.sending(path, os.environ, only_known=not in_image)
    if not names:
        return ""
    bind = given.missing(path) if in_image else ""
    return policy.sent_words(f"{path} cannot be written", given.words(names, os.environ), names, bind)


def report_missing(path: str) -> None:
    """Say on stderr which variable led to a path whose first directory is not there: what has to be bound."""
    names = given.sending(os.path.normpath(path), os.environ, only_known=True)
    if names:
        values = given.words(names, os.environ)
        messages.say(policy.sent_words(f"{path} is not there", values, names, given.missing(path)))
