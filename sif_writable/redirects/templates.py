"""From a location template to a path, and to what of the image's and the user's own a moved location still has to show.

Loaded where no earlier start has left its plan.
"""

from sif_writable.redirects.beside import CARRIED, LINKED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sif_writable.redirects.decision import Decision, Redirect
    from sif_writable.system.surroundings import Facts

SET_BY = {"CACHE": "XDG_CACHE_HOME", "CONFIG": "XDG_CONFIG_HOME", "DATA": "XDG_DATA_HOME", "STATE": "XDG_STATE_HOME"}
"""Base of a template to the variable that chooses it."""
OF_HOME = ("HOME", "CACHE", "CONFIG", "DATA", "STATE")
"""Bases that lie below HOME unless a variable chooses them."""


def default_bases(facts: "Facts", environ: "Mapping[str, str]") -> "dict[str, str]":
    """Map each base of a location template to the directory that packages resolve it to."""
    home = facts.home

    def below_home(rest: str) -> str:
        return (home if home != "/" else "") + rest if home else ""

    return {
        "HOME": home,
        "CACHE": environ.get("XDG_CACHE_HOME") or below_home("/.cache"),
        "CONFIG": environ.get("XDG_CONFIG_HOME") or below_home("/.config"),
        "DATA": environ.get("XDG_DATA_HOME") or below_home("/.local/share"),
        "STATE": environ.get("XDG_STATE_HOME") or below_home("/.local/state"),
        "TMP": environ.get("TMPDIR") or "/tmp",  # noqa: S108
        "CWD": ".",
        "PURELIB": facts.purelib,
        "PREFIX": facts.prefix,
    }


def resolve(template: str, bases: "Mapping[str, str]", environ: "Mapping[str, str]") -> str:
    """Turn a location template such as ``CACHE/numba`` into a path; empty where HOME is needed and not set."""
    base, slash, rest = template.partition("/")
    if not base:
        path = template
    else:
        directory = bases[base]
        if not directory:
            return ""
        path = (directory if directory != "/" else "") + slash + rest
    return path.replace("{user}", environ.get("USER", "")) if "{" in path else path


def baked(facts: "Facts") -> "dict[str, str]":
    """Map variables to the directories of the image that hold files for them (``sif-writable prestage``)."""
    found = {}
    for line in facts.manifest.get("seed", ()):
        variable, _, path = line.partition(" ")
        if path[:1] == "/" and not path.startswith(_NOT_OF_IMAGES) and "/../" not in path + "/":
            found[variable] = path
    return found


_NOT_OF_IMAGES = ("/tmp/", "/var/tmp/", "/dev/", "/proc/", "/sys/", "/run/")  # noqa: S108 - names, not used as places
"""What a manifest names there is not what the image brought, but anybody's."""


def companions(
    decision: "Decision", bases: "Mapping[str, str]", environ: "Mapping[str, str]"
) -> "list[tuple[str, str, str]]":
    """List what :data:`CARRIED` says for the redirects of a decision: (redirected variable, second variable, file)."""
    redirected = {redirect.variable for redirect in decision.redirects}
    found = []
    for row_variable, variable, template in CARRIED:
        if row_variable in redirected and variable not in environ:
            path = resolve(template, bases, environ)
            if path:
                found.append((row_variable, variable, path))
    return found


def linked(redirect: "Redirect", facts: "Facts", environ: "Mapping[str, str]") -> "Iterable[tuple[str, str]]":
    """Yield (name in the folder, old path) of what must still be found in a redirected folder: tokens, settings."""
    bases = default_bases(facts, environ)
    for variable, name, template in LINKED:
        if variable == redirect.variable:
            path = resolve(template, bases, environ)
            if path:
                yield name, path
