"""What do files and variables say about GPUs? Reading them takes microseconds and wakes no GPU; nothing here judges."""

from __future__ import annotations

import os

from sif_writable.gpu.cuda import image_cuda
from sif_writable.gpu.visible import VISIBLE
from sif_writable.signals import let_pass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

LIBS = "/.singularity.d/libs"
"""Where ``--nv`` binds the host's driver libraries."""
ENVIRONMENT = "/.singularity.d/env"
"""Where Apptainer keeps what an image sets, as shell scripts (apptainer: internal/pkg/runtime/engine/apptainer)."""
NVIDIA_VISIBLE = "NVIDIA_VISIBLE_DEVICES"


class Libcuda:
    """A file that a CUDA program would load, or could."""

    __slots__ = ("path", "version")

    def __init__(self, path: str, version: str) -> None:
        """:param version: the driver version in the file's real name, such as 535.104.05; empty if it has none."""
        self.path = path
        self.version = version


class GpuEvidence:
    """What files and variables say about GPUs."""

    __slots__ = (
        *("compat", "cuda", "cuda_from", "driver", "environ", "gpus", "host", "libcuda", "libs", "mounted", "nodes"),
        "of_image",
    )

    nodes: tuple[str, ...]
    """Names below /dev, sorted: nvidia0, nvidiactl, nvidia-uvm, dxg, kfd."""
    driver: str
    """Version of the running kernel driver (/proc/driver/nvidia/version), or empty."""
    gpus: int
    """GPUs that the kernel driver holds (/proc/driver/nvidia/gpus); a number of devices."""
    libs: tuple[str, ...] | None
    """File names in /.singularity.d/libs; None where that folder does not exist."""
    mounted: tuple[str, ...]
    """Files of the driver's libraries that are mounted one by one in the distribution's folders, sorted.

    So ``--device nvidia.com/gpu=…`` (CDI), ``--nvccli`` and NVIDIA's hooks of Docker, Podman and Enroot bring them;
    ``--nv`` leaves them in :data:`LIBS`.
    """
    libcuda: Libcuda | None
    """The first libcuda.so.1 on LD_LIBRARY_PATH."""
    compat: tuple[Libcuda, ...]
    """The libcuda.so.1 of the image's forward-compatibility folders (/usr/local/cuda*/compat)."""
    cuda: str
    """CUDA version that the image's Python packages were built for, such as 12.4 or 12; empty if unknown."""
    cuda_from: str
    """What says so: the name of a distribution, or CUDA_VERSION."""
    host: str
    """Name of this node."""
    environ: Mapping[str, str]
    """The environment that was read."""
    of_image: frozenset[str]
    """Variables in it that the image sets (:func:`set_by_image`)."""


def nodes(root: str = "/") -> tuple[str, ...]:
    """Return the device files of GPUs, as names below ``/dev``."""
    return tuple(name for name in _list(_at(root, "/dev")) or () if name.startswith("nvidia") or name in ("dxg", "kfd"))


def has_gpu_node(nodes: Sequence[str]) -> bool:
    """Say whether there is a device file of an NVIDIA GPU or of the driver's control device."""
    return any(name == "nvidiactl" or name[6:].isdigit() for name in nodes)


def set_by_image(environ: Mapping[str, str], root: str = "/") -> frozenset[str]:
    """Return which of the variables that name devices have the image's own value, which says nothing of this job.

    Images of NVIDIA set ``NVIDIA_VISIBLE_DEVICES=all``. Apptainer keeps what an image sets in scripts. Other engines
    do not say, and there that value alone counts as the image's.
    """
    names = [name for name in (VISIBLE, NVIDIA_VISIBLE) if environ.get(name)]
    if not names:
        return frozenset()
    scripts = [name for name in _list(_at(root, ENVIRONMENT)) or () if name.endswith(".sh") and name[:6] != "inject"]
    if not scripts:
        return frozenset([NVIDIA_VISIBLE] if environ.get(NVIDIA_VISIBLE) == "all" else [])
    found = set()
    for script in scripts:
        try:
            with open(_at(root, f"{ENVIRONMENT}/{script}"), encoding="utf-8", errors="replace") as file:
                lines = file.read(1 << 16).splitlines()
        except OSError as error:
            let_pass(error)
            continue
        for name in names:
            if any(f"{name}=" in line and environ[name] in line.partition(f"{name}=")[2] for line in lines):
                found.add(name)
    return frozenset(found)


def can_make_nodes() -> bool:
    """Say whether this process may be able to make device files: as root, in a ``/dev`` that can be written."""
    return os.geteuid() == 0 and os.access("/dev", os.W_OK)


def gather(environ: Mapping[str, str], path: Sequence[str], wanted: str = "", root: str = "/") -> GpuEvidence:
    """Read the files and variables that say something about GPUs.

    :param path: folders with installed distributions, such as sys.path.
    :param wanted: the package whose CUDA version matters most (:func:`~sif_writable.gpu.cuda.image_cuda`).
    :param root: where the files are; another than ``/`` is for tests.
    """
    seen = GpuEvidence()
    seen.environ = environ
    seen.host = os.uname().nodename
    seen.nodes = nodes(root)
    seen.of_image = set_by_image(environ, root)
    seen.driver = _driver_version(_at(root, "/proc/driver/nvidia/version"))
    seen.gpus = len(_list(_at(root, "/proc/driver/nvidia/gpus")) or ())
    seen.libs = _list(_at(root, LIBS))
    seen.mounted = _mounted(_at(root, "/proc/self/mountinfo"))
    folders = [folder for folder in environ.get("LD_LIBRARY_PATH", "").split(":") if folder]
    seen.libcuda = next(_libcudas(folders, root), None)
    toolkits = [name for name in _list(_at(root, "/usr/local")) or () if name.startswith("cuda")]
    seen.compat = tuple(_libcudas([f"/usr/local/{name}/compat" for name in toolkits], root))
    seen.cuda, seen.cuda_from = image_cuda(path, environ, wanted)
    return seen


def _at(root: str, path: str) -> str:
    return root.rstrip("/") + path


def _list(folder: str) -> tuple[str, ...] | None:
    try:
        return tuple(sorted(os.listdir(folder)))
    except OSError as error:
        let_pass(error)
        return None


def _driver_version(path: str) -> str:
    """Read the version out of "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 ..."."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            words = file.readline().split()
    except OSError as error:
        let_pass(error)
        return ""
    return next((word for word in words if "." in word and word.replace(".", "").isdigit()), "")


def _mounted(mountinfo: str) -> tuple[str, ...]:
    """Return where libcuda and libnvidia-ml are mounted, from the fifth fields of proc_pid_mountinfo(5)."""
    try:
        with open(mountinfo, encoding="utf-8", errors="surrogateescape") as file:
            points = [line.split(" ", 5)[4] for line in file if "/libcuda.so." in line or "/libnvidia-ml.so." in line]
    except (OSError, IndexError) as error:
        let_pass(error)
        return ()
    names = ("libcuda.so.", "libnvidia-ml.so.")
    return tuple(
        sorted(
            point
            for point in points
            if point.startswith(("/usr/", "/lib")) and os.path.basename(point).startswith(names)
        )
    )


def _libcudas(folders: Iterable[str], root: str) -> Iterator[Libcuda]:
    for folder in folders:
        path = f"{folder.rstrip('/')}/libcuda.so.1"
        inside = _at(root, path)
        if os.path.exists(inside):
            version = os.path.basename(os.path.realpath(inside))[len("libcuda.so.") :]
            yield Libcuda(path, version if "." in version else "")
