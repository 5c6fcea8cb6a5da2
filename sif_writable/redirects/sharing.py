"""Which of the decided locations a group shares. The cold path of the hook, where the user wants any shared."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sif_writable.redirects.beside import OF_GROUP
from sif_writable.signals import let_pass
from sif_writable.storage.kinds import DATA

if TYPE_CHECKING:
    from sif_writable.redirects.decision import Decision, Redirect
    from sif_writable.storage.chosen import Storage

WORDS = "the group shares it: each of them can replace what is in it"


def share(decision: Decision, storage: Storage) -> None:
    """Lead those redirects to the shared folder whose packages only read, and that have nothing to offer beside it.

    Links to what this user has alone would lead the others nowhere, and without them he would not find it.
    """
    own, shared = storage.slots.get(DATA), storage.shared
    if own is None or shared is None or own.place is not shared.place:
        return
    for redirect in decision.redirects:
        folder = redirect.folder
        if redirect.variable not in OF_GROUP or os.path.dirname(folder) != own.folder or redirect.value != folder:
            continue
        kept = _kept(redirect)
        if kept:
            redirect.why += f"; not shared, since {kept} would not be found there"
            continue
        leaf = os.path.basename(folder)
        redirect.value = redirect.folder = f"{shared.folder}/{leaf}"
        redirect.why, redirect.shared = WORDS, True
        wanted = redirect.make or leaf in own.present
        redirect.make = wanted and leaf not in shared.present


def _kept(redirect: Redirect) -> str:
    """Return a place of this user's or of the image's that holds something for a redirect, or an empty string."""
    for path in (*[source for source, _ in redirect.sources], *redirect.seeds):
        return path
    try:
        return redirect.folder if os.listdir(redirect.folder) else ""
    except OSError as error:  # not made yet
        let_pass(error)
        return ""
