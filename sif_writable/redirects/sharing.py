"""Which of the decided locations a group shares. The cold path of the hook, where the user wants any shared."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sif_writable.redirects.beside import OF_GROUP
from sif_writable.signals import let_pass
from sif_writable.storage import layout
from sif_writable.storage.kinds import DATA

if TYPE_CHECKING:
    from sif_writable.redirects.decision import Decision, Redirect
    from sif_writable.storage.chosen import Storage

WORDS = "the group shares it: each of them can replace what is in it"


def share(decision: Decision, storage: Storage) -> None:
    """Lead those redirects to the shared folder whose packages only read, and that have nothing to offer beside it.

    Links to what this user has alone would lead the others nowhere, and without them he would not find it.
    """
    if storage.places.get(DATA) is not storage.shared_by:
        return
    private, shared = storage.folders[DATA], storage.folders[layout.SHARED]
    for redirect in decision.redirects:
        folder = redirect.folder
        if redirect.variable not in OF_GROUP or os.path.dirname(folder) != private or redirect.value != folder:
            continue
        own = _kept(redirect)
        if own:
            redirect.why += f"; not shared, since {own} would not be found there"
            continue
        leaf = os.path.basename(folder)
        redirect.value = redirect.folder = f"{shared}/{leaf}"
        redirect.why, redirect.shared = WORDS, True
        wanted = redirect.make or leaf in storage.present[DATA]
        redirect.make = wanted and leaf not in storage.present[layout.SHARED]


def _kept(redirect: Redirect) -> str:
    """Return a place of this user's or of the image's that holds something for a redirect, or an empty string."""
    for path in (*[source for source, _ in redirect.sources], *redirect.seeds):
        return path
    try:
        return redirect.folder if os.listdir(redirect.folder) else ""
    except OSError as error:  # not made yet
        let_pass(error)
        return ""
