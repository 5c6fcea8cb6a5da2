"""One more image, built from the test image, with what its build printed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.lab import scratch
from tests.lab.apptainer_root import Apptainer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.apptainer_root import Runtime
    from tests.lab.scratch import Scratch

_DEFINITION = """Bootstrap: localimage
From: {image}

%post
    report='import os, sif_writable as s; print(s.state, os.environ.get("SIF_WRITABLE_SESSION"))'
    /opt/venv/bin/python -c "$report"
    # As careless as a %post can be: the hook is installed, and HOME is of no use.
    HOME=/nowhere /opt/venv/bin/python -c "$report"

%test
    report='import os; print("test: " + os.environ["SIF_WRITABLE_SESSION"].split(";")[4].split(":")[0] + "/data")'
    /opt/venv/bin/python -c "$report"
"""


class Rebuilt(NamedTuple):
    """A second image with the same contents."""

    folder: str
    """The image, as a sandbox."""
    output: str
    """What %post and %test printed."""
    places: Scratch
    """The writable places of the machine that it was built on, as the build left them."""


@pytest.fixture(scope="session")
def rebuilt(apptainer_runtime: Runtime, sif: str) -> Iterator[Rebuilt]:
    """Build the test image once more, from itself, as a sandbox."""
    with scratch.fresh() as places:
        apptainer = Apptainer(apptainer_runtime, places)
        with open(os.path.join(places.work, "definition"), "w", encoding="utf-8") as file:
            file.write(_DEFINITION.format(image=apptainer.inside(sif)))
        environment = {"APPTAINER_CACHEDIR": apptainer.inside(places.new_folder("cache"))}
        environment["APPTAINER_TMPDIR"] = apptainer.inside(places.new_folder("build"))
        result = apptainer.run(["--silent", "build", "--sandbox", "image", "definition"], env=environment)
        assert result.returncode == 0, result.stderr
        yield Rebuilt(os.path.join(places.work, "image"), result.stdout, places)
