"""Which engine runs this process, and by which signs. For words and for the report; the gate asks less."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import sif_writable
from sif_writable import rootfs
from sif_writable.signals import let_pass
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

    The variables and files are those that the engines set: launcher_linux.go of Apptainer and SingularityCE (of its
    ``--oci``: oci/process_linux.go), ch-run(1), src/runtime.sh of Enroot, Shifter's manual, env.c of Firejail. Where
    the root is a container's, a variable is the runtime's, since ``APPTAINER_*`` and ``SINGULARITY_*`` of a host are
    never forwarded (apptainer: internal/pkg/util/env/create.go); elsewhere it has leaked.

    :param root: the directory to look for signs in, ``/`` except in tests.
    """

    def there(path: str) -> bool:
        return os.path.lexists(os.path.join(root, path))

    if root == "/" and not sif_writable.in_container(sif_writable.environment()):
        leaked = sif_writable.has_sign(sif_writable.environment())
        return Engine("none", ("a variable or file of an engine is here, but / is the host's",) if leaked else (), "")
    table = mounts(os.path.join(root, "proc/self/mountinfo"))
    mount = mount_of("/", table)
    if "APPTAINER_CONTAINER" in environ:
        return Engine("Apptainer", ("APPTAINER_CONTAINER",), environ["APPTAINER_CONTAINER"])
    if image := environ.get("SINGULARITY_CONTAINER", ""):
        return _singularity(environ, image)
    if "CH_RUNNING" in environ:
        return Engine("Charliecloud", ("CH_RUNNING",), "")
    if "SHIFTER_IMAGE" in environ:
        return Engine("Shifter", ("SHIFTER_IMAGE",), environ["SHIFTER_IMAGE"])
    if there(".singularity.d") and mount and "/mnt/session" in mount.options:
        return Engine("Apptainer or Singularity", ("/.singularity.d", "root mounted from a session folder"), "")
    if there(".lock") and any(one.point == "/.lock" for one in table):
        return Engine("Enroot", ("/.lock, mounted",), "")
    if "KUBERNETES_SERVICE_HOST" in environ:
        return Engine("Kubernetes", ("KUBERNETES_SERVICE_HOST",), "")
    container = environ.get("container", "")
    if container in ("firejail", "systemd-nspawn"):  # the former shows the host's files
        return Engine(container.replace("f", "F"), (f"container={container}",), "")
    if there("run/.containerenv") or container == "podman":
        sign = "/run/.containerenv" if there("run/.containerenv") else "container=podman"
        return Engine("Podman", (sign,), "")
    if there(".dockerenv") or container == "docker":
        return Engine("Docker", ("/.dockerenv" if there(".dockerenv") else "container=docker",), "")
    if container == "oci":
        return Engine("unknown", ("container=oci",), "")
    if there(".singularity.d"):
        return Engine("unknown", ("/.singularity.d, which shows only how the image was built",), "")
    if there("ch"):
        return Engine("Charliecloud", ("/ch",), "")
    return _unsigned() if root == "/" else Engine("none", (), "")


def _singularity(environ: Mapping[str, str], image: str) -> Engine:
    if "SINGULARITY_COMMAND" in environ:
        return Engine("SingularityCE", ("SINGULARITY_CONTAINER", "SINGULARITY_COMMAND"), image)
    name = environ.get("SINGULARITY_NAME", "")
    if "SINGULARITY_ENVIRONMENT" not in environ:
        if "/" not in image:
            return Engine("Singularity 2", ("SINGULARITY_CONTAINER is a bare name",), image)
        if name and os.path.basename(image) != name:
            signs = ("SINGULARITY_CONTAINER is a bundle", "SINGULARITY_NAME")
            return Engine("SingularityCE", signs, name)  # --oci
    return Engine("Singularity 3", ("SINGULARITY_CONTAINER",), image)


def _unsigned() -> Engine:
    """Recognise an engine that leaves no variable and no file, in a root that is a container's."""
    try:
        if rootfs.below_proot():
            return Engine("PRoot", ("it traces this process",), "")
        table = rootfs.read("/proc/self/mountinfo").splitlines()
    except OSError as error:
        let_pass(error)
        table = []
    roots = [fields[3] for fields in (line.split(b" ", 5) for line in table) if fields[4:5] == [b"/"]]
    if roots[-1:] == [b"/newroot"]:  # bubblewrap.c
        return Engine("bubblewrap", ("/ is the directory newroot of a tmpfs",), "")
    return Engine("unknown", ("/ can only be read, in a mount namespace that is not the booted system's",), "")
