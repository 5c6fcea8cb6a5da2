"""What an environment has to say so that a folder of ours is bound in and starts the hook. Pure.

Apptainer reads its own variables and, where they are not set, those of Singularity; where both are and differ it warns
at every run (Apptainer 1.4.5, measured). SingularityCE reads the latter only. So both get one value.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

POINT = "/sif-writable-attached"
"""Where containers see the folder."""
HOOK = f"{POINT}/sif_writable/hook"
"""What PYTHONPATH names: it holds our sitecustomize."""
PTH = "sif_writable_attached.pth"
"""The file that starts the hook where it is bound into a directory of packages."""
HOST = f"{POINT}/host"
"""In PYTHONPATH: what follows is the host's, which an image's own takes the place of, as without us."""
_BIND = ("APPTAINER_BIND", "SINGULARITY_BIND")
_PATH = ("APPTAINERENV_PYTHONPATH", "SINGULARITYENV_PYTHONPATH")
_BETWEEN_BINDS = re.compile(r"(?<!\\),")
_BETWEEN_FIELDS = re.compile(r"(?<!\\):")


def bad_path(path: str) -> str:
    """Say why a folder cannot be named in a list of binds, or return an empty string."""
    for letter, name in ((",", "a comma"), (":", "a colon"), ("\\", "a backslash"), ("\n", "a line break")):
        if letter in path:
            return f"has {name} in its path, which separates binds in Apptainer's list"
    return ""


def for_shell(environ: Mapping[str, str], folder: str) -> dict[str, str]:
    """Return the variables that bring our folder into each container, with what the user has there already.

    :param folder: outside the container.
    """
    found = _binds(environ, [f"{folder}:{POINT}"])
    for name, other in (_PATH, _PATH[::-1]):
        given = own_entries(environ.get(name, environ.get(other, "")))
        host = own_entries(environ.get("PYTHONPATH", "")) if not given else []
        found[name] = ":".join([HOOK, *given, *([HOST, *host] if host else [])])
    return found


def for_image(environ: Mapping[str, str], folder: str, directories: Sequence[str]) -> dict[str, str]:
    """Return the variables that bring our folder into the containers of one image.

    :param directories: of packages in the image, each read by an interpreter of its own.
    """
    hook = f"{folder}/sif_writable/hook/{PTH}"
    return _binds(environ, [f"{folder}:{POINT}", *(f"{hook}:{directory}/{PTH}" for directory in directories)])


def _binds(environ: Mapping[str, str], ours: list[str]) -> dict[str, str]:
    found = {}
    for name, other in (_BIND, _BIND[::-1]):
        given = _BETWEEN_BINDS.split(environ.get(name) or environ.get(other, ""))
        found[name] = ",".join([*(bind for bind in given if bind and not _is_ours(bind)), *ours])
    return found


def _is_ours(bind: str) -> bool:
    """Whether a bind is one that was printed before, perhaps for another folder or image."""
    fields = _BETWEEN_FIELDS.split(bind)
    inside = fields[1] if len(fields) > 1 else bind  # as Apptainer says it in a container
    return inside == POINT or inside.endswith(f"/{PTH}")


def own_entries(value: str) -> list[str]:
    """Return the entries of a PYTHONPATH that are not of our making; what stands for the host's own goes with them."""
    entries = value.split(":")
    entries = entries[: entries.index(HOST)] if HOST in entries else entries
    return [entry for entry in entries if entry and not f"{entry}/".startswith(f"{POINT}/")]


def for_site(folder: str, shell: str) -> tuple[list[str], list[str]]:
    """Return lines for an administrator, for every image and user: the runtime's settings, and a profile script.

    :param shell: whose profile: ``sh``, ``fish`` or ``csh``.
    """
    settings = [f"bind path = {folder}:{POINT}"]
    if shell == "fish":
        lines = [
            'if test "$SIF_WRITABLE" != off',
            "    for name in APPTAINERENV_PYTHONPATH SINGULARITYENV_PYTHONPATH",
            f"        if not string match -q '*{HOOK}*' -- \"$$name\"",
            f"            set -gx $name {HOOK} $$name",  # a list to fish, since it ends with PATH
            "        end",
            "    end",
            "end",
        ]
    elif shell == "csh":
        lines = [
            "set sif_writable_on",
            "if ( $?SIF_WRITABLE ) then",
            '    if ( "$SIF_WRITABLE" == off ) unset sif_writable_on',
            "endif",
            "if ( $?sif_writable_on ) then",
        ]
        for name in _PATH:
            lines += [
                f"    if ( ! $?{name} ) then",
                f"        setenv {name} {HOOK}",
                f'    else if ( "${name}" !~ *{HOOK}* ) then',
                f'        setenv {name} "{HOOK}:${name}"',
                "    endif",
            ]
        lines += ["    unset sif_writable_on", "endif"]
    else:
        lines = ['if [ "${SIF_WRITABLE:-}" != off ]; then']
        for name in _PATH:
            lines += [
                f'    case "${{{name}:-}}" in',
                f"        *{HOOK}*) ;;",
                f'        *) export {name}="{HOOK}${{{name}:+:${name}}}" ;;',
                "    esac",
            ]
        lines += ["fi"]
    return settings, lines
