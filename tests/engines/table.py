"""Engines, how each is known, and what is served there: `container/README.md` has this table."""

from __future__ import annotations

from typing import NamedTuple

REAL = "the engine itself"
SIGNS = "what it leaves in a container"
ACTIVE = "active"


class Row(NamedTuple):
    """One way of starting a container whose root can only be read."""

    engine: str
    start: str
    """What a user types."""
    known_by: str
    name: str
    """What `status` calls it; ``A or B`` where that depends on its version."""
    tried_with: str = REAL
    own: bool = True
    """Whether directories of packages count as the image's own, so that they get a layer or copies."""


_ROOT = "`/`: a read-only mount in a mount namespace that is not the booted system's"
ROWS = {
    "apptainer": Row("Apptainer", "`apptainer exec`", "`APPTAINER_CONTAINER`", "Apptainer"),
    "kernel": Row("any root that the kernel mounts read-only", "", _ROOT, "unknown"),
    "charliecloud": Row("Charliecloud", "`ch-run`", "`CH_RUNNING`", "Charliecloud"),
    "podman": Row(
        "Podman", "`podman run --read-only`", "`container=podman` or `oci`, `/run/.containerenv`", "unknown or Podman"
    ),
    "runc": Row("runc", '`"readonly": true` of `root`', _ROOT, "unknown"),
    "runc-rootless": Row("runc, rootless", "the same", _ROOT, "unknown"),
    "crun": Row("crun", "the same", _ROOT, "unknown"),
    "crun-rootless": Row("crun, rootless", "the same", _ROOT, "unknown"),
    "nspawn": Row("systemd-nspawn", "`systemd-nspawn --read-only`", _ROOT, "systemd-nspawn"),
    "bubblewrap": Row("bubblewrap", "`bwrap --ro-bind IMAGE /`", _ROOT, "unknown"),
    "bubblewrap-binds": Row(
        "bubblewrap, a root of binds",
        "`bwrap --ro-bind IMAGE/usr /usr ...`",
        "`/`: a tmpfs that is `nosuid`, with a read-only mount for the interpreter",
        "bubblewrap",
    ),
    "firejail": Row("Firejail", "`firejail`", "`container=firejail`", "Firejail"),
    "proot": Row(
        "PRoot, its root on a read-only filesystem", "`proot -r`", "it traces the process", "PRoot", own=False
    ),
    "docker": Row(
        "Docker", "`docker run --read-only`", "`/.dockerenv`, `container=docker`", "Docker", tried_with=SIGNS
    ),
    "kubernetes": Row(
        "Kubernetes", "`readOnlyRootFilesystem: true`", "`KUBERNETES_SERVICE_HOST`", "Kubernetes", tried_with=SIGNS
    ),
    "enroot": Row("Enroot, also by pyxis", "`enroot start`", f"{_ROOT}; `/.lock`", "Enroot", tried_with=SIGNS),
    "shifter": Row("Shifter", "`shifter --image`", "`SHIFTER_IMAGE`", "Shifter", tried_with=SIGNS),
    "singularity": Row(
        "SingularityCE", "`singularity exec`", "`SINGULARITY_CONTAINER`", "SingularityCE", tried_with=SIGNS
    ),
    "singularity-oci": Row(
        "SingularityCE, `--oci`",
        "`singularity exec --oci --no-compat`",
        "`SINGULARITY_CONTAINER`",
        "SingularityCE",
        tried_with=SIGNS,
    ),
}

DELIVERIES = ("installed", "attached")
"""How the package comes into the container: each is a column, and each row is tried with each."""


def markdown() -> str:
    """Return the table as users read it."""
    lines = [
        f"| engine | started by | known by | {' | '.join(DELIVERIES)} | tried with |",
        "| --- " * (4 + len(DELIVERIES)) + "|",
    ]
    for row in ROWS.values():
        state = ACTIVE if row.own else f"{ACTIVE}: caches and HOME, no layer and no copies"
        cells = (row.engine, row.start, row.known_by, *[state] * len(DELIVERIES), row.tried_with)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
