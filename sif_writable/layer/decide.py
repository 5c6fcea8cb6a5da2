"""May this process have a layer? Pure: every answer is a sentence, or an empty string for yes.

Whether the kernel permits it is not decided here: a forked child tries (:mod:`sif_writable.layer.trial`).
"""

from sif_writable.child import OVERLAY as MODE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KEEP = "SIF_WRITABLE_KEEP"

NOT_NAMED = ":\n"
"""What separates the directories of a layer in :data:`INSIDE`, and in the files of its folder."""

# What launchers give to each rank. Settings such as OMPI_MCA_* are exported by site modules, also where nothing runs.
_RANK_PREFIXES = ("PMI_", "PMI2_", "PMIX_", "OMPI_COMM_WORLD_", "MV2_COMM_WORLD_", "MPI_LOCAL", "PALS_", "HYDI_")
_RANK_VARIABLES = ("JSM_NAMESPACE_RANK", "FLUX_TASK_RANK", "ALPS_APP_PE")
_SETTINGS = ("PMIX_MCA_", "PMI_MCA_")


def mode(environ: "Mapping[str, str]") -> str:
    """Return ``on``, ``off`` or ``auto``, which what is not understood counts as."""
    value = environ.get(MODE, "").lower()
    return value if value in ("on", "off") else "auto"


def inside(namespace: str, mounts: str, image: str, prefix: str, directories: "Sequence[str]") -> str:
    """Return the value of :data:`INSIDE`."""
    return ":".join([namespace, mounts, image, prefix, *directories])


def known(image: str, prefix: str) -> str:
    """Return the line of `about` that says how an image is called for one environment of it."""
    return f"={image}:{prefix}"


def obstacle(
    environ: "Mapping[str, str]", *, uid: int, uid_map: str, threads: int, program: str, prefix: str, storage: str
) -> str:
    """Say why this process must not have a layer, or return an empty string.

    :param uid: the effective one.
    :param uid_map: the text of /proc/self/uid_map; empty without /proc.
    :param threads: how many run in this process; 0 if that is not known.
    :param program: the file that this process executes, of /proc/self/exe.
    :param prefix: that of the environment, ``sys.prefix``.
    :param storage: the folder of this image in storage.
    """
    wish = mode(environ)
    if wish == "off":
        return f"{MODE}=off"
    problem = parallel(environ) or _keyring(environ) or _threads(threads) or _embedded(program)
    problem = problem or _path("the environment", prefix, NOT_NAMED) or _path("storage", storage, "\n")
    return problem or ("" if wish == "on" else _identity(uid, uid_map))


def parallel(environ: "Mapping[str, str]") -> str:
    """Say by what this process is known to be one rank of many, or return an empty string."""
    for name in environ:
        if name in _RANK_VARIABLES or (name.startswith(_RANK_PREFIXES) and not name.startswith(_SETTINGS)):
            return f"this is a rank of an MPI program ({name} is set), and its ranks share memory"
    # srun says how many tasks the step has; a batch script knows only the number for the job.
    name = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environ else "SLURM_NTASKS"
    for variable, words in ((name, "a Slurm step"), ("WORLD_SIZE", "a group"), ("LOCAL_WORLD_SIZE", "a group")):
        number = environ.get(variable, "")
        if number.isdigit() and int(number) > 1:
            return f"this is one of {number} tasks of {words} ({variable}), and those may share memory"
    return ""


def _keyring(environ: "Mapping[str, str]") -> str:
    if environ.get("KRB5CCNAME", "").startswith("KEYRING:"):
        return "the Kerberos ticket is in a keyring (KRB5CCNAME), which belongs to the user namespace"
    return ""


def _threads(count: int) -> str:
    if count == 1:
        return ""
    if not count:
        return "/proc is not there to count threads in"
    return f"{count} threads run in this process, and the kernel asks for a single one"


def _embedded(program: str) -> str:
    name = program.rpartition("/")[2]
    if name.startswith(("python", "pypy")):
        return ""
    return f"Python runs inside another program ({name or 'unknown'}), which may have opened what a layer would cover"


def _path(what: str, path: str, letters: str) -> str:
    for letter, words in (("\n", "a line break"), (":", "a colon")):
        if letter in letters and letter in path:
            return f"the path of {what}, {path!r}, has {words} in it, which separates the paths that a layer notes"
    return ""


def can_be_named(path: str) -> bool:
    """Whether a directory can have a layer as far as that depends on the letters of its path."""
    return not any(letter in path for letter in NOT_NAMED)


def _identity(uid: int, uid_map: str) -> str:
    lines = [line.split() for line in uid_map.splitlines()]
    if len(lines) == 1 and len(lines[0]) == 3 and (lines[0][0], lines[0][2]) == (str(uid), "1"):
        return ""
    if not lines:
        return "/proc does not say which users there are"
    return f"this user namespace has more users than one, and a layer would hide them ({MODE}=on makes it all the same)"


def hides(environ: "Mapping[str, str]", uid: int, uid_map: str) -> str:
    """Say what a layer changes about users and groups where it is asked for all the same, or return an empty string."""
    if mode(environ) != "on" or not _identity(uid, uid_map):
        return ""
    return (
        f"{MODE}=on: in it files of other users and supplementary groups show as nobody (65534), and chgrp to such a "
        "group fails"
    )


def distinct(directories: "Sequence[str]") -> "list[str]":
    """Return the directories that do not lie below another one, in their order, each once."""
    found: list[str] = []
    for path in directories:
        if not any(path == other or path.startswith(f"{other}/") for other in directories if other != path):
            found += [path] if path not in found else []
    return found
