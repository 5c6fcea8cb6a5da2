"""The sources as an ordinary user runs them, amid mounts that root has made: a mount namespace of this machine."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from tests.lab import pythons
from tests.lab.store import ORDINARY_UID, REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FAILED = 77
"""The exit code where a mount could not be made."""


def run(
    top: str,
    words: Sequence[str],
    *,
    env: Mapping[str, str],
    mounts: Sequence[str] = (),
    uid: int = ORDINARY_UID,
    group: int | None = None,
    umask: int = 0o022,
    rootless: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run an interpreter with the package's sources; it and what serves the mounts end together.

    :param top: a folder of the test, whose `python` and `sources` show what the user may not be able to read.
    :param mounts: shell commands that root runs there; the exit code is `FAILED` where one of them fails.
    :param group: a group that the user is in besides his own.
    :param rootless: in a user namespace of this one user, as Apptainer makes: no other group has a number there.
    """
    python = pythons.own().path
    prefix = os.path.dirname(os.path.dirname(python))
    shown = {prefix: f"{top}/python", f"{REPOSITORY}/sif_writable": f"{top}/sources/sif_writable"}
    for point in shown.values():
        os.makedirs(point, exist_ok=True)
    binds = [f"mount --bind '{outside}' '{point}'" for outside, point in shown.items()]
    prepare = " && ".join([f"cd '{top}'", *binds, *mounts])
    identity = f"setpriv --reuid={uid} --regid={uid} --groups={uid if group is None else group} --inh-caps=-all"
    script = f"{{ {prepare}; }} || exit {FAILED}; cd /; umask {umask:o}\n"
    identity += " unshare --user --map-current-user" * rootless
    script += f"{identity} '{top}/python/bin/{os.path.basename(python)}' \"$@\"\n"
    namespaces = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return subprocess.run(
        [*namespaces, "sh", "-c", script, "sh", *words],
        env={"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "PYTHONPATH": f"{top}/sources", **env},
        capture_output=True,
        text=True,
        check=False,
    )
