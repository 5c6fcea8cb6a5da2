"""Which engine runs this process, and by which signs. For words and for the report; the gate asks less."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from sif_writable.system.mounts import mount_of, mounts

if TYPE_CHECKING:
    from collections.abc import Mapping


class Engine(NamedTuple):
    """A container engine, recognised."""

    name: str
    """Its name, ``unknown``, or ``none`` outside a container."""
    signs: tuple[str, ...]
    """What it was recognised by."""
    image: str
    """The image's path or name as the engine gives it; empty where it gives none."""


def engine(environ: Mapping[str, str], root: str = "/") -> Engine:
    """Recognise the engine.

    The variables and files are those that the engines set: launcher_linux.go of Apptainer and SingularityCE, ch-run(1).
    A variable inside is the runtime's, since ``APPTAINER_*`` and ``SINGULARITY_*`` of a host are never forwarded
    (apptainer: internal/pkg/util/env/create.go).

    :param root: the directory to look for signs in, ``/`` except in tests.
    """

    def there(path: str) -> bool:
        return os.path.lexists(os.path.join(root, path))

    singularity = environ.get("SINGULARITY_CONTAINER", "")
    if "APPTAINER_CONTAINER" in environ:
        return Engine("Apptainer", ("APPTAINER_CONTAINER",), environ["APPTAINER_CONTAINER"])
    if singularity:
        image = singularity
        if "SINGULARITY_COMMAND" in environ:
            return Engine("SingularityCE", ("SINGULARITY_CONTAINER", "SINGULARITY_COMMAND"), image)
        if "/" not in singularity and "SINGULARITY_ENVIRONMENT" not in environ:
            return Engine("Singularity 2", ("SINGULARITY_CONTAINER is a bare name",), image)
        return Engine("Singularity 3", ("SINGULARITY_CONTAINER",), image)
    if "CH_RUNNING" in environ:
        return Engine("Charliecloud", ("CH_RUNNING",), "")
    if there(".singularity.d"):
        mount = mount_of("/") if root == "/" else mount_of("/", mounts(os.path.join(root, "proc/self/mountinfo")))
        if mount and "/mnt/session" in mount.options:
            return Engine("Apptainer or Singularity", ("/.singularity.d", "root mounted from a session folder"), "")
    if "KUBERNETES_SERVICE_HOST" in environ:
        return Engine("Kubernetes", ("KUBERNETES_SERVICE_HOST",), "")
    if there("run/.containerenv") or environ.get("container") == "podman":
        sign = "/run/.containerenv" if there("run/.containerenv") else "container=podman"
        return Engine("Podman", (sign,), "")
    if there(".dockerenv") or environ.get("container") == "docker":
        return Engine("Docker", ("/.dockerenv" if there(".dockerenv") else "container=docker",), "")
    if environ.get("container") == "oci":
        return Engine("unknown", ("container=oci",), "")
    if there(".singularity.d"):
        return Engine("unknown", ("/.singularity.d, which tells only how the image was built",), "")
    if there("ch"):
        return Engine("Charliecloud", ("/ch",), "")
    return Engine("none", (), "")
