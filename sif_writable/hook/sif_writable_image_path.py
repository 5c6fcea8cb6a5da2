"""Put the PYTHONPATH that an image sets itself back, behind ours: ``APPTAINERENV_PYTHONPATH`` takes its place.

The runtime sources the scripts in ``/.singularity.d/env`` before it sets what ``APPTAINERENV_...`` says (measured,
Apptainer 1.4.5). What a script makes of it is read from its text, as far as that is paths and other variables.

Python 2.7 reads this, too: see ``sitecustomize``.
"""

import os
import sys

FOLDER = "/.singularity.d/env"
SCRIPTS = ("10-docker2singularity.sh", "90-environment.sh", "91-environment.sh")
"""The image's: of its ENV, its %environment, and what its %post said; the others are the runtime's own."""
_BEFORE = (
    "${PYTHONPATH:+:${PYTHONPATH}}",
    "${PYTHONPATH:+:$PYTHONPATH}",
    "${PYTHONPATH:-}",
    "${PYTHONPATH}",
    "$PYTHONPATH",
)
_STRANGE = "$`(){}*?\\<>|&;"


def restore(ours):
    # type: (str) -> None
    """Let ``sys.path`` and PYTHONPATH have what the image says, in the place of what the host had for all programs.

    :param ours: the folder that PYTHONPATH begins with.
    """
    found, strange = own_path(FOLDER)
    host = os.environ["PYTHONPATH"].split(":")[1:]
    kept = found or host[1:]  # without the word that says whose they are
    os.environ["PYTHONPATH"] = ":".join([ours] + kept)  # noqa: RUF005
    at = sys.path.index(ours) + 1 if ours in sys.path else 0
    rest = [path for path in sys.path[at:] if path not in host]
    sys.path[at:] = [path for path in kept if path not in rest] + rest
    # At last, since it may fail, and without sif_writable.stderr, which is for Python 3.9 and newer.
    if strange and sys.stderr is not None:
        text = (
            "sif_writable: " + strange + " sets PYTHONPATH in a way that is not understood, and "
            "APPTAINERENV_PYTHONPATH has taken its place. Remedy: sif-writable attach --image, which does without that "
            "variable.\n"
        )
        os.write(2, text.encode("utf-8"))


def own_path(folder):
    # type: (str) -> tuple[list[str], str]
    """Return the entries that the scripts of an image give PYTHONPATH, and the script that could not be understood."""
    value = strange = ""
    for name in SCRIPTS:
        path = folder + "/" + name
        for words in _lines(path):
            if words.startswith("PYTHONPATH="):
                read = _value(words.partition("=")[2], value)
                if read is None:
                    strange = path
                else:
                    value = read
    return [path for path in value.split(":") if path], strange


def _lines(path):
    # type: (str) -> list[str]
    """Return the lines of a script, without what exports; none where it is not there or is no text."""
    if not os.access(path, os.R_OK):
        return []
    if sys.version_info >= (3,):
        file = open(path, encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
    else:
        file = open(path)  # noqa: SIM115
    with file:
        lines = [line.strip() for line in file.read().splitlines()]
    return [line[7:].lstrip() if line.startswith("export ") else line for line in lines]


def _value(text, before):
    # type: (str, str) -> str | None
    """Return what an assignment gives, or None where it is not understood.

    :param before: the value until then.
    """
    text = text.strip()
    if text[:1] not in ("'", '"') or text.find(text[:1], 1) != len(text) - 1:  # not quoted as a whole
        text = (text.partition(";")[0].split() or [""])[0]
    if text.startswith(("${PYTHONPATH:-", '"${PYTHONPATH:-')) and text.endswith(("}", '}"')) and text.count("${") == 1:
        if before:
            return before
        text = text.partition(":-")[2].rstrip('"').rpartition("}")[0]
    text = text.replace('"', "").replace("'", "")
    for form in _BEFORE:
        text = text.replace(form, ":" + before if form.startswith("${PYTHONPATH:+") and before else before)
    if "$" in text:
        text = os.path.expandvars(text)
    return None if any(letter in text for letter in _STRANGE) else text
