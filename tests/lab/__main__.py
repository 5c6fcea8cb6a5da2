"""The lab by hand: `python -m tests.lab {demo, prepare, apptainer ARGS…, squashfs CMD…, readonly CMD…, pythons}`."""

from __future__ import annotations

import sys

from tests.lab import apptainer_root, apt, demo, image, pythons, readonly_root, scratch
from tests.lab.apptainer_root import Apptainer
from tests.lab.readonly_root import ReadonlyRoot
from tests.lab.squashfs_root import SquashfsRoot
from tests.lab.unavailable import LabUnavailable


def main(words: list[str]) -> int:
    """Do what the first word says; the others are a command to run. `@sif` among them stands for the test image."""
    if not words or words[0] not in ("programs", "demo", "prepare", "apptainer", "squashfs", "readonly", "pythons"):
        print(__doc__, file=sys.stderr)
        return 2
    what, argv = words[0], words[1:]
    try:
        if what == "programs":
            failed = apt.ensure_all()
            print(*failed, sep="\n", end="\n" * bool(failed), file=sys.stderr)
            return 3 if failed else 0
        if what == "demo":
            return demo.main()
        if what == "prepare":
            print(image.sif())
            return 0
        if what == "pythons":
            print(*(f"{python.name} {python.path}" for python in pythons.found()), sep="\n")
            print(*(f"{version} is not here: {why}" for version, why in pythons.missing().items()), sep="\n")
            return 0
        with scratch.fresh() as places:
            if what == "apptainer":
                apptainer = Apptainer(apptainer_root.find(), places)
                result = apptainer.run([apptainer.inside(image.sif()) if word == "@sif" else word for word in argv])
            elif what == "squashfs":
                result = SquashfsRoot(image.squashfs(image.sif()), places).run(argv)
            else:
                result = ReadonlyRoot(readonly_root.venv(), places).run(argv)
    except LabUnavailable as why:
        print(f"not run: {why}", file=sys.stderr)
        return 3
    sys.stdout.write(result.stdout)
    sys.stderr.write(result.stderr)
    return result.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
